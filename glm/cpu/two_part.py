"""Two-part attention on a CPU for training and prefill, compiled by Numba.

Each thread works on one head of one example. It copies what it reads often into buffers that stay in the processor's
cache, and holds the scores of one block of queries at a time. The backward pass computes the scores again, one panel
of keys at a time.

Loops over one row are functions of their own and get a contiguous row, `table[r][:n]`: Numba takes `table[r, :n]` for
a strided one and does not vectorise the loop.
"""

import numpy as np
import paddle
from numba import njit, prange
from paddle import Tensor
from paddle.autograd import PyLayer

from glm.cpu.arrays import (
    MIN_PARALLEL_SIZE,
    draw_kept,
    draw_seed,
    empty,
    on_threads,
    pop_saved,
    random_stream,
    rescale,
    view,
)
from glm.cpu.loops import OPTIONS, exponential, exponentiate, use_own_threads
from glm.cpu.vectors import LANES, head_mixtures, mixtures, rows_together, vectors_of

BLOCK = 60  # queries whose scores are held at once
PANEL = 64  # keys that all queries of a block are multiplied by at once; they stay in the L1 cache
GAP = LANES  # padding between rows of scores: rows a power of two apart would compete for the same cache sets
ONE = np.float32(1)
_mix, _mix_more = mixtures(5, PANEL), head_mixtures(add=True)
_rows_together = njit(rows_together, **OPTIONS)


class CompiledTwoPartAttention(PyLayer):
    """`glm.modules.attention.TwoPartAttention` for float32 and head sizes that `is_compiled_for` accepts."""

    @staticmethod
    def forward(ctx, projected: Tensor, spans: np.ndarray, virtual: int, num_heads: int, dropout: float) -> Tensor:
        """Computes the attention of all examples of a batch.

        Args:
            projected: [n, 3H]: queries, keys, values.
            spans: [E, 3] int64: the start of Part A, the start of Part B and the end of each example.
            virtual: virtual tokens at the start of each Part A, which are keys and values only.
            num_heads: N.
            dropout: probability that an attention weight is set to 0.

        Returns:
            [n, H]
        """
        kept, starts = _draw(spans, virtual, num_heads, dropout)
        context = empty([len(projected), projected.shape[1] // 3])
        logs = np.empty((num_heads, len(projected)), np.float32)
        scale = np.float32(rescale(dropout))
        use_own_threads()
        _forward(
            view(projected), spans, virtual, kept, starts, scale, view(context), logs, *size_of(context, num_heads)
        )
        ctx.save_for_backward(projected, context)
        ctx.rest = spans, virtual, kept, starts, scale, logs
        return context

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        """[n, H] -> [n, 3H]"""
        projected, context = pop_saved(ctx)
        *rest, logs = ctx.rest
        ctx.rest = None
        d_projected = paddle.empty_like(projected)
        use_own_threads()
        tables = view(context), logs, view(grad.contiguous()), view(d_projected)
        _backward(view(projected), *rest, *tables, *size_of(context, len(logs)))
        return d_projected


def size_of(context: Tensor, num_heads: int) -> tuple[tuple[int, ...], np.float32]:
    """Returns the vectors of a head and the scale of the scores, for a context [n, H]."""
    head_size = context.shape[1] // num_heads
    return vectors_of(head_size), np.float32(head_size**-0.5)


def _draw(spans: np.ndarray, virtual: int, num_heads: int, dropout: float) -> tuple[np.ndarray, np.ndarray]:
    """Draws which attention weights dropout keeps.

    Returns:
        [scores] bool: for each example and head the rows of Part A (S long, without virtual tokens), then those of
        Part B (L long); empty without dropout. [E, N] int64: where the rows of an example and head start.
    """
    S, L = spans[:, 1] - spans[:, 0], spans[:, 2] - spans[:, 0]
    sizes = np.repeat((S - virtual) * S + (L - S) * L, num_heads)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    if not dropout:
        return np.empty(0, bool), starts[:-1].reshape(-1, num_heads)
    kept, seed = np.empty(starts[-1], bool), draw_seed()

    def draw(number: int) -> None:
        kept[starts[number] : starts[number + 1]] = draw_kept(random_stream(seed, number), (sizes[number],), dropout)

    on_threads(draw, range(len(sizes)), parallel=len(kept) >= MIN_PARALLEL_SIZE)
    return kept, starts[:-1].reshape(-1, num_heads)


@njit(inline="always", **OPTIONS)
def _seen(i, S):
    """Returns how many keys query i sees: all of Part A, or those up to its own."""
    return S if i < S else i + 1


@njit(inline="always", **OPTIONS)
def _row_start(i, S, L, virtual):
    """Returns where the scores of query i start among those of an example and head."""
    return (i - virtual) * S if i < S else (S - virtual) * S + (i - S) * L


@njit(**OPTIONS)
def _scale(row, factor, out, vectors):
    for d in range(LANES * len(vectors)):
        out[d] = row[d] * factor


@njit(**OPTIONS)
def head_of(table, column, factor, vectors):
    """Copies a head's columns out of a table [L, at least column + D]: [L, D], times a factor."""
    D = LANES * len(vectors)
    part = np.empty((len(table), D), np.float32)
    for i in range(len(table)):
        _scale(table[i][column : column + D], factor, part[i], vectors)
    return part


@njit(**OPTIONS)
def put_head(part, factor, table, column, vectors):
    """Writes a head's [L, D], times a factor, into its columns of a table."""
    for i in range(len(part)):
        _scale(part[i], factor, table[i][column : column + LANES * len(vectors)], vectors)


@njit(**OPTIONS)
def turned(table):
    """Transposes [L, D] into panels [panels, D, PANEL] of PANEL rows each, zero behind the last row."""
    L, D = table.shape
    panels = np.zeros(((L + PANEL - 1) // PANEL, D, PANEL), np.float32)
    for i in range(0, L, 16):  # one cache line of the result at a time
        for d in range(D):
            for k in range(i, min(i + 16, L)):
                panels[k // PANEL, d, k % PANEL] = table[k, d]
    return panels


@njit(**OPTIONS)
def multiply_panel(rows, panel, products, vectors):
    """Multiplies rows [r, D] by a transposed panel [D, PANEL], into products [r, at least PANEL]."""
    for r in range(0, len(rows), 5):
        _mix(rows, panel, LANES * len(vectors), products, r)


@njit(**OPTIONS)
def add_mixed(shares, values, sums, vectors):
    """Adds shares [r, at least v] times values [v, D] to sums [r, D]."""
    for r in range(0, len(sums), _rows_together(vectors)):
        _mix_more(shares, values, len(values), sums, r, vectors)


@njit(**OPTIONS)
def product_of_rows(a, b, vectors):
    total = np.float32(0)
    for d in range(LANES * len(vectors)):
        total += a[d] * b[d]
    return total


@njit(**OPTIONS)
def differentiate(scores, d_shares, log, slope):
    """Turns scores into attention weights (shares), and gradients of shares into gradients of scores, in place."""
    for key in range(len(scores)):
        scores[key] = exponential(scores[key] - log)
        d_shares[key] = scores[key] * (d_shares[key] - slope)


@njit(**OPTIONS)
def differentiate_kept(scores, d_shares, log, slope, kept, scale):
    """Like `differentiate`, with dropout: scores become the shares after dropout."""
    for key in range(len(scores)):
        share, factor = exponential(scores[key] - log), kept[key] * scale
        scores[key] = share * factor
        d_shares[key] = share * (d_shares[key] * factor - slope)


@njit(**OPTIONS)
def drop(shares, kept):
    """Sets to 0 the shares that dropout does not keep, in place."""
    for key in range(len(shares)):
        shares[key] *= kept[key]


@njit(parallel=True, **OPTIONS)
def _forward(projected, spans, virtual, kept, starts, scale, context, logs, vectors, query_scale):
    N, H, E, D = len(logs), context.shape[1], len(spans), LANES * len(vectors)
    for task in prange(E * N):
        e, h = task % E, task // E
        start, middle, end = spans[e]
        L, S, column = end - start, middle - start, h * D
        own = projected[start:end]
        query, values = head_of(own, column, query_scale, vectors), head_of(own, 2 * H + column, ONE, vectors)
        keys = turned(head_of(own, H + column, ONE, vectors))
        scores = np.empty((BLOCK, len(keys) * PANEL + GAP), np.float32)
        mixed = np.empty((BLOCK, D), np.float32)
        totals = np.empty(BLOCK, np.float32)
        for first in range(virtual, L, BLOCK):
            count = min(BLOCK, L - first)
            limit = _seen(first + count - 1, S)
            for key in range(0, limit, PANEL):
                multiply_panel(query[first : first + count], keys[key // PANEL], scores[:count, key:], vectors)
            for r in range(count):
                seen = _seen(first + r, S)
                largest, totals[r] = exponentiate(scores[r][:seen])
                scores[r, seen:limit] = 0
                logs[h, start + first + r] = largest + np.log(totals[r])
                if len(kept):
                    place = starts[e, h] + _row_start(first + r, S, L, virtual)
                    drop(scores[r][:seen], kept[place : place + seen])
            mixed[:] = 0
            for key in range(0, limit, PANEL):
                add_mixed(scores[:count, key:], values[key : min(key + PANEL, limit)], mixed[:count], vectors)
            for r in range(count):
                row = context[start + first + r][column : column + D]
                _scale(mixed[r], scale / totals[r], row, vectors)


@njit(parallel=True, **OPTIONS)
def _backward(
    projected, spans, virtual, kept, starts, scale, context, logs, d_context, d_projected, vectors, query_scale
):
    N, H, E, D = len(logs), context.shape[1], len(spans), LANES * len(vectors)
    for task in prange(E * N):
        e, h = task % E, task // E
        start, middle, end = spans[e]
        L, S, column = end - start, middle - start, h * D
        own, d_own = projected[start:end], d_projected[start:end]
        query, keys = head_of(own, column, query_scale, vectors), head_of(own, H + column, ONE, vectors)
        turned_keys, turned_values = turned(keys), turned(head_of(own, 2 * H + column, ONE, vectors))
        d_out = head_of(d_context[start:end], column, ONE, vectors)
        d_keys, d_values = np.zeros((L, D), np.float32), np.zeros((L, D), np.float32)
        shares, d_scores = np.empty((BLOCK, PANEL + GAP), np.float32), np.empty((BLOCK, PANEL + GAP), np.float32)
        d_query, slopes = np.empty((BLOCK, D), np.float32), np.empty(BLOCK, np.float32)
        for first in range(virtual, L, BLOCK):
            count = min(BLOCK, L - first)
            limit = _seen(first + count - 1, S)
            own_query, own_d_out = query[first : first + count], d_out[first : first + count]
            for r in range(count):
                slopes[r] = product_of_rows(own_d_out[r], context[start + first + r][column : column + D], vectors)
            d_query[:] = 0
            for key in range(0, limit, PANEL):
                end_key = min(key + PANEL, limit)
                multiply_panel(own_query, turned_keys[key // PANEL], shares[:count], vectors)
                multiply_panel(own_d_out, turned_values[key // PANEL], d_scores[:count], vectors)
                for r in range(count):
                    seen = min(max(_seen(first + r, S) - key, 0), PANEL)
                    row, d_row, log = shares[r][:seen], d_scores[r][:seen], logs[h, start + first + r]
                    if len(kept):
                        place = starts[e, h] + _row_start(first + r, S, L, virtual) + key
                        differentiate_kept(row, d_row, log, slopes[r], kept[place : place + seen], scale)
                    else:
                        differentiate(row, d_row, log, slopes[r])
                    shares[r, seen:PANEL] = 0
                    d_scores[r, seen:PANEL] = 0
                add_mixed(d_scores[:count], keys[key:end_key], d_query[:count], vectors)
                add_mixed(shares[:count].T, own_d_out, d_values[key:end_key], vectors)
                add_mixed(d_scores[:count].T, own_query, d_keys[key:end_key], vectors)
            put_head(d_query[:count], query_scale, d_own[first : first + count], column, vectors)
        d_own[:virtual, column : column + D] = 0
        put_head(d_keys, ONE, d_own, H + column, vectors)
        put_head(d_values, ONE, d_own, 2 * H + column, vectors)
