"""Scores of choices: accuracy, F1, confusion of labels. Rows are those of `glm.prediction.choosing`."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from glm.evaluation.metrics import BUCKET_NAMES, Scores, bucket_of

Row = Mapping[str, Any]
MACRO_F1 = "macro f1"
PER_TOKEN = "accuracy (length penalty 1)"
ASSIGNED = "accuracy (assigned)"
QUESTION_EM, ANSWER_F1 = "em (questions)", "f1a"
SIGNATURES = {
    "accuracy": "choice:best|avg:records",
    PER_TOKEN: "choice:best log p per token|avg:records",
    ASSIGNED: "choice:each candidate of a group once, best sum|avg:records",
    MACRO_F1: "f1 of each label|avg:labels|absent:0",
    QUESTION_EM: "all answers of a question right|avg:questions",
    ANSWER_F1: "f1 of the last label|avg:answers",
    "records": "unit:records",
}


def right_labels(row: Row) -> tuple[str, ...]:
    """Returns the right labels of a row."""
    found = row["reference"]
    return (found,) if isinstance(found, str) else tuple(found)


def is_right(row: Row) -> bool:
    """Whether the chosen label is right."""
    return row["prediction"] in right_labels(row)


def best_per_token(row: Row) -> str | None:
    """Returns the choice by log-probability per token; None where candidates are scored by one logit."""
    candidates = row.get("candidates") or ()
    if not candidates or any("mean" not in candidate for candidate in candidates):
        return None
    return max(candidates, key=lambda candidate: candidate["mean"])["label"]


def common_labels(rows: Sequence[Row]) -> tuple[str, ...]:
    """Returns the labels that all rows choose from; empty where each row brings its own."""
    found = {tuple(candidate["label"] for candidate in row.get("candidates") or ()) for row in rows}
    return next(iter(found)) if len(found) == 1 else ()


class ChoiceTable:
    """Counts for each row, from which figures follow as functions of sums over rows.

    Args:
        rows: rows with a reference.
        labels: labels of all rows together, for macro F1; taken from the rows if not given.
    """

    def __init__(self, rows: Sequence[Row], labels: Sequence[str] | None = None):
        self.labels = list(common_labels(rows) if labels is None else labels)
        self.languages = sorted({row.get("language", "") for row in rows} - {""})
        self.has_means = bool(rows) and all(best_per_token(row) is not None for row in rows)
        self.counts = np.array([self._counted(row) for row in rows], dtype=np.float64)  # [N, M]

    def _counted(self, row: Row) -> list[float]:
        right, gold = is_right(row), right_labels(row)
        counts = [1.0, float(right), float(self.has_means and best_per_token(row) in gold)]
        for language in self.languages:
            own = row.get("language") == language
            counts += [float(own), float(own and right)]
        for label in self.labels:
            chosen, true = row["prediction"] == label, label in gold
            counts += [float(chosen and true), float(chosen), float(true)]
        return counts

    def figures(self, sums: np.ndarray) -> dict[str, float]:
        """Returns percentages, from sums [M] over any set of rows."""
        records, right, right_by_mean = sums[:3]
        found = {"accuracy": 100 * right / records}
        if self.has_means:
            found[PER_TOKEN] = 100 * right_by_mean / records
        place = 3
        for language in self.languages:
            own, own_right = sums[place : place + 2]
            place += 2
            if len(self.languages) > 1 and own:
                found[f"accuracy ({language})"] = 100 * own_right / own
        if self.labels:
            both, chosen, true = sums[place:].reshape(-1, 3).T
            present = (chosen + true) > 0
            f1 = np.divide(2 * both, chosen + true, out=np.zeros_like(both), where=present)
            found[MACRO_F1] = 100 * float(f1[present].mean()) if present.any() else 0.0
        return {name: float(value) for name, value in found.items()}


def score_choices(rows: Iterable[Row]) -> Scores:
    """Computes accuracy and whatever else the rows allow, in percent; also by length of the source.

    Raises:
        ValueError: there are no rows.
    """
    rows = list(rows)
    if not rows:
        raise ValueError("no records to score")
    table = ChoiceTable(rows)
    figures = table.figures(table.counts.sum(axis=0)) | _of_groups(rows, table.labels)
    figures["records"] = float(len(rows))
    places: dict[str | None, list[int]] = {}
    for place, row in enumerate(rows):
        places.setdefault(bucket_of(row.get("source")), []).append(place)
    by_length = {
        name: table.figures(table.counts[places[name]].sum(axis=0)) | {"records": float(len(places[name]))}
        for name in BUCKET_NAMES
        if name in places
    }
    return Scores(figures, choice_signatures(figures), by_length)


def choice_signatures(names: Iterable[str]) -> dict[str, str]:
    """Returns the signature of each figure."""
    return {
        name: SIGNATURES.get(name, SIGNATURES["accuracy"])
        for name in names
        if name in SIGNATURES or name.startswith("accuracy")
    }


def _of_groups(rows: Sequence[Row], labels: Sequence[str]) -> dict[str, float]:
    """Returns the figures of rows that form groups."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if row.get("group") is not None:
            groups.setdefault(row["group"], []).append(row)
    if not groups:
        return {}
    if any(row.get("exclusive") for row in rows):
        right = sum(
            label in right_labels(row)
            for members in groups.values()
            for row, label in zip(members, assigned(members), strict=True)
        )
        return {ASSIGNED: 100 * right / len(rows)}
    whole = [all(map(is_right, members)) for members in groups.values()]
    found = {QUESTION_EM: 100 * sum(whole) / len(whole)}
    if labels:
        positive = labels[0]  # the first label is the positive one
        both = sum(row["prediction"] == positive and positive in right_labels(row) for row in rows)
        each = sum((row["prediction"] == positive) + (positive in right_labels(row)) for row in rows)
        found[ANSWER_F1] = 200 * both / each if each else 0.0
    return found


def assigned(rows: Sequence[Row]) -> list[str]:
    """Assigns each candidate of rows that share them to one row at most, maximising the sum of log-probabilities.

    Rows beyond the number of candidates get none.
    """
    from scipy.optimize import linear_sum_assignment

    labels = [candidate["label"] for candidate in rows[0]["candidates"]]
    scores = np.array([[candidate["score"] for candidate in row["candidates"]] for row in rows], np.float64)
    chosen = dict(zip(*linear_sum_assignment(scores, maximize=True), strict=True))
    return [labels[chosen[place]] if place in chosen else "" for place in range(len(rows))]


def confusion(rows: Sequence[Row]) -> dict[str, dict[str, int]]:
    """Counts how often each right label (first key) was predicted as each label; empty where rows bring their own."""
    labels = common_labels(rows)
    pairs = Counter((gold, row["prediction"]) for row in rows for gold in right_labels(row)[:1])
    return {gold: {chosen: pairs[gold, chosen] for chosen in labels} for gold in labels}
