"""Shows a training run's progress, and writes `metrics.jsonl`."""

import json
import math
import sys
from collections.abc import Callable
from itertools import takewhile
from pathlib import Path
from typing import Any

import psutil
from paddlenlp.trainer import TrainerCallback, TrainingArguments
from paddlenlp.utils.log import logger
from tqdm import tqdm

from glm.errors import InputError
from glm.modules.split_layers import tensor_parallel_group
from glm.report.files import METRICS_NAME
from glm.runtime.atomic import write_whole
from glm.training.parameters import gradient_norm


class MetricsLog(TrainerCallback):
    """Appends everything the Trainer logs to `metrics.jsonl` in the output folder; a full disk does not end the
    run."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        if state.is_world_process_zero and logs:
            path = Path(args.output_dir) / METRICS_NAME
            try:
                with path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"step": state.global_step, **logs}, ensure_ascii=False) + "\n")
            except OSError as error:
                logger.warning(f"{path}: step {state.global_step} could not be logged ({error.strerror or error})")


def rewind_metrics(output_dir: Path, step: int) -> None:
    """Removes from `metrics.jsonl` what a run resumed at a step will log again: later steps, and the run's end."""
    path = output_dir / METRICS_NAME
    if path.is_symlink() and not path.exists():
        path.unlink()
    if not path.exists():
        return
    if not path.is_file():
        raise InputError(f"{path}: is no plain file, so that nothing can be logged; delete it")
    lines = takewhile(lambda line: "train_loss" not in _row(line), path.read_bytes().splitlines(keepends=True))
    kept = [line for line in lines if line.endswith(b"\n") and _step(line) <= step]
    write_whole(path, b"".join(kept).decode("utf-8", errors="replace"))


def logged_evaluation(output_dir: Path, step: int) -> dict[str, float]:
    """Returns the figures of the evaluation at a step in `metrics.jsonl`; none if there was none."""
    path = output_dir / METRICS_NAME
    for line in path.read_bytes().splitlines() if path.is_file() else []:
        if _step(line) == step and "eval_loss" in _row(line):
            return {name: value for name, value in _row(line).items() if name.startswith("eval_")}
    return {}


def _row(line: bytes) -> dict[str, Any]:
    """Parses a line; an incomplete one is empty."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return row if isinstance(row, dict) else {}


def _step(line: bytes) -> float:
    """Returns the step of a line; infinity if it has none."""
    step = _row(line).get("step")
    return step if isinstance(step, int) else math.inf


class GradientNorm(TrainerCallback):
    """Measures the gradient norm of logged steps before clipping.

    Attributes:
        value: norm of the last such step; None if none was measured, as where gradients are sharded.
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
    """Returns the memory that this process holds, in GiB."""
    return psutil.Process().memory_info().rss / 2**30


def shows_bar(args: TrainingArguments) -> bool:
    """Whether standard error is a terminal: a bar in a file is of no use."""
    return not args.disable_tqdm and sys.stderr.isatty()


class ProgressBar(TrainerCallback):
    """Progress bar that counts tokens: batches differ in size, and time grows with tokens, not steps.

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
