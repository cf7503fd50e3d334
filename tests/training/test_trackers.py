"""Trackers: figures reach the tool, and what goes wrong there ends no run."""

import importlib.util
import sys
import types
from types import SimpleNamespace

import pytest

from glm.training import trackers
from glm.training.trackers import Tracker
from tools.run_tools import logged


class Recorded:
    """Stands in for a run of any of the tools."""

    def __init__(self, *places, fails=None):
        self.opened, self.figures, self.closed, self.fails = places, [], False, fails

    def log(self, figures, step):
        if self.fails:
            raise self.fails
        self.figures.append((step, dict(figures)))

    def close(self):
        self.closed = True


def test_a_run_tells_all_its_figures(workspace, monkeypatch):
    runs = []
    monkeypatch.setitem(trackers.OPENED_BY, "tensorboard", lambda *places: runs.append(Recorded(*places)) or runs[0])
    monkeypatch.setattr("glm.options.finetune.find_spec", lambda package: object())
    options = {"do_eval": True, "dev_file": workspace.folder / "dev.json", "report_to": "tensorboard", "run_name": "n"}
    folder = workspace.finetune("tracked", max_steps=3, **options)
    (run,) = runs
    assert run.closed and run.opened[1] == "n" and run.opened[2]["learning_rate"] == 5e-3
    losses = [(step, figures["loss"]) for step, figures in run.figures if "loss" in figures]
    assert losses == list(enumerate(logged(folder, "loss"), start=1))
    (evaluation,) = [figures for _, figures in run.figures if "eval_loss" in figures]
    assert evaluation["eval_rouge-l (char)"] == logged(folder, "eval_rouge-l (char)")[0]


@pytest.mark.parametrize("error", [OSError("no network"), RuntimeError("no key"), KeyError("x")])
def test_a_tool_that_fails_ends_no_run_and_is_heard_of_once(monkeypatch, caplog, error):
    monkeypatch.setitem(trackers.OPENED_BY, "wandb", lambda *places: Recorded(fails=error))
    tracker = Tracker("wandb", {})
    state, args = (
        SimpleNamespace(is_world_process_zero=True, global_step=1),
        SimpleNamespace(output_dir="/tmp", run_name="r"),
    )
    tracker.on_train_begin(args, state, None)
    for _ in range(3):
        tracker.on_log(args, state, None, logs={"loss": 1.0})
    tracker.close()
    assert caplog.text.count("report_to wandb: failed, the run goes on without it") == 1


def test_without_a_key_nothing_is_sent(monkeypatch, tmp_path):
    """The tools' own modules, stood in for: what they are opened with."""
    opened = {}
    wandb = types.ModuleType("wandb")
    wandb.api = SimpleNamespace(api_key=None)
    wandb.init = lambda **options: opened.update(wandb=options) or SimpleNamespace(log=None, finish=None)
    swanlab = types.ModuleType("swanlab")
    swanlab.init = lambda **options: opened.update(swanlab=options)
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.setitem(sys.modules, "swanlab", swanlab)
    for name in ("WANDB_MODE", "SWANLAB_MODE", "SWANLAB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    for tool in ("wandb", "swanlab"):
        trackers.OPENED_BY[tool](tmp_path, "n", {"a": 1})
        assert (opened[tool]["mode"], opened[tool]["config"]) == ("offline", {"a": 1})
    monkeypatch.setenv("WANDB_MODE", "online")
    trackers.OPENED_BY["wandb"](tmp_path, "n", {})
    assert opened["wandb"]["mode"] == "online"


@pytest.mark.skipif(importlib.util.find_spec("tensorboardX") is None, reason="tensorboardX is not installed")
def test_tensorboard_itself(workspace):
    folder = workspace.finetune("board", max_steps=2, report_to="tensorboard")
    (events,) = folder.rglob("events.out.tfevents.*")
    assert events.stat().st_size > 0
