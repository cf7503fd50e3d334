"""The folder of a run: one run at a time, what may be in it, and a disk that will do."""

import errno
import fcntl
import json
import os
import resource
import shutil
import signal
import stat
import time
import types
from pathlib import Path

import pytest

from glm.errors import InputError
from glm.training import run_folder
from glm.training.checkpoints import verify, write_checkpoint
from glm.training.progress import rewind_metrics
from glm.training.run_folder import (
    LOCK_NAME,
    check_disk,
    check_is_free,
    clear_earlier_run,
    locked,
    set_later_aside,
    write_done,
)

pytestmark = pytest.mark.fault
FREE = 10 * 2**20


def write(output_dir: Path, step: int) -> Path:
    return write_checkpoint(output_dir, step, lambda folder: (folder / "file").write_text("x"), {}).folder


def tree(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# -- the lock


def test_a_folder_is_made_and_held(tmp_path):
    folder = tmp_path / "a" / "b"
    with locked(folder) as is_unfinished:
        assert not is_unfinished
        holder = json.loads((folder / LOCK_NAME).read_text())
        assert holder["process"] == os.getpid() and set(holder) == {"host", "process", "started"}
        (folder / "result").write_text("")
    with locked(folder) as is_unfinished:
        assert is_unfinished
        write_done(folder, {"exit_code": 0})
    with locked(folder) as is_unfinished:
        assert not is_unfinished
    assert json.loads((folder / "done.json").read_text())["exit_code"] == 0


def test_a_run_that_leaves_nothing_leaves_no_lock(tmp_path):
    with pytest.raises(InputError), locked(tmp_path / "new"):
        raise InputError("bad data")
    with locked(tmp_path / "new"):
        pass
    (tmp_path / "kept").mkdir()
    with locked(tmp_path / "kept"):
        pass
    assert tree(tmp_path) == ["kept"] and tree(tmp_path / "kept") == []


def test_a_run_that_is_refused_leaves_no_lock(tmp_path):
    """With one the folder would look like that of a run to be taken up."""
    (tmp_path / "mine").write_text("kept")
    for _ in range(2):
        with pytest.raises(InputError, match="is not empty"), locked(tmp_path) as is_unfinished:
            check_is_free(tmp_path, is_ours=is_unfinished)
    assert tree(tmp_path) == ["mine"]
    (tmp_path / LOCK_NAME).write_text("")  # of a run that was killed
    with pytest.raises(InputError), locked(tmp_path):
        raise InputError("bad data")
    assert tree(tmp_path) == ["mine", LOCK_NAME]


def hold(folder: Path) -> int:
    """Holds a folder in another process, which has a child that outlives it, as a loader's worker may."""
    told, tell = os.pipe()
    process = os.fork()
    if process == 0:
        try:
            with locked(folder):
                if os.fork() == 0:
                    time.sleep(5)
                else:
                    os.write(tell, b"held")
                    time.sleep(60)
        finally:
            os._exit(0)
    assert os.read(told, 4) == b"held"
    return process


def test_a_second_run_is_an_error_and_a_killed_one_is_taken_over(tmp_path, caplog):
    other = hold(tmp_path)
    with pytest.raises(InputError) as caught, locked(tmp_path):
        pass
    assert f"another run is writing it, process {other} on {os.uname().nodename}, started 20" in str(caught.value)
    os.kill(other, signal.SIGKILL)
    os.waitpid(other, 0)
    with locked(tmp_path) as is_unfinished:
        assert is_unfinished
    assert f"did not come to its end, process {other} on" in caplog.text


def test_a_lock_of_nobody(tmp_path):
    (tmp_path / LOCK_NAME).write_text("no JSON")
    with locked(tmp_path) as is_unfinished:
        assert is_unfinished


# -- what is in it


@pytest.mark.parametrize("name", ["model.safetensors", ".hidden", "checkpoint-5", "run.lock.old"])
def test_a_folder_that_is_not_empty(tmp_path, name):
    (tmp_path / name).write_text("kept")
    with pytest.raises(InputError) as caught:
        check_is_free(tmp_path, is_ours=False)
    assert str(caught.value) == (
        f"output_dir {tmp_path}: is not empty; choose another, or add --overwrite_output_dir or "
        "--resume_from_checkpoint true"
    )
    check_is_free(tmp_path, is_ours=True)
    assert (tmp_path / name).read_text() == "kept"


def test_a_folder_that_is_free(tmp_path):
    with locked(tmp_path):
        check_is_free(tmp_path, is_ours=False)
        write_done(tmp_path, {})
        with pytest.raises(InputError, match="holds a run that came to its end"):
            check_is_free(tmp_path, is_ours=False)


def test_a_folder_that_is_a_file_or_in_one(tmp_path):
    (tmp_path / "out").write_text("")
    for path in (tmp_path / "out", tmp_path / "out" / "run"):
        with pytest.raises(InputError, match=f"output_dir {path}: is a file or lies in one"), locked(path):
            pass


def test_clearing_takes_only_what_a_run_left(tmp_path):
    for name in ("checkpoint-5", "checkpoint-10", "eval", "my-checkpoint-1", "checkpoint-final"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("")
    for name in ("step-5.jsonl", "step-5.metrics.json"):
        (tmp_path / "eval" / name).write_text("")
    for name in ("metrics.jsonl", "eval_results.json", "predictions.jsonl", "notes.txt", "model.safetensors"):
        (tmp_path / name).write_text("")
    clear_earlier_run(tmp_path)
    assert tree(tmp_path) == ["checkpoint-final", "eval", "model.safetensors", "my-checkpoint-1", "notes.txt"]
    assert tree(tmp_path / "eval") == ["file"]
    clear_earlier_run(tmp_path)


def test_later_checkpoints_are_kept_under_another_name(tmp_path):
    for step in (1, 2, 3):
        write(tmp_path, step)
    set_later_aside(tmp_path, verify(tmp_path / "checkpoint-2"))
    assert tree(tmp_path) == ["checkpoint-1", "checkpoint-2", "checkpoint-3.earlier"]
    elsewhere = verify(write(tmp_path / "elsewhere", 2))
    set_later_aside(tmp_path, elsewhere)
    assert tree(tmp_path) == ["checkpoint-1.earlier", "checkpoint-2.earlier", "checkpoint-3.earlier", "elsewhere"]


# -- the disk


@pytest.fixture
def disk(monkeypatch):
    """A disk with 10 MiB free, and no limit of a file's size."""
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: types.SimpleNamespace(free=FREE))
    limits = types.SimpleNamespace(size=resource.RLIM_INFINITY)
    monkeypatch.setattr(resource, "getrlimit", lambda which: (limits.size, limits.size))
    return limits


def check(folder: Path, **options) -> None:
    settings = {"checkpoint_bytes": 3 * 2**20, "model_bytes": 2**20, "saves": 2, "limit": None}
    check_disk(folder, **{**settings, **options})


def test_a_disk_that_will_do(tmp_path, disk, caplog):
    check(tmp_path)
    check(tmp_path, saves=100, limit=1)
    check(tmp_path, saves=0)
    assert caplog.text == "" and tree(tmp_path) == []


def test_a_disk_that_is_too_small(tmp_path, disk):
    with pytest.raises(InputError, match=r"10.00 MiB are free, and a checkpoint \(5.00 MiB\).* need 11.00 MiB"):
        check(tmp_path, checkpoint_bytes=5 * 2**20)
    check(tmp_path, checkpoint_bytes=5 * 2**20, saves=1)
    with pytest.raises(InputError, match="10.00 MiB are free"):
        check(tmp_path, model_bytes=11 * 2**20, saves=0)


def test_a_disk_that_will_be_full(tmp_path, disk, caplog):
    check(tmp_path, saves=4)
    assert "all checkpoints of the run need 13.00 MiB; set save_total_limit" in caplog.text


def test_a_limit_of_files(tmp_path, disk):
    disk.size = 2**20
    with pytest.raises(InputError, match=r"limit of a file's size is 1.00 MiB \(ulimit -f\), .* needs 2.00 MiB"):
        check(tmp_path)


@pytest.mark.parametrize("error", [13, 30, 5, 28], ids=["forbidden", "read-only", "broken", "full"])
@pytest.mark.parametrize("call", ["open", "fsync", "replace"])
def test_a_folder_that_cannot_be_written(tmp_path, disk, monkeypatch, error, call):
    def fail(*arguments, **options):
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(Path if call in ("open", "replace") else os, call, fail)
    with pytest.raises(InputError, match=rf"output_dir .*: cannot be written \({os.strerror(error)}\)"):
        check(tmp_path)
    monkeypatch.undo()
    assert tree(tmp_path) == []


def test_a_folder_that_cannot_be_made(tmp_path, monkeypatch):
    def fail(*arguments, **options):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", fail)
    with pytest.raises(InputError, match=r"output_dir .*new: cannot be made \(Read-only file system\)"):
        with run_folder.locked(tmp_path / "new"):
            pass


@pytest.mark.fault
def test_a_run_on_a_disk_without_locks_and_syncs(workspace, monkeypatch, caplog):
    """It works, and what works less well is said before the first step."""
    fsync = os.fsync

    def sync(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        fsync(descriptor)

    def no_lock(*arguments):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(fcntl, "flock", no_lock)
    monkeypatch.setattr(fcntl, "lockf", no_lock)
    folder = workspace.finetune("plain-disk", max_steps=2, save_strategy="steps", save_steps=1)
    assert verify(folder / "checkpoint-2").step == 2 and (folder / "done.json").exists()
    said = [record.getMessage() for record in caplog.records]
    assert any("folders cannot be synced" in text for text in said) and any("are no locks" in text for text in said)


@pytest.mark.fault
@pytest.mark.parametrize("kind", ["link", "dangling link", "pipe", "folder", "device"])
def test_a_lock_file_that_is_something_else(tmp_path, kind):
    """As in a stranger's folder: nothing behind a link is changed, and nothing waits."""
    run, other = tmp_path / "run", tmp_path / "other"
    run.mkdir()
    other.write_text("kept")
    lock = run / "run.lock"
    match kind:
        case "pipe":
            os.mkfifo(lock)
        case "folder":
            lock.mkdir()
        case _:
            lock.symlink_to({"link": other, "device": "/dev/zero"}.get(kind, tmp_path / "nothing"))
    with pytest.raises(InputError, match=r"run.lock: (cannot be opened|is no plain file)"), locked(run):
        pass
    assert other.read_text() == "kept" and not (tmp_path / "nothing").exists()


@pytest.mark.fault
def test_a_lock_file_of_nobody(tmp_path):
    (tmp_path / "run.lock").write_text("[" * 100_000)
    with locked(tmp_path) as is_unfinished:
        assert is_unfinished


@pytest.mark.fault
def test_a_log_that_is_something_else(tmp_path):
    log = tmp_path / "metrics.jsonl"
    os.mkfifo(log)
    with pytest.raises(InputError, match="metrics.jsonl: is no plain file"):
        rewind_metrics(tmp_path, 0)
    log.unlink()
    log.symlink_to(tmp_path / "elsewhere")
    rewind_metrics(tmp_path, 0)
    assert not log.is_symlink()
