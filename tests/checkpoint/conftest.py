"""Python with PyTorch, for tests that write real files or read ours (opt-in)."""

import os
import subprocess
import sys
from collections.abc import Callable

import pytest


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
