"""Attention of training, in two parts: Part A sees Part A, Part B sees Part A and its own past.

Rows hold no padding: all tokens of a batch stand one behind the other, [A1 | B1 | A2 | B2 | ...], and no score between
two examples is computed. On a CPU forward and backward are written by hand, and compiled for heads of 64
(`glm.cpu.two_part`); on a GPU FlashMask does it where it can.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor
from paddle.autograd import PyLayer

from glm.cpu.arrays import WORTH, draw_kept, draw_seed, on_threads, random_stream, rescale, scratch, take_saved, view
from glm.modules.tensors import as_tensor

SCORES = 1 << 19  # of one job at a time: a table of them stays in the cache of a processor's core

Block = tuple[slice, slice, bool]  # queries, the keys they see, and whether what is behind a query is hidden from it
Job = tuple[int, slice, list[Block]]  # a number, heads, and blocks of one example


@dataclass(frozen=True)
class Layout:
    """Where the examples of a batch stand, once its padding is left out.

    Args:
        places: [n] int64, of each token in the flattened batch [B * L].
        examples: tokens of Part A and of Part B of each.
        virtual: how many tokens Part A of each begins with that are keys and values only, see `with_prefix`.
    """

    places: np.ndarray
    examples: list[tuple[int, int]]
    virtual: int = 0

    @classmethod
    def of(cls, segments: np.ndarray, L: int) -> "Layout":
        """From `segments` [B, E, 2] of rows of L tokens, see `GLMForConditionalGeneration.forward`.

        Raises:
            ValueError: the examples of a row have more tokens than the row.
        """
        lengths = segments.sum(axis=(1, 2))  # [B]
        if (segments < 0).any() or (lengths > L).any():
            raise ValueError(f"segments {segments.tolist()} do not fit into rows of {L} tokens")
        places = [row * L + np.arange(length) for row, length in enumerate(lengths)]
        examples = [(int(a), int(b)) for a, b in segments.reshape(-1, 2) if a + b]
        return cls(np.concatenate(places), examples)

    def with_prefix(self, virtual: int) -> "Layout":
        """These examples with as many virtual tokens in front of each, seen by all of it: Part A begins with them.

        Places are those in a table of the virtual tokens and, behind them, the tokens of this layout.
        """
        places = [
            part
            for start, _, end in self.spans()
            for part in (np.arange(virtual), np.arange(virtual + start, virtual + end))
        ]
        return Layout(np.concatenate(places), [(virtual + a, b) for a, b in self.examples], virtual)

    def put_before(self, prefix: Tensor, projected: Tensor) -> Tensor:
        """A prefix [virtual, 3H] in front of each example of the layout that this one was made of.

        Args:
            projected: [tokens without virtual ones, 3H].

        Returns:
            [n, 3H]
        """
        return paddle.concat([prefix.astype(projected.dtype), projected]).gather(as_tensor(self.places))

    def without_prefix(self, context: Tensor) -> Tensor:
        """The rows of the tokens that are not virtual: [n, H] -> [tokens without virtual ones, H]."""
        return context.gather(as_tensor(np.flatnonzero(self.places >= self.virtual))) if self.virtual else context

    def spans(self) -> Iterator[tuple[int, int, int]]:
        """Of each example: where Part A begins, where Part B begins, where it ends."""
        start = 0
        for a, b in self.examples:
            yield start, start + a, start + a + b
            start += a + b

    def blocks(self) -> Iterator[list[Block]]:
        """Of each example, its queries in blocks of at most SCORES scores, or of one query; virtual tokens have none.

        The keys of a block of Part B end with its own last query: what none of its queries sees is left out.
        """
        for start, middle, end in self.spans():
            blocks = []
            for first, behind, own_past in ((start + self.virtual, middle, False), (middle, end, True)):
                size = max(1, SCORES // (end - start))
                for row in range(first, behind, size):
                    rows = slice(row, min(row + size, behind))
                    blocks.append((rows, slice(start, rows.stop if own_past else behind), own_past))
            yield blocks

    def jobs(self, num_heads: int) -> list[Job]:
        """What threads share: a head of an example, or several of a short one."""
        jobs = []
        for blocks, (a, b) in zip(self.blocks(), self.examples, strict=True):
            size = max(1, SCORES // (a + b) ** 2)
            heads = [slice(head, head + size) for head in range(0, num_heads, size)]
            jobs += [(len(jobs) + place, part, blocks) for place, part in enumerate(heads)]
        return jobs

    @cached_property
    def flashmask(self) -> Tensor:
        """[1, 1, n, 2] int32: the token of a column is seen by the rows from the second number up to the first."""
        bounds = np.empty((len(self.places), 2), np.int32)
        for start, middle, end in self.spans():
            bounds[start:end, 0] = end
            bounds[start:middle, 1] = start
            bounds[middle:end, 1] = np.arange(middle, end)
        return as_tensor(bounds[None, None])


def has_flashmask(projected: Tensor, head_size: int) -> bool:
    """Whether FlashMask can read queries, keys and values such as these (FlashAttention 2's conditions)."""
    return (
        projected.place.is_gpu_place()
        and projected.dtype in (paddle.float16, paddle.bfloat16)
        and paddle.device.cuda.get_device_capability()[0] >= 8
        and head_size % 8 == 0
        and head_size <= 256
    )


def flashmask_attention(projected: Tensor, layout: Layout, num_heads: int, dropout: float) -> Tensor:
    """[n, 3H] -> [n, H] on a GPU, all examples in one call. Written after Paddle's documentation; not run so far."""
    n, width = projected.shape
    query, keys, values = projected.reshape([1, n, 3, num_heads, -1]).unbind(2)  # [1, n, N, D]
    context = F.flashmask_attention(query, keys, values, layout.flashmask, dropout=dropout)
    return context.reshape([n, width // 3])


class TwoPartAttention(PyLayer):
    """On a CPU: a few heads of an example at a time, each such job on one thread, in memory that stays in its cache.

    Probabilities are computed anew in the backward pass, which costs less than to write them and read them again.
    """

    @staticmethod
    def forward(ctx, projected: Tensor, layout: Layout, num_heads: int, dropout: float) -> Tensor:
        """[n, 3H], all queries, all keys, all values -> [n, H]."""
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

        ctx.jobs = layout.jobs(num_heads)
        ctx.saved = _share(attend, ctx.jobs)
        ctx.save_for_backward(projected, context)
        ctx.num_heads, ctx.dropout = num_heads, dropout
        return context

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        """[n, H] -> [n, 3H]"""
        projected, context = take_saved(ctx)
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
    """[n, parts * H] as an array [parts, N, n, D] on the same memory."""
    n, width = tensor.shape
    return view(tensor).reshape(n, parts, num_heads, width // (parts * num_heads)).transpose(1, 2, 0, 3)


def _scale(table: np.ndarray) -> np.floating:
    """What queries are multiplied by, in the type of the table [..., D]."""
    return table.dtype.type(table.shape[-1] ** -0.5)


def _operands(table: np.ndarray, heads: slice, rows: slice, keys: slice) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Queries (scaled, a copy), keys and values of a table [3, N, n, D]: [heads, length, D] each."""
    return table[0, heads, rows] * _scale(table), table[1, heads, keys], table[2, heads, keys]


def _product(name: str, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a b [heads, rows, columns], in the thread's memory of this name."""
    return np.matmul(a, b, out=scratch(name, (*a.shape[:2], b.shape[2]), a.dtype))


def _scores(query: np.ndarray, key: np.ndarray, own_past: bool) -> np.ndarray:
    """Queries [heads, r, D] and keys [heads, keys, D] -> [heads, r, keys]; what is behind a query is hidden if the
    last r keys are the queries' own."""
    scores = _product("scores", query, key.swapaxes(1, 2))
    r = query.shape[1]
    if own_past:
        scores[:, :, -r:] += np.triu(np.full((r, r), -np.inf, scores.dtype), 1)
    return scores


def _share(function: Callable[[Job], Any], jobs: list[Job]) -> list:
    """Results of all jobs, in their order."""
    sizes = ((rows.stop - rows.start) * (keys.stop - keys.start) for *_, blocks in jobs for rows, keys, _ in blocks)
    return on_threads(function, jobs, worth=sum(sizes) >= WORTH)
