"""The training objective on the tokens of Part B: cross entropy with label smoothing, straight from the head.

Logits exist for a chunk of tokens at a time. Their gradient is taken as soon as they are there, in the forward pass,
so that no pass needs them twice; what it leaves for the backward pass is of the size of its inputs.
"""

import numpy as np
import paddle
from paddle import Tensor
from paddle import distributed as dist
from paddle.autograd import PyLayer
from paddle.distributed.communication.group import Group

from glm.cpu.arrays import by_rows, view

CHUNK = 512  # tokens whose logits exist at once


def smoothed_cross_entropy(
    states: Tensor,
    head: Tensor,
    labels: Tensor,
    *,
    label_smoothing: float = 0.0,
    num_items: int | None = None,
    group: Group | None = None,
) -> Tensor:
    """Sum over tokens, divided by `num_items`, of (1 - e) * (-log p[label]) + e * mean over the vocabulary of -log p.

    This spreads e / V over the whole vocabulary (THUDM/GLM, finetune_glm.py), not e / (V - 1) over the rest of it.

    Args:
        states: [n, H].
        head: [V, H]; p is the softmax, in float32 or better, of states times head.
        labels: [n] int64, all within the vocabulary.
        label_smoothing: e, from 0 to 1.
        num_items: None for n, which makes it a mean.
        group: the tensor-parallel ranks that the vocabulary is split over, with head [V / ranks, H] on each; no rank
            has logits of more. The gradient with respect to the states is then this rank's share of a sum.

    Returns:
        [], float32 (float64 if states are)
    """
    items = max(len(labels), 1) if num_items is None else num_items
    wanted = [paddle.is_grad_enabled() and not part.stop_gradient for part in (states, head)]
    return _HeadLoss.apply(states, head, labels, label_smoothing, items, group, *wanted)


class _HeadLoss(PyLayer):
    @staticmethod
    def forward(ctx, states, head, labels, label_smoothing, items, group, wants_states, wants_head):
        dtype = "float64" if states.dtype == paddle.float64 else "float32"
        is_summed = not 0 < len(labels) <= CHUNK  # the gradient of one chunk is all of it
        ctx.d_head = paddle.zeros(head.shape, dtype) if wants_head and is_summed else None
        total, d_states = paddle.zeros([], dtype), [states[:0]]
        for start in range(0, len(labels), CHUNK):
            part, chosen = states[start : start + CHUNK], labels[start : start + CHUNK]
            logits = paddle.matmul(part, head, transpose_y=True).astype(dtype)  # [chunk, V]
            costs, slopes = costs_and_slopes(logits, chosen, label_smoothing, wants_states or wants_head, group)
            total += costs.sum()
            if wants_states:
                d_states.append(paddle.matmul(slopes.astype(head.dtype), head).astype(states.dtype))
            if wants_head:
                d_head = paddle.matmul(slopes.astype(part.dtype), part, transpose_x=True).astype(dtype)
                ctx.d_head = d_head if ctx.d_head is None else ctx.d_head.add_(d_head)
        ctx.d_states = paddle.concat(d_states) if wants_states else None
        ctx.items, ctx.head_dtype = items, head.dtype
        return total / items

    @staticmethod
    def backward(ctx, grad):
        scale = float(grad) / ctx.items
        d_states, d_head = ctx.d_states, ctx.d_head
        ctx.d_states = ctx.d_head = None
        return (
            None if d_states is None else d_states.scale_(scale),
            None if d_head is None else d_head.scale_(scale).astype(ctx.head_dtype),
            None,
        )


def costs_and_slopes(
    logits: Tensor, labels: Tensor, label_smoothing: float, wants_slopes: bool, group: Group | None = None
) -> tuple[Tensor, Tensor]:
    """The loss of each token, and its gradient with respect to the token's logits.

    Args:
        logits: [n, V], or with a group [n, V / ranks]; they are overwritten.

    Returns:
        [n], and of the logits' shape (without meaning if they are not wanted).
    """
    if group is not None or not logits.place.is_cpu_place():
        return _by_paddle(logits, labels, label_smoothing, group)
    costs = paddle.empty(labels.shape, logits.dtype)

    def replace(x, label, cost):
        places = np.arange(len(x)), label
        x -= x.max(-1, keepdims=True)
        chosen, mean = x[places], x.mean(-1) if label_smoothing else 0.0
        np.exp(x, out=x)
        total = x.sum(-1, keepdims=True)
        cost[:] = np.log(total[:, 0]) - (1.0 - label_smoothing) * chosen - label_smoothing * mean
        if wants_slopes:
            x /= total
            if label_smoothing:
                x -= label_smoothing / x.shape[-1]
            x[places] -= 1.0 - label_smoothing

    by_rows(replace, view(logits), view(labels), view(costs))
    return costs, logits


def _by_paddle(logits: Tensor, labels: Tensor, label_smoothing: float, group: Group | None) -> tuple[Tensor, Tensor]:
    """As `costs_and_slopes`, in Paddle's operators: for a GPU, and for a vocabulary that is split over ranks."""
    columns = logits.shape[-1]
    V, first = (columns, 0) if group is None else (columns * group.nranks, columns * group.rank)
    places = (labels - first).unsqueeze(-1)  # [n, 1]
    is_own = ((places >= 0) & (places < columns)).astype(logits.dtype)
    places = places.clip(0, columns - 1)
    logits.subtract_(_over_ranks(logits.max(axis=-1, keepdim=True), dist.ReduceOp.MAX, group))
    chosen, everything = logits.take_along_axis(places, axis=-1) * is_own, logits.sum(axis=-1, keepdim=True)
    logits.exp_()
    sums = paddle.stack([logits.sum(axis=-1, keepdim=True), chosen, everything])
    total, chosen, everything = _over_ranks(sums, dist.ReduceOp.SUM, group)  # [n, 1] each
    costs = total.log() - (1.0 - label_smoothing) * chosen - label_smoothing * everything / V
    logits.divide_(total).subtract_(paddle.to_tensor(label_smoothing / V, logits.dtype))
    logits.put_along_axis_(places, (label_smoothing - 1.0) * is_own, axis=-1, reduce="add")
    return costs.squeeze(-1), logits


def _over_ranks(table: Tensor, operation: int, group: Group | None) -> Tensor:
    """The sum or maximum of what the ranks have."""
    if group is not None:
        dist.all_reduce(table, op=operation, group=group)
    return table
