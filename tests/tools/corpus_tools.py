"""Running text in memory, and what is counted of samples drawn from it."""

from collections.abc import Sequence

import numpy as np


class ListCorpus:
    """A `Corpus` of units given as lists of parts."""

    def __init__(self, units: Sequence[Sequence[Sequence[int]]]):
        self.units = [[np.asarray(part, np.int64) for part in unit] for unit in units]
        self._lengths = np.array([sum(map(len, unit)) for unit in self.units])
        self._ends = np.cumsum(self._lengths)
        self.tokens = int(self._ends[-1])

    def __len__(self) -> int:
        return len(self.units)

    def unit(self, number: int) -> list[np.ndarray]:
        return self.units[number]

    def at(self, token: int) -> int:
        return int(np.searchsorted(self._ends, token, side="right"))

    def lengths(self) -> np.ndarray:
        return self._lengths


def original_text(example, mask_ids: Sequence[int], blocked: int) -> list[int]:
    """The text that an example's blanks were made in, from Part A, labels and positions alone; [dBLOCK] is undone by
    the labels. Of a continuation it is Part A and the labels behind it."""
    spans = {}
    for place, block, label in zip(*example.target_position_ids.tolist(), example.labels.tolist(), strict=True):
        spans.setdefault(place, []).append((block, label))
    text = []
    for place, token in enumerate(example.source_ids.tolist()):
        if token in mask_ids:
            labels = [label for _, label in sorted(spans.pop(place))]
            text += labels
        else:
            text.append(token)
    assert not spans
    return text
