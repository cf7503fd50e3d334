"""Products of training in bfloat16 on a CPU, by the oneDNN that Paddle brings.

Operands are rounded to bfloat16, to the nearest, of two the even one, and their numbers are uint16; products are added
up in float32. oneDNN takes the instructions of the processor, of vectors (AVX512_BF16) or of tiles (AMX), and its
threads are those of Paddle's OpenMP, which `glm.cpu.loops` has opened by then.
"""

import numpy as np
import paddle
from numba import njit, prange
from paddle import Tensor
from paddle.autograd import PyLayer

from glm.cpu.arrays import tensor_of, view
from glm.cpu.loops import OPTIONS, use_own_threads
from glm.cpu.rounding import round_row
from glm.runtime.onednn import bfloat16_product

ROWS = 64  # summed by one thread, so that results do not depend on the number of threads
LENGTH = 1 << 14  # numbers that a thread rounds at a time
TRANSPOSED = {False: b"N", True: b"T"}


def product(a: np.ndarray, b: np.ndarray, *, transpose_a: bool = False, transpose_b: bool = False) -> Tensor:
    """[m, k] times [k, n], of bfloat16 as uint16, either of them given transposed -> [m, n] float32."""
    m, k = a.shape[::-1] if transpose_a else a.shape
    n = b.shape[0] if transpose_b else b.shape[1]
    if not m * k * n:
        return paddle.zeros([m, n], "float32")
    output = paddle.empty([m, n], "float32")
    kinds = TRANSPOSED[transpose_a], TRANSPOSED[transpose_b]
    factors = (a.ctypes.data, a.shape[1], b.ctypes.data, b.shape[1])
    failed = bfloat16_product()(*kinds, m, n, k, 1.0, *factors, 0.0, output.data_ptr(), n)
    assert not failed, f"oneDNN's status {failed}"
    return output


def rounded(numbers: Tensor) -> np.ndarray:
    """A table of float32 as bfloat16."""
    table = view(numbers.contiguous())
    found = np.empty(table.shape, np.uint16)
    use_own_threads()
    _round(table.reshape(-1), found.reshape(-1))
    return found


@njit(parallel=True, **OPTIONS)
def _round(numbers, found):
    for block in prange(-(-len(numbers) // LENGTH)):
        start = block * LENGTH
        round_row(numbers[start : start + LENGTH], found[start : start + LENGTH])


@njit(parallel=True, **OPTIONS)
def _round_and_sum(numbers, found, sums):
    """Rounds [n, O], and adds to sums [blocks, O] (zeros at first) those over ROWS rows each."""
    for block in prange(len(sums)):
        for r in range(block * ROWS, min((block + 1) * ROWS, len(numbers))):
            round_row(numbers[r], found[r])
            for o in range(numbers.shape[1]):
                sums[block, o] += numbers[r, o]


@njit(parallel=True, **OPTIONS)
def _add_to_rows(table, addend):
    """[n, O], in place, and [O]."""
    for r in prange(len(table)):
        for o in range(len(addend)):
            table[r, o] += addend[o]


class BFloat16Linear(PyLayer):
    """x W + b of float32, forward and backward by products in bfloat16; sums are float32.

    Of the states it keeps bfloat16 for the backward pass, half of what float32 takes.
    """

    @staticmethod
    def forward(ctx, states: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        rows, factor = rounded(states.flatten(0, -2)), rounded(weight)
        frozen = [part.stop_gradient for part in (states, weight, bias)]
        ctx.shape, ctx.frozen = states.shape, frozen
        ctx.rows, ctx.factor = None if frozen[1] else rows, None if frozen[0] else factor
        output = product(rows, factor)
        _add_to_rows(view(output), view(bias))
        return output.reshape([*states.shape[:-1], -1])

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, factor = ctx.rows, ctx.factor
        ctx.rows = ctx.factor = None
        table = view(grad.flatten(0, -2).contiguous())
        slopes, sums = np.empty(table.shape, np.uint16), np.zeros((-(-len(table) // ROWS), table.shape[1]), np.float32)
        use_own_threads()
        _round_and_sum(table, slopes, sums)
        frozen_states, frozen_weight, frozen_bias = ctx.frozen
        return (
            None if frozen_states else product(slopes, factor, transpose_b=True).reshape(ctx.shape),
            None if frozen_weight else product(rows, slopes, transpose_a=True),
            None if frozen_bias else tensor_of(sums.sum(0)),
        )


class HeadProducts:
    """Products of states with a head [V, H] in training; operands are rounded once, and results are float32."""

    def __init__(self, head: Tensor):
        self.head = rounded(head)
        self._rounded = (None, None)  # a table, and what it is in bfloat16

    def logits(self, states: Tensor) -> Tensor:
        """[n, H] -> [n, V]"""
        return product(rounded(states), self.head, transpose_b=True)

    def d_states(self, slopes: Tensor) -> Tensor:
        """The gradient of states, of that of logits: [n, V] -> [n, H]"""
        return product(self._once(slopes), self.head)

    def d_head(self, slopes: Tensor, states: Tensor) -> Tensor:
        """The head's: [n, V], [n, H] -> [V, H]"""
        return product(self._once(slopes), rounded(states), transpose_a=True)

    def _once(self, slopes: Tensor) -> np.ndarray:
        if self._rounded[0] is not slopes:
            self._rounded = slopes, rounded(slopes)
        return self._rounded[1]
