"""Folders and files that appear whole or not at all: written aside, brought to the disk, renamed."""

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from glm.errors import InputError

# What file systems of networks and containers answer where they have no sync of folders, or no locks.
UNSUPPORTED = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOLCK}


@contextlib.contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A folder to write into, which becomes `target` when the block ends without an error.

    Killed at any moment, there is either no `target` or all of it; what a killed run left aside (`.NAME.partial`) is
    cleared by the next. An error in the block clears it at once.

    Args:
        target: must not exist yet, or be an empty folder.

    Raises:
        InputError: `target` holds something, another process is writing it, or it cannot be written.
    """
    if target.is_symlink() or (target.exists() and not (target.is_dir() and not any(target.iterdir()))):
        raise InputError(f"{target}: exists; choose a new folder, nothing is written over")
    aside = target.absolute().parent / f".{target.name}.partial"
    with _writing(target, aside):
        aside.mkdir(parents=True, exist_ok=True)
    lock = os.open(aside, os.O_RDONLY)
    try:
        _lock(lock, aside, target)
        try:
            with _writing(target, aside):
                _clear(aside)
                yield aside
                _sync(aside)
                aside.rename(target.absolute())
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
    finally:
        os.close(lock)
    _sync_one(target.absolute().parent)


@contextlib.contextmanager
def put_files(folder: Path) -> Iterator[Path]:
    """A folder to write into, whose files then take their places in `folder`, one rename each.

    None does if the block ends with an error. What a killed process left aside is cleared by the next.
    """
    aside = folder / ".files.partial"
    aside.mkdir(parents=True, exist_ok=True)
    try:
        _clear(aside)
        yield aside
        _sync(aside)
        for path in sorted(aside.iterdir()):
            path.replace(folder / path.name)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    _sync_one(folder)


def probe(folder: Path) -> list[str]:
    """Does once, with small files, all that writing here will need; says what works less well than elsewhere.

    Raises:
        OSError: something that cannot be done without does not work.
    """
    file, target = folder / ".probe", folder / ".probe-folder"
    aside = target.with_name(f"{target.name}.partial")
    try:
        write_whole(file, "x" * 4096)
        write_whole(file, "y")  # a rename over a file that is there
        for part in (aside, target):
            shutil.rmtree(part, ignore_errors=True)
        aside.mkdir()
        file.replace(aside / "file")
        _sync_one(aside / "file")
        aside.rename(target)
        descriptor = os.open(target, os.O_RDONLY)
        try:
            can_sync, can_lock = _does(os.fsync, descriptor), _does(fcntl.flock, descriptor, fcntl.LOCK_EX)
        finally:
            os.close(descriptor)
    finally:
        file.unlink(missing_ok=True)
        for part in (aside, target):
            shutil.rmtree(part, ignore_errors=True)
    missing = []
    if not can_sync:
        missing.append("folders cannot be synced, so that a power cut may take the newest files with it")
    if not can_lock:
        missing.append("there are no locks, so that a second run in the same folder is not noticed")
    return missing


def _does(call: Callable[..., object], *arguments: object) -> bool:
    """Whether a file system has a call; raises OSError where it has it, and it fails."""
    try:
        call(*arguments)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        return False
    return True


def write_whole(path: Path, text: str) -> None:
    """Writes a file that is there whole or as it was."""
    aside = path.with_name(f".{path.name}.partial")
    try:
        aside.write_text(text, encoding="utf-8")
        _sync_one(aside)
        aside.replace(path)
    except OSError:
        aside.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def _writing(target: Path, aside: Path) -> Iterator[None]:
    """Turns the errors of a full or read-only disk into an InputError that names the target."""
    try:
        yield
    except OSError as error:
        if error.filename and not Path(error.filename).is_relative_to(aside):
            raise  # of a file that was to be read
        raise InputError(f"{target}: cannot be written ({error.strerror or error})") from error


def _lock(descriptor: int, aside: Path, target: Path) -> None:
    """Claims the folder; the claim ends with the process, however that ends."""
    busy = InputError(f"{target}: another process is writing it")
    try:
        _does(fcntl.flock, descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(descriptor), os.stat(aside)):
            raise busy
    except (BlockingIOError, FileNotFoundError) as error:  # not found: renamed since it was opened
        raise busy from error


def _clear(folder: Path) -> None:
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _sync(folder: Path) -> None:
    """Brings files and folders, the innermost first, to the disk."""
    for root, _, names in os.walk(folder, topdown=False):
        for name in names:
            _sync_one(Path(root, name))
        _sync_one(Path(root))


def _sync_one(path: Path) -> None:
    """Brings a file or a folder to the disk, where the file system can."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        _does(os.fsync, descriptor)
    finally:
        os.close(descriptor)
