"""Cross entropy with label smoothing on labelled tokens, computed directly from the head's input.

Logits exist for a chunk of tokens at a time. Their gradient is taken as soon as they are there, in the forward pass,
so that no pass needs them twice; what it leaves for the backward pass is of the size of its inputs.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import paddle
from paddle import Tensor
from paddle import distributed as dist
from paddle.autograd import PyLayer
from paddle.distributed.communication.group import Group

from glm.cpu.arrays import by_rows, view
from glm.modules.layers import column_sums
from glm.modules.tensors import as_tensor
from glm.modules.trained_rows import TrainedRows

CHUNK = 512  # tokens whose logits exist at the same time


@dataclass(frozen=True)
class Smoothing:
    """How much probability label smoothing takes from a label, and which tokens get it.

    Args:
        share: e, from 0 to 1.
        spared: the id of an unlearnt token. With one, e goes to the V - 2 words that are neither the label nor it, the
            loss is the divergence, less than the cross entropy by a constant, and 0 where the label is this token
            (Microsoft's UniLM, LabelSmoothingLoss); None spreads e / V over the whole vocabulary (THUDM/GLM,
            finetune_glm.py).
    """

    share: float = 0.0
    spared: int | None = None

    def entropy(self, V: int) -> float:
        """Returns by how much the loss is below the cross entropy."""
        if self.spared is None or not self.share:
            return 0.0
        rest = (1.0 - self.share) * math.log(1.0 - self.share) if self.share < 1.0 else 0.0
        return -rest - self.share * math.log(self.share / (V - 2))


def smoothed_cross_entropy(
    states: Tensor,
    head: Tensor,
    labels: Tensor,
    *,
    bias: Tensor | None = None,
    rows: TrainedRows | None = None,
    label_smoothing: float | Smoothing = 0.0,
    num_items: float | None = None,
    group: Group | None = None,
    in_bfloat16: bool = False,
) -> Tensor:
    """Computes the sum over tokens, divided by `num_items`, of (1 - e) * (-log p[label]) + e * mean over the
    vocabulary of -log p.

    This spreads e / V over the whole vocabulary, not e / (V - 1) over the rest of it; see `Smoothing` for another way.

    Args:
        states: [n, H].
        head: [V, H]; p is the softmax, in float32 or better, of states times head.
        labels: [n] int64, all within the vocabulary.
        bias: [V], added to the logits; not with a group.
        rows: those of a frozen head that are trained, and get the head's gradient; not with a group.
        label_smoothing: e, from 0 to 1, or how it is spread too.
        num_items: None for n, which makes it a mean.
        group: the tensor-parallel ranks that the vocabulary is split over, with head [V / ranks, H] on each; no rank
            has logits of more. The gradient with respect to the states is then this rank's share of a sum.
        in_bfloat16: on a CPU, whose products with the head are then of numbers of float32 rounded to bfloat16.

    Returns:
        [], float32 (float64 if states are)
    """
    items = max(len(labels), 1) if num_items is None else num_items
    smoothing = label_smoothing if isinstance(label_smoothing, Smoothing) else Smoothing(label_smoothing)
    operands = [states, head, bias, None if rows is None else rows.joined()]
    wanted = [part is not None and paddle.is_grad_enabled() and not part.stop_gradient for part in operands]
    own = None if rows is None else as_tensor(rows.ids)
    return _HeadLoss.apply(*operands, labels, smoothing, items, group, tuple(wanted), own, in_bfloat16)


class _Products:
    """Those of a head [V, H], by Paddle in the type of what is multiplied."""

    def __init__(self, head: Tensor):
        self.head = head

    def logits(self, states: Tensor) -> Tensor:
        """[n, H] -> [n, V]"""
        return paddle.matmul(states, self.head, transpose_y=True)

    def d_states(self, slopes: Tensor) -> Tensor:
        """The gradient of states, of that of logits: [n, V] -> [n, H]"""
        return paddle.matmul(slopes.astype(self.head.dtype), self.head)

    def d_head(self, slopes: Tensor, states: Tensor) -> Tensor:
        """The head's: [n, V], [n, H] -> [V, H]"""
        return paddle.matmul(slopes.astype(states.dtype), states, transpose_x=True)


def _products_of(head: Tensor, *, in_bfloat16: bool) -> Any:
    """Those of a head in its own type, or in bfloat16 on a CPU."""
    if not in_bfloat16:
        return _Products(head)
    from glm.cpu.bfloat16 import HeadProducts  # here: it loads Numba

    return HeadProducts(head)


class _HeadLoss(PyLayer):
    @staticmethod
    def forward(ctx, states, head, bias, rows, labels, smoothing, items, group, wanted, own, in_bfloat16):
        wants_states, wants_head, wants_bias, wants_rows = wanted
        dtype = "float64" if states.dtype == paddle.float64 else "float32"
        is_summed = not 0 < len(labels) <= CHUNK  # the gradient of a single chunk is the whole gradient
        ctx.d_head = paddle.zeros(head.shape, dtype) if wants_head and is_summed else None
        ctx.d_bias = paddle.zeros(bias.shape, dtype) if wants_bias else None
        ctx.d_rows = paddle.zeros(rows.shape, dtype) if wants_rows else None
        total, d_states = paddle.zeros([], dtype), [states[:0]]
        products = _products_of(head, in_bfloat16=in_bfloat16)
        for start in range(0, len(labels), CHUNK):
            part, chosen = states[start : start + CHUNK], labels[start : start + CHUNK]
            logits = products.logits(part).astype(dtype)  # [chunk, V]
            if bias is not None:
                logits.add_(bias.astype(dtype).expand_as(logits))
            costs, slopes = costs_and_slopes(logits, chosen, smoothing, any(wanted), group)
            total += costs.sum()
            if wants_bias:
                ctx.d_bias.add_(column_sums(slopes))
            if wants_rows:
                ctx.d_rows.add_(paddle.matmul(slopes.index_select(own, axis=1), part.astype(dtype), transpose_x=True))
            if wants_states:
                d_states.append(products.d_states(slopes).astype(states.dtype))
            if wants_head:
                d_head = products.d_head(slopes, part).astype(dtype)
                ctx.d_head = d_head if ctx.d_head is None else ctx.d_head.add_(d_head)
        ctx.d_states = paddle.concat(d_states) if wants_states else None
        ctx.items, ctx.head_dtype = items, head.dtype
        ctx.has_rows = rows is not None
        ctx.given = [part is not None for part in (states, head, bias, rows)]
        return total / items

    @staticmethod
    def backward(ctx, grad):
        scale = float(grad) / ctx.items
        gradients = [ctx.d_states, ctx.d_head, ctx.d_bias, ctx.d_rows]
        ctx.d_states = ctx.d_head = ctx.d_bias = ctx.d_rows = None
        scaled = [None if part is None else part.scale_(scale) for part in gradients]
        scaled[1:] = [None if part is None else part.astype(ctx.head_dtype) for part in scaled[1:]]
        of_operands = [part for part, given in zip(scaled, ctx.given, strict=True) if given]
        of_others = [None] * (1 + ctx.has_rows)  # no gradient for the labels, and the numbers of rows
        return (*of_operands, *of_others)


def costs_and_slopes(
    logits: Tensor, labels: Tensor, smoothing: Smoothing, wants_slopes: bool, group: Group | None = None
) -> tuple[Tensor, Tensor]:
    """Computes the loss of each token, and its gradient with respect to the token's logits.

    Args:
        logits: [n, V], or with a group [n, V / ranks]; they are overwritten.

    Returns:
        [n], and of the logits' shape (without meaning if they are not wanted).
    """
    if group is not None or not logits.place.is_cpu_place():
        return _by_paddle(logits, labels, smoothing, group)
    costs = paddle.empty(labels.shape, logits.dtype)
    e, spared, V = smoothing.share, smoothing.spared, logits.shape[-1]
    on_label, elsewhere = _shares(smoothing, V)
    constant = smoothing.entropy(V)

    def replace(x, label, cost):
        places = np.arange(len(x)), label
        x -= x.max(-1, keepdims=True)
        chosen = x[places]
        rest = 0.0 if not e else e * x.mean(-1) if spared is None else elsewhere * (x.sum(-1) - x[:, spared])
        np.exp(x, out=x)
        total = x.sum(-1, keepdims=True)
        cost[:] = np.log(total[:, 0]) - on_label * chosen - rest - constant
        if spared is not None and e:
            cost[label == spared] = 0.0
        if wants_slopes:
            x /= total
            if e:
                x -= elsewhere
            x[places] -= on_label
            if spared is not None and e:
                x[:, spared] += elsewhere
                x[label == spared] = 0.0

    by_rows(replace, view(logits), view(labels), view(costs))
    return costs, logits


def _shares(smoothing: Smoothing, V: int) -> tuple[float, float]:
    """Returns the weight of the label beyond that of every word, and the weight of every word."""
    if smoothing.spared is None:
        return 1.0 - smoothing.share, smoothing.share / V
    return 1.0 - smoothing.share - smoothing.share / (V - 2), smoothing.share / (V - 2)


def _by_paddle(logits: Tensor, labels: Tensor, smoothing: Smoothing, group: Group | None) -> tuple[Tensor, Tensor]:
    """As `costs_and_slopes` with Paddle's operators: for a GPU, and for a vocabulary that is split over ranks.

    A spared token must be one of the first rank's.
    """
    columns = logits.shape[-1]
    V, first = (columns, 0) if group is None else (columns * group.nranks, columns * group.rank)
    on_label, elsewhere = _shares(smoothing, V)
    places = (labels - first).unsqueeze(-1)  # [n, 1]
    is_own = ((places >= 0) & (places < columns)).astype(logits.dtype)
    places = places.clip(0, columns - 1)
    has_spared = smoothing.spared is not None and bool(smoothing.share)
    logits.subtract_(_over_ranks(logits.max(axis=-1, keepdim=True), dist.ReduceOp.MAX, group))
    chosen, everything = logits.take_along_axis(places, axis=-1) * is_own, logits.sum(axis=-1, keepdim=True)
    if has_spared and not first:
        everything -= logits[:, smoothing.spared].unsqueeze(-1)
    logits.exp_()
    sums = paddle.stack([logits.sum(axis=-1, keepdim=True), chosen, everything])
    total, chosen, everything = _over_ranks(sums, dist.ReduceOp.SUM, group)  # [n, 1] each
    words = V if smoothing.spared is None else V - 2
    costs = total.log() - on_label * chosen - smoothing.share * everything / words - smoothing.entropy(V)
    logits.divide_(total).subtract_(paddle.to_tensor(elsewhere, logits.dtype))
    logits.put_along_axis_(places, -on_label * is_own, axis=-1, reduce="add")
    if has_spared:
        learnt = (labels != smoothing.spared).astype(logits.dtype).unsqueeze(-1)
        costs = costs * learnt
        if not first:
            logits[:, smoothing.spared] = logits[:, smoothing.spared] + elsewhere
        logits.multiply_(learnt)
    return costs.squeeze(-1), logits


def _over_ranks(table: Tensor, operation: int, group: Group | None) -> Tensor:
    """Returns the sum or maximum over the ranks."""
    if group is not None:
        dist.all_reduce(table, op=operation, group=group)
    return table
