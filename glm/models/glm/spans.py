"""Spans that pretraining takes out of a text: lengths, places, and where sentences end. NumPy only.

Source: Du et al. 2022, section 2.1; the restriction of lengths and the rule of places as THUDM/GLM.
"""

import math
import re
from collections.abc import Sequence

import numpy as np

from glm.models.glm.tokenization import GLMSentencePieceTokenizer

Span = tuple[int, int]  # first place, and the one behind the last

MEAN_LENGTH, LONGEST = 3, 39  # of spans at token level
_WEIGHTS = np.array([MEAN_LENGTH**length / math.factorial(length) for length in range(1, LONGEST + 1)])
LENGTH_SHARES = _WEIGHTS / _WEIGHTS.sum()  # [39], of lengths 1, 2, ...: Poisson(3) without 0
_UP_TO = np.cumsum(LENGTH_SHARES)

LINE_BREAK = "<n>"  # cog-pretrain's piece for a line break
ENDS = re.compile("[.?!;:。？！；…\n]|<n>")  # characters in a piece that end a sentence
ENDS_OF_ORIGINAL = re.compile("[.?!;:。？！；…\n]")
DECIMAL = re.compile(r"(?<=\d)\.")


def span_lengths(total: int, random: np.random.Generator) -> list[int]:
    """Draws span lengths until they add up to at least `total`; one span at least."""
    lengths: list[int] = []
    reached = 0
    while not lengths or reached < total:
        drawn = np.minimum(np.searchsorted(_UP_TO, random.random(2 + total // MEAN_LENGTH), side="right"), LONGEST - 1)
        for length in (1 + drawn).tolist():
            lengths.append(length)
            reached += length
            if reached >= total:
                break
    return lengths


def fits(lengths: Sequence[int], size: int) -> bool:
    """Whether spans of these lengths fit into so many tokens with at least one token between any two."""
    return sum(lengths) + len(lengths) - 1 <= size


def places_bound(lengths: Sequence[int], size: int) -> int:
    """Number of values that each place drawn for `place_spans` may have, from 0 on."""
    return size - sum(lengths) - len(lengths) + 2


def place_spans(lengths: Sequence[int], places: Sequence[int], offset: int) -> list[Span]:
    """Places spans in text order so that they never touch.

    Args:
        lengths: lengths of the spans, in text order.
        places: ascending, one for each, below `places_bound`; they may be equal.
        offset: where the tokens begin that the spans lie in.
    """
    spans = []
    for length, place in zip(lengths, places, strict=True):
        spans.append((offset + place, offset + place + length))
        offset += length + 1
    return spans


def draw_spans(lengths: Sequence[int], size: int, offset: int, random: np.random.Generator) -> list[Span]:
    """Draws places and calls `place_spans`."""
    places = np.sort(random.integers(places_bound(lengths, size), size=len(lengths)))
    return place_spans(lengths, places.tolist(), offset)


class SentenceEnds:
    """Finds the tokens behind which a sentence ends.

    A piece ends one that holds `. ? ! ; : 。 ？ ！ ； …` or a line break; a dot behind a digit is none of them.

    Args:
        like_original: any dot ends a sentence, and the piece `<n>` none (THUDM/GLM's rule).
    """

    def __init__(self, tokenizer: GLMSentencePieceTokenizer, *, like_original: bool = False):
        model = tokenizer.sp_model
        pieces = [model.id_to_piece(number) for number in range(len(model))]
        if like_original:
            self._ends = np.array([bool(ENDS_OF_ORIGINAL.search(piece)) and piece != LINE_BREAK for piece in pieces])
            self._begins_with_dot = np.zeros(len(pieces), bool)
        else:
            self._ends = np.array([bool(ENDS.search(DECIMAL.sub("", piece))) for piece in pieces])
            self._begins_with_dot = np.array([self._is_dot(piece) for piece in pieces])
        self._is_digit = np.array([piece[-1:].isdecimal() for piece in pieces])

    @staticmethod
    def _is_dot(piece: str) -> bool:
        """Whether only its first dot makes it an end."""
        return piece.startswith(".") and not ENDS.search(DECIMAL.sub("", piece[1:]))

    def __call__(self, ids: np.ndarray) -> np.ndarray:
        """[n] ids -> [n] bool; command tokens end no sentence."""
        known = ids < len(self._ends)
        own = np.where(known, ids, 0)
        ends = self._ends[own] & known
        behind_digit = np.zeros(len(ids), bool)
        behind_digit[1:] = (self._is_digit[own] & known)[:-1]
        return ends & ~(self._begins_with_dot[own] & behind_digit)

    def sentences(self, ids: np.ndarray, start: int, stop: int) -> list[Span]:
        """Returns the sentences in a part of a text; what follows the last end is one too."""
        behind = start + 1 + np.flatnonzero(self(ids[start:stop]))
        bounds = [start, *behind.tolist()]
        if bounds[-1] < stop:
            bounds.append(stop)
        return list(zip(bounds[:-1], bounds[1:], strict=True))
