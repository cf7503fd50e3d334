"""Writes JSON lines in input order; a run can be killed at any moment and continued.

Records are numbered 0, 1, 2, ... and finish in any order within a window of consecutive numbers. The file, `F`, holds
the rows of past windows. As long as the run is unfinished there is a journal beside it, `F.partial`: the run's
settings, then each row of the present window as it finishes. What a kill during a step leaves, and what becomes of it:

    start   1 F is emptied           Empty and without journal, it is started anew. Beside the journal of an older run
                                     it is that run, back at row 0.
            2 journal: settings      Written elsewhere and renamed, so it is the old one (or none) or the new one.
    record  3 journal: one row more  A torn line is ignored, its record decoded again.
    window  4 F: the rows, in order  A torn line is cut off; it and the rows after it are in the journal.
            5 journal: without them  Renamed as in 2. Until then those of its rows that F has are ignored.
    end     6 no journal             Until then every record is done, and only this step is left.

A kill takes nothing that was given to the operating system, so flushing is enough. Syncing in 2, 4 and 5 is for a
loss of power, which may cost the present window.
"""

import json
import os
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from glm.errors import InputError
from glm.runtime.atomic import sync


class PredictionsFile:
    """The output rows of a run, on disk as soon as they are added. Holds one window's rows in memory, and no open
    file.

    Nothing on disk is changed before `begin`.

    Args:
        path: The file; its folder is made if it is missing.
        settings: What rows depend on, names and JSON values. A run is continued with equal settings only.
        resume: Continue an interrupted run if there is one.
        overwrite: Replace what is there.

    Attributes:
        row_count: Number of rows in the file.
        complete: The file was found without journal, as a finished run leaves it: nothing can be added, see
            `check_length`.

    Raises:
        InputError: The file exists and is not to be continued or replaced, is no regular file, or was begun with other
            settings; or the journal is not one.
    """

    def __init__(self, path: str | Path, settings: dict[str, Any], *, resume: bool = False, overwrite: bool = False):
        self.path = Path(path)
        self.journal = self.path.with_name(self.path.name + ".partial")
        self.row_count = self._size = 0  # number of rows, and their bytes
        self.complete = False
        self._settings = json_line(settings)
        self._window: dict[int, bytes] = {}  # number -> its line in F

        if self.path.exists() and not self.path.is_file():
            raise InputError(f"output_file {self.path}: not a regular file; choose another name")
        if resume:
            self.row_count, self._size = _whole_lines(self.path)
            if self.journal.exists():
                self._read_journal()
            else:
                self.complete = self.path.exists() and self.path.stat().st_size > 0
        elif not overwrite:
            self._check_absent()

    def begin(self) -> None:
        """Starts or continues the run on disk, before anything is added."""
        if not self.complete:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "ab") as file:
                file.truncate(self._size)
            self._write_journal()

    def check_length(self, records: int) -> None:
        """Raises InputError if the file is `complete` but does not hold a row for each of so many records."""
        if self.complete and self.row_count != records:
            raise InputError(
                f"output_file {self.path}: holds {self.row_count} rows for {records} records and there is no "
                f"{self.journal.name}: not an interrupted run of this program; choose another name, or give "
                "--overwrite_output in place of --resume"
            )

    def is_done(self, number: int) -> bool:
        """Whether the row of this record is on disk."""
        return number < self.row_count or number in self._window

    def add(self, number: int, row: dict[str, Any]) -> None:
        """Writes a record's row to disk, if it is not done."""
        assert not self.complete and not self.is_done(number), f"record {number} is done"
        line = json_line(row)
        with open(self.journal, "ab") as file:
            file.write(_entry(number, line))
        self._window[number] = line

    def close_window(self, end: int) -> None:
        """Moves the rows of all records below `end`, which all have to be done, to the file."""
        if end <= self.row_count:
            return
        with open(self.path, "ab") as file:
            file.writelines([self._window[number] for number in range(self.row_count, end)])
            file.flush()
            sync(file.fileno())
        self.row_count = end
        self._window = {number: line for number, line in self._window.items() if number >= end}
        self._write_journal()

    def finish(self) -> None:
        """Ends the run, after every window was closed."""
        assert not self._window, "a window is open"
        self.journal.unlink(missing_ok=True)

    def rows_done(self) -> Iterator[dict[str, Any]]:
        """Yields the rows on disk: those of the file, then those of the window in the order of finishing.

        Raises:
            InputError: A line of the file is not a JSON object.
        """
        if self.row_count:
            with open(self.path, "rb") as file:
                for number, line in enumerate(islice(file, self.row_count), start=1):
                    yield _object(line, origin=f"{self.path}, line {number}")
        yield from map(json.loads, self._window.values())

    def _check_absent(self) -> None:
        if self.journal.exists():
            raise InputError(
                f"output_file {self.path}: {self.journal.name} beside it is of an unfinished run; continue it with "
                "--resume, or replace it with --overwrite_output"
            )
        if self.path.exists():
            raise InputError(f"output_file {self.path}: exists; choose another name, or add --overwrite_output")

    def _read_journal(self) -> None:
        with open(self.journal, "rb") as file:
            before = _object(file.readline(), origin=f"{self.journal}, line 1")
            self._check_settings(before)
            for place, line in enumerate(file, start=2):
                try:
                    entry = json.loads(line)
                except (ValueError, RecursionError):  # torn: a part of an object is not valid JSON
                    break
                if not isinstance(entry, dict) or type(entry.get("number")) is not int or "row" not in entry:
                    raise InputError(f"{self.journal}, line {place}: is no line of a journal; give --overwrite_output")
                if entry["number"] >= self.row_count:
                    self._window[entry["number"]] = json_line(entry["row"])

    def _check_settings(self, before: dict[str, Any]) -> None:
        now = json.loads(self._settings)  # as they would be read back from the journal

        def shown(settings: dict[str, Any], name: str) -> str:
            return json.dumps(settings[name], ensure_ascii=False) if name in settings else "not given"

        different = [name for name in before | now if shown(before, name) != shown(now, name)]
        if different:
            changes = "; ".join(f"{name}: {shown(before, name)} then, {shown(now, name)} now" for name in different)
            raise InputError(
                f"output_file {self.path}: the unfinished run had other settings ({changes}); finish it with the "
                "values it had then, or give --overwrite_output in place of --resume"
            )

    def _write_journal(self) -> None:
        new = self.journal.with_name(self.journal.name + ".new")
        with open(new, "wb") as file:
            file.write(self._settings)
            file.writelines(_entry(number, line) for number, line in self._window.items())
            file.flush()
            sync(file.fileno())
        os.replace(new, self.journal)


class PrintedRows:
    """Prints rows in input order; the interface of `PredictionsFile` without a file, so there is nothing to resume."""

    def __init__(self) -> None:
        self._window: dict[int, bytes] = {}

    def check_length(self, records: int | None) -> None:
        """Does nothing."""

    def begin(self) -> None:
        """Does nothing."""

    def rows_done(self) -> Iterator[dict[str, Any]]:
        """Yields nothing."""
        return iter(())

    def is_done(self, number: int) -> bool:
        """Whether this record of the window was added."""
        return number in self._window

    def add(self, number: int, row: dict[str, Any]) -> None:
        """Keeps a row until its window is closed."""
        self._window[number] = json_line(row)

    def close_window(self, end: int) -> None:
        """Prints the window, whose records are all below `end`."""
        sys.stdout.buffer.writelines(line for _, line in sorted(self._window.items()))
        sys.stdout.buffer.flush()
        self._window.clear()

    def finish(self) -> None:
        """Does nothing."""


def _whole_lines(path: Path) -> tuple[int, int]:
    """Returns number and bytes of the complete lines."""
    count = size = 0
    if path.exists():
        with open(path, "rb") as file:
            for line in file:
                if line.endswith(b"\n"):
                    count, size = count + 1, size + len(line)
    return count, size


def json_line(value: dict[str, Any]) -> bytes:
    """Serialises an object as a line of a JSON lines file."""
    # Half a surrogate pair, which an id or a file's name may hold, has no UTF-8; it is written as JSON's escape.
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"


def _entry(number: int, line: bytes) -> bytes:
    """Makes the journal's line for a record whose line in the file is `line`."""
    return b'{"number": %d, "row": %s}\n' % (number, line.rstrip(b"\n"))


def _object(line: bytes, *, origin: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise InputError(f"{origin}: no JSON object; the file is not one that this program writes")
    return value
