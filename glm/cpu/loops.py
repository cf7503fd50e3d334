"""What loops compiled by Numba share: the compiler's options, and the threads they run on."""

import contextlib
import hashlib
import tempfile
from functools import cache
from pathlib import Path

import llvmlite.binding
import numba
import numpy as np
import paddle

from glm.cpu.arrays import openmp
from glm.runtime.environment import cpu_threads


def _cache_folder() -> Path | None:
    """Where Numba keeps what it compiles from these sources; None if nothing can be written.

    By itself it would look at the source of the function alone, and take code of before an upgrade where only what
    that calls has changed. Folders of earlier versions stay.
    """
    sources = sorted(Path(__file__).parent.glob("*.py"))
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:16]
    for parent in (Path(__file__).parent / "__pycache__", Path("~/.cache/glm").expanduser()):
        folder = parent / f"loops-{digest}"
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
            return folder
    return None


def _prepare() -> bool:
    """Before the first loop is compiled: Paddle's threads, the widest vectors, and where the result is kept.

    Two teams of threads that wait actively on the same cores are in each other's way: a step took twice as long.
    LLVM leaves half of a 512-bit vector unused, for fear of processors that slow down with them. What the user's
    environment says of Numba (NUMBA_...) goes before.

    Returns:
        Whether it can be kept.
    """
    if openmp() is not None and numba.config.THREADING_LAYER == "default":
        numba.config.THREADING_LAYER = "omp"
    features = llvmlite.binding.get_host_cpu_features()
    if features.get("avx512f") and numba.config.CPU_FEATURES is None and numba.config.CPU_NAME is None:
        numba.config.CPU_NAME = llvmlite.binding.get_host_cpu_name()
        numba.config.CPU_FEATURES = features.flatten() + ",-prefer-256-bit"
    if not numba.config.CACHE_DIR:
        numba.config.CACHE_DIR = str(_cache_folder() or "")
    return bool(numba.config.CACHE_DIR)


# Sums may be added up in any order, so that a processor's vectors can do it; infinities and NaN stay what they are.
# Other threads of Python go on meanwhile, such as those of a server. What a loop calls becomes a part of it: left to
# stand apart, its copies in two loops have one name and two orders of adding up, and which one both loops then call
# depends on what this process compiled, or loaded, first.
OPTIONS = {
    "fastmath": {"reassoc", "contract", "nsz", "arcp"},
    "error_model": "numpy",
    "nogil": True,
    "forceinline": True,
    "cache": _prepare(),
}
LOG2E = np.float32(np.log2(np.e))
# 2^x on [-0.5, 0.5], a least-squares fit: relative error 2.3e-7. Numba would call exp for one number at a time.
P0, P1, P2 = np.float32(1.0000001), np.float32(0.69314694), np.float32(0.24022122)
P3, P4, P5 = np.float32(0.055507425), np.float32(0.00967546), np.float32(0.0013266971)
SMALLEST_EXPONENT, LARGEST_EXPONENT = np.float32(-126), np.float32(127)


@cache
def _start_threads() -> None:
    """Starts Numba's threads, one for each core whatever OMP_NUM_THREADS says.

    Numba tells OpenMP of their number, which is Paddle's OpenMP too: what is computed behind the first loop would run
    on other threads than what came before it, and add up in another order.
    """
    numba.set_num_threads(1)  # they start at the first word of them
    paddle.base.core.set_num_threads(cpu_threads())


def use_own_threads() -> None:
    """Gives a loop that is called next as many threads as Paddle's products have. One thread at a time may call one:
    not all of Numba's threading layers can be asked by two."""
    _start_threads()
    numba.set_num_threads(min(cpu_threads(), numba.config.NUMBA_NUM_THREADS))


@numba.njit(inline="always", **OPTIONS)
def exponential(x):
    """e^x in float32; what float32 cannot hold is its least or its largest power of two."""
    x = min(max(x * LOG2E, SMALLEST_EXPONENT), LARGEST_EXPONENT)
    whole = np.rint(x)
    x -= whole
    power = P0 + x * (P1 + x * (P2 + x * (P3 + x * (P4 + x * P5))))
    return power * np.int32((np.int32(whole) + 127) << 23).view(np.float32)


@numba.njit(**OPTIONS)
def greatest(numbers):
    """The largest of float32 numbers, by integers of the same order: LLVM makes no vectors of comparing floats."""
    bits, largest = numbers.view(np.int32), np.int32(-(2**31))
    for i in range(len(bits)):
        largest = max(largest, _ordered(bits[i]))
    return _ordered(largest).view(np.float32)


@numba.njit(inline="always", **OPTIONS)
def _ordered(bits):
    """Of negative numbers, whose bits rise as they fall, all bits but the sign turned; its own inverse."""
    return np.int32(bits ^ ((bits >> np.int32(31)) & np.int32(2**31 - 1)))


@numba.njit(**OPTIONS)
def exponentiate(scores):
    """exp(score - the largest) in place; returns the largest, and the sum."""
    largest, total = greatest(scores), np.float32(0)
    for j in range(len(scores)):
        scores[j] = exponential(scores[j] - largest)
        total += scores[j]
    return largest, total
