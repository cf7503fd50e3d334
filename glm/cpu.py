"""Forward and backward, written by hand, of what Paddle trains slowly on a CPU; products stay Paddle's.

Paddle's own operators run these on one thread, and some take many times what their arithmetic needs: the gradient of
a bias 30 ms for [1536, 3072] where a product with ones takes 0.4. Here NumPy works on the tensors' own memory, a block
of rows that fits into the processor's cache at a time, on as many threads as products have.

Layers fall back on Paddle's operators outside training, on other devices and with few numbers, where steps in Python
cost more than they save (but not a frozen LayerNorm, of which Paddle takes a wrong gradient); parameters and their
names are Paddle's.
"""

import ctypes
import math
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn
from paddle.autograd import PyLayer
from paddle.utils.dlpack import from_dlpack
from threadpoolctl import threadpool_limits

from glm.environment import WANTED_BLOCKTIME, cpu_threads

HEAD_SIZE = 64  # numbers of a head of all published GLMs: what attention is compiled for, loops of known length
BLOCK = 1 << 18  # numbers of one array that a thread works on at a time; measured from 2^14 to 2^18
STREAM = 1 << 18  # numbers whose dropout comes from one random stream, whatever the number of threads
SMALL = 128  # hidden size up to which a training step has next to nothing for other threads of the host's own
WORTH = BLOCK // 2  # numbers below which other threads, and layers written by hand, cost more than they bring

threadpool_limits(1, user_api="blas")  # NumPy's products are small ones, on several threads of ours at a time


@cache
def openmp() -> ctypes.CDLL | None:
    """The OpenMP runtime that Paddle brings, opened to other libraries; None where it brings none."""
    library = Path(paddle.__file__).parent / "libs" / "libiomp5.so"
    return ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL) if library.exists() else None


@cache
def _numpy_type(dtype: paddle.dtype) -> np.dtype:
    return np.dtype(str(dtype).removeprefix("paddle."))


def wait_actively() -> None:
    """Lets the threads of products look out for the next one for 200 ms, their default that `glm.environment` takes
    away: for work that has no other use for the cores. A demo's step took 68 ms, not 85."""
    if WANTED_BLOCKTIME is None and openmp() is not None:
        openmp().kmp_set_blocktime(200)


def view(tensor: Tensor) -> np.ndarray:
    """A tensor of the CPU as an array on the same memory, which can be written (np.from_dlpack's cannot)."""
    shape, dtype = tensor.shape, _numpy_type(tensor.dtype)
    size = math.prod(shape) * dtype.itemsize
    if not size:
        return np.empty(shape, dtype)
    memory = (ctypes.c_char * size).from_address(tensor.data_ptr())
    memory.owner = tensor  # lives as long as the array
    return np.ndarray(shape, dtype, memory)


def tensor_of(array: np.ndarray) -> Tensor:
    """A contiguous array as a tensor on the same memory."""
    return from_dlpack(array)


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(cpu_threads(), thread_name_prefix="glm")


def by_rows(function: Callable, *arrays: np.ndarray) -> list:
    """Calls a function with blocks of rows of all arrays, on all threads.

    Args:
        function: takes a block [rows, ...] of each array.
        arrays: of equal first dimension.

    Returns:
        What the function returned, in the order of the blocks.
    """
    rows, share = len(arrays[0]), -(-len(arrays[0]) // cpu_threads())
    size = max(1, min(share, BLOCK * rows // max(arrays[0].size, 1)))

    def call(start: int):
        return function(*(array[start : start + size] for array in arrays))

    return on_threads(call, range(0, rows, size), worth=arrays[0].size >= WORTH)


def on_threads(function: Callable, items: Sequence, *, worth: bool) -> list:
    """The function of each item, in their order; on the calling thread alone if the work is `worth` no others."""
    return list(_pool().map(function, items) if worth and len(items) > 1 else map(function, items))


class _Scratch(threading.local):
    """Memory of a thread by name."""

    def __init__(self):
        self.memory: dict[str, np.ndarray] = {}


_scratch = _Scratch()


def scratch(name: str, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """A table in memory that the calling thread gets again with the next call of the name: it is in its cache."""
    size = math.prod(shape) * dtype.itemsize
    memory = _scratch.memory.get(name)
    if memory is None or memory.size < size:
        memory = _scratch.memory[name] = np.empty(size, np.uint8)
    return memory[:size].view(dtype).reshape(shape)


def draw_seed() -> int:
    """A seed from Paddle's generator: its state restored, as recompute does, the same is drawn again."""
    return int(paddle.randint(0, 2**31 - 1, [1], dtype="int64"))


def random_stream(seed: int, number: int) -> np.random.BitGenerator:
    """One of the independent streams of a seed."""
    return np.random.SFC64(np.random.SeedSequence((seed, number)))


def draw_kept(random: np.random.BitGenerator, shape: tuple[int, ...], probability: float) -> np.ndarray:
    """Which numbers dropout leaves: bool, False with a probability (to 1 / 65536)."""
    size = math.prod(shape)
    words = random.random_raw(-(-size // 4)).view(np.uint16)[:size]
    return (words >= round(probability * 65536)).reshape(shape)


def rescale(probability: float) -> float:
    """What dropout multiplies by, so that means stay."""
    return 1.0 / (1.0 - probability) if probability < 1.0 else 0.0


def worth_by_hand(states: Tensor) -> bool:
    """Whether a layer written by hand trains faster than Paddle's operators."""
    return states.place.is_cpu_place() and states.size >= WORTH


def column_sums(table: Tensor) -> Tensor:
    """[n, H] -> [H]. A product with ones: Paddle's sum over rows takes 30 times as long."""
    return paddle.matmul(paddle.ones([1, table.shape[0]], dtype=table.dtype), table)[0]


def squared_norms(tensors: Sequence[Tensor]) -> list[float]:
    """Of each tensor the sum of its numbers' squares, which is not finite if one of them is not."""
    if all(tensor.place.is_cpu_place() for tensor in tensors):
        return [float(sum(by_rows(lambda block: np.dot(block, block), view(part).reshape(-1)))) for part in tensors]
    return paddle.stack([part.astype("float32").square().sum() for part in tensors]).tolist()


def scale_in_place(tensor: Tensor, factor: float) -> None:
    """Multiplies all numbers by a factor."""
    if tensor.place.is_cpu_place():
        by_rows(lambda block: np.multiply(block, factor, out=block), view(tensor).reshape(-1))
    else:
        tensor.scale_(factor)


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
        rows, weight = ctx.saved_tensor()
        grad = grad.flatten(0, -2)
        frozen_states, frozen_weight, frozen_bias = ctx.frozen
        return (
            None if frozen_states else paddle.matmul(grad, weight, transpose_y=True).reshape(ctx.shape),
            None if frozen_weight else paddle.matmul(rows, grad, transpose_x=True),
            None if frozen_bias else column_sums(grad),
        )


class Linear(nn.Linear):
    """x W + b."""

    def forward(self, states: Tensor) -> Tensor:
        """[..., H] -> [..., O]"""
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
        states, weight = ctx.saved_tensor()
        scale = view(weight)
        H = len(scale)

        def differentiate(x, g, out):
            normed = x - x.mean(-1, keepdims=True)
            deviation = np.sqrt(np.einsum("nh,nh->n", normed, normed) / H + ctx.epsilon)[:, None]
            normed /= deviation
            d_weight, d_bias = np.einsum("nh,nh->h", g, normed), g.sum(0)
            np.multiply(g, scale, out=out)
            slope = np.einsum("nh,nh->n", out, normed)[:, None] / H
            out -= out.mean(-1, keepdims=True)
            normed *= slope
            out -= normed
            out /= deviation
            return d_weight, d_bias

        grad = grad.contiguous()
        d_states = paddle.empty_like(states)
        sums = by_rows(differentiate, *(view(part).reshape(-1, H) for part in (states, grad, d_states)))
        d_weight, d_bias = (tensor_of(np.sum(parts, axis=0)) for parts in zip(*sums, strict=True))
        gradients = d_states, d_weight, d_bias
        return tuple(None if frozen else part for frozen, part in zip(ctx.frozen, gradients, strict=True))


class LayerNorm(nn.LayerNorm):
    """Over the last dimension, in float32 also where states are of half precision."""

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
        """Where the gradient with respect to states is wrong in Paddle 3.3."""
        return self.weight.stop_gradient and states.place.is_cpu_place()


class _Dropout(PyLayer):
    @staticmethod
    def forward(ctx, states, probability):
        seed, size = draw_seed(), states.size
        starts = range(0, size, STREAM)

        def draw(start: int) -> np.ndarray:
            shape = (min(STREAM, size - start),)
            return draw_kept(random_stream(seed, start), shape, probability)

        ctx.kept = np.concatenate(on_threads(draw, starts, worth=size >= WORTH))
        ctx.scale = rescale(probability)
        return _thin(states, ctx.kept, ctx.scale)

    @staticmethod
    def backward(ctx, grad):
        return _thin(grad, ctx.kept, ctx.scale)


def _thin(states: Tensor, kept: np.ndarray, scale: float) -> Tensor:
    """What is kept, scaled; 0 elsewhere."""
    output = paddle.empty_like(states)

    def thin(x, keep, out):
        np.multiply(x, keep, out=out)
        out *= scale

    by_rows(thin, *(part.reshape(-1) for part in (view(states), kept, view(output))))
    return output


class Dropout(nn.Dropout):
    """Sets numbers to 0 with probability p and divides the others by 1 - p, in training only."""

    def forward(self, states: Tensor) -> Tensor:
        if self.training and self.p and states.place.is_cpu_place():
            return _Dropout.apply(states, self.p)
        return super().forward(states) if self.training and self.p else states
