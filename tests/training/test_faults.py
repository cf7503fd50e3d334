"""What can befall a training run, and how it ends: exit code, message, what is left, and how soon."""

import errno
import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import numba
import pytest

from glm.training import fingerprint
from glm.training.checkpoints import newest_whole, verify
from tools.fault_tools import checkpoint_names, last_logged, outcome, sha256, tree

pytestmark = pytest.mark.fault

OPTIONS = {"max_steps": 6, "save_strategy": "steps", "save_steps": 2}


@pytest.fixture(scope="module")
def whole(server) -> dict:
    """What a run leaves that nothing befalls."""
    assert server.run("whole", **OPTIONS) == 0, server.said()
    return outcome(server.workspace.folder / "whole", last=6)


@pytest.fixture
def folder(server, request) -> Path:
    """An output folder with the name of the test."""
    return server.workspace.folder / request.node.name.replace("/", "-")


# -- the end of a run


def test_a_run_that_is_done_says_so_last(server, whole):
    folder = server.workspace.folder / "whole"
    done = json.loads((folder / "done.json").read_text())
    assert (done["exit_code"], done["global_step"]) == (0, 6) and done["finished"].startswith("20")
    others = [path for path in folder.rglob("*") if path.name not in ("done.json", "run.lock") and path.is_file()]
    assert all(path.stat().st_mtime_ns <= (folder / "done.json").stat().st_mtime_ns for path in others)
    assert server.run("whole", **OPTIONS) == 1
    assert "holds a run that came to its end" in server.errors()[0]


def test_nothing_in_a_checkpoint_is_a_pickle(server, whole):
    names = set(tree(server.workspace.folder / "whole" / "checkpoint-6"))
    assert {"model.safetensors", "optimizer.safetensors", "manifest.json", "run_state.json"} <= names
    allowed = {".safetensors", ".json", ".model"}
    assert {Path(name).suffix for name in names} <= allowed
    for name in names:
        if name.endswith(".json"):
            json.loads((server.workspace.folder / "whole" / "checkpoint-6" / name).read_text(encoding="utf-8"))


def test_the_manifest_says_where_it_is_from(server, whole):
    facts = verify(server.workspace.folder / "whole" / "checkpoint-6").facts
    assert facts["fingerprint"]["training examples"] == 20 and facts["fingerprint"]["learning_rate"] == 5e-3
    assert facts["versions"]["paddlepaddle"] == "3.3.1" and facts["versions"]["numba"] == numba.__version__
    assert facts["machine"]["threads"] == 1 and facts["machine"]["processor"]
    assert facts["changes"] == []


# -- signals


# Within an epoch, and at its last step.
@pytest.mark.parametrize(("step", "number", "code"), [(2, signal.SIGTERM, 143), (4, signal.SIGINT, 130)])
def test_a_signal_ends_a_run_after_its_step(server, whole, folder, step, number, code):
    assert server.run(folder.name, "signal_at_step", step, number, **OPTIONS) == code
    assert f"stopped: {folder}/checkpoint-{step + 1} is saved, and the same command goes on from" in server.said()
    assert newest_whole(folder).step == step + 1 and "done.json" not in tree(folder)
    assert server.run(folder.name, **OPTIONS) == 0
    assert outcome(folder, last=6) == whole


def test_a_signal_while_evaluating(server, folder):
    options = {**OPTIONS, "do_eval": True, "eval_steps": 2, "dev_file": server.workspace.folder / "dev.json"}
    assert server.run("evaluated", **options) == 0
    assert server.run(folder.name, "signal_in_evaluation", signal.SIGTERM, **options) == 143
    assert checkpoint_names(folder) == ["checkpoint-2"] and not (folder / "eval").exists()
    assert server.run(folder.name, **options) == 0
    assert outcome(folder, last=6) == outcome(server.workspace.folder / "evaluated", last=6)
    assert (folder / "eval" / "step-2.jsonl").exists()


def test_a_signal_in_the_last_evaluation(server, folder):
    options = {**OPTIONS, "save_steps": 4, "do_eval": True, "dev_file": server.workspace.folder / "dev.json"}
    assert server.run(folder.name, "signal_in_evaluation", signal.SIGTERM, **options) == 143
    assert checkpoint_names(folder) == ["checkpoint-4", "checkpoint-6"]
    assert server.run(folder.name, **options) == 0
    assert "nothing is left to train" in server.said() and (folder / "eval" / "step-6.jsonl").exists()


def test_the_second_signal_ends_at_once_and_tears_nothing(server, whole, folder):
    assert server.run(folder.name, "signal_in_save", signal.SIGTERM, **OPTIONS) == 143
    assert checkpoint_names(folder) == [".checkpoint-2.partial"]
    assert server.run(folder.name, **OPTIONS) == 0
    assert outcome(folder, last=6) == whole and checkpoint_names(folder)[0] == "checkpoint-2"


@pytest.mark.sweep
def test_fifty_signals_at_any_time(server, whole):
    draw, came = random.Random(0), 0
    for number in range(100):
        name = f"signalled {number}"
        chosen = draw.choice([signal.SIGTERM, signal.SIGINT])
        start = time.monotonic()
        code = server.run(name, "signal_after", draw.uniform(0.0, 0.25), chosen, **OPTIONS)
        assert time.monotonic() - start < 30
        assert code in (128 + chosen, 0), server.said()  # 0: it came too late
        if code:
            came += 1
            folder = server.workspace.folder / name
            assert newest_whole(folder).step == last_logged(folder)
            assert server.run(name, **OPTIONS) == 0
            assert outcome(folder, last=6) == whole
        if came == 50:
            return
    pytest.fail("most signals came too late")


# -- the disk


def test_a_folder_with_a_limit_of_files(server, folder):
    assert server.run(folder.name, "limit_file_size", 50_000, **OPTIONS) == 1
    assert "the limit of a file's size is 0.05 MiB (ulimit -f)" in server.errors()[0]
    assert not (folder / "metrics.jsonl").exists(), "a step was made"


def check_limit(server, name: str, size: int, sound: str) -> None:
    """A run that may write no file beyond a size after its first checkpoint."""
    folder = server.workspace.folder / name
    assert server.run(name, "signal_at_step", 1, signal.SIGTERM, **OPTIONS) == 143
    code = server.run(name, "limit_file_size_in_training", size, **OPTIONS)
    assert code == 1 and len(server.errors()) == 1, server.said()
    assert "cannot be written (File too large); earlier checkpoints are untouched" in server.errors()[0]
    assert checkpoint_names(folder) == ["checkpoint-2"] and newest_whole(folder).step == 2
    assert sha256(folder / "checkpoint-2" / "model.safetensors") == sound


def test_a_disk_that_fills_up(server, whole, folder):
    sound = sha256(server.workspace.folder / "whole" / "checkpoint-2" / "model.safetensors")
    check_limit(server, folder.name, 100_000, sound)
    assert server.run(folder.name, **OPTIONS) == 0
    assert outcome(folder, last=6) == whole


@pytest.mark.sweep
def test_fifty_sizes(server, whole):
    checkpoint = server.workspace.folder / "whole" / "checkpoint-2"
    largest = max(path.stat().st_size for path in checkpoint.iterdir())
    smallest = 20_000  # what the run says goes into a file too
    for number in range(50):
        sound = sha256(checkpoint / "model.safetensors")
        check_limit(server, f"limited {number}", smallest + round((largest - 1 - smallest) * number / 49), sound)


def mount(folder: Path, size: str, *more: str) -> bool:
    """Mounts a small file system, or mounts it anew with more room; False where that is not allowed."""
    options = ",".join([*more, f"size={size}"])
    return not subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True
    ).returncode


@pytest.mark.sweep
@pytest.mark.parametrize("size", ["200k", "1200k", "1400k", "1800k", "2400k"])
def test_a_small_file_system(server, whole, folder, size):
    """It is found too small before the first step, or is full in or after a checkpoint; each of these is whole or not
    there. With more room the same command goes on."""
    folder.mkdir()
    if not mount(folder, size):
        pytest.skip("may mount nothing")
    try:
        output = folder / "run"
        options = {**OPTIONS, "output_dir": output}
        assert server.run("", **options) == 1
        (error,) = server.errors()
        assert "No space left on device" in error or "are free, and a checkpoint" in error
        for checkpoint in output.glob("checkpoint-*"):
            verify(checkpoint)
        assert mount(folder, "100m", "remount")
        assert server.run("", **options) == 0, server.said()
        assert outcome(output, last=6) == whole
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("number", [2, 40])
def test_a_broken_disk(server, folder, number):
    options = {**OPTIONS, "max_steps": 2}
    assert server.run(folder.name, "fail_at_call", number, str(folder), errno.EIO, **options) == 1
    assert "checkpoint-2: cannot be written (Input/output error)" in server.errors()[0]
    assert newest_whole(folder) is None


# -- spoilt and changed


def test_a_spoilt_checkpoint_is_left_out(server, whole, folder):
    assert server.run(folder.name, "kill_at_step", 5, **OPTIONS) == -9
    path = folder / "checkpoint-4" / "optimizer.safetensors"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert server.run(folder.name, **OPTIONS) == 0
    assert "checkpoint-4: optimizer.safetensors is not what was saved (SHA-256 differs); it is left" in server.said()
    assert outcome(folder, last=6) == whole and "checkpoint-4.damaged" in checkpoint_names(folder)


def test_a_spoilt_checkpoint_that_is_named_is_an_error(server, whole, folder):
    checkpoint = server.workspace.folder / "whole" / "checkpoint-4.copy"
    checkpoint.mkdir()
    for path in (server.workspace.folder / "whole" / "checkpoint-4").iterdir():
        (checkpoint / path.name).write_bytes(path.read_bytes()[: None if path.name != "model.safetensors" else -1])
    assert server.run(folder.name, **OPTIONS, resume_from_checkpoint=checkpoint) == 1
    assert f"{checkpoint}: model.safetensors has" in server.errors()[0] and not folder.exists()


CHANGES = {
    "learning_rate": ({"learning_rate": 1e-3}, "learning_rate: 0.005 then, 0.001 now"),
    "seed": ({"seed": 7}, "seed: 42 then, 7 now"),
    "max_steps": ({"max_steps": 9}, "max_steps: 6 then, 9 now"),
    "batch size": ({"per_device_train_batch_size": 2}, "per_device_train_batch_size: 4 then, 2 now"),
    "accumulation": ({"update_freq": 2}, "gradient_accumulation_steps: 1 then, 2 now"),
    "length": ({"src_length": 61}, "src_length: 60 then, 61 now"),
    "template": ({"template": "{source}问：[gMASK]{answer}"}, "template: ["),
    "dropout": ({"output_dropout_prob": 0.3}, "model's output_dropout_prob: 0.1 then, 0.3 now"),
    "smoothing": ({"label_smoothing": 0.0}, "label_smoothing: 0.1 then, 0.0 now"),
    "freezing": ({"freeze": "layers.0"}, "freeze: None then, layers.0 now"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_settings_are_an_error(server, whole, folder, change):
    options, message = CHANGES[change]
    start = server.workspace.folder / "whole" / "checkpoint-2"
    assert server.run(folder.name, **{**OPTIONS, **options}, resume_from_checkpoint=start) == 1
    assert f"{start}: the run is another one now (" in server.errors()[0] and message in server.errors()[0]
    assert "--resume_with_changes" in server.errors()[0] and not folder.exists()


@pytest.mark.parametrize("change", ["a byte", "the order", "a record less"])
def test_changed_data_are_an_error(server, whole, folder, change, tmp_path):
    text = (server.workspace.folder / "train.json").read_text(encoding="utf-8")
    lines = text.splitlines(keepends=True)
    changed = {
        "a byte": text.replace("2万", "7万", 1),
        "the order": "".join(lines[::-1]),
        "a record less": "".join(lines[1:]),
    }
    (tmp_path / "train.json").write_text(changed[change], encoding="utf-8")
    start = server.workspace.folder / "whole" / "checkpoint-2"
    options = {**OPTIONS, "train_file": tmp_path / "train.json", "resume_from_checkpoint": start}
    assert server.run(folder.name, **options) == 1
    assert "training data (SHA-256): " in server.errors()[0]
    assert ("training examples: 20 then, 19 now" in server.errors()[0]) == (change == "a record less")


def test_a_change_that_is_allowed_is_noted(server, whole, folder):
    start = server.workspace.folder / "whole" / "checkpoint-2"
    options = {**OPTIONS, "learning_rate": 1e-3, "max_steps": 4, "resume_with_changes": True}
    assert server.run(folder.name, **options, resume_from_checkpoint=start) == 0
    noted = verify(folder / "checkpoint-4").facts["changes"]
    assert {"step": 2, "field": "learning_rate", "before": 0.005, "now": 0.001} in noted and len(noted) == 2
    rates = [json.loads(line).get("learning_rate") for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert rates[0] < 1e-3, "the old rate lived on for a step"


def test_another_number_of_threads_is_said(server, whole, monkeypatch):
    """And is no error: a run goes on where it can."""
    checkpoint, said = verify(server.workspace.folder / "whole" / "checkpoint-2"), []
    monkeypatch.setattr(fingerprint.logger, "warning", said.append)
    training = SimpleNamespace(dataset_world_size=1, tensor_parallel_degree=1, resume_with_changes=False)
    for threads in (1, 5):
        monkeypatch.setattr(fingerprint, "cpu_threads", lambda threads=threads: threads)
        fingerprint.manifest_facts(checkpoint.facts["fingerprint"], checkpoint, training)
    (line,) = said
    assert line.startswith("other processor or number of threads than at the last start") and "'threads': 1" in line


# -- memory, numbers, workers, time


@pytest.mark.parametrize(("library", "place"), [("paddle", "forward"), ("numpy", "forward"), ("numpy", "backward")])
def test_out_of_memory(server, folder, library, place):
    assert server.run(folder.name, "limit_memory", library, place, **OPTIONS) == 1
    (error,) = server.errors()
    assert error.startswith("error: step 3: out of memory with a batch of 4 rows of ")
    assert "); cheapest first: --recompute, --gradient_accumulation_steps" in error
    assert newest_whole(folder).step == 2


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_is_not_finite_reaches_no_checkpoint(server, folder, value):
    assert server.run(folder.name, "spoil_weight", 3, value, **OPTIONS) == 1
    assert "is not finite; nothing of this step is saved" in server.errors()[0]
    assert checkpoint_names(folder) == ["checkpoint-2"]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", ["OSError", "ValueError", "OddError", "StopIteration", "MemoryError", "batch"])
def test_an_example_that_cannot_be_read(server, folder, kind, workers):
    start, options = time.monotonic(), {**OPTIONS, "dataloader_num_workers": workers}
    assert server.run(folder.name, "unreadable_example", 7, kind, **options) == 1
    assert time.monotonic() - start < 60
    (error,) = server.errors()
    if kind == "batch":
        assert error == "error: a batch cannot be made of its examples (ValueError: a batch)"
    else:
        assert error.startswith(f"error: {server.workspace.folder / 'train.json'}, line 8 (in the cache, ")
        assert f": cannot be read ({kind}: " in error and error.isprintable()
    while server.processes():  # workers end right behind the run
        assert time.monotonic() - start < 60
        time.sleep(0.1)


@pytest.mark.parametrize("place", ["before", "backward"])
def test_a_dead_worker(server, folder, place):
    start, options = time.monotonic(), {**OPTIONS, "dataloader_num_workers": 2}
    assert server.run(folder.name, "signal_worker", 3, signal.SIGKILL, place, **options) == 1
    assert time.monotonic() - start < 60
    (error,) = server.errors()
    assert error.startswith("error: a worker of the data loader died: DataLoader process (pid ")
    assert "killed by signal: Killed" in error
    assert newest_whole(folder).step == 2


@pytest.mark.parametrize("fault", ["kill_at_step", "quick_watch"])
def test_workers_end_with_the_run(server, folder, fault):
    values = (3,) if fault == "kill_at_step" else (0.3, 3, signal.SIGSTOP)
    options = {**OPTIONS, "dataloader_num_workers": 2, "max_steps": 30}
    assert server.run(folder.name, fault, *values, **options) in (-signal.SIGKILL, 1)
    deadline = time.monotonic() + 30
    while server.processes():
        assert time.monotonic() < deadline, "workers outlive the run"
        time.sleep(0.1)


def test_a_stopped_worker(server, folder):
    options = {**OPTIONS, "dataloader_num_workers": 1, "max_steps": 30}
    assert server.run(folder.name, "quick_watch", 0.3, 3, signal.SIGSTOP, **options) == 1
    assert "error: loader worker " in server.errors()[0] and "has been stopped for 1 s" in server.errors()[0]
    assert newest_whole(folder).step < 30 and not list(folder.glob("*.damaged"))  # some batches were fetched before


def test_a_clock_that_goes_back(server, whole, folder):
    assert server.run(folder.name, "clock_goes_back", 86_400.0, **OPTIONS) == 0
    assert outcome(folder, last=6)["model"] == whole["model"]
    assert checkpoint_names(folder) == ["checkpoint-2", "checkpoint-4", "checkpoint-6"]


def test_a_log_that_cannot_be_written_does_not_end_a_run(server, whole, folder):
    assert server.run(folder.name, "full_log", str(folder / "metrics.jsonl"), **OPTIONS) == 0, server.said()
    assert "step 6 could not be logged (No space left on device)" in server.said()
    assert sha256(folder / "model.safetensors") == whole["model"]


# -- kills and failures wherever a run writes


def test_killed_while_results_are_written(server, whole, folder):
    """After the last checkpoint: half a file of results is in nobody's way, and the summary is logged once."""
    assert server.run(folder.name, "kill_after_call", 2, str(folder), "all_results.json", **OPTIONS) == -9
    assert not (folder / "all_results.json").exists()  # not half of it either
    assert server.run(folder.name, **OPTIONS) == 0, server.said()
    assert outcome(folder, last=6) == whole
    results = json.loads((folder / "all_results.json").read_text())
    assert results["train_loss"] == json.loads((folder / "train_results.json").read_text())["train_loss"] > 1


WRITES = {**OPTIONS, "max_steps": 3, "save_steps": 1, "save_total_limit": 1}  # three saves, two rotations
PARTS = 8


@pytest.fixture(scope="module")
def written(server) -> tuple[int, dict]:
    """How many calls of a run write, rename, sync or delete something in its folder, and what it leaves."""
    folder, counted = server.workspace.folder / "counted", server.workspace.folder / "calls.txt"
    assert server.run("counted", "count_calls", str(folder), str(counted), "", **WRITES) == 0
    return int(counted.read_text()), outcome(folder, last=3)


def test_killed_between_the_last_checkpoint_and_rotation(server, written):
    """The next run, which has nothing left to train, deletes what the killed one had no time for."""
    folder = server.workspace.folder / "killed before rotation"
    assert server.run(folder.name, "kill_at_call", 1, str(folder), ".dead-checkpoint-2", **WRITES) == -9
    assert checkpoint_names(folder) == ["checkpoint-2", "checkpoint-3"]
    assert server.run(folder.name, **WRITES) == 0, server.said()
    assert checkpoint_names(folder) == ["checkpoint-3"]
    assert outcome(folder, last=3) == written[1]


@pytest.mark.sweep
@pytest.mark.parametrize("part", range(PARTS))
def test_killed_at_every_call_of_a_run(server, written, part):
    """Right before it, or half way through a write and right after any other: the same command goes on."""
    calls, expected = written
    for number in range(1 + part, calls + 1, PARTS):
        name = f"killed at call {number}"
        folder = server.workspace.folder / name
        kill = ("kill_at_call", "kill_after_call")[number // PARTS % 2]
        assert server.run(name, kill, number, str(folder), "", **WRITES) == -9, f"{number} of {calls}"
        if not (folder / "done.json").exists():  # it was killed after its last write
            assert server.run(name, **WRITES) == 0, server.said()
        assert outcome(folder, last=3) == expected, f"{number} of {calls}"
        assert checkpoint_names(folder) == ["checkpoint-3"], f"{number} of {calls}"
    print(f"{calls} calls")


@pytest.mark.sweep
@pytest.mark.parametrize("part", range(PARTS))
def test_a_disk_that_breaks_at_every_call_of_a_run(server, written, part):
    """From some call on nothing can be written: one line of an error, and the same command goes on later."""
    calls, expected = written
    for number in range(1 + part, calls + 1, PARTS):
        name = f"broken at call {number}"
        folder = server.workspace.folder / name
        error = (errno.ENOSPC, errno.EIO, errno.EROFS)[number // PARTS % 3]
        assert server.run(name, "fail_at_call", number, str(folder), error, "", **WRITES) == 1, f"{number} of {calls}"
        assert len(server.errors()) == 1 and os.strerror(error) in server.errors()[0], server.said()
        assert server.run(name, **WRITES) == 0, server.said()
        assert outcome(folder, last=3) == expected, f"{number} of {calls}"
        assert checkpoint_names(folder) == ["checkpoint-3"], f"{number} of {calls}"


@pytest.mark.sweep
def test_two_hundred_kills_at_any_time(server, whole):
    """Runs that are killed over and over until one comes to its end."""
    draw, kills, ends = random.Random(0), 0, 0
    while kills < 200:
        folder = server.workspace.folder / f"killed at any time {ends}"
        while server.run(folder.name, "kill_after", draw.uniform(0.0, 0.6), **OPTIONS) != 0:
            kills += 1
            found = newest_whole(folder)
            lost = last_logged(folder) - (found.step if found else 0)
            assert lost <= OPTIONS["save_steps"] and not list(folder.glob("*.damaged"))
        ends += 1
        assert outcome(folder, last=6) == whole
    print(f"{kills} kills, {ends} runs came to their end")
