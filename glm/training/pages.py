"""What a training run shows of itself in a browser: `training.html` while it runs, and a report of each evaluation."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from paddlenlp.trainer import TrainerCallback
from paddlenlp.utils.log import logger

from glm.data.report import FileReport
from glm.data.tasks import GENERATE
from glm.evaluation.metrics import Scores
from glm.prediction.kinds import KINDS
from glm.report.curves import read_log
from glm.report.files import CARD_NAME, METRICS_NAME, REPORT_PAGE, TRAINING_PAGE
from glm.report.model_card import write_model_card
from glm.report.provenance import Provenance
from glm.report.rows import ReportRows
from glm.runtime.paths import published

LARGEST_SHARE = 0.02  # of a run's time that is spent on drawing its page


def report_folder(output_dir: Path, step: int) -> Path:
    """Where the report of an evaluation is."""
    return output_dir / "eval" / f"step-{step}.report"


def write_evaluation_report(
    output_dir: Path, step: int, kind: str, rows: Sequence[dict[str, Any]], scores: Scores, provenance: Provenance
) -> None:
    """Writes the report of an evaluation.

    Args:
        kind: of the task, a key of `glm.prediction.kinds.KINDS`.
        rows: what was predicted.
    """
    from glm.report.page import write_report  # here, because they load matplotlib
    from glm.report.task_page import TaskRows, write_task_report

    is_generated = kind == GENERATE
    shown = ReportRows() if is_generated else TaskRows(KINDS[kind].reference)
    for row in rows:
        shown.add(row)
    write = write_report if is_generated else write_task_report
    write(
        report_folder(output_dir, step),
        shown,
        scores,
        provenance,
        title=f"{output_dir.name}: the dev records at step {step:,}",
        log=read_log(output_dir / METRICS_NAME),
    )


def describe_model(
    output_dir: Path,
    provenance: Provenance,
    metrics: Mapping[str, float],
    reports: Mapping[str, FileReport],
    signatures: Mapping[str, str],
    warnings: Sequence[str] = (),
) -> None:
    """Writes the model card of the final model.

    Args:
        metrics: of the final evaluation, their names beginning with `eval_`; empty if there was none.
        reports: what the check of each split of the data found.
        signatures: of the figures.
        warnings: what is wrong with the model or its data, in words.
    """
    figures = {name.removeprefix("eval_"): value for name, value in metrics.items()}
    written = write_model_card(
        output_dir,
        provenance,
        figures={name: figures[name] for name in ("loss", *signatures) if name in figures},
        signatures=signatures,
        data={split: published(report.summary()) for split, report in reports.items()},
        warnings=warnings,
    )
    if not written:
        logger.warning(f"{output_dir / CARD_NAME}: is your own, so the model card is not written")


class TrainingPage(TrainerCallback):
    """Keeps `training.html` in the output folder up to date, as far as `LARGEST_SHARE` allows."""

    def __init__(self, provenance: Provenance):
        self.provenance = provenance
        self.running: bool | None = None  # None before training
        self.next_time = 0.0
        self.begun = (0.0, 0)  # time and step

    def on_train_begin(self, args, state, control, **kwargs):
        self.running, self.begun = True, (time.monotonic(), state.global_step)
        self._write(args, state)

    def on_log(self, args, state, control, **kwargs):
        if time.monotonic() >= self.next_time:
            self._write(args, state)

    def on_evaluate(self, args, state, control, **kwargs):
        self._write(args, state)

    def on_train_end(self, args, state, control, **kwargs):
        self.running = False
        self._write(args, state)

    def _write(self, args, state) -> None:
        if self.running is None or not state.is_world_process_zero:
            return
        from glm.report.page import write_training_page  # here, because it loads matplotlib

        start, folder = time.monotonic(), Path(args.output_dir)
        try:
            write_training_page(
                folder,
                self.provenance,
                step=state.global_step,
                max_steps=state.max_steps,
                running=self.running,
                seconds_left=self._seconds_left(state),
                report_address=lambda step: _address(folder, step),
                log=read_log(folder / METRICS_NAME),
            )
        except OSError as error:  # a full disk does not end a run for its page
            logger.warning(f"{folder / TRAINING_PAGE}: cannot be written ({error.strerror or error})")
        end = time.monotonic()
        self.next_time = end + (end - start) / LARGEST_SHARE

    def _seconds_left(self, state) -> float | None:
        """At the mean speed of this process so far."""
        time_then, step_then = self.begun
        if not self.running or state.global_step == step_then:
            return None
        seconds_per_step = (time.monotonic() - time_then) / (state.global_step - step_then)
        return seconds_per_step * (state.max_steps - state.global_step)


def _address(output_dir: Path, step: int) -> str | None:
    """The report of an evaluation as `training.html` finds it."""
    page = report_folder(output_dir, step) / REPORT_PAGE
    return page.relative_to(output_dir).as_posix() if page.exists() else None
