"""Attention of training, in two parts: Part A sees Part A, Part B sees Part A and its own past.

Rows hold no padding: all tokens of a batch stand one behind the other, [A1 | B1 | A2 | B2 | ...], and no score between
two examples is computed. On a CPU forward and backward are written by hand; on a GPU FlashMask does it where it can.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor
from paddle.autograd import PyLayer

from glm.blank_infilling import prefix_mask
from glm.cache import MASKED
from glm.cpu import by_rows, draw_kept, rescale, tensor_of, view


@dataclass(frozen=True)
class Layout:
    """Where the examples of a batch stand, once its padding is left out.

    Args:
        places: [n] int64, of each token in the flattened batch [B * L].
        examples: tokens of Part A and of Part B of each.
    """

    places: np.ndarray
    examples: list[tuple[int, int]]

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

    def spans(self) -> Iterator[tuple[int, int, int]]:
        """Of each example: where Part A begins, where Part B begins, where it ends."""
        start = 0
        for a, b in self.examples:
            yield start, start + a, start + a + b
            start += a + b

    def parts(self) -> Iterator[tuple[slice, slice, bool]]:
        """Rows of each part, the rows its queries see, and whether what is behind a query is hidden from it."""
        for start, middle, end in self.spans():
            if middle > start:
                yield slice(start, middle), slice(start, middle), False
            if end > middle:
                yield slice(middle, end), slice(start, end), True

    @property
    def width(self) -> int:
        """Tokens of the longest example."""
        return max(a + b for a, b in self.examples)

    @cached_property
    def side_by_side(self) -> tuple[Tensor, Tensor, Tensor]:
        """The examples as rows of equal width: [B * width], the token at each place (at padding the first); [n], the
        place of each token; and [B, 1, width, width], what is added to scores."""
        places = np.zeros((len(self.examples), self.width), np.int64)
        inside = np.arange(self.width) < np.array([[a + b] for a, b in self.examples])
        places[inside] = np.arange(len(self.places))
        sees = prefix_mask([a for a, _ in self.examples], self.width)
        hidden = np.where(sees, np.float32(0), np.float32(MASKED))[:, None]
        return tuple(map(paddle.to_tensor, (places.reshape(-1), inside.reshape(-1).nonzero()[0], hidden)))

    @cached_property
    def flashmask(self) -> Tensor:
        """[1, 1, n, 2] int32: the token of a column is seen by the rows from the second number up to the first."""
        bounds = np.empty((len(self.places), 2), np.int32)
        for start, middle, end in self.spans():
            bounds[start:end, 0] = end
            bounds[start:middle, 1] = start
            bounds[middle:end, 1] = np.arange(middle, end)
        return paddle.to_tensor(bounds[None, None])


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
    """On a CPU: the queries of a part and all their keys in one product, the softmax by NumPy.

    Probabilities are computed anew in the backward pass: memory that is used again and again stays in the processor's
    cache, and costs less than keeping them. The triangle of Part B's own future is part of its product: leaving it out
    would take copies.
    """

    @staticmethod
    def forward(ctx, projected: Tensor, layout: Layout, num_heads: int, dropout: float) -> Tensor:
        """[n, 3H], all queries, all keys, all values -> [n, H]."""
        n, width = projected.shape
        context = paddle.empty([n, width // 3], projected.dtype)
        table, out = _heads(projected, num_heads, 3), _heads(context, num_heads, 1)[:, 0]  # [n, 3, N, D], [n, N, D]
        ctx.parts = []
        for rows, keys, own_past in layout.parts():
            query, key, value = _operands(table, rows, keys)
            weights = paddle.matmul(query, key, transpose_y=True)  # [N, rows, keys], scores until they are softened
            kept = draw_kept(weights.size, dropout).reshape(weights.shape) if dropout else None
            totals, shifts = np.empty((2, *weights.shape[:2], 1), table.dtype)  # [N, rows, 1] each
            _by_query(_soften, _hide_future(view(weights), own_past), totals, shifts, kept)
            product = _by_row(paddle.matmul(weights, value))  # [rows, N, D]
            np.multiply(product, rescale(dropout) / totals.transpose(1, 0, 2), out=out[rows])
            ctx.parts.append((rows, keys, own_past, shifts, kept))
        ctx.save_for_backward(projected, context)
        ctx.num_heads, ctx.dropout = num_heads, dropout
        return context

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        """[n, H] -> [n, 3H]"""
        projected, context = ctx.saved_tensor()
        d_projected = paddle.zeros_like(projected)
        table, d_table = (_heads(part, ctx.num_heads, 3) for part in (projected, d_projected))  # [n, 3, N, D]
        out, slope = (_heads(part, ctx.num_heads, 1)[:, 0] for part in (context, grad))  # [n, N, D]
        while ctx.parts:
            rows, keys, own_past, shifts, kept = ctx.parts.pop()
            query, key, value = _operands(table, rows, keys)
            d_product = _by_head(slope[rows] * slope.dtype.type(rescale(ctx.dropout)))  # [N, rows, D]
            means = np.einsum("rnd,rnd->nr", slope[rows], out[rows])[..., None]  # [N, rows, 1]
            weights = paddle.matmul(query, key, transpose_y=True)  # [N, rows, keys]
            d_scores = paddle.matmul(d_product, value, transpose_y=True)  # [N, rows, keys]
            tables = view(d_scores), _hide_future(view(weights), own_past), shifts, means, kept
            _by_query(_soften_backward, *tables)
            d_table[keys, 2] += _by_row(paddle.matmul(weights, d_product, transpose_x=True))
            d_table[keys, 1] += _by_row(paddle.matmul(d_scores, query, transpose_x=True))
            d_table[rows, 0] = _by_row(paddle.matmul(d_scores, key).scale_(table.shape[-1] ** -0.5))
        return d_projected


def _heads(tensor: Tensor, num_heads: int, parts: int) -> np.ndarray:
    """[n, parts * H] as an array [n, parts, N, D] on the same memory."""
    n, width = tensor.shape
    return view(tensor).reshape(n, parts, num_heads, width // (parts * num_heads))


def _by_head(rows: np.ndarray) -> Tensor:
    """[r, N, D] -> a copy [N, r, D]."""
    return tensor_of(np.ascontiguousarray(rows.transpose(1, 0, 2)))


def _by_row(heads: Tensor) -> np.ndarray:
    """[N, r, D] -> [r, N, D] on the same memory."""
    return view(heads).transpose(1, 0, 2)


def _operands(table: np.ndarray, rows: slice, keys: slice) -> tuple[Tensor, Tensor, Tensor]:
    """Queries (scaled), keys and values, [N, length, D] each, of a table [n, 3, N, D]."""
    query, key, value = (_by_head(table[part, place]) for place, part in enumerate((rows, keys, keys)))
    return query.scale_(table.shape[-1] ** -0.5), key, value


def _hide_future(scores: np.ndarray, own_past: bool) -> np.ndarray:
    """Takes from scores [N, r, keys] what is behind a query, if the last r keys are the queries' own."""
    r, keys = scores.shape[1:]
    if own_past:
        scores[:, :, keys - r :] += np.triu(np.full((r, r), -np.inf, scores.dtype), 1)
    return scores


def _by_query(function: Callable, *tables: np.ndarray | None) -> None:
    """Calls a function with blocks of rows of the tables [N, r, ...] that there are."""
    by_rows(function, *(part.reshape(-1, part.shape[-1]) for part in tables if part is not None))


def _soften(score: np.ndarray, total: np.ndarray, shift: np.ndarray, kept: np.ndarray | None = None) -> None:
    """Replaces scores [r, keys] by what is kept of exp(score - the largest of its row).

    Args:
        total: [r, 1] becomes the sum of the row before dropout.
        shift: [r, 1] becomes what makes exp(score - shift) probabilities.
    """
    np.max(score, axis=-1, keepdims=True, out=shift)
    score -= shift
    np.exp(score, out=score)
    np.sum(score, axis=-1, keepdims=True, out=total)
    shift += np.log(total)
    if kept is not None:
        score *= kept


def _soften_backward(
    slope: np.ndarray, score: np.ndarray, shift: np.ndarray, mean: np.ndarray, kept: np.ndarray | None = None
) -> None:
    """Replaces the gradient with respect to what weighs the values by that with respect to the scores [r, keys].

    Args:
        score: becomes what is kept of the probabilities.
        mean: [r, 1], of each row the mean of the gradient as weighted by attention.
    """
    score -= shift
    np.exp(score, out=score)
    if kept is not None:
        slope *= kept
    slope -= mean
    slope *= score
    if kept is not None:
        score *= kept
