"""Paths as they may be published: they say nothing of the user's name or machine where that can be helped."""

import os
import re
from pathlib import Path

BEFORE = r"(?<![^\s\"'=:(,;\[`])"  # where a path can begin in a text


def published(text: str) -> str:
    """A text with paths of the folder that the program was started in written from there, and others of the user's
    home with `~`."""
    for folder, instead in _places():
        text = re.sub(f"{BEFORE}{re.escape(folder)}(/|(?![\\w.-]))", lambda found, new=instead: new(found[1]), text)
    return text


def published_command(command: str) -> str:
    """A command line, as a shell takes it, with paths as `published` has them: it does the same here."""
    home = re.escape(os.path.expanduser("~"))
    command = re.sub(rf"(?<=\s)(--\w+)=(?={home}/)", r"\1 ", command)  # a shell knows ~ at the begin of a word only
    command = re.sub(rf"(?<=\s)'(--\w+)=({home}/)", r"\1 \2'", command)
    command = re.sub(rf"(?<=\s)'({home}/)", r"\1'", command)
    return published(command)


def published_path(path: str | Path, start: str | Path | None = None) -> str:
    """A path as `published` has it; if it lies beside the folder `start`, or in it, from there."""
    if start is not None:
        full, start = Path(path).resolve(), Path(start).resolve()
        if full.is_relative_to(start.parent):
            return os.path.relpath(full, start)
    return published(str(path))


def found_path(path: str, *starts: Path) -> str:
    """The path that `published_path` has written: from one of these folders, if it is there, else as it is, `~`
    expanded."""
    for start in starts:
        if not os.path.isabs(path) and (start / path).exists():
            return str((start / path).resolve())
    return os.path.expanduser(path)


def _places():
    here, home = os.getcwd(), os.path.expanduser("~").rstrip("/")
    if len(here) > 1:
        yield here, lambda slash: "" if slash else "."
    if len(home) > 1 and os.path.isabs(home):
        yield home, lambda slash: "~" + slash
