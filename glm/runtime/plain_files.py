"""Refuses what is no file in a file's place: reading a pipe or a device may never end."""

import stat
from pathlib import Path

from glm.errors import InputError


def check_plain(path: Path) -> None:
    """Raises InputError if a path leads to a pipe, a socket or a device; OSError if it leads nowhere."""
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise InputError(f"{path}: is a pipe or a device; write what comes out of it into a file")
