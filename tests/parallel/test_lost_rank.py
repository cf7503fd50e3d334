"""A rank that dies, or stops, takes the others with it, soon and with its name; what was saved stays whole."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from glm.training.checkpoints import newest_whole
from tools import rank_jobs
from tools.rank_tools import run_ranks
from tools.run_tools import arguments, make_workspace

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.fault


@pytest.mark.parametrize(
    ("number", "lost", "told_by", "said"),
    [
        (signal.SIGKILL, 1, 0, r"rank 1 \(process \d+, log \S*workerlog.1\) is gone; the run ends here"),
        (signal.SIGKILL, 0, 1, r"rank 0 \(process \d+, log \S*workerlog.0\) is gone; the run ends here"),
        (signal.SIGSTOP, 1, 0, r"error: rank 1 \(process \d+, log \S*workerlog.1\) has been stopped for"),
    ],
    ids=["killed", "first killed", "stopped"],
)
def test_a_lost_rank(tmp_path, sentencepiece_file, number, lost, told_by, said):
    workspace = make_workspace(tmp_path, sentencepiece_file)
    run = {"output_dir": tmp_path / "run", "tensor_parallel_degree": 2, "max_steps": 500, "save_total_limit": 2}
    argv = list(arguments({**workspace.options, **run, "save_strategy": "steps", "save_steps": 1}))
    begun = time.monotonic()
    with pytest.raises(RuntimeError) as failed:
        run_ranks(rank_jobs.lose_a_rank, 2, lost, number, argv, str(tmp_path))
    assert time.monotonic() - begun < 60
    told = str(failed.value) + (tmp_path / f"workerlog.{told_by}").read_text()
    assert re.search(said, told), told
    assert 2 <= newest_whole(tmp_path / "run").step < 500  # one that was stopped goes on for a moment before it ends


def is_rank(process: psutil.Process) -> bool:
    return any("finetune_generation" in part for part in process.cmdline())


@pytest.mark.skipif(not os.environ.get("GLM_LONG_TESTS"), reason="starts Python twice; set GLM_LONG_TESTS=1")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_under_the_launcher(tmp_path, sentencepiece_file, number):
    """As users start it: the launcher's own output names the rank and its log, and nothing is left running."""
    workspace = make_workspace(tmp_path, sentencepiece_file)
    run = {"output_dir": tmp_path / "run", "tensor_parallel_degree": 2, "max_steps": 100_000, "save_total_limit": 2}
    argv = arguments({**workspace.options, **run, "save_strategy": "steps", "save_steps": 1})
    launch = [*("-m", "paddle.distributed.launch", "--nproc_per_node", "2", "--log_dir", str(tmp_path / "log"))]
    launcher = subprocess.Popen(
        [sys.executable, *launch, "finetune_generation.py", *argv],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    processes: list[psutil.Process] = []
    try:
        while newest_whole(tmp_path / "run") is None and launcher.poll() is None:
            time.sleep(0.5)
        processes = psutil.Process(launcher.pid).children(recursive=True)
        ranks = {child.environ()["PADDLE_TRAINER_ID"]: child for child in processes if is_rank(child)}
        os.kill(ranks["1"].pid, number)
        said, _ = launcher.communicate(timeout=60)
    finally:
        left = [process for process in processes if process.is_running() and process.status() != "zombie"]
        for process in [launcher, *left]:
            process.kill()
    assert launcher.returncode != 0
    assert re.search(r"rank 1 .* log \S*workerlog.1", said), said
    assert not left
    assert newest_whole(tmp_path / "run").step >= 1


@pytest.mark.skipif(not os.environ.get("GLM_LONG_TESTS"), reason="starts Python twice; set GLM_LONG_TESTS=1")
def test_the_launcher_is_killed_alone(tmp_path, sentencepiece_file):
    """Its ranks end by themselves within the watchdog's time; what they saved is whole."""
    workspace = make_workspace(tmp_path, sentencepiece_file)
    run = {"output_dir": tmp_path / "run", "tensor_parallel_degree": 2, "max_steps": 100_000, "save_total_limit": 2}
    argv = arguments({**workspace.options, **run, "save_strategy": "steps", "save_steps": 1})
    launch = [*("-m", "paddle.distributed.launch", "--nproc_per_node", "2", "--log_dir", str(tmp_path / "log"))]
    launcher = subprocess.Popen([sys.executable, *launch, "finetune_generation.py", *argv], cwd=ROOT)
    processes: list[psutil.Process] = []
    try:
        while newest_whole(tmp_path / "run") is None and launcher.poll() is None:
            time.sleep(0.5)
        processes = [child for child in psutil.Process(launcher.pid).children(recursive=True) if is_rank(child)]
        assert len(processes) == 2
        launcher.kill()
        launcher.wait()
        _, left = psutil.wait_procs(processes, timeout=60)
        assert not left
    finally:
        for process in processes:
            if process.is_running():
                process.kill()
        launcher.kill()
    said = "".join(path.read_text() for path in (tmp_path / "log").glob("workerlog.*"))
    assert "error: the launcher (process " in said and "is gone" not in said.partition("the launcher")[0]
    assert newest_whole(tmp_path / "run").step >= 1
