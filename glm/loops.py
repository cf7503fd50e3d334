"""What loops compiled by Numba share: the compiler's options, and the threads they run on."""

import llvmlite.binding
import numba

from glm.cpu import openmp
from glm.environment import cpu_threads

# Sums may be added up in any order, so that a processor's vectors can do it; infinities and NaN stay what they are.
OPTIONS = {"fastmath": {"reassoc", "contract", "nsz", "arcp"}, "error_model": "numpy", "cache": True}


def _prepare() -> None:
    """Before the first loop is compiled: Paddle's threads and the widest vectors.

    Two teams of threads that wait actively on the same cores are in each other's way: a step took twice as long.
    LLVM leaves half of a 512-bit vector unused, for fear of processors that slow down with them.
    """
    if openmp() is not None:
        numba.config.THREADING_LAYER = "omp"
    features = llvmlite.binding.get_host_cpu_features()
    if features.get("avx512f") and numba.config.CPU_FEATURES is None and numba.config.CPU_NAME is None:
        numba.config.CPU_NAME = llvmlite.binding.get_host_cpu_name()
        numba.config.CPU_FEATURES = features.flatten() + ",-prefer-256-bit"


def use_own_threads() -> None:
    """Gives a loop that is called next as many threads as Paddle's products have."""
    numba.set_num_threads(min(cpu_threads(), numba.config.NUMBA_NUM_THREADS))


_prepare()
