"""Sends a run's figures to TensorBoard, SwanLab or Weights & Biases (`--report_to`), with or without a network.

VisualDL is PaddleNLP's own. Without a key of one's own, SwanLab and Weights & Biases write to the output folder, as
their offline modes do; SWANLAB_MODE and WANDB_MODE say otherwise.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from paddlenlp.trainer import TrainerCallback, TrainingArguments
from paddlenlp.utils.log import logger

PROJECT = "glm"  # unless WANDB_PROJECT or SWANLAB_PROJ_NAME is set


class Run(Protocol):
    """A run in a tracking tool."""

    def log(self, figures: Mapping[str, float], step: int) -> None:
        """Logs the figures of a step."""

    def close(self) -> None:
        """Ends the run; everything is written."""


class _TensorBoard:
    def __init__(self, folder: Path, name: str, settings: Mapping[str, Any]):
        from tensorboardX import SummaryWriter

        self.writer = SummaryWriter(logdir=str(folder / "tensorboard"))
        self.writer.add_text("settings", "\n".join(f"    {key}: {value}" for key, value in settings.items()))

    def log(self, figures: Mapping[str, float], step: int) -> None:
        for figure, value in figures.items():
            self.writer.add_scalar(figure, value, global_step=step)

    def close(self) -> None:
        self.writer.close()


class _WeightsAndBiases:
    def __init__(self, folder: Path, name: str, settings: Mapping[str, Any]):
        import wandb

        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=name,
            dir=str(folder),
            config=dict(settings),
            mode=os.environ.get("WANDB_MODE") or ("online" if wandb.api.api_key else "offline"),
        )

    def log(self, figures: Mapping[str, float], step: int) -> None:
        self.run.log(dict(figures), step=step)

    def close(self) -> None:
        self.run.finish()


class _SwanLab:
    def __init__(self, folder: Path, name: str, settings: Mapping[str, Any]):
        import swanlab

        self.swanlab = swanlab
        swanlab.init(
            project=os.environ.get("SWANLAB_PROJ_NAME", PROJECT),
            experiment_name=name,
            logdir=str(folder / "swanlog"),
            config=dict(settings),
            mode=os.environ.get("SWANLAB_MODE") or ("cloud" if os.environ.get("SWANLAB_API_KEY") else "offline"),
        )

    def log(self, figures: Mapping[str, float], step: int) -> None:
        self.swanlab.log(dict(figures), step=step)

    def close(self) -> None:
        self.swanlab.finish()


OPENED_BY: dict[str, Callable[[Path, str, Mapping[str, Any]], Run]] = {
    "tensorboard": _TensorBoard,
    "swanlab": _SwanLab,
    "wandb": _WeightsAndBiases,
}


class Tracker(TrainerCallback):
    """Sends all figures that the Trainer logs to a tool; an error there ends no run, and is reported once.

    Args:
        tool: a key of `OPENED_BY`.
        settings: settings of the run.
    """

    def __init__(self, tool: str, settings: Mapping[str, Any]):
        self.tool = tool
        self.settings = settings
        self.run: Run | None = None
        self.has_failed = False

    def on_train_begin(self, args: TrainingArguments, state, control, **kwargs):
        if state.is_world_process_zero:
            self._do(lambda: self._open(args))

    def on_log(self, args, state, control, logs=None, **kwargs):
        figures = {name: value for name, value in (logs or {}).items() if isinstance(value, int | float)}
        if figures and state.is_world_process_zero:
            step = int(figures.pop("step", state.global_step))
            self._do(lambda: self.run is not None and self.run.log(figures, step))

    def close(self) -> None:
        """Ends the run after the final evaluation, which comes after training."""
        run, self.run = self.run, None
        if run is not None:
            self._do(run.close)

    def _open(self, args: TrainingArguments) -> None:
        folder = Path(args.logging_dir if self.tool == "tensorboard" and args.logging_dir else args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        self.run = OPENED_BY[self.tool](folder, str(args.run_name or args.output_dir), self.settings)

    def _do(self, act: Callable[[], Any]) -> None:
        if self.has_failed:
            return
        try:
            act()
        except Exception as error:  # no network, no key, a full disk: not an error of the training
            self.has_failed, self.run = True, None
            reason = f"{type(error).__name__}: {error}"
            logger.warning(f"report_to {self.tool}: failed, the run goes on without it ({reason})")
