"""Selects the device, and makes the settings without which Paddle is slow on a CPU."""

import ctypes
import logging
import mmap
import os
import re

from glm.errors import UsageError
from glm.runtime.environment import cpu_threads

# mallopt's parameters, from glibc's malloc.h
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8
NEVER_TRIM = -1  # as mallopt(3) has it
MADV_HUGEPAGE = 14  # of madvise, from Linux's mman.h
# PaddleNLP's, which puts a handler and a level on it where it is loaded; prediction goes without.
_LOG = logging.getLogger("PaddleNLP")


def has_gpu() -> bool:
    """Whether this build of Paddle and this machine can use a GPU."""
    import paddle  # imported here so that options can be read without it

    return paddle.is_compiled_with_cuda() and paddle.device.cuda.device_count() > 0


def choose_device(requested: str) -> str:
    """Returns the requested device, or the CPU with a warning if there is no GPU.

    Raises:
        UsageError: it is neither `cpu` nor `gpu` nor `gpu:N`.
    """
    if requested != "cpu" and not re.fullmatch(r"gpu(:\d+)?", requested):
        raise UsageError(f"device {requested}: use cpu, gpu or gpu:N")
    if requested != "cpu" and not has_gpu():
        _LOG.warning(f"device {requested}: no GPU can be used here, so this runs on the CPU (--device cpu)")
        return "cpu"
    return requested


def hush() -> None:
    """Silences PaddleNLP's log except for warnings, where standard error is for the program's own messages."""
    _LOG.addFilter(_is_warning)


def _is_warning(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING


def prepare(device: str) -> None:
    """Selects the device; on a CPU also uses all cores of this process and settings measured to be faster."""
    import paddle

    paddle.set_device(device)
    if device != "cpu":
        return
    # Said to the products' library, not left to OpenMP, whose number Numba changes when its threads start.
    paddle.base.core.set_num_threads(cpu_threads())
    # Views with strides make every transpose pay at its next use, many times over on a CPU. Without them Paddle loses
    # what is assigned by a list of indices (`x[row, [1, 2]] = y`).
    paddle.set_flags({"FLAGS_use_stride_kernel": False})
    _keep_memory()


def _keep_memory() -> None:
    """Keeps freed memory in the process: mapping large temporaries again costs more than many operators do."""
    try:
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, NEVER_TRIM)
        _use_huge_pages(libc, os.sysconf("SC_AVPHYS_PAGES") * mmap.PAGESIZE // 2)
    except (OSError, AttributeError, ValueError):
        pass  # another C library: slower, but right


def share_memory() -> None:
    """Lets all threads allocate from the same heap. From one of a thread's own, which malloc makes for each of the
    first ones that there are, `give_memory_back` cannot return what was taken at its end."""
    try:
        ctypes.CDLL("libc.so.6").mallopt(M_ARENA_MAX, 1)
    except (OSError, AttributeError):
        pass  # another C library


def give_memory_back() -> None:
    """Returns freed memory to the system, before large tables that do not fit into its fragments are allocated."""
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except (OSError, AttributeError):
        pass  # another C library


def _use_huge_pages(libc: ctypes.CDLL, size: int) -> None:
    """Makes malloc use huge pages for `size` bytes: address translation of small pages slows reading weights down.

    The bytes are allocated, marked and freed at once without being touched, so they cost nothing until they are used.
    """
    libc.malloc.restype = ctypes.c_void_p
    libc.malloc.argtypes = [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    start = libc.malloc(size)
    if start is None:
        return
    first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
    libc.madvise(first, start + size - first, MADV_HUGEPAGE)
    libc.free(start)
