"""Describes a machine and warns of likely problems: versions, processor, memory, disk, caches, environment.

Nothing here says who the user is or where files lie.
"""

import locale
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import psutil

from glm.report.provenance import PACKAGES, installed
from glm.runtime.caches import user_cache
from glm.runtime.environment import HOME, WANTED_THREADS, cpu_threads, processor

GIB = 1 << 30
LEAST_MEMORY, LEAST_DISK = 4, 5  # GiB that should be free
INSTRUCTIONS = ("avx2", "fma", "avx512f", "avx512_bf16", "amx_tile", "amx_bf16")


def described() -> dict[str, str]:
    """Describes the machine, by name."""
    memory = psutil.virtual_memory()
    found = processor()
    features = found.get("flags", "").split()
    return {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "Python": platform.python_version(),
        **installed(PACKAGES),
        "processor": found.get("model name", platform.processor() or "unknown"),
        "instructions": " ".join(name for name in INSTRUCTIONS if name in features) or "none that matter",
        "cores": f"{len(os.sched_getaffinity(0))} of {os.cpu_count()} may be used, {cpu_threads()} threads are",
        "memory": f"{memory.available / GIB:.1f} of {memory.total / GIB:.1f} GiB are free",
        "disk here": f"{shutil.disk_usage('.').free / GIB:.1f} GiB are free",
        "caches": f"{_size(user_cache()) / GIB:.2f} GiB of this toolkit",
    }


def surprises(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Returns warnings about the environment, one per line: what will be slow, fail, or behave unexpectedly."""
    return [*_of_processes(environment), *_of_files(environment), *_of_room()]


def _of_processes(environment: Mapping[str, str]) -> list[str]:
    found, cores = [], len(os.sched_getaffinity(0))
    if WANTED_THREADS is not None and cpu_threads() < cores:
        found.append(f"OMP_NUM_THREADS {WANTED_THREADS}: {cores} cores could be used; unset it if you can")
    if WANTED_THREADS is not None and cpu_threads() > cores:
        found.append(f"OMP_NUM_THREADS {WANTED_THREADS}: more than the {cores} cores; lower it")
    encoding = (getattr(sys.stdout, "encoding", None) or "utf-8").lower()
    if not encoding.startswith("utf"):
        found.append(f"console {encoding}: characters that it cannot show are escaped; files are UTF-8 all the same")
    preferred = locale.getpreferredencoding(do_setlocale=False).lower()
    if not preferred.startswith("utf"):
        found.append(f"locale {preferred}: other programs may write files that are not UTF-8; set LC_ALL=C.UTF-8")
    if (visible := environment.get("CUDA_VISIBLE_DEVICES")) is not None and visible.strip() in ("", "-1"):
        found.append(f"CUDA_VISIBLE_DEVICES {visible!r}: hides all GPUs")
    for name in ("PADDLE_TRAINERS_NUM", "WORLD_SIZE"):
        if environment.get(name, "1") != "1":
            found.append(
                f"{name} {environment[name]}: left by a launcher; alone, a program waits for others; unset it"
            )
    return found


def _of_files(environment: Mapping[str, str]) -> list[str]:
    found = []
    if os.path.expanduser("~") != HOME:
        found.append("HOME: cannot be written to, so caches go to a folder for temporary files and are made anew")
    for name, folder in (("XDG_CACHE_HOME", user_cache().parent), ("TMPDIR", Path(tempfile.gettempdir()))):
        if folder.exists() and not os.access(folder, os.W_OK | os.X_OK):
            found.append(f"{name}: cannot be written to; caches are made anew in every run")
    if proxies := [name for name in ("http_proxy", "https_proxy", "all_proxy") if environment.get(name)]:
        found.append(f"{', '.join(proxies)}: downloads go through a proxy; requests to 127.0.0.1 may, too (no_proxy)")
    if environment.get("HF_HUB_OFFLINE") == "1":
        found.append("HF_HUB_OFFLINE 1: no model can be fetched by its name")
    return found


def _of_room() -> list[str]:
    found = []
    if (free := psutil.virtual_memory().available / GIB) < LEAST_MEMORY:
        found.append(f"memory: {free:.1f} GiB are free; python -m glm memory says what a run needs")
    if (free := shutil.disk_usage(".").free / GIB) < LEAST_DISK:
        found.append(f"disk: {free:.1f} GiB are free here; a checkpoint has up to three times the size of its model")
    if (free := shutil.disk_usage(tempfile.gettempdir()).free / GIB) < 1:
        found.append(f"disk: {free:.1f} GiB are free for temporary files (TMPDIR)")
    if Path("/dev/shm").is_dir() and (free := shutil.disk_usage("/dev/shm").free / GIB) < 0.5:
        found.append(f"/dev/shm: {free:.2f} GiB; workers that load data need more (docker run --shm-size)")
    return found


def _size(folder: Path) -> int:
    """Returns the bytes of the files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else 0
