"""From examples to the padded batch a training step reads."""

from collections.abc import Sequence

import numpy as np

from glm.data.examples import pad_rows
from glm.models.glm.geometry import IGNORE_INDEX, BlankInfilling, Example

Row = list[Example]


def padded_width(tokens: int, multiple: int) -> int:
    """The width of a row that holds so many tokens: the next multiple, so that few shapes occur."""
    return -(-tokens // multiple) * multiple


class Collator:
    """Lays the examples of a batch out in rows: Part A, right behind it Part B, and padding at the row's end.

    Args:
        geometry: numbers the positions.
        pad_token_id: fills rows up; nobody sees it.
        multiple: of which the width of rows is.
        row_tokens: with it, short examples share rows of at most so many tokens (or the longest example's), each with
            positions of its own; without, each example has a row to itself.
    """

    def __init__(
        self, geometry: BlankInfilling, *, pad_token_id: int, multiple: int = 1, row_tokens: int | None = None
    ):
        self.geometry = geometry
        self.pad_token_id = pad_token_id
        self.multiple = multiple
        self.row_tokens = row_tokens

    def __call__(self, examples: Sequence[Example]) -> dict[str, np.ndarray]:
        """
        Returns:
            input_ids [B, L], position_ids [B, 2, L], labels [B, L] with -100 where there is no loss, all int64; and
            segments [B, E, 2], tokens of Part A and of Part B of each row's examples from left to right, 0 where a
            row has fewer. L is a multiple of `multiple`.
        """
        rows = [[example] for example in examples] if self.row_tokens is None else pack(examples, self.row_tokens)
        L = padded_width(max(sum(map(len, row)) for row in rows), self.multiple)
        positions = np.zeros((len(rows), 2, L), dtype=np.int64)
        segments = np.zeros((len(rows), max(map(len, rows)), 2), dtype=np.int64)
        for number, row in enumerate(rows):
            joined = np.concatenate([self._position_ids(example) for example in row], axis=1)
            positions[number, :, : joined.shape[1]] = joined
            segments[number, : len(row)] = [(len(example.source_ids), len(example.target_ids)) for example in row]
        return {
            "input_ids": pad_rows([_input_ids(row) for row in rows], L, self.pad_token_id),
            "position_ids": positions,
            "labels": pad_rows([_labels(row) for row in rows], L, IGNORE_INDEX),
            "segments": segments,
        }

    def _position_ids(self, example: Example) -> np.ndarray:
        """[2, tokens of the example]"""
        source = self.geometry.source_positions(len(example.source_ids))
        return np.concatenate([source, example.target_position_ids], axis=1)


def _input_ids(row: Row) -> np.ndarray:
    return np.concatenate([ids for example in row for ids in (example.source_ids, example.target_ids)])


def _labels(row: Row) -> np.ndarray:
    parts = [(np.full(len(example.source_ids), IGNORE_INDEX), example.labels) for example in row]
    return np.concatenate([labels for pair in parts for labels in pair])


def pack(examples: Sequence[Example], row_tokens: int) -> list[Row]:
    """As few evenly filled rows of at most `row_tokens` tokens (or the longest example's) as are found by giving each
    example, the longest first, to the emptiest row."""
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
        if max(filled) <= row_tokens:  # with a row for each example at the latest
            return rows
        count += 1
