"""Where the toolkit keeps what it can make again: in the user's own folders, never in one that others write too."""

import functools
import os
import stat
import tempfile
from pathlib import Path


def user_cache() -> Path:
    """`glm` in the user's folder of caches."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(home) / "glm"


def private_cache(name: str) -> Path:
    """A folder of this name that nobody but the user can read or write, in the user's caches.

    Where there can be none, or it is another user's or open to others: one of this process, gone with it.
    """
    folder = user_cache() / name
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if _is_private(folder) and os.access(folder, os.W_OK | os.X_OK):
            return folder
    except OSError:
        pass
    return Path(_of_this_process().name)


@functools.cache
def _of_this_process() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="glm-")  # made with mode 0700


def _is_private(folder: Path) -> bool:
    found = folder.lstat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077
