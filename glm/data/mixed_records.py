"""Reads records of several tasks from one file, in which each record names its task."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from glm.data.columns import ColumnOptions, Columns
from glm.data.formats import Row, read_rows
from glm.data.forms import with_parts
from glm.data.nested_rows import unfold
from glm.data.problems import Kind, RecordError
from glm.data.records import ROWS_TO_RECOGNISE, BadRecord, Record, columns_of, record_or_bad
from glm.data.store import content_digest
from glm.data.templates import Template
from glm.errors import InputError

TASK = "task"  # the column that names a record's task
NO_NAME = "no task"  # what tables call records that name none


@dataclass(frozen=True)
class TaskForm:
    """How a task's records are read: the template, and columns named by the user."""

    template: Template
    columns: ColumnOptions


class MixedFile:
    """The records of a file, each read as its task requires; an unusable one is a `BadRecord`.

    Args:
        path: a file in any format of `glm.data.formats`.
        forms: form of each task; an empty name is for records of no task.
        default: the task of a record that names none.
        reserved, most: as of `RecordFile`.

    Attributes:
        count: records.
        sha256: of the file.

    Raises:
        InputError: the file cannot be read or has no row, or the columns of a task are not recognised.
    """

    def __init__(
        self,
        path: str | Path,
        forms: Mapping[str, TaskForm],
        *,
        default: str = "",
        reserved: tuple[str, ...] = (),
        most: int | None = None,
    ):
        self.path = Path(path)
        self.forms = forms
        self.default = default
        self.reserved = reserved
        self.most = most
        first: dict[str, list[Row]] = {}
        self.count = 0
        for task, row in self._rows():
            self.count += 1
            known = first.setdefault(task, [])
            if len(known) < ROWS_TO_RECOGNISE:
                known.append(row)
        if not self.count:
            raise InputError(f"{path}: no record in it; one JSON object per line is expected")
        self.columns: dict[str, Columns] = {
            task: columns_of(rows, forms[task].template, forms[task].columns, name=str(path), need_target=False)
            for task, rows in first.items()
            if task in forms
        }
        self.sha256 = content_digest(self.path)

    def _rows(self) -> Iterator[tuple[str, Row]]:
        return islice(self._all_rows(), self.most)

    def _all_rows(self) -> Iterator[tuple[str, Row]]:
        """Yields the task of each record and its row; a conversation is as many rows as it has utterances."""
        for row in read_rows(self.path):
            named: Any = row.values.get(TASK)
            task = self.default if named is None else str(named)
            form = self.forms[task].template.form if task in self.forms else None
            rows = unfold([row], multi_turn="error") if form is None else with_parts([row], form, training=False)
            for own in rows:
                yield task, replace(own, number=row.number)

    def check(self, encoder: Any) -> None:
        """Checks nothing: only single records can be wrong, and their rows say so."""

    def __iter__(self) -> Iterator[Record | BadRecord]:
        for task, row in self._rows():
            if task not in self.columns:
                known = ", ".join(filter(None, self.forms)) or "none"
                message = f"{task} is no task that is loaded; loaded are {known}"
                yield BadRecord(row.number, row.origin, str(RecordError(Kind.TYPE, row.origin, message, field=TASK)))
                continue
            record = record_or_bad(
                row, self.columns[task], need_target=False, several_targets=True, reserved=self.reserved
            )
            yield replace(record, kept={TASK: task} if task else {}) if isinstance(record, Record) else record
