"""Writes a training run's pages: `training.html` while it runs, and a report of each evaluation."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from paddlenlp.trainer import TrainerCallback
from paddlenlp.utils.log import logger

from glm.data.report import FileReport
from glm.data.tasks import GENERATE
from glm.data.templates import asks_questions
from glm.prediction.kinds import KINDS
from glm.report.curves import read_log
from glm.report.files import CARD_NAME, METRICS_NAME, REPORT_PAGE, TRAINING_PAGE
from glm.report.model_card import write_model_card
from glm.report.provenance import Provenance
from glm.report.rows import ReportRows
from glm.runtime.paths import published
from glm.training.evaluation import SetEvaluation

LARGEST_SHARE = 0.02  # share of a run's time that drawing its page may take


def report_folder(output_dir: Path, step: int, name: str = "") -> Path:
    """Returns the folder of an evaluation's report; with several dev sets, of the set of this name."""
    return output_dir / "eval" / (f"step-{step}.{name}.report" if name else f"step-{step}.report")


def write_evaluation_report(
    output_dir: Path, step: int, found: Sequence[SetEvaluation], provenance: Provenance
) -> None:
    """Writes the report of an evaluation; with several dev sets one for each, and one of all side by side."""
    from glm.report.page import write_sets_report  # imported here because it loads Jinja and Pillow

    log, subject = read_log(output_dir / METRICS_NAME), f"the dev records at step {step:,}"
    for of_set in found:
        name = of_set.name if len(found) > 1 else ""
        title = f"{output_dir.name}: {f'{name}, ' if name else ''}{subject}"
        _write_set_report(report_folder(output_dir, step, name), of_set, provenance, title, [] if name else log)
    if len(found) > 1:
        write_sets_report(
            report_folder(output_dir, step),
            {of_set.name: of_set.figures for of_set in found},
            provenance,
            title=f"{output_dir.name}: {subject}",
            address=lambda name: f"../{report_folder(output_dir, step, name).name}/{REPORT_PAGE}",
            log=log,
        )


def _write_set_report(
    folder: Path, of_set: SetEvaluation, provenance: Provenance, title: str, log: Sequence[Mapping[str, Any]]
) -> None:
    from glm.report.page import write_report
    from glm.report.task_page import TaskRows, write_task_report

    is_generated = of_set.kind == GENERATE
    shown = ReportRows() if is_generated else TaskRows(KINDS[of_set.kind].reference)
    for row in of_set.rows:
        shown.add(row)
    if is_generated:
        settings = provenance.settings
        of_questions = asks_questions(settings.get("task_name"), settings.get("template"))
        write_report(folder, shown, of_set.scores, provenance, title=title, log=log, of_questions=of_questions)
    else:
        write_task_report(folder, shown, of_set.scores, provenance, title=title, log=log)


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
        metrics: metrics of the final evaluation, their names beginning with `eval_`; empty if there was none.
        reports: what the check of each split of the data found.
        signatures: signatures of the figures.
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
        from glm.report.page import write_training_page  # imported here because it loads Jinja and Pillow

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
        except OSError as error:  # a full disk must not end a run because of its page
            logger.warning(f"{folder / TRAINING_PAGE}: cannot be written ({error.strerror or error})")
        end = time.monotonic()
        self.next_time = end + (end - start) / LARGEST_SHARE

    def _seconds_left(self, state) -> float | None:
        """Estimates the time left from the mean speed of this process so far."""
        time_then, step_then = self.begun
        if not self.running or state.global_step == step_then:
            return None
        seconds_per_step = (time.monotonic() - time_then) / (state.global_step - step_then)
        return seconds_per_step * (state.max_steps - state.global_step)


def _address(output_dir: Path, step: int) -> str | None:
    """Returns the address of an evaluation's report, relative to `training.html`."""
    page = report_folder(output_dir, step) / REPORT_PAGE
    return page.relative_to(output_dir).as_posix() if page.exists() else None
