"""Compiler options and threads of the kernels that Numba compiles."""

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
from glm.cpu.compiling import tell
from glm.runtime.environment import cpu_threads


def _cache_folder() -> Path | None:
    """Returns the folder where Numba caches compiled kernels; None if nothing can be written.

    The folder is named by a hash of all sources. Numba itself only looks at the source of the compiled function and
    would reuse old code when only a function it calls has changed. Folders of earlier versions are not deleted.
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
    """Sets up Numba before the first kernel is compiled: Paddle's OpenMP threads, full vector width, cache folder.

    - Numba has to use Paddle's OpenMP runtime: two teams of threads that spin on the same cores slow each other down,
      and a step took twice as long.
    - LLVM uses only half of a 512-bit vector by default, because some processors lower their clock with full ones.
    - Settings in the user's environment (NUMBA_...) take precedence.

    Returns:
        Whether compiled kernels can be cached.
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


# Sums may be added in any order, so that they can be vectorised; infinities and NaN keep their meaning. The GIL is
# released, so that other Python threads go on, such as those of a server. Functions that a kernel calls are inlined:
# otherwise their copies in two kernels have the same name but may add in different orders, and which copy both kernels
# call would depend on which was compiled, or loaded, first in this process.
OPTIONS = {
    "fastmath": {"reassoc", "contract", "nsz", "arcp"},
    "error_model": "numpy",
    "nogil": True,
    "forceinline": True,
    "cache": _prepare(),
}
# For loops that write each number they compute to another array. Operations keep their order: where what is written
# lies within a few vectors of what is read, as neighbouring rows of a narrow model may, LLVM leaves vectors for one
# number at a time, and which rows are neighbours differs from run to run.
ELEMENTWISE = OPTIONS | {"fastmath": {"contract", "nsz"}}
NOTICE = tell(kept=OPTIONS["cache"])
LOG2E = np.float32(np.log2(np.e))
# 2^x on [-0.5, 0.5], a least-squares fit with relative error 2.3e-7. Numba would call exp for one element at a time.
P0, P1, P2 = np.float32(1.0000001), np.float32(0.69314694), np.float32(0.24022122)
P3, P4, P5 = np.float32(0.055507425), np.float32(0.00967546), np.float32(0.0013266971)
SMALLEST_EXPONENT, LARGEST_EXPONENT = np.float32(-126), np.float32(127)


@cache
def _start_threads() -> None:
    """Starts Numba's threads, one per core whatever OMP_NUM_THREADS says, before anything is computed.

    Numba sets OpenMP's number of threads, and Paddle uses the same OpenMP. Were they started later, results after the
    first kernel would be added up in another order than results before it.
    """
    numba.set_num_threads(1)  # the first call starts the threads
    paddle.base.core.set_num_threads(cpu_threads())


def use_own_threads() -> None:
    """Gives the kernels called next as many threads as Paddle's products have.

    Only one Python thread at a time may call kernels: not all of Numba's threading layers can be used by two.
    """
    _start_threads()
    numba.set_num_threads(min(cpu_threads(), numba.config.NUMBA_NUM_THREADS))


@numba.njit(inline="always", **OPTIONS)
def exponential(x):
    """Returns e^x in float32, clamped to the smallest and the largest power of two."""
    x = min(max(x * LOG2E, SMALLEST_EXPONENT), LARGEST_EXPONENT)
    whole = np.rint(x)
    x -= whole
    power = P0 + x * (P1 + x * (P2 + x * (P3 + x * (P4 + x * P5))))
    return power * np.int32((np.int32(whole) + 127) << 23).view(np.float32)


@numba.njit(**OPTIONS)
def greatest(numbers):
    """Returns the largest of float32 elements, comparing them as integers: LLVM does not vectorise a float maximum."""
    bits, largest = numbers.view(np.int32), np.int32(-(2**31))
    for i in range(len(bits)):
        largest = max(largest, _ordered(bits[i]))
    return _ordered(largest).view(np.float32)


@numba.njit(inline="always", **OPTIONS)
def _ordered(bits):
    """Maps float32 bits to integers that sort in the same order; it is its own inverse.

    The bits of negative floats sort in the opposite order, so all of their bits but the sign are flipped.
    """
    return np.int32(bits ^ ((bits >> np.int32(31)) & np.int32(2**31 - 1)))


@numba.njit(**OPTIONS)
def exponentiate(scores):
    """Replaces scores by exp(score - largest); returns the largest score and the sum of the results."""
    largest, total = greatest(scores), np.float32(0)
    for j in range(len(scores)):
        scores[j] = exponential(scores[j] - largest)
        total += scores[j]
    return largest, total
