"""The settings a process gives itself before it computes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from glm.runtime.environment import matrix_kernels

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("vendor", "flags", "kernels"),
    [
        ("AuthenticAMD", "fma avx2 avx512f avx512dq avx512bw avx512vl", "7"),
        ("AuthenticAMD", "fma avx2 avx512f", "5"),
        ("AuthenticAMD", "avx", None),
        ("GenuineIntel", "fma avx2 avx512f avx512dq avx512bw avx512vl", None),
    ],
)
def test_matrix_kernels(vendor, flags, kernels):
    assert matrix_kernels(vendor, f"fpu {flags}") == kernels


def test_a_product_before_the_preparation_changes_no_bits():
    """MKL chooses its kernels at its first product, on AMD by what is said in the environment until then."""
    code = (
        "import sys, glm, numpy as np, paddle; from glm.runtime.device import prepare; "
        "numbers = paddle.to_tensor(np.random.default_rng(0).standard_normal((300, 300)).astype('float32')); "
        "steps = {'multiply': lambda: numbers @ numbers, 'prepare': lambda: prepare('cpu')}; "
        "[steps[name]() for name in sys.argv[1:]]; print((numbers @ numbers).numpy().tobytes().hex())"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("MKL_DEBUG_CPU_TYPE", None)
    found = [
        subprocess.run(
            [sys.executable, "-c", code, *steps], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
        ).stdout.splitlines()[-1]
        for steps in (["prepare"], ["multiply", "prepare"])
    ]
    assert found[0] == found[1]


def threads_set(**environment) -> list[str]:
    """The numbers of threads that a fresh process sets when it prepares for the CPU."""
    code = (
        "import glm, paddle; from glm.runtime.device import prepare; "
        "paddle.base.core.set_num_threads = lambda count: print('threads', count); prepare('cpu')"
    )
    clean = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**clean, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return [line.split()[1] for line in done.stdout.splitlines() if line.startswith("threads")]


def test_threads():
    """All processors, unless the user said otherwise: Paddle by itself would take one."""
    everyone = [str(len(os.sched_getaffinity(0)))]
    assert threads_set() == threads_set(OMP_NUM_THREADS="many") == everyone
    assert threads_set(OMP_NUM_THREADS="1") == ["1"] and threads_set(OMP_NUM_THREADS="3,2") == ["3"]
    assert threads_set(PADDLE_LOCAL_SIZE="1000") == ["1"]


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="Linux tells where memory is")
def test_memory_is_in_huge_pages_and_stays():
    """Of a tensor's mapping: whether it was advised to use huge pages, and its size in bytes, after all was freed."""
    code = """
import mmap, os
import glm, paddle
from glm.runtime.device import prepare
print(os.sysconf("SC_AVPHYS_PAGES") * mmap.PAGESIZE)
prepare("cpu")
place = paddle.ones([1 << 20]).data_ptr()
inside = False
for line in open("/proc/self/smaps"):
    words = line.split()
    if "-" in words[0] and len(words) > 4:
        start, end = (int(number, 16) for number in words[0].split("-"))
        inside = start <= place < end
    elif inside and words[0] == "VmFlags:":
        print("hg" in words, end - start)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    free, huge, size = done.stdout.split()[-3:]
    assert huge == "True" and int(size) > int(free) // 4  # half of what was free a moment later


FROM_THREADS = """
import sys, threading
from pathlib import Path
from glm.runtime.device import give_memory_back, prepare, share_memory
if "share" in sys.argv:
    share_memory()
prepare("cpu")
resident = lambda: int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20
everyone = threading.Barrier(13)
def take():
    everyone.wait()
    held = [bytes(1000) for _ in range(10_000)]
    everyone.wait()
    del held
    everyone.wait()
    everyone.wait()  # all live: each has a heap, if it may
threads = [threading.Thread(target=take) for _ in range(12)]
before = resident()
[thread.start() for thread in threads]
everyone.wait(), everyone.wait(), everyone.wait()
give_memory_back()
print(resident() - before)
everyone.wait()
"""


def test_memory_of_threads_is_given_back():
    """A server's: 12 threads at once take 10 MB each. What they took from heaps of their own would stay."""
    megabytes = {}
    for how in ("share", "apart"):
        command = [sys.executable, "-c", FROM_THREADS, how]
        found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        megabytes[how] = float(found.stdout)
    assert megabytes["share"] < 30 < 60 < megabytes["apart"]
