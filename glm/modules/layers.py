"""Layers with a hand-written forward or backward pass where Paddle's is slow on a CPU; matrix products stay Paddle's.

Paddle's own operators run these on one thread, and some take many times what their arithmetic needs: the gradient of
a bias 30 ms for [1536, 3072] where a product with ones takes 0.4.

Layers fall back on Paddle's operators outside training and on other devices; linears, LayerNorm and GELU with few
numbers too, where steps in Python cost more than they save (but not a frozen LayerNorm, of which Paddle takes a wrong
gradient). Parameters and their names are Paddle's.
"""

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn
from paddle.autograd import PyLayer

from glm.cpu.arrays import (
    MIN_PARALLEL_SIZE,
    by_rows,
    draw_kept,
    draw_seed,
    on_threads,
    pop_saved,
    random_stream,
    rescale,
    view,
)

STREAM = 1 << 18  # numbers that get their dropout from one random stream, whatever the number of threads


def worth_by_hand(states: Tensor) -> bool:
    """Whether a hand-written layer trains faster than Paddle's operators."""
    return states.place.is_cpu_place() and states.size >= MIN_PARALLEL_SIZE


def column_sums(table: Tensor) -> Tensor:
    """Sums columns, [n, H] -> [H], by a product with ones: Paddle's sum over rows takes 30 times as long."""
    return paddle.matmul(paddle.ones([1, table.shape[0]], dtype=table.dtype), table)[0]


class _Linear(PyLayer):
    @staticmethod
    def forward(ctx, states, weight, bias):
        rows = states.flatten(0, -2)
        ctx.save_for_backward(rows, weight)
        ctx.shape, ctx.frozen = states.shape, [part.stop_gradient for part in (states, weight, bias)]
        output = paddle.matmul(rows, weight)
        addend = view(bias)
        by_rows(lambda block: np.add(block, addend, out=block), view(output))
        return output.reshape([*states.shape[:-1], -1])

    @staticmethod
    def backward(ctx, grad):
        rows, weight = pop_saved(ctx)
        grad = grad.flatten(0, -2)
        frozen_states, frozen_weight, frozen_bias = ctx.frozen
        return (
            None if frozen_states else paddle.matmul(grad, weight, transpose_y=True).reshape(ctx.shape),
            None if frozen_weight else paddle.matmul(rows, grad, transpose_x=True),
            None if frozen_bias else column_sums(grad),
        )


class Linear(nn.Linear):
    """Linear layer, x W + b.

    Attributes:
        trains_in_bfloat16: on a CPU, see `glm.training.precision`.
    """

    trains_in_bfloat16 = False

    def forward(self, states: Tensor) -> Tensor:
        """[..., H] -> [..., O]"""
        if self.training and self.trains_in_bfloat16:
            from glm.cpu.bfloat16 import BFloat16Linear  # here: it loads Numba

            return BFloat16Linear.apply(states, self.weight, self.bias)
        if self.training and worth_by_hand(states):
            return _Linear.apply(states, self.weight, self.bias)
        return super().forward(states)


class _LayerNorm(PyLayer):
    @staticmethod
    def forward(ctx, states, weight, bias, epsilon):
        ctx.save_for_backward(states, weight)
        ctx.epsilon, ctx.frozen = epsilon, [part.stop_gradient for part in (states, weight, bias)]
        return F.layer_norm(states, states.shape[-1:], weight, bias, epsilon)

    @staticmethod
    def backward(ctx, grad):
        from glm.cpu.rows import layer_norm_gradients  # imported here because it loads Numba

        states, weight = pop_saved(ctx)
        gradients = layer_norm_gradients(states, weight, ctx.epsilon, grad)
        return tuple(None if frozen else part for frozen, part in zip(ctx.frozen, gradients, strict=True))


class LayerNorm(nn.LayerNorm):
    """LayerNorm over the last dimension, in float32 even for states of half precision."""

    def forward(self, states: Tensor) -> Tensor:
        """[..., H] -> [..., H]"""
        if self.training and (worth_by_hand(states) or self._is_frozen_on_cpu(states)):
            return _LayerNorm.apply(states, self.weight, self.bias, self._epsilon)
        if states.dtype in (paddle.float16, paddle.bfloat16):
            weight, bias = self.weight.astype("float32"), self.bias.astype("float32")
            normed = F.layer_norm(states.astype("float32"), self._normalized_shape, weight, bias, self._epsilon)
            return normed.astype(states.dtype)
        return super().forward(states)

    def _is_frozen_on_cpu(self, states: Tensor) -> bool:
        """Whether this is a case in which Paddle 3.3's gradient with respect to states is wrong."""
        return self.weight.stop_gradient and states.place.is_cpu_place()


class GELU(nn.GELU):
    """GELU in its tanh approximation."""

    def __init__(self):
        super().__init__(approximate=True)

    def forward(self, states: Tensor) -> Tensor:
        if self.training and worth_by_hand(states) and states.dtype == paddle.float32:
            from glm.cpu.rows import CompiledGELU  # imported here because it loads Numba

            return CompiledGELU.apply(states, False)
        return super().forward(states)


class ExactGELU(nn.GELU):
    """GELU by the error function, x Phi(x)."""

    def forward(self, states: Tensor) -> Tensor:
        if worth_by_hand(states) and states.dtype == paddle.float32:
            from glm.cpu.rows import CompiledGELU  # imported here because it loads Numba

            return CompiledGELU.apply(states, True)
        return super().forward(states)


ACTIVATIONS = {"gelu_tanh": GELU, "gelu": ExactGELU}  # names as in Hugging Face's configurations


class TiedEmbedding(nn.Embedding):
    """Word embedding whose table is the head too.

    In training on a CPU its gradient is of the words that were looked up only, which Paddle adds to the head's in
    place; otherwise to the head's comes a second table of that size, zeros almost everywhere.

    Attributes:
        learns_as_head: False where the head takes no part in the loss: then the gradient is a whole table.
        trains_in_bfloat16: as the head, as `Linear`.
        rows: `glm.modules.trained_rows.TrainedRows` of a frozen table; or None.
    """

    learns_as_head = True
    trains_in_bfloat16 = False

    def __init__(self, rows: int, size: int):
        super().__init__(rows, size)
        self.rows = None

    def forward(self, ids: Tensor) -> Tensor:
        """[...] int64 -> [..., H]"""
        if self.rows is not None:
            return self.rows.look_up(ids, self.weight)
        is_sparse = self.training and self.learns_as_head and ids.place.is_cpu_place()
        return F.embedding(ids, self.weight, padding_idx=self._padding_idx, sparse=is_sparse)


class _Dropout(PyLayer):
    @staticmethod
    def forward(ctx, states, probability):
        seed, size = draw_seed(), states.size
        starts = range(0, size, STREAM)

        def draw(start: int) -> np.ndarray:
            shape = (min(STREAM, size - start),)
            return draw_kept(random_stream(seed, start), shape, probability)

        ctx.kept = np.concatenate(on_threads(draw, starts, parallel=size >= MIN_PARALLEL_SIZE))
        ctx.scale = rescale(probability)
        return _thin(states, ctx.kept, ctx.scale)

    @staticmethod
    def backward(ctx, grad):
        return _thin(grad, ctx.kept, ctx.scale)


def _thin(states: Tensor, kept: np.ndarray, scale: float) -> Tensor:
    """Applies a dropout mask: scales what is kept, sets the rest to 0."""
    states, output = states.contiguous(), paddle.empty_like(states)

    def thin(x, keep, out):
        np.multiply(x, keep, out=out)
        out *= scale

    by_rows(thin, *(part.reshape(-1) for part in (view(states), kept, view(output))))
    return output


class Dropout(nn.Dropout):
    """Dropout: in training sets numbers to 0 with probability p and divides the others by 1 - p."""

    def forward(self, states: Tensor) -> Tensor:
        if self.training and self.p and states.place.is_cpu_place():
            return _Dropout.apply(states, self.p)
        return super().forward(states) if self.training and self.p else states
