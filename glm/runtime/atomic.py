"""Folders and files that appear whole or not at all: written aside, brought to the disk, renamed."""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from glm.errors import InputError


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
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
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
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
