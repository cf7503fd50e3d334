"""Counts the statistics of one record.

Every figure but distinct-n is a function of the sums of counts, so a corpus, a bucket and a resample are scored alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from glm.evaluation.bleu import BLEU_COUNTS, bleu_counts
from glm.evaluation.rouge import best_rouge, ngrams
from glm.evaluation.segmentation import SEGMENTERS, normalized, squeezed

REPEATED_ORDER = 4  # the n of repeated n-grams, as seq-rep-4 of Welleck et al. 2020

COUNTS = (
    *(f"{name} ({segmenter})" for segmenter in SEGMENTERS for name in BLEU_COUNTS),
    *("records", "characters", "exact matches", "empty predictions", "empty references", "answers", "answer leaks"),
)
"""Names of the whole numbers, which are summed."""

VALUES = (
    *(f"{name} ({segmenter})" for segmenter in SEGMENTERS for name in ("rouge-1", "rouge-2", "rouge-l")),
    f"repeated {REPEATED_ORDER}-grams (char)",
)
"""Names of the values from 0 to 1, whose mean over records is the figure."""


@dataclass(frozen=True)
class Pair:
    """A prediction and what it is scored against.

    Args:
        prediction: the generated text.
        references: the expected texts, at least one.
        source: what it was generated from, if known.
        answer: the answer that a generated question must not give away, if there is one.

    Raises:
        ValueError: there is no reference.
    """

    prediction: str
    references: tuple[str, ...]
    source: str | None = None
    answer: str | None = None

    def __post_init__(self):
        if not self.references:
            raise ValueError("a prediction without reference cannot be scored")


@dataclass(frozen=True)
class Statistics:
    """Statistics of one pair: `counts` (int64, see `COUNTS`), `values` (float64, see `VALUES`), and its tokens by
    segmenter."""

    counts: np.ndarray
    values: np.ndarray
    tokens: dict[str, list[str]]


def statistics(pair: Pair) -> Statistics:
    """Counts a pair. An empty prediction has length 0 and counts 0 in every value; so does an empty reference."""
    prediction, references = normalized(pair.prediction), [normalized(text) for text in pair.references]
    tokens = {name: segment(prediction) for name, segment in SEGMENTERS.items()}
    counts: list[int] = []
    values: list[float] = []
    for name, segment in SEGMENTERS.items():
        expected = [segment(reference) for reference in references]
        counts += bleu_counts(tokens[name], expected)
        values += best_rouge(tokens[name], expected)
    values.append(repeated_share(tokens["char"]))
    return Statistics(np.array(counts + _texts(pair)), np.array(values), tokens)


def _texts(pair: Pair) -> list[int]:
    """Returns the counts that compare whole texts."""
    prediction, answer = squeezed(pair.prediction), squeezed(pair.answer or "")
    references = {squeezed(reference) for reference in pair.references}
    return [
        1,
        len(prediction),
        int(bool(prediction) and prediction in references),
        int(not prediction),
        int(references == {""}),
        int(bool(answer)),
        int(bool(answer) and answer in prediction),
    ]


def repeated_share(tokens: Sequence[str]) -> float:
    """Returns the share of n-grams that occurred earlier in the text, 0 to 1; 0 for a text without an n-gram."""
    count = len(tokens) - REPEATED_ORDER + 1
    return 1 - len(ngrams(tokens, REPEATED_ORDER)) / count if count > 0 else 0.0
