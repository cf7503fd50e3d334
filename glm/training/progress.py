"""What a training run shows of itself while it runs, and what it leaves in `metrics.jsonl`."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
from paddlenlp.trainer import TrainerCallback, TrainingArguments
from paddlenlp.utils.log import logger
from tqdm import tqdm

from glm.modules.split_layers import tensor_parallel_group
from glm.report.files import METRICS_NAME
from glm.runtime.atomic import write_whole
from glm.training.parameters import gradient_norm


class MetricsLog(TrainerCallback):
    """Appends all that the Trainer logs to `metrics.jsonl` in the output folder; a full disk does not end the run."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        if state.is_world_process_zero and logs:
            path = Path(args.output_dir) / METRICS_NAME
            try:
                with path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"step": state.global_step, **logs}, ensure_ascii=False) + "\n")
            except OSError as error:
                logger.warning(f"{path}: step {state.global_step} could not be logged ({error.strerror or error})")


def rewind_metrics(output_dir: Path, step: int) -> None:
    """Takes out of `metrics.jsonl` what a run that goes on from a step logs again: later steps, and the summary."""
    path = output_dir / METRICS_NAME
    if not path.exists():
        return
    kept = [line for line in path.read_bytes().splitlines(keepends=True) if _is_of_step(line, step)]
    write_whole(path, b"".join(kept).decode())


def _is_of_step(line: bytes, last: int) -> bool:
    """Whether a line is whole, of this step or an earlier one, and not the summary at a run's end."""
    try:
        row = json.loads(line)
        return line.endswith(b"\n") and row["step"] <= last and "train_loss" not in row
    except (ValueError, LookupError, TypeError):
        return False


class GradientNorm(TrainerCallback):
    """Measures the gradients of the steps that are logged, before they are clipped.

    Attributes:
        value: of the last such step; None if none was measured, as where gradients are sharded.
    """

    def __init__(self):
        self.value: float | None = None

    def on_optimizer_begin(self, args, state, control, scaler=None, model=None, **kwargs):
        if args.sharding or (state.global_step + 1) % args.logging_steps:
            return
        scale = 1.0 if scaler is None else float(scaler._scale)
        group = tensor_parallel_group(args.tensor_parallel_degree) if args.tensor_parallel_degree > 1 else None
        self.value = gradient_norm(model, group) / scale


def process_memory_gib() -> float:
    """The memory that this process holds, in GiB."""
    return psutil.Process().memory_info().rss / 2**30


def shows_bar(args: TrainingArguments) -> bool:
    """Whether somebody watches: a bar in a file is of no use."""
    return not args.disable_tqdm and sys.stderr.isatty()


class ProgressBar(TrainerCallback):
    """Counts tokens, not steps: batches differ in size, and what is left takes as long as its tokens do.

    The time left follows from the mean speed of the run so far, evaluation and saving included.

    Args:
        tokens_of: the tokens of an optimizer step (counted from 0).
        tokens_per_step: their mean.
    """

    def __init__(self, tokens_of: Callable[[int], int], tokens_per_step: float):
        self.tokens_of = tokens_of
        self.tokens_per_step = tokens_per_step
        self.bar: tqdm | None = None

    def on_train_begin(self, args, state, control, **kwargs):
        if state.is_local_process_zero:
            self.bar = tqdm(
                total=round(state.max_steps * self.tokens_per_step),
                initial=round(state.global_step * self.tokens_per_step),
                desc="training",
                unit=" tokens",
                unit_scale=True,
                smoothing=0,
                dynamic_ncols=True,
            )

    def on_step_end(self, args, state, control, **kwargs):
        if self.bar is not None:
            self.bar.update(self.tokens_of(state.global_step - 1))

    def on_log(self, args, state, control, logs=None, **kwargs):
        if self.bar is not None and "loss" in logs:
            self.bar.set_postfix_str(f"step {state.global_step} of {state.max_steps}, loss {logs['loss']:.4f}")

    def on_train_end(self, args, state, control, **kwargs):
        if self.bar is not None:
            self.bar.close()
            self.bar = None
