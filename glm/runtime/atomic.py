"""Atomic folders and files: written to a temporary place, synced to disk, then renamed."""

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from glm.errors import InputError

# Errors of network and container file systems that cannot sync folders, or have no locks.
UNSUPPORTED = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOLCK}


@contextlib.contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Yields a temporary folder that is renamed to `target` when the block ends without an error.

    If the process is killed, there is either no `target` or all of it. The temporary folder (`.NAME.partial`) of a
    killed run is removed by the next one, and by an error in the block at once.

    Args:
        target: must not exist yet, or be an empty folder.

    Raises:
        InputError: `target` holds something, another process is writing it, or it cannot be written.
    """
    if target.is_symlink() or (target.exists() and not (target.is_dir() and not any(target.iterdir()))):
        raise InputError(f"{target}: exists; choose a new folder, nothing is written over")
    aside = target.absolute().parent / f".{target.name}.partial"
    with _writing(target, aside):
        _make_own(aside)
    descriptor = os.open(aside, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        _lock(descriptor, aside, target)
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
        os.close(descriptor)
    _sync_one(target.absolute().parent)


@contextlib.contextmanager
def put_files(folder: Path) -> Iterator[Path]:
    """Yields a temporary folder whose files are then moved into `folder`, one rename each.

    If the block ends with an error, no file is moved. What a killed process left is removed by the next one.
    """
    aside = folder / ".files.partial"
    _make_own(aside)
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
    """Tries, with small files, everything that writing here will need; warns of what the file system lacks.

    Raises:
        OSError: something that cannot be done without does not work.
    """
    file, target = folder / ".probe", folder / ".probe-folder"
    aside = target.with_name(f"{target.name}.partial")
    try:
        write_whole(file, "x" * 4096)
        write_whole(file, "y")  # a rename over an existing file
        for part in (aside, target):
            shutil.rmtree(part, ignore_errors=True)
        aside.mkdir()
        file.replace(aside / "file")
        _sync_one(aside / "file")
        aside.rename(target)
        descriptor = os.open(target, os.O_RDONLY)
        try:
            can_sync = _does(os.fsync, descriptor)
            can_lock = _does(fcntl.flock, descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            os.close(descriptor)
        with open(target / "file", "r+b") as locked:  # locks of POSIX: a disk may have the one kind and not the other
            can_lock &= _does(fcntl.lockf, locked, fcntl.LOCK_EX | fcntl.LOCK_NB)
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
    """Whether the file system supports a call; raises OSError if it does and the call fails."""
    try:
        call(*arguments)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        return False
    return True


def lock(descriptor: int) -> bool | None:
    """Locks an open file or folder against other processes, until it is closed or the process ends.

    Returns:
        Whether it is locked now: False where another one has locked it, None where the file system has no locks.
    """
    try:
        return _does(fcntl.flock, descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB) or None
    except BlockingIOError:
        return False


def sync(descriptor: int) -> None:
    """Syncs an open file to disk, where the file system can."""
    _does(os.fsync, descriptor)


def write_whole(path: Path, text: str) -> None:
    """Writes a file atomically: afterwards it is either complete or unchanged."""
    aside = path.with_name(f".{path.name}.partial")
    try:
        aside.unlink(missing_ok=True)
        with aside.open("x", encoding="utf-8") as file:
            file.write(text)
        _sync_one(aside)
        aside.replace(path)
    except OSError:
        aside.unlink(missing_ok=True)
        raise


def write_file(path: Path, content: bytes) -> None:
    """Writes a file, which can be made anew, under a temporary name and renames it, so that readers never see half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    new.write_bytes(content)
    os.replace(new, path)


@contextlib.contextmanager
def _writing(target: Path, aside: Path) -> Iterator[None]:
    """Turns the errors of a full or read-only disk into an InputError that names the target."""
    try:
        yield
    except OSError as error:
        if error.filename and not Path(error.filename).is_relative_to(aside):
            raise  # an error of reading, not of writing
        raise InputError(f"{target}: cannot be written ({error.strerror or error})") from error


def _lock(descriptor: int, aside: Path, target: Path) -> None:
    """Locks the folder; the lock ends with the process, however that ends."""
    busy = InputError(f"{target}: another process is writing it")
    try:
        if lock(descriptor) is False or not os.path.samestat(os.fstat(descriptor), os.stat(aside)):
            raise busy
    except FileNotFoundError as error:  # it was renamed after we opened it
        raise busy from error


def _make_own(aside: Path) -> None:
    """Makes a temporary folder, or takes the one that a killed process left. A link in its place, in somebody else's
    folder, would lead to what is not ours to clear."""
    if aside.is_symlink() or not aside.is_dir():
        aside.unlink(missing_ok=True)
    aside.mkdir(parents=True, exist_ok=True)


def _clear(folder: Path) -> None:
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _sync(folder: Path) -> None:
    """Syncs files and folders to disk, innermost first."""
    for root, _, names in os.walk(folder, topdown=False):
        for name in names:
            _sync_one(Path(root, name))
        _sync_one(Path(root))


def _sync_one(path: Path) -> None:
    """Syncs a file or a folder to disk, where the file system can."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        _does(os.fsync, descriptor)
    finally:
        os.close(descriptor)
