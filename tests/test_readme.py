"""The commands of README.md and of every page in docs/ run, and none of them needs a network."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tools.documents import PAGES, README, ROOT, Block, blocks

NO_NETWORK = Path(__file__).with_name("no_network")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """The project after a reader has followed README.md; its model stands in for that of `make demo` too."""
    folder = tmp_path_factory.mktemp("checkout")
    for path in ROOT.iterdir():
        if path.suffix == ".py" or path.name in ("glm", "configs", "data"):
            (folder / path.name).symlink_to(path)
    (folder / "runs").mkdir()
    (folder / "runs" / "demo").symlink_to("mine")
    run_page(folder, README)
    return folder


def run_page(folder: Path, page: Path) -> int:
    """Runs the commands of a page, one block after the other, and returns how many blocks it ran."""
    todo = [block for block in blocks(page) if block.is_run]
    for block in todo:
        done = run(folder, block)
        assert done.returncode == 0, f"{page.name}:\n{block.text}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    attempts = folder / "attempts.txt"
    assert not attempts.exists(), attempts.read_text(encoding="utf-8")
    return len(todo)


def run(folder: Path, block: Block) -> subprocess.CompletedProcess:
    """Runs a block where no network can be reached. A training ends after two steps."""
    command = block.text
    if block.language == "python":
        (folder / "example.py").write_text(command, encoding="utf-8")
        command = "python example.py"
    command = command.replace("\\\n", " ")
    command = re.sub(r"^(python finetune_generation\.py [^#\n]+)", r"\1 --max_steps 2", command, flags=re.M)
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(NO_NETWORK) if block.language == "bash" else f"{NO_NETWORK}{os.pathsep}{folder}",
        "NETWORK_ATTEMPTS": str(folder / "attempts.txt"),
    }
    arguments = ["bash", "-euo", "pipefail", "-c", command]
    return subprocess.run(arguments, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def test_readme(checkout):
    assert sum(block.is_run for block in blocks(README)) >= 4
    for result in ("predictions.jsonl", "metrics.json", "report/report.html", "training.html"):
        assert (checkout / "runs" / "mine" / result).stat().st_size > 0


@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(block.is_run for block in blocks(page))], ids=lambda page: page.stem
)
def test_page(page, checkout, tmp_path):
    """A page needs nothing but what README.md has left: its commands run in a copy of that."""
    folder = shutil.copytree(checkout, tmp_path / "checkout", symlinks=True)
    assert run_page(folder, page) > 0


def test_the_network_is_blocked(tmp_path):
    """Otherwise the tests before this one could not fail for it."""
    for call in ("create_connection(('127.0.0.1', 9))", "getaddrinfo('localhost', 80)"):
        done = run(tmp_path, Block("bash", f'python -c "import socket; socket.{call}"', None))
        assert done.returncode == 1 and "no network in a test" in done.stderr
    assert len((tmp_path / "attempts.txt").read_text(encoding="utf-8").splitlines()) == 2
