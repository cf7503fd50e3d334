"""Reports a task that chooses or extracts: its figures, a confusion table, and mistakes."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from glm.evaluation.accuracy import confident_mistakes, confusion, is_right, right_labels
from glm.evaluation.answers import exact_and_f1
from glm.evaluation.metrics import Scores
from glm.evaluation.segmentation import squeezed
from glm.report.files import REPORT_PAGE, write_file
from glm.report.page import drawable, render, write_plots
from glm.report.plots import draw_curves, draw_figure_by_length, draw_lengths
from glm.report.provenance import Provenance

SHOWN = 10  # rows shown of each kind
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

    def mistakes(self) -> list[dict[str, Any]]:
        """Returns wrong rows, the most confident mistakes first."""
        if self.is_choice:
            return [_shown_choice(row) for row in confident_mistakes(self.scored, SHOWN)]
        wrong = [row for row in self.scored if not _is_answered(row)]
        wrong.sort(key=lambda row: row["score"] if row["score"] is not None else float("-inf"), reverse=True)
        return [_shown_answer(row) for row in wrong[:SHOWN]]

    def samples(self) -> list[dict[str, Any]]:
        """Returns random rows, the same ones for the same input."""
        drawn = sorted(self.rows, key=lambda row: hashlib.sha256(json.dumps(row, sort_keys=True).encode()).digest())
        return [(_shown_choice if self.is_choice else _shown_answer)(row) for row in drawn[:SHOWN]]


def _is_answered(row: Mapping[str, Any]) -> bool:
    protocol = PROTOCOL_OF_MISTAKES if row.get("language") == "zh" else "squad"
    return exact_and_f1(row["prediction"], row["references"], protocol, row.get("language") or "en")[0] == 1.0


def _shown_choice(row: Mapping[str, Any]) -> dict[str, Any]:
    candidates = sorted(row.get("candidates") or (), key=lambda found: found["probability"], reverse=True)
    return {
        "id": row["id"],
        "texts": {"text": row["source"], "right": ", ".join(right_labels(row)) if "reference" in row else ""},
        "chosen": row["prediction"],
        "candidates": [(found["label"], f"{100 * found['probability']:.1f} %") for found in candidates],
        "is_right": "reference" in row and is_right(row),
    }


def _shown_answer(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": row["id"],
        "texts": {
            "question": row["question"],
            f"window {row['window'] + 1} of {row['windows']}": row["window_text"],
            "right": " / ".join(row.get("references") or ()),
        },
        "chosen": row["prediction"],
        "candidates": [],
        "is_right": "references" in row and _is_answered(row),
    }


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
    length_plots, curves = list(draw_lengths(rows.lengths)), list(map(draw_curves, drawable(log)[0]))
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
        mistakes=rows.mistakes(),
        samples=rows.samples(),
        shown=SHOWN,
        provenance=provenance,
    )
    write_file(folder / REPORT_PAGE, page.encode("utf-8", "replace"))
    return folder / REPORT_PAGE
