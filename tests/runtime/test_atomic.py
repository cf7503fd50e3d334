"""A folder is there as a whole or not at all: killed at every file operation, disk full at every size, two at once."""

import errno
import fcntl
import os
import resource
import signal
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from glm.checkpoint.convert import export_checkpoint
from glm.errors import InputError
from glm.runtime.atomic import new_folder, probe, put_files, write_whole
from tools.checkpoint_tools import snapshot, tiny_weights, write_glm

EVENTS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.copyfile", "os.listdir", "os.scandir")


def in_child(work: Callable[[], None]) -> int:
    """Runs work in a forked process; returns its wait status."""
    child = os.fork()
    if not child:
        try:
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1]


def dying_at(count: int) -> None:
    """From now on the process is killed at its count-th operation on files."""
    left = [count]

    def watch(event: str, arguments: tuple) -> None:
        if event in EVENTS:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def test_killed_at_every_operation(tmp_path):
    """Before the end there is no target; the same command then does all of it."""
    source = write_glm(tmp_path / "m", tiny_weights())
    (source / "cog-pretrain.model").write_text("x")
    export_checkpoint(source, tmp_path / "whole", to="megatron", degree=2)
    whole = snapshot(tmp_path / "whole")
    target = tmp_path / "target"
    killed, statuses = 0, set()
    for count in range(1, 1000):

        def work(count=count):
            dying_at(count)
            export_checkpoint(source, target, to="megatron", degree=2)

        status = in_child(work)
        statuses.add(status)
        if target.exists():
            assert snapshot(target) == whole, count
            break
        killed += 1
    assert killed > 30 and statuses <= {signal.SIGKILL, 0}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m", "target", "whole"]


FORMATS = pytest.mark.parametrize(("form", "degree"), [("glm", 1), ("paddlenlp", 2), ("huggingface-bin", 1)])


def sizes_below(folder: Path) -> list[int]:
    """Sizes at which no file of a folder is complete, and one at which all but the largest are."""
    size = max(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return [0, 1, 8, 100, 4000, *range(5000, size, 3001), size - 1]


@pytest.mark.fault
@FORMATS
def test_disk_full_at_every_size(tmp_path, form, degree):
    source = write_glm(tmp_path / "m", tiny_weights())
    before = snapshot(source)
    export_checkpoint(source, tmp_path / "whole", to=form, degree=degree)
    target = tmp_path / "target"

    for limit in sizes_below(tmp_path / "whole"):

        def work(limit=limit):
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            with pytest.raises(InputError, match=rf"^{target}: cannot be written \(File too large\)$"):
                export_checkpoint(source, target, to=form, degree=degree)

        assert in_child(work) == 0, limit
        assert sorted(path.name for path in tmp_path.iterdir()) == ["m", "whole"], limit
    assert snapshot(source) == before


@FORMATS
def test_killed_within_a_write(tmp_path, form, degree):
    """The system kills the process at a byte of a file; the same command then does all of it."""
    source = write_glm(tmp_path / "m", tiny_weights())
    export_checkpoint(source, tmp_path / "whole", to=form, degree=degree)
    target = tmp_path / "target"

    for limit in sizes_below(tmp_path / "whole"):

        def work(limit=limit):
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            export_checkpoint(source, target, to=form, degree=degree)

        assert in_child(work) & 0x7F == signal.SIGXFSZ, limit
        assert sorted(path.name for path in tmp_path.iterdir()) == [".target.partial", "m", "whole"], limit
    export_checkpoint(source, target, to=form, degree=degree)
    assert snapshot(target) == snapshot(tmp_path / "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m", "target", "whole"]


def test_a_folder_that_may_not_be_written(tmp_path, monkeypatch):
    """As on a read-only disk; root may write everywhere else."""

    def refused(path, **options):
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(Path, "mkdir", refused)
    message = rf"^{tmp_path / 'x'}: cannot be written \(Read-only file system\)$"
    with pytest.raises(InputError, match=message), new_folder(tmp_path / "x"):
        raise AssertionError


def test_a_source_that_cannot_be_read_is_not_the_targets_fault(tmp_path):
    with pytest.raises(FileNotFoundError, match="gone"), new_folder(tmp_path / "x"):
        (tmp_path / "gone").read_bytes()
    assert list(tmp_path.iterdir()) == []


def test_an_error_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), new_folder(tmp_path / "a" / "x") as folder:
        (folder / "half").write_text("half")
        raise KeyboardInterrupt
    assert list((tmp_path / "a").iterdir()) == []


def test_files_are_on_the_disk_before_the_name(tmp_path, monkeypatch):
    """Every file and folder is synced, then comes the name, then its folder is synced."""
    done = []
    real_sync, real_rename = os.fsync, os.rename

    def sync(descriptor: int) -> None:
        done.append(("sync", os.readlink(f"/proc/self/fd/{descriptor}").replace(str(tmp_path), "")))
        real_sync(descriptor)

    def rename(old, new, **options) -> None:
        done.append(("rename", str(new).replace(str(tmp_path), "")))
        real_rename(old, new, **options)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "rename", rename)
    with new_folder(tmp_path / "x") as folder:
        (folder / "inner").mkdir()
        (folder / "inner" / "a").write_text("a")
        (folder / "b").write_text("b")
    assert done == [
        ("sync", "/.x.partial/inner/a"),
        ("sync", "/.x.partial/inner"),
        ("sync", "/.x.partial/b"),
        ("sync", "/.x.partial"),
        ("rename", "/x"),
        ("sync", ""),
    ]


def test_what_a_killed_run_left_is_cleared(tmp_path):
    left = tmp_path / ".x.partial"
    (left / "inner").mkdir(parents=True)
    (left / "inner" / "old").write_text("old")
    (left / "link").symlink_to(tmp_path)
    (tmp_path / "mine").write_text("mine")
    with new_folder(tmp_path / "x") as folder:
        assert list(folder.iterdir()) == []
        (folder / "new").write_text("new")
    assert snapshot(tmp_path) == {"mine": b"mine", "x/new": b"new"}


def test_two_at_once(tmp_path):
    with new_folder(tmp_path / "x") as folder:
        (folder / "a").write_text("a")

        def second():
            with pytest.raises(InputError, match="another process is writing it"), new_folder(tmp_path / "x"):
                raise AssertionError

        assert in_child(second) == 0
        assert snapshot(folder) == {"a": b"a"}
    assert snapshot(tmp_path) == {"x/a": b"a"}


def test_the_folder_of_another_that_has_just_finished(tmp_path, monkeypatch):
    """The second opened the folder aside before the first renamed it: it must not clear what is now whole."""
    real_lock = __import__("fcntl").flock

    def late_lock(descriptor, how):
        (tmp_path / ".x.partial" / "a").write_text("a")
        (tmp_path / ".x.partial").rename(tmp_path / "x")
        real_lock(descriptor, how)

    monkeypatch.setattr("glm.runtime.atomic.fcntl.flock", late_lock)
    with pytest.raises(InputError, match="another process is writing it"), new_folder(tmp_path / "x"):
        raise AssertionError
    assert snapshot(tmp_path) == {"x/a": b"a"}


@pytest.mark.parametrize("kind", ["file", "full folder", "link", "broken link"])
def test_a_target_that_exists(tmp_path, kind):
    target = tmp_path / "x"
    if kind == "file":
        target.write_text("mine")
    elif kind == "full folder":
        target.mkdir()
        (target / "a").write_text("mine")
    else:
        (tmp_path / "there").mkdir()
        target.symlink_to(tmp_path / ("there" if kind == "link" else "gone"))
    before = snapshot(tmp_path)
    with pytest.raises(InputError, match=f"{target}: exists"), new_folder(target):
        raise AssertionError
    assert snapshot(tmp_path) == before


def test_an_empty_folder_may_become_the_target(tmp_path, monkeypatch):
    (tmp_path / "x").mkdir()
    monkeypatch.chdir(tmp_path)
    with new_folder(Path("x")) as folder:
        (folder / "a").write_text("a")
    assert snapshot(tmp_path) == {"x/a": b"a"}


def test_a_file_is_whole_or_as_it_was(tmp_path, monkeypatch):
    write_whole(tmp_path / "a", "old")

    def fail(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError):
        write_whole(tmp_path / "a", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["a"] and (tmp_path / "a").read_text() == "old"


# -- disks that can do less


@pytest.fixture(params=[errno.EINVAL, errno.ENOTSUP, errno.ENOSYS])
def plain_disk(request, monkeypatch):
    """One that cannot sync folders and has no locks."""
    fsync = os.fsync

    def sync(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(request.param, os.strerror(request.param))
        fsync(descriptor)

    def no_lock(*arguments):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(fcntl, "flock", no_lock)
    monkeypatch.setattr(fcntl, "lockf", no_lock)


@pytest.mark.fault
def test_a_disk_that_can_do_less_is_written_to(tmp_path, plain_disk):
    assert [text.partition(",")[0] for text in probe(tmp_path)] == ["folders cannot be synced", "there are no locks"]
    assert os.listdir(tmp_path) == []
    with new_folder(tmp_path / "new") as folder:
        (folder / "a").write_text("x")
    write_whole(tmp_path / "b", "y")
    assert (tmp_path / "new" / "a").read_text() == "x" and (tmp_path / "b").read_text() == "y"


@pytest.mark.parametrize("call", ["flock", "lockf"])
def test_a_disk_with_one_kind_of_locks(tmp_path, monkeypatch, call):
    """Checkpoints take the one, run folders the other (Lustre, and NFS without lockd)."""

    def no_lock(*arguments):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, call, no_lock)
    assert [text.partition(",")[0] for text in probe(tmp_path)] == ["there are no locks"]


def test_a_disk_that_can_do_all(tmp_path):
    assert probe(tmp_path) == [] and os.listdir(tmp_path) == []


@pytest.mark.parametrize("call", ["fsync", "replace", "rename", "mkdir"])
@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC, errno.EROFS])
def test_a_disk_that_fails_is_found_by_the_probe(tmp_path, monkeypatch, call, error):
    def fail(*arguments, **options):
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os if call == "fsync" else Path, call, fail)
    with pytest.raises(OSError, match=os.strerror(error)):
        probe(tmp_path)


# -- a stranger's folder


@pytest.mark.fault
def test_links_in_the_place_of_temporary_files_are_not_followed(tmp_path):
    """A folder from anywhere may have them: what they lead to is neither cleared nor written."""
    folder, other = tmp_path / "folder", tmp_path / "other"
    for path in (folder, other):
        path.mkdir()
    (other / "precious").write_text("kept")
    for name in (".new.partial", ".files.partial"):
        (folder / name).symlink_to(other)
    (folder / ".a.json.partial").symlink_to(other / "precious")
    (folder / ".b.json.partial").symlink_to(other / "nothing")
    os.mkfifo(folder / ".c.json.partial")
    with new_folder(folder / "new") as aside:
        (aside / "file").touch()
    with put_files(folder) as aside:
        (aside / "put").touch()
    for name in "abc":
        write_whole(folder / f"{name}.json", "{}")
    assert [path.name for path in other.iterdir()] == ["precious"] and (other / "precious").read_text() == "kept"
    found = sorted(path.name for path in folder.iterdir())
    assert found == ["a.json", "b.json", "c.json", "new", "put"]
    assert not any(path.is_symlink() for path in folder.iterdir())
