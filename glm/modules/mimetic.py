"""Random weights with the structure that those of trained models are found to have.

Source: Trockman and Kolter 2023, "Mimetic Initialization of Self-Attention Layers". A head looks for what is like
itself, positions are waves, and what it finds passes on unchanged: a model begins by copying, which it would take most
of a short run to learn.
"""

import math

import numpy as np

LONGEST_WAVE = 100.0  # of a position table's sines, over 2 pi: positions nearby differ, and texts are short
LIKENESS = 0.5  # of queries to keys, see `MimeticDraws`


class MimeticDraws:
    """Draws the linears of attentions, in the order in which a model names them.

    Queries are keys in each head: its scores are LIKENESS times the states' products in a random subspace. The linear
    behind an attention turns its values' rotation back.

    Args:
        size: H.
        heads: N.
        noise: standard deviation of what is added to each weight.
        numbers: random numbers.
    """

    def __init__(self, size: int, heads: int, *, noise: float, numbers: np.random.Generator):
        self.size, self.heads, self.noise, self.numbers = size, heads, noise, numbers
        self._alike = self._rotation = np.empty(0)  # of the last queries and values that were drawn

    def queries_keys_values(self, shape: list[int]) -> np.ndarray:
        """Returns [H, 3H], side by side."""
        queries = self._new_queries()
        return self._with_noise([queries, queries, self._new_rotation()], shape)

    def queries(self, shape: list[int]) -> np.ndarray:
        """Returns [H, H], the queries of an attention whose keys and values come next."""
        return self._with_noise([self._new_queries()], shape)

    def keys_values(self, shape: list[int]) -> np.ndarray:
        """Returns [H, 2H] for the last queries, side by side."""
        return self._with_noise([self._alike, self._new_rotation()], shape)

    def output(self, shape: list[int]) -> np.ndarray:
        """Returns [H, H] for the last values."""
        return self._with_noise([self._rotation.T], shape)

    def _new_queries(self) -> np.ndarray:
        width = self.size // self.heads
        alike = [rotation(self.size, self.numbers)[:, :width] for _ in range(self.heads)]
        self._alike = math.sqrt(LIKENESS) * np.concatenate(alike, axis=1)
        return self._alike

    def _new_rotation(self) -> np.ndarray:
        self._rotation = rotation(self.size, self.numbers)
        return self._rotation

    def _with_noise(self, parts: list[np.ndarray], shape: list[int]) -> np.ndarray:
        return np.concatenate(parts, axis=1) + self.noise * self.numbers.standard_normal(shape)


def rotation(size: int, numbers: np.random.Generator) -> np.ndarray:
    """A random orthogonal matrix."""
    return np.linalg.qr(numbers.standard_normal((size, size)))[0]


def sinusoids(positions: int, size: int) -> np.ndarray:
    """Waves of one length for each pair of columns, sines and then cosines (Vaswani et al. 2017, section 3.5): a shift
    of positions is the same linear map everywhere. [positions, size]"""
    rates = LONGEST_WAVE ** (-np.arange(size // 2) / (size // 2))
    angles = np.arange(positions)[:, None] * rates  # [positions, size / 2]
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
