"""Reads text files of one entry per line: vocabularies, dictionaries, outputs."""

from pathlib import Path

from glm.errors import InputError
from glm.runtime.settings_file import read_plain, stand_in

MOST_BYTES = 1 << 26  # of a file


def read_lines(path: Path, *, most_bytes: int = MOST_BYTES) -> list[str]:
    """Reads the lines of a file; only line feeds separate them, and a carriage return before one is removed.

    Raises:
        InputError: it is no plain file, too large, or no text in UTF-8; the line is named.
    """
    data = read_plain(path, "text", most_bytes)
    if reason := stand_in(data):
        raise InputError(f"{path}: cannot be read as text ({reason})")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start].split(b"\n")
        place = f"{path}, line {len(before)}: not UTF-8 (byte {len(before[-1]) + 1})"
        raise InputError(f"{place}; convert the file to UTF-8") from error
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    return lines[:-1] if not lines[-1] else lines
