"""Two-part attention for training: Part A sees Part A, Part B sees Part A and its own past.

There is no padding: the tokens of all examples are concatenated, [A1 | B1 | A2 | B2 | ...], and no score between two
examples is computed. On a CPU forward and backward pass are written by hand, and compiled for common head sizes
(`glm.cpu.two_part`); on a GPU FlashMask does it where it can.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import paddle
import paddle.nn.functional as F
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
    scratch,
    view,
)
from glm.modules.packing import Job, Packing


def has_flashmask(projected: Tensor, head_size: int) -> bool:
    """Whether FlashMask supports this device, dtype and head size (FlashAttention 2's conditions)."""
    return (
        projected.place.is_gpu_place()
        and projected.dtype in (paddle.float16, paddle.bfloat16)
        and paddle.device.cuda.get_device_capability()[0] >= 8
        and head_size % 8 == 0
        and head_size <= 256
    )


def flashmask_attention(projected: Tensor, packing: Packing, num_heads: int, dropout: float) -> Tensor:
    """Computes attention on a GPU for all examples in one call, [n, 3H] -> [n, H]. Written from Paddle's
    documentation; not run so far."""
    n, width = projected.shape
    query, keys, values = projected.reshape([1, n, 3, num_heads, -1]).unbind(2)  # [1, n, N, D]
    context = F.flashmask_attention(query, keys, values, packing.flashmask, dropout=dropout)
    return context.reshape([n, width // 3])


class TwoPartAttention(PyLayer):
    """Attention on a CPU in NumPy: each thread works on a few heads of an example, in buffers that stay in its cache.

    The backward pass computes the probabilities again, which costs less than storing and reading them.
    """

    @staticmethod
    def forward(ctx, projected: Tensor, packing: Packing, num_heads: int, dropout: float) -> Tensor:
        """Maps queries, keys and values [n, 3H] to [n, H]."""
        n, width = projected.shape
        context = paddle.empty([n, width // 3], projected.dtype)
        table, out = _heads(projected, num_heads, 3), _heads(context, num_heads, 1)[0]  # [3, N, n, D], [N, n, D]
        seed = draw_seed() if dropout else 0

        def attend(job: Job) -> list:
            number, heads, blocks = job
            random = random_stream(seed, number) if dropout else None
            saved = []
            for rows, keys, own_past in blocks:
                query, key, value = _operands(table, heads, rows, keys)
                weights = _scores(query, key, own_past)  # [heads, r, keys]
                shifts = weights.max(-1, keepdims=True)  # [heads, r, 1]
                weights -= shifts
                np.exp(weights, out=weights)
                totals = weights.sum(-1, keepdims=True)
                kept = draw_kept(random, weights.shape, dropout) if dropout else None
                if dropout:
                    weights *= kept
                np.matmul(weights, value, out=out[heads, rows])
                out[heads, rows] *= rescale(dropout) / totals
                saved.append((shifts + np.log(totals), kept))
            return saved

        ctx.jobs = packing.jobs(num_heads)
        ctx.saved = _share(attend, ctx.jobs)
        ctx.save_for_backward(projected, context)
        ctx.num_heads, ctx.dropout = num_heads, dropout
        return context

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        """[n, H] -> [n, 3H]"""
        projected, context = pop_saved(ctx)
        d_projected = paddle.zeros_like(projected)
        table, d_table = (_heads(part, ctx.num_heads, 3) for part in (projected, d_projected))  # [3, N, n, D]
        out, d_out = (_heads(part, ctx.num_heads, 1)[0] for part in (context, grad.contiguous()))  # [N, n, D]
        scale, saved = table.dtype.type(rescale(ctx.dropout)), ctx.saved
        ctx.saved = None

        def differentiate(job: Job) -> None:
            number, heads, blocks = job
            for (rows, keys, own_past), (shifts, kept) in zip(blocks, saved[number], strict=True):
                query, key, value = _operands(table, heads, rows, keys)
                weights = _scores(query, key, own_past)  # [heads, r, keys]
                weights -= shifts
                np.exp(weights, out=weights)
                slope = d_out[heads, rows] * scale  # [heads, r, D]
                d_scores = _product("d_scores", slope, value.swapaxes(1, 2))  # [heads, r, keys]
                if kept is not None:
                    d_scores *= kept
                d_scores -= np.einsum("nrd,nrd->nr", d_out[heads, rows], out[heads, rows])[..., None]
                d_scores *= weights
                if kept is not None:
                    weights *= kept
                d_query, d_key, d_value = d_table[0, heads, rows], d_table[1, heads, keys], d_table[2, heads, keys]
                d_value += _product("sums", weights.swapaxes(1, 2), slope)
                d_key += _product("sums", d_scores.swapaxes(1, 2), query)
                np.matmul(d_scores, key, out=d_query)
                d_query *= _scale(table)

        _share(differentiate, ctx.jobs)
        return d_projected


def _heads(tensor: Tensor, num_heads: int, parts: int) -> np.ndarray:
    """Views [n, parts * H] as an array [parts, N, n, D] on the same memory."""
    n, width = tensor.shape
    return view(tensor).reshape(n, parts, num_heads, width // (parts * num_heads)).transpose(1, 2, 0, 3)


def _scale(table: np.ndarray) -> np.floating:
    """Returns 1 / sqrt(D), by which queries are scaled, in the dtype of the table [..., D]."""
    return table.dtype.type(table.shape[-1] ** -0.5)


def _operands(table: np.ndarray, heads: slice, rows: slice, keys: slice) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns queries (scaled, a copy), keys and values of a table [3, N, n, D]: [heads, length, D] each."""
    return table[0, heads, rows] * _scale(table), table[1, heads, keys], table[2, heads, keys]


def _product(name: str, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Multiplies a by b into the thread's buffer of this name: [heads, rows, columns]."""
    return np.matmul(a, b, out=scratch(name, (*a.shape[:2], b.shape[2]), a.dtype))


def _scores(query: np.ndarray, key: np.ndarray, own_past: bool) -> np.ndarray:
    """Returns the scores [heads, r, keys] of queries [heads, r, D] and keys [heads, keys, D].

    With `own_past` the last r keys are those of the queries themselves, and keys after a query are masked.
    """
    scores = _product("scores", query, key.swapaxes(1, 2))
    r = query.shape[1]
    if own_past:
        scores[:, :, -r:] += np.triu(np.full((r, r), -np.inf, scores.dtype), 1)
    return scores


def _share(function: Callable[[Job], Any], jobs: list[Job]) -> list:
    """Runs all jobs on threads; returns their results in order."""
    sizes = ((rows.stop - rows.start) * (keys.stop - keys.start) for *_, blocks in jobs for rows, keys, _ in blocks)
    return on_threads(function, jobs, parallel=sum(sizes) >= MIN_PARALLEL_SIZE)
