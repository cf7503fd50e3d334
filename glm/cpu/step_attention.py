"""The key/value cache of one layer on a CPU, and the attention of a decoding step to it, compiled by Numba.

Paddle's operators copy keys, scores and results on the way, and score every slot for every row. Here each head makes
one pass over the prompt, scoring all rows while a key is in the processor's cache, and over the slots that a row sees.
"""

from collections.abc import Sequence

import numpy as np
import paddle
from numba import njit, prange
from paddle import Tensor, nn

from glm.cpu.arrays import view, zeros_apart
from glm.cpu.loops import OPTIONS, exponentiate, use_own_threads
from glm.cpu.vectors import AHEAD, LANES, dot_products, head_mixtures, rows_together, vectors_of


class CompiledLayerCache:
    """A `LayerCache` of arrays: `prompt` [B, N, L, D], written by prefill, and `slots` [B, N, C, D], written by steps.

    Args:
        prompt: keys and values, float32, of a head size that `is_compiled_for` accepts.
    """

    def __init__(self, prompt: tuple[np.ndarray, np.ndarray]):
        self.prompt = prompt
        self.slots: tuple[np.ndarray, np.ndarray] | None = None

    @classmethod
    def of_prompts(cls, projected: Tensor, lengths: Sequence[int], num_heads: int) -> "CompiledLayerCache":
        """See `LayerCache.of_prompts`."""
        table = view(projected.contiguous()).reshape(len(projected), 3, num_heads, -1)
        return cls(_side_by_side(table[:, 1:], lengths))

    @classmethod
    def of_pairs(cls, pairs: Tensor, lengths: Sequence[int], num_heads: int) -> "CompiledLayerCache":
        """See `LayerCache.of_pairs`."""
        table = view(pairs.contiguous()).reshape(len(pairs), 2, num_heads, -1)
        return cls(_side_by_side(table, lengths))

    @staticmethod
    def seen_by(
        lengths: np.ndarray, width: int, ancestors: np.ndarray, capacity: int, num_heads: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns what `attend` needs to know of who sees what: the prompts' lengths [B], and `paths_of` the slots."""
        return lengths, *paths_of(ancestors)

    def attend(self, attention: nn.Layer, projected: Tensor, seen: tuple[np.ndarray, ...], start: int) -> Tensor:
        """See `LayerCache.attend`."""
        B, R, _ = projected.shape
        _, N, _, D = self.prompt[0].shape
        table = view(projected.contiguous()).reshape(B, R, 3, N, D)
        context = paddle.empty([B * R, N * D])
        use_own_threads()
        _attend(table, *self.prompt, *self.slots, start, *seen, view(context).reshape(B, R, N, D))
        return context

    def look(self, attention: nn.Layer, queries: Tensor, seen: tuple[np.ndarray, ...]) -> Tensor:
        """See `LayerCache.look`."""
        B, R, H = queries.shape
        _, N, _, D = self.prompt[0].shape
        context = paddle.empty([B * R, H])
        tables = (view(part.contiguous()).reshape(B, R, N, D) for part in (queries, context))
        use_own_threads()
        _look(next(tables), *self.prompt, seen[0], next(tables), np.float32(D**-0.5), vectors_of(D))
        return context

    def keep_slots(self, used: np.ndarray, capacity: int) -> None:
        """See `LayerCache.keep_slots`."""
        B, N, _, D = self.prompt[0].shape
        roomy = np.zeros((2, B, N, capacity, D), dtype=np.float32)
        if used.shape[1]:
            for new, old in zip(roomy, self.slots, strict=True):
                new[:, :, : used.shape[1]] = np.take_along_axis(old, used[:, None, :, None], axis=2)
        self.slots = tuple(roomy)

    def keep(self, examples: Tensor, width: int) -> None:
        """See `LayerCache.keep`."""
        places = examples.numpy()
        self.prompt = tuple(part[places, :, :width] for part in self.prompt)
        if self.slots is not None:
            self.slots = tuple(part[places] for part in self.slots)

    def widen(self, width: int) -> None:
        """See `LayerCache.widen`."""
        self.prompt = tuple(_wide(part, width) for part in self.prompt)

    def replace(self, places: Sequence[int], other: "CompiledLayerCache") -> None:
        """See `LayerCache.replace`."""
        for mine, theirs in zip(self.prompt, other.prompt, strict=True):
            mine[places, :, : theirs.shape[2]] = theirs

    def append(self, other: "CompiledLayerCache", width: int) -> None:
        """See `LayerCache.append`."""
        self.prompt = tuple(
            np.concatenate([_wide(mine, width), _wide(theirs, width)])
            for mine, theirs in zip(self.prompt, other.prompt, strict=True)
        )
        if self.slots is not None:
            n = len(other.prompt[0])
            self.slots = tuple(
                np.concatenate([part, np.zeros((n, *part.shape[1:]), part.dtype)]) for part in self.slots
            )


def _wide(part: np.ndarray, width: int) -> np.ndarray:
    """Pads [B, N, length, D] with zeros to [B, N, width, D]."""
    return np.pad(part, [(0, 0), (0, 0), (0, width - part.shape[2]), (0, 0)])


def _side_by_side(table: np.ndarray, lengths: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Splits keys and values [n, 2, N, D] of concatenated prompts into [B, N, longest, D] each, padded with zeros."""
    _, _, N, D = table.shape
    prompt = zeros_apart((2, len(lengths), N, max(lengths), D))
    for place, (end, length) in enumerate(zip(np.cumsum(lengths), lengths, strict=True)):
        prompt[:, place, :, :length] = table[end - length : end].transpose(1, 2, 0, 3)
    return tuple(prompt)


def paths_of(ancestors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lists the slots that each row sees.

    Args:
        ancestors: [B, R, slots] bool, True = the row sees the slot.

    Returns:
        [B, R, most] int64, the slots of each row, left-aligned, and [B, R], how many there are.
    """
    counts = ancestors.sum(axis=2)
    paths = np.zeros((*counts.shape, counts.max()), dtype=np.int64)
    paths[np.arange(paths.shape[2]) < counts[:, :, None]] = np.nonzero(ancestors)[2]
    return paths, counts


_score_prompt, _mix_prompt = dot_products(5, 4), head_mixtures(ahead=AHEAD)
_rows_together = njit(rows_together, **OPTIONS)


def _attend(projected, keys, values, slot_keys, slot_values, start, lengths, paths, counts, context) -> None:
    """Stores the new keys and values in the slots from `start` on, and writes the attention of each row to `context`.

    Args:
        projected: [B, R, 3, N, D]: queries, keys, values.
        keys, values: [B, N, L, D], of the prompts.
        slot_keys, slot_values: [B, N, C, D].
        context: [B, R, N, D], to write to.
    """
    vectors, scale = vectors_of(projected.shape[4]), np.float32(projected.shape[4] ** -0.5)
    arrays = projected, keys, values, slot_keys, slot_values
    _attend_heads(*arrays, start, lengths, paths, counts, context, scale, vectors)


@njit(parallel=True, **OPTIONS)
def _attend_heads(
    projected, keys, values, slot_keys, slot_values, start, lengths, paths, counts, context, scale, vectors
):
    B, R, _, N, _ = projected.shape
    D, together = LANES * len(vectors), _rows_together(vectors)
    for task in prange(B * N):
        b, n = task % B, task // B  # threads take heads of all examples, long and short
        length = lengths[b]
        rows = np.empty((R, D), np.float32)
        for r in range(R):
            for d in range(D):
                rows[r, d] = projected[b, r, 0, n, d] * scale
                slot_keys[b, n, start + r, d] = projected[b, r, 1, n, d]
                slot_values[b, n, start + r, d] = projected[b, r, 2, n, d]
        scores = np.empty((R, length + paths.shape[2]), np.float32)
        for key in range(0, length, 4):
            for r in range(0, R, 5):
                _score_prompt(rows, keys[b, n, :length], scores, r, key)
        mixed = np.empty((R, D), np.float32)
        totals = np.empty(R, np.float32)
        for r in range(R):
            path = paths[b, r][: counts[b, r]]
            _score_path(rows[r], slot_keys[b, n], path, scores[r][length:], vectors)
            _, totals[r] = exponentiate(scores[r][: length + len(path)])
        for r in range(0, R, together):
            _mix_prompt(scores, values[b, n], length, mixed, r, vectors)
        for r in range(R):
            path = paths[b, r][: counts[b, r]]
            _mix_path(scores[r][length:], slot_values[b, n], path, mixed[r], vectors)
        for r in range(R):
            for d in range(D):
                context[b, r, n, d] = mixed[r, d] / totals[r]


@njit(parallel=True, **OPTIONS)
def _look(queries, keys, values, lengths, context, scale, vectors):
    """Writes the attention of queries [B, R, N, D] to all keys and values [B, N, L, D] to `context` [B, R, N, D]."""
    B, R, N, _ = queries.shape
    D, together = LANES * len(vectors), _rows_together(vectors)
    for task in prange(B * N):
        b, n = task % B, task // B
        length = lengths[b]
        rows = np.empty((R, D), np.float32)
        for r in range(R):
            for d in range(D):
                rows[r, d] = queries[b, r, n, d] * scale
        scores = np.empty((R, length), np.float32)
        for key in range(0, length, 4):
            for r in range(0, R, 5):
                _score_prompt(rows, keys[b, n, :length], scores, r, key)
        mixed = np.empty((R, D), np.float32)
        totals = np.empty(R, np.float32)
        for r in range(R):
            _, totals[r] = exponentiate(scores[r])
        for r in range(0, R, together):
            _mix_prompt(scores, values[b, n], length, mixed, r, vectors)
        for r in range(R):
            for d in range(D):
                context[b, r, n, d] = mixed[r, d] / totals[r]


@njit(**OPTIONS)
def _score_path(row, keys, path, scores, vectors):
    for i in range(len(path)):
        score = np.float32(0)
        for d in range(LANES * len(vectors)):
            score += row[d] * keys[path[i], d]
        scores[i] = score


@njit(**OPTIONS)
def _mix_path(shares, values, path, mixed, vectors):
    D, whole = LANES * len(vectors), len(path) // 4 * 4
    for i in range(0, whole, 4):
        s0, s1, s2, s3 = shares[i], shares[i + 1], shares[i + 2], shares[i + 3]
        v0, v1, v2, v3 = values[path[i]], values[path[i + 1]], values[path[i + 2]], values[path[i + 3]]
        for d in range(D):
            mixed[d] += s0 * v0[d] + s1 * v1[d] + s2 * v2[d] + s3 * v3[d]
    for i in range(whole, len(path)):
        share, v = shares[i], values[path[i]]
        for d in range(D):
            mixed[d] += share * v[d]
