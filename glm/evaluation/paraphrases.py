"""Measures how paraphrases differ from their sources and from each other, without references.

Percentages, means over sources, of tokens as BERT splits text (`char`):

- `copied n-grams (char)`, n 2 and 4: the share of the best output's n-grams that its source holds.
- `self-bleu-4 (char)`: BLEU-4 of an output with the others of its source as references (Zhu et al. 2018, "Texygen"),
  mean over the outputs; smoothed as `glm.evaluation.bleu.sentence_bleu`. Sources with one output are left out.
- `distinct-n of outputs (char)`, n 1 and 2: the distinct n-grams of all outputs of a source in their number (Li et al.
  2016, there over a corpus). Sources with one output are left out.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from glm.evaluation.bleu import bleu_counts, sentence_bleu
from glm.evaluation.rouge import ngrams
from glm.evaluation.segmentation import SEGMENTERS, normalized, segmenter_signature

COPIED_ORDERS, DISTINCT_ORDERS = (2, 4), (1, 2)


class Paraphrases:
    """Collects figures source by source."""

    def __init__(self) -> None:
        self._values: dict[str, list[float]] = {}

    def add(self, source: str, outputs: Sequence[str]) -> None:
        """Adds a source and its outputs, best first; ignores a source without outputs."""
        if not outputs:
            return
        there, *texts = (_tokens(text) for text in (source, *outputs))
        for n in COPIED_ORDERS:
            self._note(f"copied {n}-grams (char)", _share_held(texts[0], there, n))
        if len(texts) < 2:
            return
        scores = [
            sentence_bleu(bleu_counts(text, [*texts[:place], *texts[place + 1 :]])) for place, text in enumerate(texts)
        ]
        self._note("self-bleu-4 (char)", float(np.mean(scores)))
        for n in DISTINCT_ORDERS:
            grams = [gram for text in texts for gram in _grams(text, n)]
            self._note(f"distinct-{n} of outputs (char)", len(set(grams)) / len(grams) if grams else 0.0)

    def add_row(self, row: Mapping[str, Any]) -> None:
        """Adds a row of `predict.py`."""
        self.add(row["source"], [prediction["text"] for prediction in row["predictions"]])

    def figures(self) -> dict[str, float]:
        """Returns the figures by name; empty without a source."""
        return {name: 100 * float(np.mean(values)) for name, values in self._values.items()}

    def signatures(self) -> dict[str, str]:
        """Returns the signature of each figure, see `glm.evaluation.metrics.signatures`."""
        return {name: f"{segmenter_signature('char')}|avg:sources|empty:0" for name in self._values}

    def _note(self, name: str, value: float) -> None:
        self._values.setdefault(name, []).append(value)


def _tokens(text: str) -> list[str]:
    return SEGMENTERS["char"](normalized(text))


def _grams(tokens: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(tokens[place : place + n]) for place in range(len(tokens) - n + 1)]


def _share_held(tokens: Sequence[str], there: Sequence[str], n: int) -> float:
    """Returns the share of a text's n-grams, with repetition, that another text contains; 0 without an n-gram."""
    grams, held = _grams(tokens, n), set(ngrams(there, n))
    return sum(gram in held for gram in grams) / len(grams) if grams else 0.0
