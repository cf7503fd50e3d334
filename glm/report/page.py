"""Renders the pages: a single file each, which opens from disk and loads nothing from elsewhere."""

import base64
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemBytecodeCache, FileSystemLoader, StrictUndefined
from jinja2.bccache import Bucket
from markupsafe import Markup

from glm.evaluation.data_sets import MEAN, aligned, mean_figures
from glm.evaluation.metrics import HEADLINES, Scores, figure_text
from glm.evaluation.scored_file import references_of
from glm.report.chinese import chinese_of
from glm.report.copied import copied_spans
from glm.report.curves import CurvePlot, Single, curve_plots, single_figures
from glm.report.differences import edits
from glm.report.files import PLOTS_FOLDER, REPORT_PAGE, TRAINING_PAGE
from glm.report.plots import PLOT_NAMES, Plot, draw_curves, draw_lengths, draw_scores_by_length, draw_sets
from glm.report.provenance import Provenance, now
from glm.report.rows import SHOWN, ReportRows
from glm.runtime.atomic import write_file
from glm.runtime.caches import private_cache

NO_SCORES = ("loss", "records", "samples_per_second", "runtime")  # logged figures of an evaluation that are no scores
# Most characters of a text on a page: 1,000 rows of any texts stay below 2 MB.
MOST_OF_SOURCE, MOST_OF_FIELD, MOST_OF_BEAMS, LEAST_OF_BEAM = 2000, 400, 1600, 60
# Lengths tried for a cell of the table of all rows, until the table is small enough.
CELLS = (3000, 1000, 300, 100, 50)
MOST_OF_CELLS = 150_000  # characters of that table
SCRIPT = Path(__file__).with_name("page.js")
# Labels of the parts of a row, in English and Chinese.
NAMES = {
    "source": ("source", "输入"),
    "reference": ("reference", "参考文本"),
    "generated": ("generated", "生成"),
}
NAMES_OF_QUESTIONS = {
    "source": ("passage", "段落"),
    "reference": ("gold question", "参考问题"),
    "generated": ("generated question", "生成的问题"),
}
REFRESH_SECONDS = 20
BARS = 3  # figures with a bar for each data set


def write_report(
    folder: Path,
    rows: ReportRows,
    scores: Scores | None,
    provenance: Provenance,
    *,
    title: str,
    log: Iterable[Mapping[str, Any]] = (),
    of_questions: bool = False,
) -> Path:
    """Writes `report.html` into a folder, and its plots as `plots/*.png`.

    Args:
        scores: None where nothing could be scored.
        title: what was predicted.
        log: what the training run that made the model logged, see `glm.report.curves.read_log`.
        of_questions: the texts are questions, and called so.

    Returns:
        The page's path.
    """
    buckets = scores.by_source_length if scores else {}
    score_plots, length_plots = list(draw_scores_by_length(buckets)), list(draw_lengths(rows.lengths))
    drawn, figures = drawable(log)
    curves = list(map(draw_curves, drawn))
    write_plots(folder, score_plots + length_plots + curves)
    page = render(
        "report.html.jinja",
        title=title,
        rows=rows,
        scores=scores,
        headlines=[name for name in HEADLINES if scores and name in scores.figures],
        bucket_figures=list(dict.fromkeys(chain.from_iterable(buckets.values()))),
        score_plots=score_plots,
        length_plots=length_plots,
        curve_plots=curves,
        single_figures=figures,
        sample_groups=_sample_groups(rows),
        cell=cell_length([(row.row.get("source") or "", row.best, *references_of(row.row)) for row in rows.every]),
        names=NAMES_OF_QUESTIONS if of_questions else NAMES,
        provenance=provenance,
    )
    write_file(folder / REPORT_PAGE, page.encode("utf-8", "replace"))
    return folder / REPORT_PAGE


def write_sets_report(
    folder: Path,
    of_sets: Mapping[str, Mapping[str, float]],
    provenance: Provenance,
    *,
    title: str,
    address: Callable[[str], str],
    log: Iterable[Mapping[str, Any]] = (),
) -> Path:
    """Writes `report.html` of several data sets side by side, with their mean last, and its plots.

    Args:
        of_sets: the figures of each set, by name.
        title: what was predicted.
        address: address of a set's report, as seen from the page.
        log: as of `write_report`.

    Returns:
        The page's path.
    """
    means = mean_figures(of_sets)
    rows = {name: aligned(figures) for name, figures in of_sets.items()} | {MEAN: means}
    shown = [name for name in HEADLINES if name in means] or [name for name in means if name not in NO_SCORES]
    shown = shown[:BARS]
    bars, curves = [draw_sets(rows, shown)] if shown else [], list(map(draw_curves, drawable(log)[0]))
    write_plots(folder, bars + curves)
    page = render(
        "sets.html.jinja",
        title=title,
        of_sets=rows,
        names=list(means),
        mean=MEAN,
        address=address,
        bars=bars,
        curve_plots=curves,
        provenance=provenance,
    )
    write_file(folder / REPORT_PAGE, page.encode("utf-8", "replace"))
    return folder / REPORT_PAGE


def write_training_page(
    output_dir: Path,
    provenance: Provenance,
    *,
    step: int,
    max_steps: int,
    running: bool,
    seconds_left: float | None,
    report_address: Callable[[int], str | None],
    log: Iterable[Mapping[str, Any]],
) -> None:
    """Writes `training.html` and `plots/*.png`: a run's progress, its curves and its evaluations.

    Args:
        running: the page asks for a newer one every `REFRESH_SECONDS`.
        seconds_left: until the last step; None if nobody knows.
        report_address: address of the report of the evaluation at a step, as seen from the page.
    """
    log = list(log)
    drawn, figures = drawable(log)
    curves = list(map(draw_curves, drawn))
    write_plots(output_dir, curves)
    page = render(
        "training.html.jinja",
        title=f"Training: {output_dir.name}",
        refresh=REFRESH_SECONDS if running else None,
        step=step,
        max_steps=max_steps,
        time_left=None if seconds_left is None else timedelta(seconds=round(seconds_left)),
        last={key: value for entry in log if "loss" in entry for key, value in entry.items()},
        evaluations=(evaluations := _evaluations(log, report_address)),
        headlines=_headlines(evaluations),
        curve_plots=curves,
        single_figures=figures,
        provenance=provenance,
    )
    write_file(output_dir / TRAINING_PAGE, page.encode("utf-8", "replace"))


def write_plots(folder: Path, plots: list[Plot]) -> None:
    """Writes plots as PNG files, and removes an earlier page's plots that no longer exist."""
    for plot in plots:
        write_file(folder / PLOTS_FOLDER / f"{plot.name}.png", plot.png)
    for name in PLOT_NAMES - {plot.name for plot in plots}:
        (folder / PLOTS_FOLDER / f"{name}.png").unlink(missing_ok=True)


@dataclass(frozen=True)
class Evaluation:
    """An evaluation of a run: its step, its figures by name, and the address of its report."""

    step: int
    figures: Mapping[str, float]
    address: str | None


def _evaluations(log: Iterable[Mapping[str, Any]], report_address: Callable[[int], str | None]) -> list[Evaluation]:
    """Returns the last evaluation of each evaluated step."""
    found = {}
    for entry in log:
        figures = {name.removeprefix("eval_"): value for name, value in entry.items() if name.startswith("eval_")}
        if "loss" in figures:
            found[entry["step"]] = Evaluation(entry["step"], figures, report_address(entry["step"]))
    return [found[step] for step in sorted(found)]


def _headlines(evaluations: Iterable[Evaluation]) -> tuple[str, ...]:
    """Returns the headline figures: the usual ones, or the first ones of a task that does not generate."""
    found = list(dict.fromkeys(name for evaluation in evaluations for name in evaluation.figures))
    if not found or HEADLINES[0] in found:
        return HEADLINES
    return tuple(name for name in found if name not in NO_SCORES)[: len(HEADLINES)]


@dataclass(frozen=True)
class SampleGroup:
    """Samples under a heading."""

    heading: str
    chinese: str
    samples: Sequence[Any]


def _sample_groups(rows: ReportRows) -> list[SampleGroup]:
    """Groups the samples of a page; if they are few, one group, best first."""
    if rows.answered <= SHOWN:
        by_score = sorted(rows.random, key=lambda sample: sample.score or 0.0, reverse=True)
        groups = [SampleGroup("All records", "全部样本", by_score)]
    else:
        kinds = {
            "Best": ("最好的样本", rows.best),
            "Worst": ("最差的样本", rows.worst),
            "Random": ("随机样本", rows.random),
            "With most repeats": ("重复最多的样本", rows.repeating),
            "Empty": ("空的生成结果", rows.empty),
        }
        groups = [SampleGroup(heading, chinese, list(kept)) for heading, (chinese, kept) in kinds.items()]
    return [group for group in groups if group.samples]


class _Compiled(FileSystemBytecodeCache):
    """Compiled templates, where only this user can write; compiling them takes longer than most reports."""

    def __init__(self):
        super().__init__(str(private_cache(f"jinja-{version('Jinja2')}")))

    def dump_bytecode(self, bucket: Bucket) -> None:
        """Keeps a compiled template, or does without where there is no room for it."""
        with suppress(OSError):
            super().dump_bytecode(bucket)


def render(template: str, **values: Any) -> str:
    """Renders a template of this folder."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        bytecode_cache=_Compiled(),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"clipped": clipped, "percent": lambda value: f"{value:.2f}"}
    script = SCRIPT.read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment.globals |= {
        "script": Markup(script),
        "script_hash": f"sha256-{digest}",  # the only script that the page's policy allows
        "both": both,
        "chinese_of": chinese_of,
        "edits": edits,
        "copied": copied_spans,
        "figure_text": figure_text,
        "references_of": references_of,
        "source_spans": _source_spans,
        "beams": _beams,
        "written": now(),
        "refresh": None,
        "most_of_source": MOST_OF_SOURCE,
        "most_of_field": MOST_OF_FIELD,
    }
    return environment.get_template(template).render(**values)


def both(english: str, chinese: str) -> Markup:
    """Marks a text up in two languages, of which the page shows one."""
    return Markup('<span class="en">{}</span><span class="zh" lang="zh">{}</span>').format(english, chinese)


def drawable(log: Iterable[Mapping[str, Any]]) -> tuple[list[CurvePlot], list[Single]]:
    """Splits a log into curves to draw, and figures logged only once, which are better shown as a number."""
    found = curve_plots(log)
    return [plot for plot in found if plot.has_lines], single_figures(found)


def cell_length(rows: Iterable[Iterable[str]]) -> int:
    """Returns the character limit of a cell in the table of all rows, from the texts of each row."""
    lengths = [len(text) for texts in rows for text in texts]
    return next((most for most in CELLS if sum(min(most, length) for length in lengths) <= MOST_OF_CELLS), CELLS[-1])


def clipped(text: Any, most: int) -> str:
    """Clips a text to what a page has room for; `(+N)` counts the characters left out."""
    text = str(text)
    return text if len(text) <= most else f"{text[:most]} … (+{len(text) - most:,})"


class Part(NamedTuple):
    """A part of a source: `answer`, `unseen` (by the model), or neither."""

    text: str
    kind: str = ""

    @property
    def tag(self) -> str:
        """The HTML element that marks it."""
        return "mark" if self.kind == "answer" else "span"


def _source_spans(row: Mapping[str, Any]) -> list[Part]:
    """Marks the answer and the unseen parts of a source; a long source is clipped around the answer."""
    source, answer = row.get("source") or "", row.get("answer") or ""
    place = source.find(answer) if answer else -1
    first, last = row.get("seen") or (0, len(source))
    middle = place + len(answer) // 2 if place >= 0 else (first + min(last, first + MOST_OF_SOURCE)) // 2
    start = max(0, min(middle - MOST_OF_SOURCE // 2, len(source) - MOST_OF_SOURCE))
    end = start + MOST_OF_SOURCE
    bounds = {start, min(end, len(source)), first, last, place, place + len(answer)}
    bounds = sorted(bound for bound in bounds if start <= bound <= min(end, len(source)))
    parts = [Part(f"(+{start:,}) … ")] if start else []
    for left, right in zip(bounds, bounds[1:], strict=False):
        is_answer = place >= 0 and place <= left and right <= place + len(answer)
        is_seen = first <= left and right <= last
        parts.append(Part(source[left:right], "answer" if is_answer and is_seen else "" if is_seen else "unseen"))
    more = len(source) - min(end, len(source))
    return [*parts, Part(f" … (+{more:,})")] if more else parts


def _beams(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns all hypotheses of a row, clipped more the more there are."""
    most = max(LEAST_OF_BEAM, MOST_OF_BEAMS // max(len(row["predictions"]), 1))
    return [{"score": text.get("score"), "text": clipped(text["text"], most)} for text in row["predictions"]]
