"""What `make setup` installs: pinned, with hashes, and nothing under a Python that cannot work."""

import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from tools.check_python import problem
from tools.lock import HEAD, LEFT_OUT, locked

ROOT = Path(__file__).resolve().parent.parent
PIN = re.compile(r"(?m)^([A-Za-z0-9._-]+)(?:\[[a-z]+\])?==([^\s\\]+)")


def pins(name: str) -> dict[str, str]:
    found = PIN.findall((ROOT / name).read_text(encoding="utf-8"))
    return {re.sub(r"[._-]+", "-", package).lower(): number for package, number in found}


def test_the_lock_is_that_of_requirements_and_constraints():
    lock = pins("requirements.lock")
    wanted = pins("requirements.txt") | pins("requirements-train.txt") | pins("requirements-dev.txt")
    assert {name: lock.get(name) for name in wanted if name not in LEFT_OUT} == {
        name: number for name, number in wanted.items() if name not in LEFT_OUT
    }
    constraints = pins("constraints.txt")
    assert {name: number for name, number in lock.items() if constraints.get(name, number) != number} == {}
    assert not set(LEFT_OUT) & set(lock)


def test_every_package_of_the_lock_has_hashes():
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    packages = re.split(r"(?m)^(?=[A-Za-z0-9])", text)[1:]
    assert len(packages) > 100 and text.startswith(HEAD)
    for package in packages:
        assert re.fullmatch(r"\S+==\S+ \\\n(    --hash=sha256:[0-9a-f]{64}( \\)?\n)+", package), package[:80]


def test_what_is_left_out_is_left_out():
    assert locked("# x\na==1 \\\n    --hash=sha256:0\nonnx==1 \\\n    --hash=sha256:1\n") == (
        HEAD + "a==1 \\\n    --hash=sha256:0\n"
    )


def test_nothing_imports_what_is_left_out():
    code = f"import sys\nfor name in {LEFT_OUT}: sys.modules[name] = None\nimport finetune_generation, predict\n"
    code += "import glm.serving.server, glm.training.setup, glm.commands.merge"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize(
    ("python", "message"),
    [
        ((3, 11, 0), None),
        ((3, 12, 1), None),
        ((3, 10, 13), "Python 3.10: "),
        ((3, 13, 0), "Python 3.13: "),
        ((2, 7, 18), "Python 2.7: "),
        ((4, 0, 0), "Python 4.0: "),
    ],
)
def test_other_pythons_are_refused_by_name(python, message):
    found = problem(python, "CPython", 64)
    assert found is None if message is None else found.startswith(message) and "make setup PYTHON=python3.11" in found


def test_other_builds_are_refused_by_name():
    assert problem((3, 11), "PyPy", 64) == "PyPy of 64 bits: PaddlePaddle has builds for CPython of 64 bits only"
    assert problem((3, 11), "CPython", 32).startswith("CPython of 32 bits")


def test_this_environment_is_the_locks():
    assert {name: version(name) for name in ("paddlenlp", "numpy", "pydantic")} == {
        name: pins("requirements.lock")[name] for name in ("paddlenlp", "numpy", "pydantic")
    }
