"""What must be said or noted before Paddle is imported; `glm/__init__.py` imports this first."""

import os
import warnings

# Paddle sets OMP_NUM_THREADS to 1 where it is unset, so that later nobody could tell a wish from that default.
WANTED_THREADS = os.environ.get("OMP_NUM_THREADS")

# After a product MKL's threads wait for the next one, for 200 ms and at full speed, on the cores that the host's own
# threads need in training (glm/cpu/arrays.py). Decoding and small models set it back (`glm.cpu.arrays.wait_actively`).
WANTED_BLOCKTIME = os.environ.get("KMP_BLOCKTIME")
os.environ.setdefault("KMP_BLOCKTIME", "0")

# What Paddle and jieba say of build tools at import is of no use to someone who trains a model.
for beginning in ("No ccache found", "Setuptools is replacing distutils", "pkg_resources is deprecated"):
    warnings.filterwarnings("ignore", message=beginning)


def cpu_threads() -> int:
    """Threads of a product: OMP_NUM_THREADS, or this process's share of the cores it may use."""
    if WANTED_THREADS is not None:
        return int(WANTED_THREADS)
    processes = int(os.environ.get("PADDLE_LOCAL_SIZE", os.environ.get("PADDLE_TRAINERS_NUM", "1")))
    return max(1, len(os.sched_getaffinity(0)) // processes)
