"""The products of a decoding step on a CPU, compiled by Numba.

A step multiplies a few rows, one per beam, with every weight of the model: its time is that of reading the weights.
Libraries for products arrange a weight for the processor's cache first, which pays for many rows only. Here a weight
stands as it is read, from its first number to its last, while the few rows stay in the cache.
"""

from collections.abc import Callable

import numpy as np
import paddle
from numba import njit, prange
from paddle import Tensor, nn

from glm.cpu import tiles
from glm.cpu.arrays import by_rows, view
from glm.cpu.loops import OPTIONS, use_own_threads
from glm.cpu.vectors import LANES, dot_products
from glm.models.glm.modeling import GLMForConditionalGeneration
from glm.modules.layers import Linear

FEW = 40  # rows up to which this is faster in float32 than Paddle's products: from there on arithmetic takes the time
TASK = 32  # outputs that a thread computes at a time
CHUNK = 1 << 19  # bytes of states that all panels are multiplied by before the next ones: they stay in the cache


class HostLinear(nn.Layer):
    """x W + b that can only decode.

    Args:
        weight: [outputs, inputs], float32; inputs a multiple of LANES.
        bias: [outputs]; None for none.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None):
        super().__init__()
        self.weight = weight
        self.arrays = view(weight), _bias(weight, bias)  # as `multiply` has them

    def forward(self, states: Tensor) -> Tensor:
        """[n, inputs] -> [n, outputs]"""
        if states.shape[0] > FEW:
            output = paddle.matmul(states, self.weight, transpose_y=True)
            by_rows(lambda block: np.add(block, self.arrays[1], out=block), view(output))
            return output
        output = paddle.empty([states.shape[0], len(self.arrays[1])])
        use_own_threads()
        multiply(view(states.contiguous()), *self.arrays, view(output))
        return output


class TileLinear(nn.Layer):
    """x W + b in bfloat16, with sums and result in float32, that can only decode.

    Args:
        weight: [outputs, inputs].
        bias: [outputs]; None for none.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None):
        super().__init__()
        panels = panels_of(weight.astype("bfloat16").numpy())
        self.arrays = panels, _bias(weight, bias)  # as `multiply_tiles` has them

    def forward(self, states: Tensor) -> Tensor:
        """[n, inputs] -> [n, outputs]"""
        output = paddle.empty([states.shape[0], len(self.arrays[1])])
        use_own_threads()
        multiply_tiles(view(states.contiguous()), *self.arrays, view(output))
        return output


def _bias(weight: Tensor, bias: Tensor | None) -> np.ndarray:
    """[outputs], 0 for none."""
    return np.zeros(len(weight), np.float32) if bias is None else view(bias)


def arrange_weights(model: GLMForConditionalGeneration, dtype: str) -> None:
    """Replaces the linear layers of a model, and its head, by such that can only decode.

    One weight after the other is arranged and given up; in float32 the head shares that of the word embeddings, and
    layers of odd sizes stay as they are.

    Args:
        dtype: `float32`, or `bfloat16` where the processor `has_tiles`.
    """
    arranged, unit = (HostLinear, LANES) if dtype == "float32" else (TileLinear, 1)
    for layer in model.sublayers():
        for name, part in layer.named_children():
            if type(part) is Linear and len(part.weight) % unit == 0:
                setattr(layer, name, by_outputs(part, arranged))
    if model.group is None and model.config.hidden_size % unit == 0:
        head = arranged(model.glm.word_embeddings.weight, None)
        model.logits = lambda states: head(states.flatten(0, -2)).reshape([*states.shape[:-1], -1])


def by_outputs(layer: Linear, arranged: Callable[[Tensor, Tensor], nn.Layer]) -> nn.Layer:
    """A linear layer, whose weight is given up, as one that can only decode."""
    weight = layer.weight.T.contiguous()
    layer.weight._clear_data()
    return arranged(weight, layer.bias)


def panels_of(weight: np.ndarray) -> np.ndarray:
    """A weight as tiles are read: [outputs, inputs] -> [outputs / PANEL, inputs / INPUTS, PANEL * INPUTS].

    Of a panel of 32 outputs, 32 inputs at a time; of these, two tiles of 16 pairs of inputs by 16 outputs. 0 where the
    weight has no more of them.
    """
    panels, steps = -(-weight.shape[0] // tiles.PANEL), -(-weight.shape[1] // tiles.INPUTS)
    whole = np.zeros((panels * tiles.PANEL, steps * tiles.INPUTS), weight.dtype)
    whole[: weight.shape[0], : weight.shape[1]] = weight
    # o = (panel, tile, output), i = (step, pair, place)
    by_pairs = whole.reshape(panels, -1, tiles.OUTPUTS, steps, tiles.INPUTS // 2, 2)
    return by_pairs.transpose(0, 3, 1, 4, 2, 5).reshape(panels, steps, -1)  # a copy


_ten_rows, _five_rows = dot_products(10, 2), dot_products(5, 4)


@njit(parallel=True, **OPTIONS)
def multiply(states, weight, bias, output):
    """states: [n, I]; weight: [O, I]; bias: [O]; output: [n, O]."""
    n, outputs = len(states), len(weight)
    for task in prange((outputs + TASK - 1) // TASK):
        first, end = task * TASK, min(task * TASK + TASK, outputs)
        for r in range(0, n, 10):
            if n - r > 5:
                for o in range(first, end, 2):
                    _ten_rows(states, weight, output, r, o)
            else:
                for o in range(first, end, 4):
                    _five_rows(states, weight, output, r, o)
        for r in range(n):
            for o in range(first, end):
                output[r, o] += bias[o]


CONFIGURATION, INPUTS, PANEL, BLOCK = tiles.configuration(), tiles.INPUTS, tiles.PANEL, tiles.ROWS
_one_block, _two_blocks = tiles.tile_products(1), tiles.tile_products(2)


@njit(parallel=True, **OPTIONS)
def multiply_tiles(states, panels, bias, output):
    """states: [n, I] float32; panels: see `panels_of`; bias: [O]; output: [n, O]."""
    n, inputs = states.shape
    rounded = np.zeros(((n + 2 * BLOCK - 1) // (2 * BLOCK) * (2 * BLOCK), panels.shape[1] * INPUTS), np.uint16)
    for r in prange(n):
        bits = states[r].view(np.uint32)
        for i in range(inputs):  # to the nearest, of two the even one
            nearest = (bits[i] + np.uint32(0x7FFF) + (bits[i] >> np.uint32(16) & np.uint32(1))) >> np.uint32(16)
            rounded[r, i] = nearest if states[r, i] == states[r, i] else np.uint32(0x7FC0)  # NaN stays NaN
    chunk = max(1, CHUNK // (2 * inputs) // (2 * BLOCK)) * (2 * BLOCK)
    for start in range(0, n, chunk):
        for panel in prange(len(panels)):
            sums = np.empty((2 * BLOCK, PANEL), np.float32)
            first, end = panel * PANEL, min(panel * PANEL + PANEL, len(bias))
            for r in range(start, min(start + chunk, n), 2 * BLOCK):
                if n - r > BLOCK:
                    _two_blocks(CONFIGURATION, rounded, panels[panel], sums, r)
                else:
                    _one_block(CONFIGURATION, rounded, panels[panel], sums, r)
                for k in range(min(2 * BLOCK, n - r)):
                    for o in range(first, end):
                        output[r + k, o] = sums[k, o - first] + bias[o]
