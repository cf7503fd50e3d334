"""Attention of every query to all keys on a CPU, with a bias by distance, compiled by Numba.

Like `glm.cpu.two_part`, but queries and keys come from two tables. The biases of a query's keys are neighbours in the
head's row of biases, one place further to the left for each next query.
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
    on_threads,
    pop_saved,
    random_stream,
    rescale,
    tensor_of,
    view,
)
from glm.cpu.loops import OPTIONS, exponentiate, use_own_threads
from glm.cpu.two_part import (
    BLOCK,
    GAP,
    ONE,
    PANEL,
    add_mixed,
    differentiate,
    differentiate_kept,
    drop,
    head_of,
    multiply_panel,
    product_of_rows,
    put_head,
    size_of,
    turned,
)
from glm.cpu.vectors import LANES


class CompiledPairedAttention(PyLayer):
    """`glm.modules.paired.PairedAttention` for float32 and head sizes that `is_compiled_for` accepts."""

    @staticmethod
    def forward(ctx, queries: Tensor, pairs: Tensor, bias: Tensor, spans, num_heads: int, dropout: float) -> Tensor:
        """[n, H], [m, 2H] and [N, 2C + 1] (or [N, 0]), all contiguous -> [n, H]."""
        kept, starts = _draw(spans, num_heads, dropout)
        context = paddle.empty(queries.shape)
        logs = np.empty((num_heads, queries.shape[0]), np.float32)
        scale = np.float32(rescale(dropout))
        use_own_threads()
        tables = view(queries), view(pairs), view(bias)
        _forward(*tables, spans, kept, starts, scale, view(context), logs, *size_of(queries, num_heads))
        ctx.save_for_backward(queries, pairs, bias, context)
        ctx.rest = spans, kept, starts, scale, logs
        ctx.frozen = [part.stop_gradient for part in (queries, pairs, bias)]
        return context

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        """[n, H] -> [n, H], [m, 2H], [N, 2C + 1]"""
        queries, pairs, bias, context = pop_saved(ctx)
        *rest, logs = ctx.rest
        ctx.rest = None
        d_queries, d_pairs = paddle.empty_like(queries), paddle.empty_like(pairs)
        d_bias = np.zeros((len(rest[0]), *bias.shape), np.float32)  # one for each example
        use_own_threads()
        tables = view(queries), view(pairs), view(bias)
        gradients = view(d_queries), view(d_pairs), d_bias
        _backward(
            *tables, *rest, view(context), logs, view(grad.contiguous()), *gradients, size_of(queries, len(logs))
        )
        found = d_queries, d_pairs, tensor_of(d_bias.sum(axis=0))
        return tuple(None if frozen else part for frozen, part in zip(ctx.frozen, found, strict=True))


def _draw(spans: np.ndarray, num_heads: int, dropout: float) -> tuple[np.ndarray, np.ndarray]:
    """Draws which attention weights dropout keeps.

    Returns:
        [scores] bool: for each example and head one row per query; empty without dropout. [E, N] int64: where the rows
        of an example and head start.
    """
    sizes = np.repeat((spans[:, 1] - spans[:, 0]) * (spans[:, 3] - spans[:, 2]), num_heads)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    if not dropout:
        return np.empty(0, bool), starts[:-1].reshape(-1, num_heads)
    kept, seed = np.empty(starts[-1], bool), draw_seed()

    def draw(number: int) -> None:
        kept[starts[number] : starts[number + 1]] = draw_kept(random_stream(seed, number), (sizes[number],), dropout)

    on_threads(draw, range(len(sizes)), parallel=len(kept) >= MIN_PARALLEL_SIZE)
    return kept, starts[:-1].reshape(-1, num_heads)


@njit(**OPTIONS)
def _add_row(row, addend):
    for i in range(len(row)):
        row[i] += addend[i]


@njit(parallel=True, **OPTIONS)
def _forward(queries, pairs, bias, spans, kept, starts, scale, context, logs, vectors, query_scale):
    N, H, E, D = len(logs), queries.shape[1], len(spans), LANES * len(vectors)
    centre = bias.shape[1] // 2
    for task in prange(E * N):
        e, h = task % E, task // E
        first_query, behind, first_key, last = spans[e]
        Q, K, column = behind - first_query, last - first_key, h * D
        query = head_of(queries[first_query:behind], column, query_scale, vectors)
        values = head_of(pairs[first_key:last], H + column, ONE, vectors)
        keys = turned(head_of(pairs[first_key:last], column, ONE, vectors))
        scores = np.empty((BLOCK, len(keys) * PANEL + GAP), np.float32)
        mixed = np.empty((BLOCK, D), np.float32)
        totals = np.empty(BLOCK, np.float32)
        for first in range(0, Q, BLOCK):
            count = min(BLOCK, Q - first)
            for key in range(0, K, PANEL):
                multiply_panel(query[first : first + count], keys[key // PANEL], scores[:count, key:], vectors)
            for r in range(count):
                if bias.shape[1]:
                    _add_row(scores[r][:K], bias[h][centre - first - r : centre - first - r + K])
                largest, totals[r] = exponentiate(scores[r][:K])
                logs[h, first_query + first + r] = largest + np.log(totals[r])
                if len(kept):
                    place = starts[e, h] + (first + r) * K
                    drop(scores[r][:K], kept[place : place + K])
            mixed[:] = 0
            for key in range(0, K, PANEL):
                add_mixed(scores[:count, key:], values[key : min(key + PANEL, K)], mixed[:count], vectors)
            for r in range(count):
                row = context[first_query + first + r][column : column + D]
                for d in range(D):
                    row[d] = mixed[r, d] * (scale / totals[r])


@njit(**OPTIONS)
def _differentiate(row, d_row, log, slope, bias, d_bias, place, kept, scale):
    """Turns scores of a query into probabilities, and their gradients into those of scores and of biases."""
    if len(bias):
        _add_row(row, bias[place : place + len(row)])
    if len(kept):
        differentiate_kept(row, d_row, log, slope, kept, scale)
    else:
        differentiate(row, d_row, log, slope)
    if len(bias):
        _add_row(d_bias[place : place + len(row)], d_row)


@njit(parallel=True, **OPTIONS)
def _backward(
    queries, pairs, bias, spans, kept, starts, scale, context, logs, d_context, d_queries, d_pairs, d_bias, size
):
    vectors, query_scale = size
    N, H, E, D = len(logs), queries.shape[1], len(spans), LANES * len(vectors)
    centre = bias.shape[1] // 2
    for task in prange(E * N):
        e, h = task % E, task // E
        first_query, behind, first_key, last = spans[e]
        Q, K, column = behind - first_query, last - first_key, h * D
        query = head_of(queries[first_query:behind], column, query_scale, vectors)
        keys = head_of(pairs[first_key:last], column, ONE, vectors)
        turned_keys, turned_values = turned(keys), turned(head_of(pairs[first_key:last], H + column, ONE, vectors))
        d_out = head_of(d_context[first_query:behind], column, ONE, vectors)
        d_keys, d_values = np.zeros((K, D), np.float32), np.zeros((K, D), np.float32)
        shares, d_scores = np.empty((BLOCK, PANEL + GAP), np.float32), np.empty((BLOCK, PANEL + GAP), np.float32)
        d_query, slopes = np.empty((BLOCK, D), np.float32), np.empty(BLOCK, np.float32)
        for first in range(0, Q, BLOCK):
            count = min(BLOCK, Q - first)
            own_query, own_d_out = query[first : first + count], d_out[first : first + count]
            for r in range(count):
                row = context[first_query + first + r][column : column + D]
                slopes[r] = product_of_rows(own_d_out[r], row, vectors)
            d_query[:] = 0
            for key in range(0, K, PANEL):
                seen = min(PANEL, K - key)
                multiply_panel(own_query, turned_keys[key // PANEL], shares[:count], vectors)
                multiply_panel(own_d_out, turned_values[key // PANEL], d_scores[:count], vectors)
                for r in range(count):
                    row, d_row, log = shares[r][:seen], d_scores[r][:seen], logs[h, first_query + first + r]
                    begin = starts[e, h] + (first + r) * K + key if len(kept) else 0
                    place = centre - first - r + key
                    _differentiate(
                        row, d_row, log, slopes[r], bias[h], d_bias[e, h], place, kept[begin : begin + seen], scale
                    )
                    shares[r, seen:PANEL] = 0
                    d_scores[r, seen:PANEL] = 0
                add_mixed(d_scores[:count], keys[key : key + seen], d_query[:count], vectors)
                add_mixed(shares[:count].T, own_d_out, d_values[key : key + seen], vectors)
                add_mixed(d_scores[:count].T, own_query, d_keys[key : key + seen], vectors)
            put_head(
                d_query[:count],
                query_scale,
                d_queries[first_query + first : first_query + first + count],
                column,
                vectors,
            )
        put_head(d_keys, ONE, d_pairs[first_key:last], column, vectors)
        put_head(d_values, ONE, d_pairs[first_key:last], H + column, vectors)
