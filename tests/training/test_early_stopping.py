"""Early stopping: after so many evaluations without a better one, also across an interruption."""

import json

import pytest

from glm.training.early_stopping import evaluations_since_best
from tools.run_tools import logged, read_lines


@pytest.mark.parametrize(
    ("values", "greater", "since"),
    [
        ([], False, 0),
        ([3.0], False, 0),
        ([3.0, 2.0, 1.0], False, 0),
        ([3.0, 2.0, 2.0, 2.5], False, 2),
        ([1.0, 5.0, 4.0], True, 1),
        ([float("nan"), 2.0, float("nan")], True, 1),
        ([float("inf"), 2.0], False, 0),
    ],
)
def test_evaluations_since_the_best(values, greater, since):
    log = [{"step": step, "eval_x": value, "loss": 9.0} for step, value in enumerate(values)]
    assert evaluations_since_best([*log, {"step": 99, "loss": 1.0}], "eval_x", greater_is_better=greater) == since


def test_a_step_that_was_evaluated_twice_counts_once():
    log = [{"step": 1, "eval_x": 1.0}, {"step": 2, "eval_x": 2.0}, {"step": 2, "eval_x": 2.0}]
    assert evaluations_since_best(log, "eval_x", greater_is_better=False) == 1


OPTIONS = {"max_steps": 40, "do_eval": True, "eval_steps": 2, "early_stopping_patience": 3, "save_strategy": "steps"}
OPTIONS |= {"save_steps": 2, "learning_rate": 1e-6, "metric_for_best_model": "exact match"}  # which stays at 0


def evaluated(folder) -> list[int]:
    return sorted({row["step"] for row in read_lines(folder / "metrics.jsonl") if "eval_loss" in row})


def test_a_run_stops_where_its_figures_say(workspace):
    folder = workspace.finetune("stopped", dev_file=workspace.folder / "dev.json", **OPTIONS)
    assert evaluated(folder) == [2, 4, 6, 8]
    assert json.loads((folder / "done.json").read_text())["global_step"] == 8
    assert logged(folder, "eval_exact match") == [0.0] * 4


@pytest.mark.fault
def test_an_interrupted_run_stops_at_the_same_step(server):
    options = {**OPTIONS, "dev_file": server.workspace.folder / "dev.json"}
    assert server.run("whole-stop", **options) == 0
    assert server.run("cut-stop", "kill_at_step", 5, **options) == -9
    assert server.run("cut-stop", **options) == 0
    assert evaluated(server.workspace.folder / "cut-stop") == [2, 4, 6, 8]


@pytest.mark.fault
def test_a_run_that_had_stopped_early_trains_no_further(server):
    """Killed in its last evaluation or behind it, before it could say that it was done."""
    options = {**OPTIONS, "dev_file": server.workspace.folder / "dev.json"}
    assert server.run("ended-stop", **options) == 0
    folder = server.workspace.folder / "ended-stop"
    (folder / "done.json").unlink()
    assert server.run("ended-stop", **options) == 0
    assert "nothing is left to train" in server.said() and evaluated(folder) == [2, 4, 6, 8]
