"""Who loses nothing: a stopped run says what its command will do, and the command does that."""

import json
import shutil
import signal
from pathlib import Path

import pytest

from glm.training.checkpoints import checkpoint_folders
from tools.fault_tools import checkpoint_names, figures, outcome, tree
from tools.run_tools import logged

pytestmark = pytest.mark.fault
OPTIONS = {"max_steps": 6, "save_strategy": "steps", "save_steps": 2}


@pytest.fixture
def folder(server, request) -> Path:
    """An output folder with the name of the test."""
    return server.workspace.folder / request.node.name


@pytest.fixture
def overwriting(server) -> Path:
    """A configuration file that overwrites, as `configs/demo.json` does."""
    path = server.workspace.folder / "overwriting.json"
    path.write_text(json.dumps({"overwrite_output_dir": True}))
    return path


def steps(folder: Path) -> list[int]:
    return [row["step"] for row in figures(folder) if "loss" in row]


def test_a_file_does_not_delete_an_unfinished_run(server, folder, overwriting):
    assert server.run("undisturbed", **OPTIONS) == 0
    options = {"config": overwriting, **OPTIONS, "save_strategy": "no"}
    assert server.run(folder.name, "signal_at_step", 2, signal.SIGINT, **options) == 130
    assert f"stopped: {folder}/checkpoint-3 is saved, and the same command goes on from there" in server.said()
    assert server.run(folder.name, **{**options, "save_strategy": "steps"}) == 0
    assert f"goes on from {folder}/checkpoint-3" in server.said() and "output_dir deletes" not in server.said()
    assert outcome(folder, last=6) == outcome(server.workspace.folder / "undisturbed", last=6)


def test_a_file_overwrites_a_run_that_came_to_its_end_and_says_what_it_deletes(server, folder, overwriting):
    (folder / "eval").mkdir(parents=True)
    (folder / "kept.txt").write_text("the user's")
    assert server.run(folder.name, config=overwriting, **OPTIONS) == 0
    assert "output_dir deletes" not in server.said()
    (folder / "eval" / "step-4.jsonl").write_text("")
    assert server.run(folder.name, config=overwriting, **{**OPTIONS, "max_steps": 3}) == 0
    said = server.said()
    deleted = said[said.index(f"output_dir {folder}: overwrite_output_dir deletes ") :].splitlines()[0]
    for name in ("checkpoint-2, checkpoint-4, checkpoint-6", "eval/step-4.jsonl", "metrics.jsonl", "done.json"):
        assert name in deleted
    assert steps(folder) == [1, 2, 3] and checkpoint_names(folder) == ["checkpoint-2"]
    assert (folder / "kept.txt").read_text() == "the user's" and "kept.txt" not in deleted


def test_the_flag_on_the_command_line_deletes_and_said_so(server, folder):
    options = {**OPTIONS, "overwrite_output_dir": True}
    assert server.run(folder.name, "signal_at_step", 3, signal.SIGTERM, **options) == 143
    stopped = server.said()
    assert f"{folder}/checkpoint-4 is saved, and the same command deletes it and starts anew" in stopped
    assert "without --overwrite_output_dir it goes on from there" in stopped
    assert server.run(folder.name, "signal_at_step", 1, signal.SIGTERM, **options) == 143
    assert "overwrite_output_dir deletes checkpoint-2, checkpoint-4, metrics.jsonl" in server.said()
    assert steps(folder) == [1, 2]
    assert server.run(folder.name, **OPTIONS) == 0  # what the message advised
    assert steps(folder) == [1, 2, 3, 4, 5, 6] and f"goes on from {folder}/checkpoint-2" in server.said()


def test_checkpoints_without_a_lock_are_not_deleted_by_a_file(server, folder, overwriting):
    """As where a folder was copied from another machine."""
    assert server.run(folder.name, "signal_at_step", 2, signal.SIGTERM, **OPTIONS) == 143
    (folder / "run.lock").unlink()
    before = tree(folder)
    assert server.run(folder.name, config=overwriting, **OPTIONS) == 1
    assert "add --overwrite_output_dir" in server.errors()[0] and tree(folder) == before


def test_a_run_from_a_named_checkpoint_goes_on_from_that(server, folder):
    assert server.run(folder.name, **OPTIONS) == 0
    start = folder / "checkpoint-2"
    options = {**OPTIONS, "resume_from_checkpoint": start}
    assert server.run(folder.name, "signal_at_step", 4, signal.SIGINT, **options) == 130
    assert f"checkpoint-5 is saved, and the same command goes on from {start} again" in server.said()
    assert server.run(folder.name, **options) == 0
    assert f"goes on from {start}" in server.said()


def test_a_stop_in_the_last_evaluation_says_what_is_saved(server, folder):
    options = {**OPTIONS, "do_eval": True, "dev_file": server.workspace.folder / "dev.json"}
    assert server.run(folder.name, "signal_in_evaluation", signal.SIGTERM, **options) == 143
    assert f"stopped: {folder}/checkpoint-6 is saved, and the same command goes on from there" in server.said()


def test_a_stop_before_the_first_step(server, folder):
    options = {"do_train": None, "train_file": None, "do_eval": True, "dev_file": server.workspace.folder / "dev.json"}
    assert server.run(folder.name, "signal_in_evaluation", signal.SIGTERM, **options) == 143
    assert "stopped before there was anything to save" in server.said() and not checkpoint_folders(folder)


def test_another_run_in_the_folder_of_an_unfinished_one_is_refused(server, folder, overwriting):
    assert server.run(folder.name, "signal_at_step", 2, signal.SIGTERM, **OPTIONS) == 143
    assert server.run(folder.name, config=overwriting, **{**OPTIONS, "learning_rate": 1e-4}) == 1
    assert "start anew with --overwrite_output_dir on the command line" in server.errors()[0]
    assert checkpoint_names(folder) == ["checkpoint-2", "checkpoint-3"]


@pytest.mark.parametrize(("last", "lines"), [(6, 6), (20, 20), (47, 23)])
def test_a_run_logs_twenty_times_where_nobody_says_how_often(workspace, last, lines):
    run = workspace.finetune(f"logs-{last}", max_steps=last, logging_steps=None)
    assert len(logged(run, "loss")) == lines
    shutil.rmtree(run)
