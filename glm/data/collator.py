"""Collates examples to the padded batch of a training step."""

from collections.abc import Sequence

import numpy as np

from glm.models.protocol import Example, Geometry, Sample

Row = list[Example]


def padded_width(tokens: int, multiple: int) -> int:
    """Rounds a row's width up to a multiple, so that few shapes occur."""
    return -(-tokens // multiple) * multiple


class Collator:
    """Arranges the examples of a batch in rows, which the family's geometry writes.

    Args:
        geometry: writes rows.
        pad_token_id: fills rows up; nobody sees it.
        multiple: the width of rows is a multiple of it.
        row_tokens: with it, short examples share rows of at most so many tokens (or the longest example's); without,
            each example has a row to itself.
    """

    def __init__(self, geometry: Geometry, *, pad_token_id: int, multiple: int = 1, row_tokens: int | None = None):
        self.geometry = geometry
        self.pad_token_id = pad_token_id
        self.multiple = multiple
        self.row_tokens = row_tokens

    def __call__(self, examples: Sequence[Example]) -> dict[str, np.ndarray]:
        """Collates examples, see `Geometry.collate`; the width is a multiple of `multiple`."""
        rows = [[example] for example in examples] if self.row_tokens is None else pack(examples, self.row_tokens)
        width = padded_width(max(sum(map(len, row)) for row in rows), self.multiple)
        return self.geometry.collate(rows, width, self.pad_token_id)


class SampleCollator(Collator):
    """As `Collator`, for samples of running text, each with one or more examples."""

    def __call__(self, examples: Sequence[Sample]) -> dict[str, np.ndarray]:
        """Collates samples."""
        return super().__call__([example for sample in examples for example in sample.examples])


def pack(examples: Sequence[Example], row_tokens: int) -> list[Row]:
    """Packs examples into few, evenly filled rows of at most `row_tokens` tokens (or the longest example's): each,
    longest first, goes to the emptiest row."""
    longest_first = sorted(examples, key=len, reverse=True)
    row_tokens = max(row_tokens, len(longest_first[0]))
    count = -(-sum(map(len, examples)) // row_tokens)
    while True:
        rows: list[Row] = [[] for _ in range(count)]
        filled = [0] * count
        for example in longest_first:
            emptiest = filled.index(min(filled))
            rows[emptiest].append(example)
            filled[emptiest] += len(example)
        if max(filled) <= row_tokens:  # true at the latest when each example has a row
            return rows
        count += 1
