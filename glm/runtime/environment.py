"""Settings of the environment that come before the import of Paddle; `glm/__init__.py` imports this first."""

import itertools
import os
import sys
import tempfile
import warnings
from pathlib import Path

MOST_THREADS = 1024
HOME = os.path.expanduser("~")  # the user's real home, even if another folder replaces it


def user_path(path: str) -> str:
    """Expands a leading `~` to the user's home folder; shells do not expand it in `--name=~/file`."""
    if path == "~" or path.startswith("~/"):
        return HOME + path[1:]
    return os.path.expanduser(path) if path.startswith("~") else path


def _wanted_threads() -> str | None:
    """Returns OMP_NUM_THREADS; if it is not a number of threads, it is unset with a warning."""
    wish = os.environ.get("OMP_NUM_THREADS")
    numbers = [number.strip() for number in (wish or "").split(",")]  # after a comma: nested threads
    if wish is None or all(number.isdecimal() and 1 <= int(number) <= MOST_THREADS for number in numbers):
        return wish
    del os.environ["OMP_NUM_THREADS"]
    if wish.strip():
        print(f"OMP_NUM_THREADS {wish}: is no number from 1 to {MOST_THREADS}, so it is left aside", file=sys.stderr)
    return None


def _can_be_written(folder: str) -> bool:
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _have_a_home() -> None:
    """Replaces a home folder that cannot be written to, as in containers, by a temporary folder.

    Libraries create caches in it when they are imported.
    """
    if _can_be_written(os.path.join(HOME, ".cache")) and _can_be_written(HOME):
        return
    folder = os.path.join(tempfile.gettempdir(), f"glm-home-{os.getuid()}")
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        if os.stat(folder).st_uid != os.getuid() or os.path.islink(folder):
            folder = tempfile.mkdtemp(prefix="glm-home-")
    except OSError:
        return
    os.environ["HOME"] = folder
    print(f"HOME {HOME}: cannot be written to, so caches go to {folder} (set HOME to move them)", file=sys.stderr)


# Paddle sets OMP_NUM_THREADS to 1 if it is unset; afterwards the user's setting could not be told from that default.
WANTED_THREADS = _wanted_threads()
_have_a_home()

# By default MKL's threads spin for 200 ms after each product, on cores that our own threads need in training
# (glm/cpu/arrays.py). Decoding and small models let them spin (`glm.cpu.arrays.wait_actively`).
WANTED_BLOCKTIME = os.environ.get("KMP_BLOCKTIME")
os.environ.setdefault("KMP_BLOCKTIME", "0")


def processor() -> dict[str, str]:
    """Returns the fields of the first processor in /proc/cpuinfo; empty on other systems than Linux."""
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as file:
            lines = itertools.takewhile(str.strip, file)
            return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    except OSError:
        return {}


def matrix_kernels(vendor: str, features: str) -> str | None:
    """Returns MKL_DEBUG_CPU_TYPE for a processor: 7 (AVX-512) or 5 (AVX2) on AMD, None elsewhere.

    On AMD MKL would use its slowest kernels by default.

    Args:
        vendor, features: `vendor_id` and `flags` of /proc/cpuinfo.
    """
    if vendor != "AuthenticAMD":
        return None
    if {"avx512f", "avx512bw", "avx512dq", "avx512vl"} <= set(features.split()):
        return "7"
    return "5" if {"avx2", "fma"} <= set(features.split()) else None


# MKL asks at its first product, and other kernels add up in another order: were this said later, the last digits of a
# process would depend on whether it had multiplied before.
if kernels := matrix_kernels(processor().get("vendor_id", ""), processor().get("flags", "")):
    os.environ.setdefault("MKL_DEBUG_CPU_TYPE", kernels)

# What Paddle and jieba say of build tools at import is of no use to someone who trains a model.
for beginning in ("No ccache found", "Setuptools is replacing distutils", "pkg_resources is deprecated"):
    warnings.filterwarnings("ignore", message=beginning)


def cpu_threads() -> int:
    """Returns the number of threads of a product: OMP_NUM_THREADS, or this process's share of its cores."""
    wanted = (WANTED_THREADS or "").partition(",")[0].strip()  # nested threads follow a comma
    if wanted.isdecimal() and int(wanted):
        return int(wanted)
    processes = int(os.environ.get("PADDLE_LOCAL_SIZE", os.environ.get("PADDLE_TRAINERS_NUM", "1")))
    return max(1, len(os.sched_getaffinity(0)) // processes)
