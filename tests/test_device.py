"""The settings a process gives itself before it computes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from glm.device import matrix_kernels

ROOT = Path(__file__).resolve().parent.parent


def cpuinfo(vendor: str, flags: str) -> str:
    return f"processor\t: 0\nvendor_id\t: {vendor}\nflags\t\t: fpu {flags}\n\nprocessor\t: 1\n"


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
    assert matrix_kernels(cpuinfo(vendor, flags)) == kernels


def busy_threads(**environment) -> float:
    """Processor time by wall time of large products in a fresh process prepared for the CPU."""
    code = (
        "import time, paddle; from glm.device import prepare; prepare('cpu'); a = paddle.randn([2000, 2000]); "
        "paddle.matmul(a, a); wall, cpu = time.perf_counter(), time.process_time(); "
        "[paddle.matmul(a, a) for _ in range(10)]; "
        "print((time.process_time() - cpu) / (time.perf_counter() - wall))"
    )
    clean = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-c", f"import glm; {code}"],
        cwd=ROOT,
        env={**clean, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout.split()[-1])


def test_a_wish_for_one_thread_is_kept():
    assert busy_threads(OMP_NUM_THREADS="1") < 1.1


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one processor only")
def test_all_processors_are_used_without_a_wish():
    """Twice the processor time of one thread, even if other programs share the processors."""
    assert busy_threads() > 1.1
