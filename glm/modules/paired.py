"""Attention of one sequence to another, or of a sequence to itself with a bias by distance; every query sees all keys.

There is no padding: the examples of a batch are concatenated, queries in one table, keys and values in another, and no
score between two examples is computed.
"""

from dataclasses import dataclass

import numpy as np
import paddle
import paddle.nn.functional as F
from numpy.lib.stride_tricks import as_strided
from paddle import Tensor
from paddle.autograd import PyLayer

from glm.cpu.arrays import (
    MIN_PARALLEL_SIZE,
    draw_kept,
    draw_seed,
    is_compiled_for,
    on_threads,
    pop_saved,
    random_stream,
    rescale,
    view,
)
from glm.modules.packing import SCORES


@dataclass(frozen=True)
class Pairs:
    """Which queries of a batch see which keys: those of the same example.

    Args:
        queries, keys: number of queries and of keys of each example.
    """

    queries: tuple[int, ...]
    keys: tuple[int, ...]

    @property
    def spans(self) -> np.ndarray:
        """[E, 4] int64: start and end of each example's queries, start and end of its keys."""
        ends = np.cumsum([self.queries, self.keys], axis=1)
        starts = ends - np.array([self.queries, self.keys])
        return np.stack([starts[0], ends[0], starts[1], ends[1]], axis=1).astype(np.int64)


def paired_attention(
    queries: Tensor, pairs: Tensor, seen: Pairs, num_heads: int, *, dropout: float = 0.0, bias: Tensor | None = None
) -> Tensor:
    """Computes softmax(q k / sqrt(D) + bias) v within each example.

    Args:
        queries: [n, H].
        pairs: [m, 2H]: keys, values.
        seen: which keys a query sees.
        num_heads: N.
        dropout: probability that an attention weight is set to 0.
        bias: [N, 2C + 1]; element C + d is added to the score of a key d places after its query. C is at least the
            length of the longest example minus one.

    Returns:
        [n, H]
    """
    if not queries.place.is_cpu_place():
        return by_example(queries, pairs, seen, num_heads, dropout=dropout, bias=bias)
    # Arrays that share a tensor's memory have no strides: parts of a table are copied.
    queries, pairs = queries.contiguous(), pairs.contiguous()
    bias = paddle.zeros([num_heads, 0], queries.dtype) if bias is None else bias.contiguous()
    if is_compiled_for(queries.shape[1] // num_heads) and queries.dtype == paddle.float32:
        from glm.cpu.paired import CompiledPairedAttention  # imported here because it loads Numba

        return CompiledPairedAttention.apply(queries, pairs, bias, seen.spans, num_heads, dropout)
    return PairedAttention.apply(queries, pairs, bias, seen.spans, num_heads, dropout)


def by_example(
    queries: Tensor, pairs: Tensor, seen: Pairs, num_heads: int, *, dropout: float = 0.0, bias: Tensor | None = None
) -> Tensor:
    """`paired_attention` with Paddle's operators, for any device."""
    contexts = []
    for first, behind, key, last in seen.spans.tolist():
        query = queries[first:behind].reshape([behind - first, num_heads, -1]).transpose([1, 0, 2])  # [N, Q, D]
        table = pairs[key:last].reshape([last - key, 2, num_heads, -1]).transpose([1, 2, 0, 3])  # [2, N, K, D]
        scores = paddle.matmul(query / query.shape[-1] ** 0.5, table[0], transpose_y=True)  # [N, Q, K]
        if bias is not None:
            places = np.arange(last - key)[None] - np.arange(behind - first)[:, None] + bias.shape[1] // 2
            scores = scores + bias.gather(paddle.to_tensor(places.reshape(-1)), axis=1).reshape(scores.shape)
        shares = F.softmax(scores.astype("float32") if scores.dtype != paddle.float64 else scores, axis=-1)
        shares = F.dropout(shares, dropout, training=dropout > 0).astype(queries.dtype)
        contexts.append(paddle.matmul(shares, table[1]).transpose([1, 0, 2]).flatten(1))  # [Q, H]
    return paddle.concat(contexts)


class PairedAttention(PyLayer):
    """Attention on a CPU in NumPy: each thread works on one head of an example, see `glm.modules.attention`."""

    @staticmethod
    def forward(ctx, queries: Tensor, pairs: Tensor, bias: Tensor, spans, num_heads: int, dropout: float) -> Tensor:
        """[n, H], [m, 2H] and [N, 2C + 1] (or [N, 0]) -> [n, H]."""
        context = paddle.empty(queries.shape, queries.dtype)
        tables = _tables(queries, pairs, num_heads)
        out, slopes = _heads(context, num_heads), view(bias)
        seed = draw_seed() if dropout else 0

        def attend(job) -> list:
            number, head, (first, behind, key, last) = job
            random = random_stream(seed, number) if dropout else None
            saved = []
            for row, until in _blocks(first, behind, last - key):
                shares = _scores(tables, slopes, head, (first, row, until, key, last))
                largest = shares.max(-1, keepdims=True)
                shares -= largest
                np.exp(shares, out=shares)
                totals = shares.sum(-1, keepdims=True)
                kept = draw_kept(random, shares.shape, dropout) if dropout else None
                if dropout:
                    shares *= kept
                out[head, row:until] = shares @ tables[2][head, key:last] * (rescale(dropout) / totals)
                saved.append((largest + np.log(totals), kept))
            return saved

        ctx.jobs = _jobs(spans, num_heads)
        ctx.saved = _share(attend, ctx.jobs)
        ctx.save_for_backward(queries, pairs, bias, context)
        ctx.num_heads, ctx.dropout = num_heads, dropout
        ctx.frozen = [part.stop_gradient for part in (queries, pairs, bias)]
        return context

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        """[n, H] -> [n, H], [m, 2H], [N, 2C + 1]"""
        queries, pairs, bias, context = pop_saved(ctx)
        N, saved, scale = ctx.num_heads, ctx.saved, rescale(ctx.dropout)
        ctx.saved = None
        d_queries, d_pairs = paddle.zeros_like(queries), paddle.zeros_like(pairs)
        tables, d_tables = _tables(queries, pairs, N), _tables(d_queries, d_pairs, N)
        out, d_out = _heads(context, N), _heads(grad.contiguous(), N)
        slopes, root = view(bias), tables[0].dtype.type(tables[0].shape[-1] ** -0.5)

        def differentiate(job) -> np.ndarray:
            number, head, (first, behind, key, last) = job
            keys, values = tables[1][head, key:last], tables[2][head, key:last]
            d_bias = np.zeros(slopes.shape[1], slopes.dtype)
            for (row, until), (logs, kept) in zip(_blocks(first, behind, last - key), saved[number], strict=True):
                shares = _scores(tables, slopes, head, (first, row, until, key, last))
                shares -= logs
                np.exp(shares, out=shares)
                d_rows = d_out[head, row:until]
                d_scores = (d_rows * d_rows.dtype.type(scale)) @ values.T
                if kept is not None:
                    d_scores *= kept
                d_scores -= np.einsum("rd,rd->r", d_rows, out[head, row:until])[:, None]
                d_scores *= shares
                if kept is not None:
                    shares *= kept
                d_tables[2][head, key:last] += shares.T @ (d_rows * d_rows.dtype.type(scale))
                d_tables[1][head, key:last] += d_scores.T @ (tables[0][head, row:until] * root)
                d_tables[0][head, row:until] = d_scores @ keys * root
                if len(d_bias):
                    _add_diagonals(d_scores, row - first, d_bias)
            return d_bias

        parts = _share(differentiate, ctx.jobs)
        d_bias = np.zeros_like(slopes)
        for (_, head, _), part in zip(ctx.jobs, parts, strict=True):
            d_bias[head] += part
        found = d_queries, d_pairs, paddle.to_tensor(d_bias)
        return tuple(None if frozen else part for frozen, part in zip(ctx.frozen, found, strict=True))


def _heads(table: Tensor, num_heads: int) -> np.ndarray:
    """Views [n, H] as an array [N, n, D] on the same memory."""
    return view(table).reshape(table.shape[0], num_heads, -1).transpose(1, 0, 2)


def _tables(queries: Tensor, pairs: Tensor, num_heads: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Views queries, keys and values as arrays [N, length, D] on the same memory."""
    table = view(pairs).reshape(pairs.shape[0], 2, num_heads, -1).transpose(1, 2, 0, 3)
    return _heads(queries, num_heads), table[0], table[1]


def _jobs(spans: np.ndarray, num_heads: int) -> list:
    """Returns jobs for threads: a number, a head, and the span of an example."""
    pairs = [(head, tuple(span)) for span in spans.tolist() for head in range(num_heads)]
    return [(number, *pair) for number, pair in enumerate(pairs)]


def _blocks(first: int, behind: int, keys: int) -> list[tuple[int, int]]:
    """Yields the queries of an example in blocks of at most SCORES scores."""
    size = max(1, SCORES // max(keys, 1))
    return [(row, min(row + size, behind)) for row in range(first, behind, size)]


def _scores(tables, slopes: np.ndarray, head: int, block: tuple[int, int, int, int, int]) -> np.ndarray:
    """Returns the scores [r, keys] of a block's queries."""
    first, row, until, key, last = block
    query = tables[0][head, row:until]
    scores = (query * query.dtype.type(query.shape[-1] ** -0.5)) @ tables[1][head, key:last].T
    if slopes.shape[1]:
        own = slopes[head, slopes.shape[1] // 2 - (row - first) :]
        scores += as_strided(own, scores.shape, (-own.strides[0], own.strides[0]))
    return scores


def _add_diagonals(d_scores: np.ndarray, start: int, d_bias: np.ndarray) -> None:
    """Adds gradients of scores [r, K] to `d_bias` by distance; the first query is number `start` of its example."""
    r, K = d_scores.shape
    turned = np.zeros((r, K + r - 1), d_scores.dtype)  # row i is shifted by r - 1 - i, so that a column is a distance
    item = turned.itemsize
    as_strided(turned.reshape(-1)[r - 1 :], (r, K), ((K + r - 2) * item, item))[...] = d_scores
    begin = len(d_bias) // 2 - start - (r - 1)
    d_bias[begin : begin + K + r - 1] += turned.sum(axis=0)


def _share(function, jobs: list) -> list:
    """Runs all jobs on threads; results are in the order of the jobs."""
    size = sum((behind - first) * (last - key) for _, _, (first, behind, key, last) in jobs)
    return on_threads(function, jobs, parallel=size >= MIN_PARALLEL_SIZE)
