"""Draws replacement tokens from the generator for the discriminator: one for each label, and one that is never the
label."""

import numpy as np
from paddle import Tensor

from glm.cpu.arrays import by_rows, random_stream, view
from glm.models.ganlm.tokenization import PAD

CHUNK = 256  # ids whose probabilities are summed together first


def draw_tokens(logits: Tensor, labels: np.ndarray, *, temperature: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws from softmax(logits / temperature) twice; the batch has no padding.

    Args:
        logits: [n, V] of each label; overwritten.
        labels: [n].
        seed: the same seed draws the same, whatever the number of threads.

    Returns:
        [n] int64 each; of the second the label has no share.
    """
    numbers = logits.contiguous() if logits.place.is_cpu_place() else logits.cpu()
    points = np.random.Generator(random_stream(seed, 0)).random((len(labels), 2))
    x, r = np.empty(len(labels), np.int64), np.empty(len(labels), np.int64)

    def draw(block: np.ndarray, gold: np.ndarray, point: np.ndarray, first: np.ndarray, second: np.ndarray) -> None:
        if temperature != 1.0:
            block /= block.dtype.type(temperature)
        block[:, PAD] = -np.inf
        places = np.arange(len(block))
        of_gold = block[places, gold].copy()
        block[places, gold] = -np.inf
        # Without the label: stays accurate when the label has nearly all the probability.
        largest = block.max(axis=1, keepdims=True)
        block -= largest
        np.exp(block, out=block)
        second[:] = _chosen(block, point[:, 1])
        # The label's weight relative to the largest other logit; if that overflows, the label is drawn in any case.
        with np.errstate(over="ignore"):
            share = np.exp(np.minimum(of_gold.astype(np.float64) - largest[:, 0], 700.0))
        others = block.sum(axis=1, dtype=np.float64)
        is_gold = point[:, 0] * (share + others) < share
        rest = (point[:, 0] * (share + others) - share) / others  # uniform on [0, 1), given that it is another token
        first[:] = np.where(is_gold, gold, _chosen(block, np.clip(rest, 0.0, 1.0)))

    by_rows(draw, view(numbers), labels, points, x, r)
    return x, r


def _chosen(shares: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Returns the columns [rows] at which the cumulated weights [rows, V] reach the fraction `points` [rows] of their
    sum."""
    starts = np.arange(0, shares.shape[1], CHUNK)
    sums = np.add.reduceat(shares, starts, axis=1).astype(np.float64).cumsum(axis=1)
    goal = np.minimum(points * sums[:, -1], np.nextafter(sums[:, -1], 0))
    chunks = np.minimum((sums <= goal[:, None]).sum(axis=1), len(starts) - 1)
    chosen = np.empty(len(shares), np.int64)
    for row, chunk in enumerate(chunks.tolist()):
        before = sums[row, chunk - 1] if chunk else 0.0
        part = shares[row, chunk * CHUNK : (chunk + 1) * CHUNK].astype(np.float64)
        place = int((before + part.cumsum() <= goal[row]).sum())
        possible = np.flatnonzero(part)  # rounding must not select a token of probability 0
        chosen[row] = chunk * CHUNK + possible[np.searchsorted(possible, place).clip(max=len(possible) - 1)]
    return chosen
