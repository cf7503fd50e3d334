"""Rewrites paths for files that are published, so that they do not reveal the user's name or machine."""

import os
import re
from pathlib import Path
from typing import Any

from glm.runtime.environment import user_path

BEFORE = r"(?<![^\s\"'=:(,;\[`])"  # where a path can start in a text


def published(text: str) -> str:
    """Makes paths in a text relative to the working directory, and writes `~` for the user's home in others."""
    for folder, instead in _places():
        text = re.sub(f"{BEFORE}{re.escape(folder)}(/|(?![\\w.-]))", lambda found, new=instead: new(found[1]), text)
    return text


def published_values(value: Any) -> Any:
    """Applies `published` to all texts of a JSON value."""
    if isinstance(value, dict):
        return {name: published_values(one) for name, one in value.items()}
    if isinstance(value, list):
        return [published_values(one) for one in value]
    return published(value) if isinstance(value, str) else value


def published_command(command: str) -> str:
    """Applies `published` to a shell command; run from the same folder, it does the same."""
    home = re.escape(os.path.expanduser("~"))
    command = re.sub(rf"(?<=\s)(--\w+)=(?={home}/)", r"\1 ", command)  # a shell expands ~ only at the start of a word
    command = re.sub(rf"(?<=\s)'(--\w+)=({home}/)", r"\1 \2'", command)
    command = re.sub(rf"(?<=\s)'({home}/)", r"\1'", command)
    return published(command)


def path_from(path: str | Path, start: str | Path | None = None) -> str:
    """Rewrites the path of an existing file for publication in the folder `start`.

    The path is relative if the file lies in or beside the folder, else absolute with `~` for the user's home.
    """
    full, home = Path(path).resolve(), os.path.expanduser("~")
    if start is not None and full.is_relative_to(Path(start).resolve().parent):
        return os.path.relpath(full, Path(start).resolve())
    if os.path.isabs(home) and home != "/" and full.is_relative_to(Path(home).resolve()):
        return str("~" / full.relative_to(Path(home).resolve()))
    return str(full)


def found_path(path: str, *starts: Path) -> str:
    """Resolves a path written by `path_from` or `published`: from the first of these folders where it exists.

    If it exists in none, it is returned with `~` expanded.
    """
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
