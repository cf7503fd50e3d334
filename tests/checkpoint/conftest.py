"""What opt-in tests need: a Python with PyTorch to write real files or read ours, and time."""

import os
import subprocess
import sys
from collections.abc import Callable

import pytest


@pytest.fixture(scope="session")
def long_tests() -> None:
    """Skips a test that takes minutes."""
    if not os.environ.get("GLM_LONG_TESTS"):
        pytest.skip("set GLM_LONG_TESTS=1 for tests that take minutes")


@pytest.fixture(scope="session")
def torch_python() -> Callable[..., str]:
    """`torch_python(code, *arguments)` runs code where torch can be imported and returns what it printed."""
    executable = os.environ.get("GLM_TORCH_PYTHON", sys.executable)
    if subprocess.run([executable, "-c", "import torch"], capture_output=True).returncode:
        pytest.skip("set GLM_TORCH_PYTHON to a Python that has torch")

    def run(code: str, *arguments: object) -> str:
        command = [executable, "-c", code, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
