"""The folder of a run: who writes it, whether it holds an unfinished run, and whether the disk has room."""

import errno
import fcntl
import json
import os
import resource
import shutil
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from paddlenlp.utils.log import logger

from glm.errors import InputError
from glm.report.files import CARD_NAME, METRICS_NAME, TRAINING_PAGE
from glm.report.model_card import is_users_own
from glm.runtime.atomic import UNSUPPORTED, probe, write_whole
from glm.training.checkpoints import Checkpoint, checkpoint_folders, delete_all, set_aside, step_of
from glm.training.run_data import REFUSED_NAME, REPORT_NAME

LOCK_NAME = "run.lock"
MOST_OF_LOCK = 1 << 12  # characters that are read of it
DONE_NAME = "done.json"
RESULT_FILES = (
    METRICS_NAME,
    REPORT_NAME,
    DONE_NAME,
    TRAINING_PAGE,
    "predictions.jsonl",
    "metrics.json",
    "all_results.json",
    "train_results.json",
    "eval_results.json",
    "trainer_state.json",
)


@contextmanager
def locked(output_dir: Path) -> Iterator[bool]:
    """Locks a run's folder, creating it if needed; the lock ends with the process, however that ends.

    Yields:
        Whether a run in it has not come to its end.

    Raises:
        InputError: another run holds it; the text names its host, process and start.
    """
    made = _make(output_dir)
    path = output_dir / LOCK_NAME
    is_new, others = not path.exists(), _others(output_dir)
    is_unfinished = not is_new and not (output_dir / DONE_NAME).exists()
    with _open_lock(path) as file:
        file.seek(0)
        holder = _describe(file.read(MOST_OF_LOCK))
        _lock(file, output_dir, holder)
        if is_unfinished:
            logger.warning(f"{output_dir} holds a run that did not come to its end, {holder}; this one takes it over")
        mine = {"host": socket.gethostname(), "process": os.getpid(), "started": _now()}
        file.truncate(0)
        file.write(json.dumps(mine) + "\n")
        file.flush()
        try:
            yield is_unfinished
        finally:
            if (output_dir / DONE_NAME).exists():
                file.truncate(0)  # the lock file names nobody any more, as its folder may be published
            if _others(output_dir) == others and (is_new or not others):  # the run has left no file
                path.unlink()
                if made:
                    output_dir.rmdir()


def _others(output_dir: Path) -> set[str]:
    """Returns the names of what is in a run's folder beside the lock."""
    return {path.name for path in output_dir.iterdir()} - {LOCK_NAME}


def _open_lock(path: Path) -> TextIO:
    """Opens the lock file. In somebody else's folder it may be something else: writing through a link would change
    another file, and reading a pipe never ends."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be opened ({error.strerror}); it should be a plain file of the run"
        ) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InputError(f"{path}: is no plain file; delete it")
    return os.fdopen(descriptor, "a+", encoding="utf-8", errors="replace")


def _lock(file: TextIO, output_dir: Path, holder: str) -> None:
    # A POSIX lock belongs to the process: loader workers that outlive it do not keep it.
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in UNSUPPORTED:  # the probe before the first step warns of this
            return
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            raise
        raise InputError(
            f"output_dir {output_dir}: another run is writing it, {holder}; wait for its end or choose another"
        ) from error


def write_done(output_dir: Path, facts: dict[str, Any]) -> None:
    """Writes the run's last file, which says that it is complete."""
    write_whole(output_dir / DONE_NAME, json.dumps({**facts, "finished": _now()}, indent=2) + "\n")


def check_is_free(output_dir: Path, *, is_ours: bool) -> None:
    """Refuses to overwrite what an earlier run left.

    Args:
        is_ours: whether the run overwrites or continues what is in the folder.

    Raises:
        InputError: the folder holds something that is neither.
    """
    if is_ours or not _others(output_dir):
        return
    what = "holds a run that came to its end" if (output_dir / DONE_NAME).exists() else "is not empty"
    raise InputError(
        f"output_dir {output_dir}: {what}; choose another, or add --overwrite_output_dir or "
        "--resume_from_checkpoint true"
    )


def holds_unfinished(output_dir: Path, *, is_unfinished: bool) -> bool:
    """Whether a folder holds training that was not completed.

    Args:
        is_unfinished: what its lock says, see `locked`; without one, checkpoints and no end are told by themselves.
    """
    return is_unfinished or (bool(checkpoint_folders(output_dir)) and not (output_dir / DONE_NAME).exists())


def clear_earlier_run(output_dir: Path) -> None:
    """Removes an earlier run's checkpoints and results, so that they do not mix with the new ones
    (`--overwrite_output_dir`).

    What it removes is said first.
    """
    results = [path for path in _results(output_dir) if path.exists()]
    folders = checkpoint_folders(output_dir)
    if names := [str(path.relative_to(output_dir)) for path in (*folders, *results)]:
        logger.warning(f"output_dir {output_dir}: overwrite_output_dir deletes {', '.join(names)}")
    delete_all(output_dir)
    for path in results:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _results(output_dir: Path) -> list[Path]:
    """Returns the files that a run writes beside its checkpoints and model, and that would mix with the next run's."""
    card = output_dir / CARD_NAME
    return [
        *sorted((output_dir / "eval").glob("step-*.json*")),
        *sorted((output_dir / "eval").glob("step-*.report")),
        *sorted(output_dir.glob(REFUSED_NAME.format(split="*"))),
        *([] if is_users_own(card) else [card]),
        *(output_dir / name for name in RESULT_FILES),
    ]


def set_later_aside(output_dir: Path, start: Checkpoint | None) -> None:
    """Renames checkpoints of later steps, which the run will reach again: they belong to another continuation."""
    is_here = start is not None and start.folder.resolve().parent == output_dir.resolve()
    for folder in checkpoint_folders(output_dir):
        if not is_here or step_of(folder) > start.step:
            kept = set_aside(folder, "earlier")
            logger.warning(f"{folder}: this run does not go on from it; it is kept as {kept.name}")


def check_disk(output_dir: Path, *, checkpoint_bytes: int, model_bytes: int, saves: int, limit: int | None) -> None:
    """Checks before the first step whether the run's files can be written.

    Args:
        checkpoint_bytes: size of a checkpoint.
        model_bytes: size of the final model, which is also the largest file but for the optimizer's.
        saves: how many checkpoints the run will write.
        limit: how many are kept (`--save_total_limit`); None is all.

    Raises:
        InputError: nothing can be written there, files of that size are not allowed, or there is no room for one
            checkpoint and the one that replaces it.
    """
    _probe(output_dir)
    most, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    largest = max(checkpoint_bytes - model_bytes, model_bytes)
    if most != resource.RLIM_INFINITY and largest > most:
        raise InputError(
            f"output_dir {output_dir}: the limit of a file's size is {_size(most)} (ulimit -f), and the run needs "
            f"{_size(largest)}; raise it"
        )
    existing = len(checkpoint_folders(output_dir))
    kept = saves + existing if not limit else min(saves + existing, limit)
    wanted = (max(kept - existing, 0) + (1 if limit else 0)) * checkpoint_bytes + model_bytes
    needed = (min(saves, 2) * checkpoint_bytes) + model_bytes
    free = shutil.disk_usage(output_dir).free
    if free < needed:
        raise InputError(
            f"output_dir {output_dir}: {_size(free)} are free, and a checkpoint ({_size(checkpoint_bytes)}), its "
            f"successor and the model ({_size(model_bytes)}) need {_size(needed)}; make room or choose another folder"
        )
    if free < wanted:
        logger.warning(
            f"output_dir {output_dir}: {_size(free)} are free, and all checkpoints of the run need {_size(wanted)}; "
            "set save_total_limit, or save_steps higher"
        )


def _probe(folder: Path) -> None:
    """Tries everything that the run will need from the disk, and warns of what works less well."""
    try:
        missing = probe(folder)
    except OSError as error:
        raise InputError(f"output_dir {folder}: cannot be written ({error.strerror or error})") from error
    for what in missing:
        logger.warning(f"output_dir {folder}: {what}")


def _make(folder: Path) -> bool:
    """Creates a folder; returns whether it is new."""
    for path in (folder, *folder.parents):
        if path.exists() and not path.is_dir():
            raise InputError(f"output_dir {folder}: is a file or lies in one")
    was_there = folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"output_dir {folder}: cannot be made ({error.strerror or error})") from error
    return not was_there


def _describe(holder: str) -> str:
    try:
        entry = json.loads(holder)
        return f"process {entry['process']} on {entry['host']}, started {entry['started']}"
    except (ValueError, LookupError, TypeError, RecursionError):
        return "of an unknown process"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _size(number: int) -> str:
    return f"{number / 2**30:.2f} GiB" if number >= 2**28 else f"{number / 2**20:.2f} MiB"
