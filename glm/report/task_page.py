"""Reports a task that chooses or extracts: its figures, samples, and a confusion table."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glm.evaluation.accuracy import confusion, is_right, right_labels
from glm.evaluation.answers import exact_and_f1
from glm.evaluation.metrics import Scores
from glm.evaluation.segmentation import squeezed
from glm.evaluation.symptoms import Symptoms
from glm.report.copied import found_span
from glm.report.differences import nearest
from glm.report.files import REPORT_PAGE
from glm.report.page import Part, SampleGroup, cell_length, clipped, drawable, render, write_plots
from glm.report.plots import draw_curves, draw_figure_by_length, draw_lengths
from glm.report.provenance import Provenance
from glm.report.rows import MOST_ROWS, SHOWN
from glm.runtime.atomic import write_file

PROTOCOL_OF_MISTAKES = "mlqa"


class TaskRows:
    """Collects the rows of a report.

    Args:
        reference: the field that says what is right: `reference` of a task that chooses, else `references`.
    """

    def __init__(self, reference: str):
        self.reference = reference
        self.is_choice = reference == "reference"
        self.rows: list[Mapping[str, Any]] = []
        self.errors: list[Mapping[str, Any]] = []
        self.count = 0

    def add(self, row: Mapping[str, Any]) -> None:
        """Adds a row of a predictions file."""
        self.count += 1
        (self.errors if "error" in row else self.rows).append(row)

    @property
    def lengths(self) -> dict[str, Counter[int]]:
        """Counts the sources of each length in characters."""
        texts = (row.get("source") or row.get("context") or "" for row in self.rows)
        return {
            "source": Counter(len(squeezed(text)) for text in texts),
            "reference": Counter(),
            "generated": Counter(),
        }

    @property
    def scored(self) -> list[Mapping[str, Any]]:
        """Returns the rows with a reference."""
        return [row for row in self.rows if self.reference in row]

    @property
    def symptoms(self) -> Symptoms:
        """Counts problems of the predictions as a whole."""
        found = Symptoms()
        for row in self.rows:
            found.add_row(row)
        return found

    def sample(self, row: Mapping[str, Any]) -> "TaskSample":
        """Returns a row as it is shown."""
        return (_shown_choice if self.is_choice else _shown_answer)(row)

    def sample_groups(self) -> list[SampleGroup]:
        """Groups the samples of a page; a few are one group, best first."""
        drawn = sorted(self.rows, key=lambda row: hashlib.sha256(json.dumps(row, sort_keys=True).encode()).digest())
        samples = list(map(self.sample, drawn))
        ranked = sorted((one for one in samples if one.right), key=lambda one: one.rank)
        if len(samples) <= SHOWN:
            rest = [one for one in samples if not one.right]
            groups = [SampleGroup("All records", "全部样本", [*reversed(ranked), *rest])]
        else:
            wrong = [one for one in samples if one.right and not one.is_right and one.confidence is not None]
            wrong.sort(key=lambda one: one.confidence, reverse=True)
            worst = (
                ("Least sure of the right label", "正确标签概率最低") if self.is_choice else ("Worst", "最差的样本")
            )
            groups = [
                SampleGroup("Most confident mistakes", "最有把握的错误", wrong[:SHOWN]),
                SampleGroup("Best", "最好的样本", ranked[: -SHOWN - 1 : -1]),
                SampleGroup(*worst, ranked[:SHOWN]),
                SampleGroup("Random", "随机样本", samples[:SHOWN]),
            ]
        return [group for group in groups if group.samples]


@dataclass(frozen=True)
class ShownText:
    """A text of a row, what it is called in English and Chinese, and a part of it that is marked."""

    english: str
    chinese: str
    text: str
    marked: str = ""

    def spans(self, most: int) -> list[Part]:
        """The text up to so many characters, with its marked part."""
        found = found_span(clipped(self.text, most), self.marked)
        return [Part(span.text, "answer" if span.marked else "") for span in found]


@dataclass(frozen=True)
class TaskSample:
    """A row as a page shows it.

    Args:
        texts: what the model was given, the text or the question first.
        right: labels or answers, one of which is right; empty if nobody knows.
        chosen: what was predicted.
        candidates: labels with their probability in words, the likeliest first.
        rank: how good it is; higher is better.
        confidence: of the model in what it predicted; None if it has none.
        similarity: of an answer to the reference that is most like it, in percent; None for a label.
        nearest: that reference.
        figure: what stands in the last column of the table of all rows.
    """

    id: Any
    texts: tuple[ShownText, ...]
    right: tuple[str, ...]
    chosen: str
    is_right: bool
    rank: float
    confidence: float | None
    candidates: tuple[tuple[str, str], ...] = ()
    similarity: float | None = None
    nearest: str = ""
    figure: float | None = None


def _is_answered(row: Mapping[str, Any]) -> bool:
    protocol = PROTOCOL_OF_MISTAKES if row.get("language") == "zh" else "squad"
    return exact_and_f1(row["prediction"], row["references"], protocol, row.get("language") or "en")[0] == 1.0


def _shown_choice(row: Mapping[str, Any]) -> TaskSample:
    candidates = sorted(row.get("candidates") or (), key=lambda found: found["probability"], reverse=True)
    right = right_labels(row) if "reference" in row else ()
    correct = bool(right) and is_right(row)
    shares = {found["label"]: found["probability"] for found in candidates}
    share = shares.get(row["prediction"])
    return TaskSample(
        row["id"],
        (ShownText("text", "文本", row.get("source") or ""),),
        right,
        row["prediction"],
        correct,
        rank=max((shares.get(label, 0.0) for label in right), default=0.0) if shares else float(correct),
        confidence=share,
        candidates=tuple((label, f"{100 * probability:.1f} %") for label, probability in shares.items()),
        figure=None if share is None else 100 * share,
    )


def _shown_answer(row: Mapping[str, Any]) -> TaskSample:
    right, chosen = tuple(row.get("references") or ()), row["prediction"]
    most_like, similarity = nearest(chosen, right) if right else ("", None)
    place, count = row["window"] + 1, row.get("windows", row["window"] + 1)
    window = row.get("window_text") or row.get("context") or ""
    marked = next((answer for answer in right if answer and answer in window), "")
    return TaskSample(
        row["id"],
        (
            ShownText("question", "问题", row.get("question") or ""),
            ShownText(f"window {place} of {count}", f"第 {place} 个窗口，共 {count} 个", window, marked),
        ),
        right,
        chosen,
        bool(right) and _is_answered(row),
        rank=similarity or 0.0,
        confidence=row.get("score"),
        similarity=None if similarity is None else 100 * similarity,
        nearest=most_like,
        figure=None if similarity is None else 100 * similarity,
    )


def write_task_report(
    folder: Path,
    rows: TaskRows,
    scores: Scores | None,
    provenance: Provenance,
    *,
    title: str,
    log: Iterable[Mapping[str, Any]] = (),
) -> Path:
    """Writes `report.html` into a folder, and its plots as `plots/*.png`; arguments as for `write_report`."""
    buckets = scores.by_source_length if scores else {}
    figure = next(iter(scores.figures)) if scores else ""
    score_plots = list(draw_figure_by_length(buckets, figure))
    drawn, figures = drawable(log)
    length_plots, curves = list(draw_lengths(rows.lengths)), list(map(draw_curves, drawn))
    every = [rows.sample(row) for row in rows.rows[:MOST_ROWS]]
    write_plots(folder, score_plots + length_plots + curves)
    page = render(
        "task.html.jinja",
        title=title,
        rows=rows,
        scores=scores,
        headlines=list(scores.figures)[:4] if scores else [],
        table=confusion(rows.scored) if rows.is_choice and rows.scored else {},
        score_plots=score_plots,
        length_plots=length_plots,
        curve_plots=curves,
        single_figures=figures,
        sample_groups=rows.sample_groups(),
        every=every,
        cell=cell_length([(sample.texts[0].text, *sample.right, sample.chosen) for sample in every]),
        shown=SHOWN,
        provenance=provenance,
    )
    write_file(folder / REPORT_PAGE, page.encode("utf-8", "replace"))
    return folder / REPORT_PAGE
