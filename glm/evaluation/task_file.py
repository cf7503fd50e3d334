"""Reads prediction files of tasks that choose or extract, as `predict.py` writes them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from glm.data.formats import read_rows
from glm.errors import InputError
from glm.evaluation.accuracy import ChoiceTable, choice_signatures, common_labels, score_choices
from glm.evaluation.answers import ALL_PROTOCOLS, PROTOCOLS, AnswerTable, answer_signatures, score_answers
from glm.evaluation.metrics import Scores

ROWS_TO_RECOGNISE = 20
# By kind: the fields that tell its rows from others', and those that have to be text.
FIELDS = {"choose": (("candidates", "prediction"), "reference"), "extract": (("window", "prediction"), "references")}


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
        values = row.values
        identity = values.get("id", row.number)
        key = identity if "language" not in values else f"{values['language']} {identity}"
        if key in seen:
            raise InputError(f"{row.origin}, field id: {identity} is the id of {seen[key]} too")
        seen[key] = row.origin
        if values.get("error"):
            found.failed.append(key)
            continue
        _check(values, found, row.origin)
        found.rows[key] = values
    if not found.rows:
        raise InputError(f"{path}: all {len(found.failed)} records failed, so there is nothing to score")
    return found


def _check(values: Mapping[str, Any], found: TaskPredictions, origin: str) -> None:
    if not isinstance(values.get("prediction"), str):
        raise InputError(f"{origin}, field prediction: text is expected")
    right = values.get(found.reference, "")
    texts = [right] if isinstance(right, str) else right
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise InputError(f"{origin}, field {found.reference}: text, or a list of texts, is expected")
    for place, candidate in enumerate(values.get("candidates") or ()):
        if not isinstance(candidate, Mapping) or not {"label", "score", "probability"} <= candidate.keys():
            message = "an object with label, score and probability is expected"
            raise InputError(f"{origin}, field candidates[{place}]: {message}")


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
