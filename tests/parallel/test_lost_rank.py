"""A rank that dies, or stops, takes the others with it, soon and with its name; what was saved stays whole."""

import re
import signal
import time

import pytest

import rank_jobs
from glm.training.checkpoints import newest_whole
from rank_tools import run_ranks
from run_tools import arguments, make_workspace

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
