"""Paths as they may be published: they say nothing of the user's name or machine where that can be helped."""

import os
import re
from pathlib import Path
from typing import Any

from glm.runtime.environment import user_path

BEFORE = r"(?<![^\s\"'=:(,;\[`])"  # where a path can begin in a text


def published(text: str) -> str:
    """A text with paths of the folder that the program was started in written from there, and others of the user's
    home with `~`."""
    for folder, instead in _places():
        text = re.sub(f"{BEFORE}{re.escape(folder)}(/|(?![\\w.-]))", lambda found, new=instead: new(found[1]), text)
    return text


def published_values(value: Any) -> Any:
    """A JSON value with all its texts as `published` has them."""
    if isinstance(value, dict):
        return {name: published_values(one) for name, one in value.items()}
    if isinstance(value, list):
        return [published_values(one) for one in value]
    return published(value) if isinstance(value, str) else value


def published_command(command: str) -> str:
    """A command line, as a shell takes it, with paths as `published` has them: it does the same here."""
    home = re.escape(os.path.expanduser("~"))
    command = re.sub(rf"(?<=\s)(--\w+)=(?={home}/)", r"\1 ", command)  # a shell knows ~ at the begin of a word only
    command = re.sub(rf"(?<=\s)'(--\w+)=({home}/)", r"\1 \2'", command)
    command = re.sub(rf"(?<=\s)'({home}/)", r"\1'", command)
    return published(command)


def path_from(path: str | Path, start: str | Path | None = None) -> str:
    """The path of something that is there, as it may be published beside the folder `start`: from there if it lies
    beside it or in it, else in full, the user's home as `~`."""
    full, home = Path(path).resolve(), os.path.expanduser("~")
    if start is not None and full.is_relative_to(Path(start).resolve().parent):
        return os.path.relpath(full, Path(start).resolve())
    if os.path.isabs(home) and home != "/" and full.is_relative_to(Path(home).resolve()):
        return str("~" / full.relative_to(Path(home).resolve()))
    return str(full)


def found_path(path: str, *starts: Path) -> str:
    """The path that `path_from` or `published` has written: from the first of these folders where it is, else as it
    is, `~` expanded."""
    for start in starts:
        if not os.path.isabs(path) and (start / path).exists():
            return str((start / path).resolve())
    return user_path(path)


def _places():
    here, home = os.getcwd(), os.path.expanduser("~").rstrip("/")
    if len(here) > 1:
        yield here, lambda slash: "" if slash else "."
    if len(home) > 1 and os.path.isabs(home):
        yield home, lambda slash: "~" + slash
