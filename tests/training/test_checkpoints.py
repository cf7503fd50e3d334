"""Checkpoints are whole or not there: killed, cut short or changed at any place, an older whole one is found."""

import json
import os
import random
import shutil
import signal
from pathlib import Path

import pytest

from glm.errors import InputError
from glm.training import checkpoints
from glm.training.checkpoints import (
    MANIFEST_NAME,
    checkpoint_folders,
    newest_whole,
    rotate,
    set_aside,
    sweep,
    verify,
    write_checkpoint,
)
from glm.training.setup import find_checkpoint
from tools import faults
from tools.fault_tools import checkpoint_names, tree

pytestmark = pytest.mark.fault
FILES = {"model.safetensors": 3000, "optimizer.safetensors": 6000, "run_state.json": 40}


def content(step: int, name: str) -> bytes:
    return random.Random(f"{step} {name}").randbytes(FILES[name])


def write(output_dir: Path, step: int) -> None:
    """A checkpoint of files with numbers of the step."""

    def fill(folder: Path) -> None:
        for name in FILES:
            with open(folder / name, "wb") as file:
                file.write(content(step, name))

    write_checkpoint(output_dir, step, fill, {"fingerprint": {"seed": 1}})


def is_right(output_dir: Path, step: int) -> bool:
    folder = output_dir / f"checkpoint-{step}"
    return verify(folder).step == step and all((folder / name).read_bytes() == content(step, name) for name in FILES)


# -- writing and finding


def test_a_checkpoint_has_its_files_and_a_manifest(tmp_path):
    write(tmp_path, 3)
    assert tree(tmp_path) == ["checkpoint-3"]
    assert tree(tmp_path / "checkpoint-3") == sorted([*FILES, MANIFEST_NAME])
    assert is_right(tmp_path, 3)
    manifest = json.loads((tmp_path / "checkpoint-3" / MANIFEST_NAME).read_text())
    assert (manifest["step"], manifest["format"], manifest["facts"]) == (3, 1, {"fingerprint": {"seed": 1}})
    assert {name: entry["bytes"] for name, entry in manifest["files"].items()} == FILES


def test_steps_are_numbers_not_texts_nor_times(tmp_path):
    for step in (10, 9, 100):
        write(tmp_path, step)
    os.utime(tmp_path / "checkpoint-9", (4e9, 4e9))
    (tmp_path / "checkpoint-final").mkdir()
    (tmp_path / "checkpoint-200").write_text("a file")
    assert newest_whole(tmp_path).step == 100
    rotate(tmp_path, limit=2, best=None)
    assert tree(tmp_path) == ["checkpoint-10", "checkpoint-100", "checkpoint-200", "checkpoint-final"]


@pytest.mark.parametrize(
    ("limit", "best", "left"),
    [
        (None, None, [1, 2, 3, 4]),
        (0, None, [1, 2, 3, 4]),
        (5, None, [1, 2, 3, 4]),
        (2, None, [3, 4]),
        (1, None, [4]),
        (2, "checkpoint-1", [1, 4]),
        (3, "checkpoint-1", [1, 3, 4]),
        (1, "checkpoint-1", [1, 4]),
        (1, "checkpoint-4", [4]),
        (2, "checkpoint-77", [3, 4]),
    ],
)
def test_rotation_keeps_the_latest_and_the_best(tmp_path, limit, best, left):
    for step in range(1, 5):
        write(tmp_path, step)
    rotate(tmp_path, limit=limit, best=best)
    assert tree(tmp_path) == [f"checkpoint-{step}" for step in left]


def test_deleting_follows_no_link(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    write(elsewhere, 1)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "checkpoint-1").symlink_to(elsewhere / "checkpoint-1")
    write(tmp_path / "out", 2)
    rotate(tmp_path / "out", limit=1, best=None)
    assert tree(tmp_path / "out") == ["checkpoint-2"] and is_right(elsewhere, 1)


def test_writing_follows_no_link(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "checkpoint-1").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="checkpoint-1: exists"):
        write(tmp_path, 1)
    assert tree(tmp_path / "elsewhere") == []


def test_what_is_set_aside_is_kept(tmp_path):
    for _ in range(3):
        write(tmp_path, 1)
        set_aside(tmp_path / "checkpoint-1", "damaged")
    assert tree(tmp_path) == ["checkpoint-1.damaged", "checkpoint-1.damaged-2", "checkpoint-1.damaged-3"]
    assert newest_whole(tmp_path) is None


@pytest.mark.parametrize("wish", ["true", "True", None])
def test_the_newest_whole_one_is_taken_and_the_others_named(tmp_path, wish, caplog):
    for step in (1, 2, 3):
        write(tmp_path, step)
    (tmp_path / "checkpoint-3" / "run_state.json").unlink()
    (tmp_path / "checkpoint-9").mkdir()
    assert find_checkpoint(wish, tmp_path, goes_on=wish is None).step == 2
    assert tree(tmp_path) == ["checkpoint-1", "checkpoint-2", "checkpoint-3.damaged", "checkpoint-9.damaged"]
    assert "checkpoint-3: run_state.json is missing; it is left out, and kept as" in caplog.text
    assert "checkpoint-9: manifest.json is missing" in caplog.text


def test_a_named_one_is_taken_or_an_error(tmp_path):
    for step in (1, 2):
        write(tmp_path, step)
    assert find_checkpoint(str(tmp_path / "checkpoint-1"), tmp_path).step == 1
    (tmp_path / "checkpoint-1" / "run_state.json").unlink()
    with pytest.raises(InputError, match="checkpoint-1: run_state.json is missing"):
        find_checkpoint(str(tmp_path / "checkpoint-1"), tmp_path)
    with pytest.raises(InputError, match="nowhere: manifest.json is missing"):
        find_checkpoint(str(tmp_path / "nowhere"), tmp_path)
    assert tree(tmp_path) == ["checkpoint-1", "checkpoint-2"]
    assert find_checkpoint(None, tmp_path) is None


def test_none_is_found(tmp_path):
    with pytest.raises(InputError, match="resume_from_checkpoint true: no checkpoint in .* that is whole"):
        find_checkpoint("true", tmp_path)
    assert find_checkpoint("true", tmp_path, goes_on=True) is None


# -- spoilt files


def spoil_every_way(folder: Path, *, flips: int, cuts: int):
    """Flips single bits and cuts files, one at a time; yields with each what was done, and mends it."""
    draw = random.Random(0)
    files = sorted(folder.iterdir())
    for number in range(flips + cuts):
        path = files[number % len(files)]
        data = path.read_bytes()
        if number < flips:
            place = draw.randrange(8 * len(data))
            spoilt = bytearray(data)
            spoilt[place // 8] ^= 1 << place % 8
        else:
            spoilt = data[: draw.choice([0, 1, len(data) // 2, len(data) - 1, draw.randrange(len(data))])]
        path.write_bytes(spoilt)
        yield path.name
        path.write_bytes(data)


@pytest.mark.parametrize(("flips", "cuts"), [(200, 40), pytest.param(1000, 200, marks=pytest.mark.sweep)])
def test_every_flipped_bit_and_every_cut_is_found(tmp_path, flips, cuts):
    write(tmp_path, 6)
    folder = tmp_path / "checkpoint-6"
    for name in spoil_every_way(folder, flips=flips, cuts=cuts):
        with pytest.raises(InputError, match=name):
            verify(folder)
    assert is_right(tmp_path, 6)


def test_files_of_another_step_are_found(tmp_path):
    for step in (3, 6):
        write(tmp_path, step)
    shutil.copy(tmp_path / "checkpoint-3" / "optimizer.safetensors", tmp_path / "checkpoint-6")
    with pytest.raises(InputError, match=r"optimizer.safetensors is not what was saved \(SHA-256 differs\)"):
        verify(tmp_path / "checkpoint-6")


def test_another_manifest_is_found(tmp_path):
    write(tmp_path, 3)
    write(tmp_path, 6)
    path = tmp_path / "checkpoint-3" / MANIFEST_NAME
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, "step": 4}, indent=2, sort_keys=True) + "\n")
    with pytest.raises(InputError, match="manifest.json is not what was saved"):
        verify(tmp_path / "checkpoint-3")
    path.write_text(json.dumps([]))
    with pytest.raises(InputError, match="manifest.json is not what was saved"):
        verify(tmp_path / "checkpoint-3")
    (tmp_path / "checkpoint-6").rename(tmp_path / "checkpoint-7")
    with pytest.raises(InputError, match="checkpoint-7: is the checkpoint of step 6 under another name"):
        verify(tmp_path / "checkpoint-7")


def test_a_format_of_the_future(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "FORMAT", 2)
    write(tmp_path, 1)
    monkeypatch.undo()
    with pytest.raises(InputError, match="its format is 2; this version of the program knows 1"):
        verify(tmp_path / "checkpoint-1")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"files": {"../checkpoint-2/weights": {"bytes": 1, "sha256": "0" * 64}}}, "files"),
        ({"files": {"/etc/passwd": {"bytes": 1, "sha256": "0" * 64}}}, "files"),
        ({"files": {"a": {"bytes": -1, "sha256": "0" * 64}}}, "files.a.bytes -1: has to be greater than"),
        ({"files": {"a": {"bytes": 1}}}, "has no files.a.sha256"),
        ({"files": ["a"]}, "files"),
        ({"step": "1"}, 'step "1": has to be a valid integer'),
        ({"facts": []}, "facts"),
        ({"facts": {"fingerprint": []}}, "facts.fingerprint"),
        ({"command": ["x"]}, "unknown entry command"),
    ],
)
def test_a_manifest_that_leads_elsewhere(tmp_path, change, message):
    """Its digest is right: whoever made the folder could count it, too."""
    write(tmp_path, 1)
    folder = tmp_path / "checkpoint-1"
    manifest = json.loads((folder / MANIFEST_NAME).read_text())
    del manifest["sha256"]
    (folder / MANIFEST_NAME).write_bytes(checkpoints._manifest_bytes(manifest | change))
    with pytest.raises(InputError) as error:
        verify(folder)
    assert f"{folder / MANIFEST_NAME}: {message}" in str(error.value)


# -- kills and failing disks


def save_and_rotate(output_dir: Path) -> None:
    """What a run does at its third save."""
    sweep(output_dir)
    write(output_dir, 3)
    rotate(output_dir, limit=2, best=None)


def in_child(act) -> int:
    """Runs a function in a forked process; returns the number of the signal that killed it, 0 if none."""
    process = os.fork()
    if process == 0:
        try:
            act()
            os._exit(0)
        except BaseException:
            os._exit(1)
    _, status = os.waitpid(process, 0)
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def with_two(output_dir: Path) -> Path:
    for step in (1, 2):
        write(output_dir, step)
    return output_dir


def number_of_calls(tmp_path: Path) -> int:
    output_dir = with_two(tmp_path / "counted")

    def act() -> None:
        faults.count_calls(str(output_dir), str(tmp_path / "calls"))
        save_and_rotate(output_dir)

    assert in_child(act) == 0
    return int((tmp_path / "calls").read_text())


STRIDES = [3, pytest.param(1, marks=pytest.mark.sweep)]  # every third call, or every one


@pytest.mark.parametrize("stride", STRIDES)
@pytest.mark.parametrize("kill", ["kill_at_call", "kill_after_call"])
def test_killed_at_every_write_rename_sync_and_unlink(tmp_path, kill, stride):
    """Nothing is lost but what was being written, what is found is whole, and the next save leaves no trace."""
    calls = number_of_calls(tmp_path)
    assert calls >= 22
    for number in range(1, calls + 1, stride):
        output_dir = with_two(tmp_path / f"{kill}-{number}")

        def act(output_dir=output_dir, number=number) -> None:
            getattr(faults, kill)(number, str(output_dir))
            save_and_rotate(output_dir)

        assert in_child(act) == signal.SIGKILL, f"{number} of {calls}"
        for folder in checkpoint_folders(output_dir):
            verify(folder)  # also one that was being deleted: without its name it is no checkpoint
        found = newest_whole(output_dir)
        assert found.step in (2, 3) and is_right(output_dir, found.step)
        assert not [name for name in tree(output_dir) if name.endswith("damaged")], "a torn one had its final name"
        sweep(output_dir)
        if found.step == 2:
            write(output_dir, 3)
        rotate(output_dir, limit=2, best=None)
        assert tree(output_dir) == ["checkpoint-2", "checkpoint-3"] and is_right(output_dir, 3)
        shutil.rmtree(output_dir)
    print(f"{calls} calls")


@pytest.mark.parametrize("stride", STRIDES)
@pytest.mark.parametrize("error", [28, 5, 30], ids=["full", "broken", "read-only"])
def test_a_disk_that_fails_at_every_call(tmp_path, error, stride):
    """The save is an error that says so; older checkpoints stay, and nothing half-written has a final name."""
    calls = number_of_calls(tmp_path)
    failed = 0
    for number in range(1, calls + 1, stride):
        output_dir = with_two(tmp_path / str(number))

        def act(output_dir=output_dir, number=number) -> None:
            faults.fail_at_call(number, str(output_dir), error)
            try:
                write(output_dir, 3)
            except InputError as caught:
                assert "checkpoint-3: cannot be written" in str(caught)
                os.kill(os.getpid(), signal.SIGUSR2)

        failed += in_child(act) == signal.SIGUSR2
        assert newest_whole(output_dir).step in (2, 3) and is_right(output_dir, 2)
        assert checkpoint_names(output_dir)[-2:] in (
            ["checkpoint-1", "checkpoint-2"],
            ["checkpoint-2", "checkpoint-3"],
        )
        shutil.rmtree(output_dir)
    assert failed >= 15 / stride  # all but those of the cleaning up


def test_an_error_while_writing_leaves_nothing(tmp_path):
    def fails(folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(b"half")
        raise InputError("weight is not finite")

    with pytest.raises(InputError, match="not finite"):
        write_checkpoint(tmp_path, 1, fails, {})
    assert tree(tmp_path) == []
