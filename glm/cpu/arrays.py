"""Helpers of the CPU kernels: tensors as NumPy arrays, threads, random streams.

NumPy works on the tensors' own memory, one block of rows at a time that fits into the processor's cache, with as many
threads as matrix products have.
"""

import ctypes
import math
import mmap
import threading
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path

import numpy as np
import paddle
from paddle import Tensor
from paddle.autograd import PyLayerContext
from paddle.utils.dlpack import from_dlpack
from threadpoolctl import threadpool_limits

from glm.runtime.environment import WANTED_BLOCKTIME, cpu_threads

HEAD_SIZE = 64  # of all published GLMs
# Head sizes that attention is compiled for, each with loops of known length: 64, 96, 128, …
HEAD_UNIT, LARGEST_HEAD = 32, 256
BLOCK = 1 << 18  # elements of an array that a thread works on at a time; the best of 2^14 to 2^18, measured
SMALL = 128  # hidden size up to which a training step gains next to nothing from more threads
MIN_OWN_PAGES = 1 << 20  # bytes of an array that is worth a block of its own
LINE = 16  # float32 numbers of a cache line
MIN_PARALLEL_SIZE = BLOCK // 2  # elements below which more threads, or a hand-written layer, cost more than they save

_free_blocks: list[mmap.mmap] = []  # of `zeros_apart`
threadpool_limits(1, user_api="blas")  # we run several small NumPy products at once, each on one thread


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
    """Lets OpenMP threads spin for 200 ms after a product, for work that has no other use for the cores.

    This is OpenMP's default, which `glm.runtime.environment` turns off. A step of the demo took 68 ms in place of 85.
    """
    if WANTED_BLOCKTIME is None and openmp() is not None:
        openmp().kmp_set_blocktime(200)


def view(tensor: Tensor) -> np.ndarray:
    """Returns a CPU tensor as an array on the same memory. It is writable, which np.from_dlpack's is not."""
    shape, dtype = tensor.shape, _numpy_type(tensor.dtype)
    size = math.prod(shape) * dtype.itemsize
    if not size:
        return np.empty(shape, dtype)
    memory = (ctypes.c_char * size).from_address(tensor.data_ptr())
    memory.owner = tensor  # lives as long as the array
    return np.ndarray(shape, dtype, memory)


def tensor_of(array: np.ndarray) -> Tensor:
    """Returns a contiguous array as a tensor on the same memory."""
    return from_dlpack(array)


def zeros_apart(shape: tuple[int, ...]) -> np.ndarray:
    """Returns a float32 array of zeros that, if large, lies in a block outside malloc's heap.

    For what outlives the temporaries of a layer: between them in the heap it would fill the hole that the next layer's
    temporaries need, and the heap would grow by these with every layer. Freed blocks serve again, for to map and touch
    new pages takes ten times as long as to set them to 0.
    """
    count = math.prod(shape)
    size = count * np.dtype(np.float32).itemsize
    if size < MIN_OWN_PAGES:
        return np.zeros(shape, np.float32)
    block = _block_of(size)
    array = np.frombuffer(block, np.float32, count)
    weakref.finalize(array, _free_blocks.append, block).atexit = False
    array[:] = 0
    return array.reshape(shape)


def _block_of(size: int) -> mmap.mmap:
    """Returns a freed block that fits; otherwise a new one, and gives a freed one back to the system."""
    fitting = [block for block in _free_blocks if size <= len(block) <= 2 * size]
    if fitting:
        block = min(fitting, key=len)
        _free_blocks.remove(block)
        return block
    if _free_blocks:
        _free_blocks.pop()
    block = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a kernel without huge pages
            block.madvise(mmap.MADV_HUGEPAGE)
    return block


def empty(shape: Sequence[int]) -> Tensor:
    """Returns a float32 tensor whose content is undefined. A large one is in NumPy's memory.

    Paddle's is aligned to a page, and glibc (2.36) cannot give such a block again to a tensor of the same size: each
    layer's temporaries would take new memory beside the holes that those of the last layer left. This one is aligned
    to a cache line, and its block is as good for the next of its size.
    """
    size = math.prod(shape)
    if 4 * size < MIN_OWN_PAGES:
        return paddle.empty(shape)
    memory = np.empty(size + LINE, np.float32)
    start = -(memory.ctypes.data // 4) % LINE  # elements up to the next line
    return tensor_of(memory[start : start + size].reshape(shape))


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(cpu_threads(), thread_name_prefix="glm")


def by_rows(function: Callable, *arrays: np.ndarray) -> list:
    """Calls a function on blocks of rows of several arrays, on all threads.

    Args:
        function: takes one block [rows, ...] of each array.
        arrays: with the same number of rows.

    Returns:
        The function's results, in the order of the blocks.
    """
    rows, share = len(arrays[0]), -(-len(arrays[0]) // cpu_threads())
    size = max(1, min(share, BLOCK * rows // max(arrays[0].size, 1)))

    def call(start: int):
        return function(*(array[start : start + size] for array in arrays))

    return on_threads(call, range(0, rows, size), parallel=arrays[0].size >= MIN_PARALLEL_SIZE)


def on_threads(function: Callable, items: Sequence, *, parallel: bool) -> list:
    """Maps a function over items, in order; on the calling thread alone if not `parallel`."""
    return list(_pool().map(function, items) if parallel and len(items) > 1 else map(function, items))


class _Scratch(threading.local):
    """The named buffers of a thread."""

    def __init__(self):
        self.memory: dict[str, np.ndarray] = {}


_scratch = _Scratch()


def scratch(name: str, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Returns a named buffer of the calling thread, reused so that it stays in the cache; its content is undefined."""
    size = math.prod(shape) * dtype.itemsize
    memory = _scratch.memory.get(name)
    if memory is None or memory.size < size:
        memory = _scratch.memory[name] = np.empty(size, np.uint8)
    return memory[:size].view(dtype).reshape(shape)


def pop_saved(ctx: PyLayerContext) -> Sequence[Tensor]:
    """Returns what a forward pass saved, and frees it: the backward pass can run only once.

    Paddle itself would keep it until the whole graph is freed, when all gradients have been computed.
    """
    saved, ctx.container = ctx.saved_tensor(), None
    return saved


def draw_seed() -> int:
    """Draws a seed from Paddle's generator; with the state restored, as in recompute, the same seed again."""
    return int(paddle.randint(0, 2**31 - 1, [1], dtype="int64"))


def random_stream(seed: int, number: int) -> np.random.BitGenerator:
    """Returns one of the independent random streams of a seed."""
    return np.random.SFC64(np.random.SeedSequence((seed, number)))


def draw_kept(random: np.random.BitGenerator, shape: tuple[int, ...], probability: float) -> np.ndarray:
    """Draws a dropout mask: bool, False with the given probability (rounded to 1 / 65536)."""
    size = math.prod(shape)
    words = random.random_raw(-(-size // 4)).view(np.uint16)[:size]
    return (words >= round(probability * 65536)).reshape(shape)


def rescale(probability: float) -> float:
    """Returns the factor that keeps the mean under dropout, 1 / (1 - probability)."""
    return 1.0 / (1.0 - probability) if probability < 1.0 else 0.0


def squared_norms(tensors: Sequence[Tensor]) -> list[float]:
    """Returns the sum of squares of each tensor; it is NaN or infinite if an element is."""
    if all(tensor.place.is_cpu_place() for tensor in tensors):
        return [float(sum(by_rows(lambda block: np.dot(block, block), view(part).reshape(-1)))) for part in tensors]
    return paddle.stack([part.astype("float32").square().sum() for part in tensors]).tolist()


def scale_in_place(tensor: Tensor, factor: float) -> None:
    """Multiplies all elements by a factor."""
    if tensor.place.is_cpu_place():
        by_rows(lambda block: np.multiply(block, factor, out=block), view(tensor).reshape(-1))
    else:
        tensor.scale_(factor)
