"""The products of a decoding step on a CPU, compiled by Numba.

A step multiplies a few rows, one per beam, with every weight of the model: its time is that of reading the weights.
Libraries for products arrange a weight for the processor's cache first, which pays for many rows only. Here a weight
stands by outputs, so that it is read from its first number to its last while the few rows stay in the cache.
"""

import numpy as np
import paddle
from numba import njit, prange
from paddle import Tensor, nn

from glm.cpu import Linear, by_rows, view
from glm.loops import OPTIONS, use_own_threads
from glm.modeling import GLMForConditionalGeneration
from glm.vectors import LANES, dot_products

FEW = 40  # rows up to which this is faster than Paddle's products: from there on arithmetic takes the time
OUTPUTS = 32  # that a thread computes at a time


class HostLinear(nn.Layer):
    """x W + b that can only decode.

    Args:
        weight: [outputs, inputs], float32; inputs a multiple of LANES.
        bias: [outputs]; None for none.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None):
        super().__init__()
        self.weight = weight
        self.numbers = view(weight)
        self.bias = np.zeros(len(self.numbers), np.float32) if bias is None else view(bias)

    def forward(self, states: Tensor) -> Tensor:
        """[n, inputs] -> [n, outputs]"""
        if len(states) > FEW:
            output = paddle.matmul(states, self.weight, transpose_y=True)
            by_rows(lambda block: np.add(block, self.bias, out=block), view(output))
            return output
        output = paddle.empty([len(states), len(self.bias)])
        use_own_threads()
        _multiply(view(states.contiguous()), self.numbers, self.bias, view(output))
        return output


def arrange_weights(model: GLMForConditionalGeneration) -> None:
    """Replaces the linear layers of a model, and its head, by such that can only decode; those of odd sizes stay.

    One weight after the other is arranged and given up; the head shares that of the word embeddings.
    """
    for layer in model.sublayers():
        for name, part in layer.named_children():
            if type(part) is Linear and len(part.weight) % LANES == 0:
                setattr(layer, name, by_outputs(part))
    if model.group is None and model.config.hidden_size % LANES == 0:
        head = HostLinear(model.glm.word_embeddings.weight, None)
        model.logits = lambda states: head(states.flatten(0, -2)).reshape([*states.shape[:-1], -1])


def by_outputs(layer: Linear) -> HostLinear:
    """A linear layer, whose weight is given up."""
    weight = layer.weight.T.contiguous()
    layer.weight._clear_data()
    return HostLinear(weight, layer.bias)


_ten_rows, _five_rows = dot_products(10, 2), dot_products(5, 4)  # 20 sums each, of 32 vectors that a processor holds


@njit(parallel=True, **OPTIONS)
def _multiply(states, weight, bias, output):
    """states: [n, I]; weight: [O, I]; bias: [O]; output: [n, O]."""
    n, outputs = len(states), len(weight)
    for block in prange((outputs + OUTPUTS - 1) // OUTPUTS):
        first, end = block * OUTPUTS, min(block * OUTPUTS + OUTPUTS, outputs)
        for r in range(0, n, 10):
            if n - r > 5:
                for o in range(first, end, 2):
                    _ten_rows(states, weight, bias, output, r, o)
            else:
                for o in range(first, end, 4):
                    _five_rows(states, weight, bias, output, r, o)
