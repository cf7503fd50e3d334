"""Reads prediction files of tasks that choose or extract, as `predict.py` writes them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from glm.data.formats import read_rows
from glm.errors import InputError, shown
from glm.evaluation.accuracy import ChoiceTable, choice_signatures, common_labels, score_choices
from glm.evaluation.answers import ALL_PROTOCOLS, PROTOCOLS, AnswerTable, answer_signatures, score_answers
from glm.evaluation.metrics import Scores
from glm.evaluation.row_fields import ANSWER_ROW, CHOICE_ROW, ID, checked_row

ROWS_TO_RECOGNISE = 20
# By kind: the fields that tell its rows from others', and the one with the right answer.
FIELDS = {"choose": (("candidates", "prediction"), "reference"), "extract": (("window", "prediction"), "references")}
TYPES = {"choose": CHOICE_ROW, "extract": ANSWER_ROW}
NEEDED = {"choose": ("prediction",), "extract": ("prediction", "window")}


@dataclass
class TaskPredictions:
    """The rows of a prediction file.

    Attributes:
        kind: `choose` or `extract`.
        rows: by id, of those that did not fail.
        failed: ids of rows whose record failed.
    """

    path: Path
    kind: str
    rows: dict[str | int, Mapping[str, Any]] = field(default_factory=dict)
    failed: list[str | int] = field(default_factory=list)

    @property
    def reference(self) -> str:
        """The field with the right answer."""
        return FIELDS[self.kind][1]

    @property
    def scored(self) -> dict[str | int, Mapping[str, Any]]:
        """The rows that say what is right, by id."""
        return {key: row for key, row in self.rows.items() if self.reference in row}

    def score(self, *, all_protocols: bool = False) -> Scores:
        """Scores the rows; for answers also by the protocol that exists only for old figures."""
        if not self.scored:
            raise InputError(f"{self.path}: no field {self.reference} in any row: nothing to score against")
        if self.kind == "choose":
            return score_choices(self.scored.values())
        return score_answers(self.scored.values(), ALL_PROTOCOLS if all_protocols else PROTOCOLS)


def kind_of_file(path: str | Path) -> str | None:
    """Returns the kind of task of a file's rows; None for texts, or for a file that cannot be read."""
    for row in islice(read_rows(path), ROWS_TO_RECOGNISE):
        for kind, (names, _) in FIELDS.items():
            if all(name in row.values for name in names):
                return kind
        if row.values.get("task") and "log_prob" in row.values:  # a last word
            return "choose"
    return None


def read_task_file(path: str | Path) -> TaskPredictions:
    """Reads a file of a kind that `kind_of_file` knows.

    Raises:
        InputError: a row is unusable, all failed, or an id stands twice in a language; file, line and
            field are named.
    """
    found = TaskPredictions(Path(path), kind_of_file(path) or "choose")
    seen: dict[Any, str] = {}
    for row in read_rows(path):
        if row.error is not None:
            raise row.error
        values = checked_row(row.values, ID, row.origin)
        identity = values.get("id", row.number)
        key = identity if "language" not in values else f"{values['language']} {identity}"
        if key in seen:
            raise InputError(f"{row.origin}, field id: {identity} is the id of {seen[key]} too")
        seen[key] = row.origin
        if values.get("error"):
            found.failed.append(key)
            continue
        found.rows[key] = _checked(values, found.kind, row.origin) | {"id": identity}
    if not found.rows:
        raise InputError(f"{path}: all {len(found.failed)} records failed, so there is nothing to score")
    _check_groups(found.rows, seen)
    return found


def _checked(values: dict[str, Any], kind: str, origin: str) -> dict[str, Any]:
    """Returns the fields of a row that did not fail; raises InputError for one that is missing or of another type."""
    for name in NEEDED[kind]:
        if name not in values:
            raise InputError(f"{origin}: no field {name}")
    values = checked_row(values, TYPES[kind], origin)
    if isinstance(values.get("references"), str):
        values["references"] = [values["references"]]
    return values


def _check_groups(rows: Mapping[Any, Mapping[str, Any]], origins: Mapping[Any, str]) -> None:
    """Raises InputError if candidates that each belong to one row of a group are not the same in all of them."""
    if not any(row.get("exclusive") for row in rows.values()):
        return
    first: dict[Any, list[str]] = {}
    for key, row in rows.items():
        if "group" not in row:
            continue
        labels = [candidate["label"] for candidate in row.get("candidates", ())]
        if not labels or first.setdefault(row["group"], labels) != labels:
            message = f"the same in all rows of group {shown(str(row['group']))} are expected"
            raise InputError(f"{origins[key]}, field candidates: {message}")


def tables_of(
    first: Sequence[Mapping[str, Any]], second: Sequence[Mapping[str, Any]], kind: str
) -> tuple[np.ndarray, np.ndarray, Callable[[np.ndarray], dict[str, float]]]:
    """Returns the counts of two files' rows, [N, M] each, and the function from sums over rows to figures."""
    both = [*first, *second]
    if kind == "choose":
        tables = [ChoiceTable(rows, common_labels(both)) for rows in (first, second)]
    else:
        languages = sorted({row.get("language") or "en" for row in both})
        tables = [AnswerTable(rows, languages) for rows in (first, second)]
    return tables[0].counts, tables[1].counts, tables[0].figures


def signatures_of(names: Sequence[str], kind: str) -> dict[str, str]:
    """Returns the signature of each figure."""
    return (choice_signatures if kind == "choose" else answer_signatures)(names)
