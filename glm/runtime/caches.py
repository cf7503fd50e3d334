"""Cache folders: in the user's own folders, never in one that others can write to."""

import functools
import os
import stat
import tempfile
from pathlib import Path


def user_cache() -> Path:
    """Returns `glm` in the user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(home) / "glm"


def private_cache(name: str) -> Path:
    """Returns a cache folder of this name that only the user can read and write.

    If it cannot be made, belongs to another user or is open to others, a temporary one is used that ends with the
    process.
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
