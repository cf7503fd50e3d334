"""The training objective on the tokens of Part B: cross entropy with label smoothing, straight from the head.

Logits exist for a chunk of tokens at a time. Their gradient is taken as soon as they are there, in the forward pass,
so that no pass needs them twice; what it leaves for the backward pass is of the size of its inputs.
"""

import numpy as np
import paddle
from paddle import Tensor
from paddle.autograd import PyLayer

from glm.cpu import by_rows, view

CHUNK = 512  # tokens whose logits exist at once


def smoothed_cross_entropy(
    states: Tensor, head: Tensor, labels: Tensor, *, label_smoothing: float = 0.0, num_items: int | None = None
) -> Tensor:
    """Sum over tokens, divided by `num_items`, of (1 - e) * (-log p[label]) + e * mean over the vocabulary of -log p.

    This spreads e / V over the whole vocabulary (THUDM/GLM, finetune_glm.py), not e / (V - 1) over the rest of it.

    Args:
        states: [n, H].
        head: [V, H]; p is the softmax, in float32 or better, of states times head.
        labels: [n] int64, all within the vocabulary.
        label_smoothing: e, from 0 to 1.
        num_items: None for n, which makes it a mean.

    Returns:
        [], float32 (float64 if states are)
    """
    items = max(len(labels), 1) if num_items is None else num_items
    wanted = [paddle.is_grad_enabled() and not part.stop_gradient for part in (states, head)]
    return _HeadLoss.apply(states, head, labels, label_smoothing, items, *wanted)


class _HeadLoss(PyLayer):
    @staticmethod
    def forward(ctx, states, head, labels, label_smoothing, items, wants_states, wants_head):
        dtype = "float64" if states.dtype == paddle.float64 else "float32"
        ctx.d_head = paddle.zeros(head.shape, dtype) if wants_head and len(labels) > CHUNK else None
        total, d_states = paddle.zeros([], dtype), [states[:0]]
        for start in range(0, len(labels), CHUNK):
            part, chosen = states[start : start + CHUNK], labels[start : start + CHUNK]
            logits = paddle.matmul(part, head, transpose_y=True).astype(dtype)  # [chunk, V]
            costs, slopes = costs_and_slopes(logits, chosen, label_smoothing, wants_states or wants_head)
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


def costs_and_slopes(logits: Tensor, labels: Tensor, label_smoothing: float, wants_slopes: bool) -> tuple:
    """The loss of each token, and its gradient with respect to the token's logits.

    Args:
        logits: [n, V]; on a CPU they are overwritten.

    Returns:
        [n], and [n, V] (without meaning if they are not wanted).
    """
    if not logits.place.is_cpu_place():
        return _by_paddle(logits, labels, label_smoothing)
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


def _by_paddle(logits: Tensor, labels: Tensor, label_smoothing: float) -> tuple[Tensor, Tensor]:
    """As `costs_and_slopes`, in Paddle's operators: for a GPU."""
    V = logits.shape[-1]
    logits = logits - logits.max(axis=-1, keepdim=True)
    powers = logits.exp()
    total = powers.sum(axis=-1, keepdim=True)
    chosen = logits.take_along_axis(labels.unsqueeze(-1), axis=-1).squeeze(-1)
    costs = total.squeeze(-1).log() - (1.0 - label_smoothing) * chosen - label_smoothing * logits.mean(axis=-1)
    target = paddle.nn.functional.one_hot(labels, V).astype(logits.dtype) * (1.0 - label_smoothing)
    return costs, powers / total - target - label_smoothing / V
