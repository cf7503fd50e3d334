"""Collects from rows of predictions what a report needs: lengths, and samples. Takes rows in any order."""

import hashlib
import heapq
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from glm.evaluation.scored_file import references_of
from glm.evaluation.segmentation import SEGMENTERS, normalized, squeezed
from glm.evaluation.statistics import repeated_share
from glm.evaluation.symptoms import Symptoms
from glm.report.differences import nearest

SHOWN = 10  # rows kept of each kind
MOST_ROWS = 1000  # rows that a page shows individually
RANKED_BY = "edit similarity"


@dataclass(frozen=True)
class Sample:
    """A row of a predictions file with the properties it was selected for.

    Args:
        row: as in the file.
        score: `RANKED_BY` in percent; None without a reference.
        repeated: share of repeated 4-grams of the best text, 0 to 1.
    """

    row: Mapping[str, Any]
    score: float | None
    repeated: float

    @property
    def best(self) -> str:
        """The best text; empty if there is none."""
        return best_text(self.row)

    @property
    def nearest(self) -> str:
        """The reference most similar to the best text; empty if there is none."""
        references = references_of(self.row)
        return nearest(self.best, references)[0] if references else ""

    @property
    def is_exact(self) -> bool:
        """Whether the best text equals the reference, up to white space."""
        references = map(squeezed, references_of(self.row))
        return bool(self.best.strip()) and squeezed(self.best) in references

    @property
    def leaks_answer(self) -> bool:
        """Whether the best text contains the answer."""
        answer = squeezed(self.row.get("answer", ""))
        return bool(answer) and answer in squeezed(self.best)


class Kept:
    """Keeps the `SHOWN` samples with the highest keys. Ties are broken by a hash, reproducibly for the same rows."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, bytes, int, Sample]] = []
        self._added = 0

    def add(self, key: float, digest: bytes, sample: Sample) -> None:
        """Adds a sample, if it is among the highest."""
        self._added += 1  # breaks ties, so that samples themselves are never compared
        push = heapq.heappush if len(self._heap) < SHOWN else heapq.heappushpop
        push(self._heap, (key, digest, self._added, sample))

    def __iter__(self) -> Iterator[Sample]:
        """Yields the samples, highest key first."""
        return (sample for *_, sample in sorted(self._heap, key=lambda entry: entry[:3], reverse=True))


@dataclass
class ReportRows:
    """Collects the lengths of all rows, and some of the rows.

    Attributes:
        count, failed: number of rows, and of those whose record failed.
        lengths: by `source`, `reference` and `generated`, how many texts have how many characters (no white space).
        best, worst: by score, if there are references; `random` is drawn from all that did not fail.
        empty: rows without text; `repeating` those with the largest share of repeated 4-grams, above 0.
        errors: rows that failed.
        every: the first `MOST_ROWS` that did not fail.
        symptoms: what is wrong with the texts.
        texts: how often each text was generated.
    """

    count: int = 0
    failed: int = 0
    lengths: dict[str, Counter[int]] = field(
        default_factory=lambda: {name: Counter() for name in ("source", "reference", "generated")}
    )
    best: Kept = field(default_factory=Kept)
    worst: Kept = field(default_factory=Kept)
    random: Kept = field(default_factory=Kept)
    empty: Kept = field(default_factory=Kept)
    repeating: Kept = field(default_factory=Kept)
    errors: Kept = field(default_factory=Kept)
    every: list[Sample] = field(default_factory=list)
    symptoms: Symptoms = field(default_factory=Symptoms)
    texts: Counter[str] = field(default_factory=Counter)
    empties: int = 0
    repeats: int = 0

    def add(self, row: Mapping[str, Any]) -> None:
        """Adds a row of a predictions file."""
        digest = hashlib.sha256(json.dumps(row, sort_keys=True).encode()).digest()
        self.count += 1
        self.symptoms.add_row(row)
        if "error" in row:
            self.failed += 1
            self.errors.add(0, digest, Sample(row, None, 0.0))
            return
        sample = _sample(row)
        self._count_lengths(row)
        self.random.add(0, digest, sample)
        if len(self.every) < MOST_ROWS:
            self.every.append(sample)
        if sample.score is not None:
            self.best.add(sample.score, digest, sample)
            self.worst.add(-sample.score, digest, sample)
        if sample.repeated:
            self.repeats += 1
            self.repeating.add(sample.repeated, digest, sample)
        if sample.best.strip():
            self.texts[sample.best] += 1
        else:
            self.empties += 1
            self.empty.add(0, digest, sample)

    @property
    def answered(self) -> int:
        """Number of rows that did not fail."""
        return self.count - self.failed

    @property
    def same_texts(self) -> list[tuple[str, int]]:
        """Returns the texts generated for several records, most frequent first, at most `SHOWN`."""
        return [(text, count) for text, count in self.texts.most_common(SHOWN) if count > 1]

    def _count_lengths(self, row: Mapping[str, Any]) -> None:
        texts = {"source": [row.get("source")], "reference": references_of(row), "generated": [best_text(row)]}
        for name, found in texts.items():
            for text in found:
                if text is not None:
                    self.lengths[name][len(squeezed(text))] += 1


def best_text(row: Mapping[str, Any]) -> str:
    """The best text of a row; empty if there is none."""
    return row["predictions"][0]["text"] if row["predictions"] else ""


def _sample(row: Mapping[str, Any]) -> Sample:
    text, references = best_text(row), references_of(row)
    score = 100 * nearest(text, references)[1] if references else None
    return Sample(row, score, repeated_share(SEGMENTERS["char"](normalized(text))))
