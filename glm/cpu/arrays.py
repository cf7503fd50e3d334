"""What the host's own loops on a CPU are made of: tensors as arrays, threads, random streams.

NumPy works on the tensors' own memory, a block of rows that fits into the processor's cache at a time, on as many
threads as products have.
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
from paddle import Tensor
from paddle.autograd import PyLayerContext
from paddle.utils.dlpack import from_dlpack
from threadpoolctl import threadpool_limits

from glm.runtime.environment import WANTED_BLOCKTIME, cpu_threads

HEAD_SIZE = 64  # numbers of a head of all published GLMs
# Of heads that attention is compiled for, each size with loops of known length: 64, 96, 128, ... numbers.
HEAD_UNIT, LARGEST_HEAD = 32, 256
BLOCK = 1 << 18  # numbers of one array that a thread works on at a time; measured from 2^14 to 2^18
SMALL = 128  # hidden size up to which a training step has next to nothing for other threads of the host's own
WORTH = BLOCK // 2  # numbers below which other threads, and layers written by hand, cost more than they bring

threadpool_limits(1, user_api="blas")  # NumPy's products are small ones, on several threads of ours at a time


def is_compiled_for(head_size: int) -> bool:
    """Whether attention has compiled loops for heads of this size."""
    return head_size % HEAD_UNIT == 0 and HEAD_SIZE <= head_size <= LARGEST_HEAD


@cache
def openmp() -> ctypes.CDLL | None:
    """The OpenMP runtime that Paddle brings, opened to other libraries; None where it brings none."""
    library = Path(paddle.__file__).parent / "libs" / "libiomp5.so"
    return ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL) if library.exists() else None


@cache
def _numpy_type(dtype: paddle.dtype) -> np.dtype:
    return np.dtype(str(dtype).removeprefix("paddle."))


def wait_actively() -> None:
    """Lets the threads of products look out for the next one for 200 ms, for work that has no other use for the cores.

    That is their default, which `glm.runtime.environment` takes away. A demo's step took 68 ms, not 85.
    """
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


def take_saved(ctx: PyLayerContext) -> Sequence[Tensor]:
    """What a forward pass saved for its backward pass, which may run once: Paddle keeps it until the whole graph goes,
    when all gradients are there."""
    saved, ctx.container = ctx.saved_tensor(), None
    return saved


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
