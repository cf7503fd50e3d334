"""Reads rows of a data file as records, and checks them."""

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

from glm.data.columns import RECOGNISED, ColumnOptions, Columns, choose_columns
from glm.data.formats import TEXTS, Row, format_without_header, json_lines, read_rows
from glm.data.forms import PARTS, with_parts
from glm.data.nested_rows import unfold
from glm.data.problems import Kind, RecordError
from glm.data.templates import QUESTION_GENERATION, Template
from glm.errors import InputError

ROWS_TO_RECOGNISE = 100  # rows at the beginning of a file whose columns together count as the file's
SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Record:
    """One row of data: a source, its target (None if it is to be generated), and the template's other fields."""

    id: str | int  # as in the data, or the line number
    source: str
    answer: str | None  # the part of the source that a cut keeps; None if the task has none
    target: str | None
    origin: str  # "file, line n", for messages
    extras: dict[str, str] = field(default_factory=dict)  # other fields of the template
    more_targets: tuple[str, ...] = ()  # further targets of a row to be evaluated; scores take the best
    kept: dict[str, Any] = field(default_factory=dict, compare=False)  # columns that predictions keep
    parts: tuple[tuple[str, str], ...] = ()  # the parts of a source that has several: name and text

    @property
    def references(self) -> tuple[str, ...]:
        """All texts that a prediction is scored against; none without a target."""
        return () if self.target is None else (self.target, *self.more_targets)


@dataclass(frozen=True)
class BadRecord:
    """A row of data that cannot be used."""

    id: str | int  # as in the data where it is usable, or the line number
    origin: str
    error: str  # what is wrong, with file, line and field
    kind: Kind = field(default=Kind.SYNTAX, compare=False)
    values: dict[str, Any] = field(default_factory=dict, compare=False)  # of the row, where it could be parsed


class RecordFile:
    """The records of a file, read anew for each iteration; an unusable row is a `BadRecord`, not an error.

    Args:
        path: a file in any format of `glm.data.formats`.
        template: which fields a record has.
        wishes: which columns they are, where the user says so.
        need_target: False allows a file without targets, for prediction.
        each_needs_target: False allows records without target in a file that has some; as `need_target` if not given.
        several_targets: a target may be a list of texts, as references of an evaluation are.
        reserved: texts that no field may hold: the model would read them as commands (`Family.reserved`).
        most: only so many rows, the first ones.

    Attributes:
        columns: where the fields are taken from.
        has_ids: whether rows bring ids of their own.

    Raises:
        InputError: the file cannot be read or has no row, or its columns are not recognised.
    """

    def __init__(
        self,
        path: str | Path,
        template: Template = QUESTION_GENERATION,
        wishes: ColumnOptions = RECOGNISED,
        *,
        need_target: bool = True,
        each_needs_target: bool | None = None,
        several_targets: bool = False,
        reserved: Sequence[str] = (),
        most: int | None = None,
    ):
        self.most = most
        self.path = Path(path)
        self.name = str(path)
        self.template = template
        self.need_target = need_target if each_needs_target is None else each_needs_target
        self.several_targets = several_targets
        self.form = template.form
        self.reserved = reserved
        self.multi_turn = wishes.multi_turn
        self.max_record_bytes = wishes.max_record_bytes
        first = list(islice(self.rows(), ROWS_TO_RECOGNISE))
        if not first:
            raise InputError(f"{path}: no record in it; one JSON object per line is expected")
        rows = first if self.need_target else self._until_target(first, template, wishes)
        self.columns = columns_of(rows, template, wishes, name=self.name, need_target=need_target)
        self.has_ids = any("id" in row.values for row in first)

    def _until_target(self, first: list[Row], template: Template, wishes: ColumnOptions) -> list[Row]:
        """Returns the first rows, and if none of them has a target also the first one that has: it may come late."""
        if len(first) < ROWS_TO_RECOGNISE or _has_target(first, template, wishes, name=self.name):
            return first
        known = {column for row in first for column in row.values}
        for row in self.rows():
            if not row.values.keys() <= known:
                known |= row.values.keys()
                if _has_target([*first, row], template, wishes, name=self.name):
                    return [*first, row]
        return first

    def __iter__(self) -> Iterator[Record | BadRecord]:
        how = {"need_target": self.need_target, "several_targets": self.several_targets, "reserved": self.reserved}
        for row in islice(self.rows(), self.most):
            yield record_or_bad(row, self.columns, **how)

    @property
    def target_name(self) -> str:
        """Name of the target's column."""
        return " + ".join(self.columns.target)

    def rows(self) -> Iterator[Row]:
        """Yields the rows that records are made of."""
        rows = read_rows(self.path, most=self.max_record_bytes)
        if self.form is not None:
            return with_parts(rows, self.form, training=not self.several_targets)
        rows = unfold(rows, multi_turn=self.multi_turn)
        if self.template.summaries is None:
            return rows
        is_lines = format_without_header(self.path) == TEXTS
        return self.template.summaries.rows(rows, learns=not self.several_targets, is_lines=is_lines)


def stream_records(
    lines: Iterable[bytes],
    template: Template = QUESTION_GENERATION,
    wishes: ColumnOptions = RECOGNISED,
    *,
    name: str,
    need_target: bool = True,
    several_targets: bool = False,
    reserved: Sequence[str] = (),
) -> Iterator[Record | BadRecord]:
    """Yields the record of each JSON line; its columns are those of the first good line.

    A target that only a later line has is recognised there.

    Args:
        lines: lines of bytes, such as standard input.
        name: stands for the file in messages.
        need_target, several_targets, reserved: as of `RecordFile`.

    Raises:
        InputError: the columns are not recognised.
    """
    rows = json_lines(lines, name=name, most=wishes.max_record_bytes)
    if template.form is not None:
        rows = with_parts(rows, template.form, training=False)
    else:
        rows = unfold(rows, multi_turn=wishes.multi_turn)
    if template.summaries is not None:
        rows = template.summaries.rows(rows, learns=False)
    unread = []
    for row in rows:
        unread.append(row)
        if row.error is None:
            break
    if unread:
        columns = columns_of(unread, template, wishes, name=name, need_target=need_target)
        known = set(unread[-1].values)
        how = {"need_target": need_target, "several_targets": several_targets, "reserved": reserved}
        for row in chain(unread, rows):
            if columns.target is None and not row.values.keys() <= known:
                known |= row.values.keys()
                columns = _with_target(columns, known, template, wishes, name=name)
            yield record_or_bad(row, columns, **how)


def read_records(path: str | Path, template: Template = QUESTION_GENERATION, **options: Any) -> list[Record]:
    """Reads all records of a file; options as for `RecordFile`.

    Raises:
        InputError: the file or one of its rows cannot be used; file, line and field are named.
    """
    records = []
    for record in RecordFile(path, template, **options):
        if isinstance(record, BadRecord):
            raise InputError(record.error)
        records.append(record)
    return records


def _with_target(
    columns: Columns, present: Collection[str], template: Template, wishes: ColumnOptions, *, name: str
) -> Columns:
    """Adds the target to columns, if one is recognised with certainty."""
    try:
        found = choose_columns(list(present), template, wishes, name=name, need_target=False)
    except InputError:
        return columns
    return replace(columns, target=found.target)


def _has_target(rows: Iterable[Row], template: Template, wishes: ColumnOptions, *, name: str) -> bool:
    """Whether these rows have a target column, even if it is ambiguous which one it is."""
    wished = wishes.of("target")
    if wished is not None and "target_column" not in wishes.inherited:
        return set(wished) <= {column for row in rows for column in row.values}
    try:
        return columns_of(rows, template, wishes, name=name, need_target=False).target is not None
    except InputError:
        return True  # the error is reported where the columns are needed


def columns_of(
    rows: Iterable[Row], template: Template, wishes: ColumnOptions, *, name: str, need_target: bool
) -> Columns:
    """Chooses the columns of a file that starts with these rows.

    Raises:
        InputError: they are not recognised; or none of the rows can be parsed.
    """
    rows = list(rows)
    present = list(dict.fromkeys(column for row in rows for column in row.values))
    if rows and all(row.error for row in rows):
        raise rows[0].error
    return choose_columns(present, template, wishes, name=name, need_target=need_target)


def record_or_bad(
    row: Row,
    columns: Columns,
    *,
    need_target: bool,
    several_targets: bool = False,
    reserved: Sequence[str] = (),
) -> Record | BadRecord:
    """Returns the record of a row, or a `BadRecord`; arguments as for `RecordFile`."""
    identity = row.number
    try:
        if row.error is not None:
            raise row.error
        identity = _identity(row)  # before the fields, because a `BadRecord` has it too
        how = {"need_target": need_target, "several_targets": several_targets, "reserved": reserved}
        return record_of_row(row, columns, **how)
    except RecordError as error:
        return BadRecord(identity, row.origin, str(error), error.kind, row.values)


def record_of_row(
    row: Row,
    columns: Columns,
    *,
    need_target: bool,
    several_targets: bool = False,
    reserved: Sequence[str] = (),
) -> Record:
    """Makes the record of a row that could be parsed; arguments as for `RecordFile`.

    Raises:
        RecordError: a field is missing, empty, or not usable text.
    """
    source = _text(row, columns.source)
    targets = _targets(row, columns.target or (), needed=need_target, several=several_targets)
    record = Record(
        id=_identity(row),
        source=source,
        answer=_text(row, columns.answer) if columns.answer else None,
        target=targets[0] if targets else None,
        origin=row.origin,
        extras={column: _text(row, (column,)) for column in columns.extras},
        more_targets=tuple(targets[1:]),
        kept={column: row.values[column] for column in columns.kept if column in row.values},
        parts=tuple(row.values.get(PARTS) or ()) if columns.source == ("source",) else (),
    )
    _check_reserved(row, columns, record, reserved)
    return record


def _check_reserved(row: Row, columns: Columns, record: Record, reserved: Sequence[str]) -> None:
    """Raises RecordError if a text holds what the model would read as a command."""
    taken = (*columns.source, *(columns.answer or ()), *((columns.target or ()) if record.target is not None else ()))
    for column in (*taken, *columns.extras):
        values = row.values.get(column)
        for value in values if isinstance(values, list | tuple) else [values]:
            held = [text for text in reserved if text in value] if isinstance(value, str) else []
            if held:
                first = min(held, key=lambda text: (value.index(text), -len(text)))
                message = f"holds the command token {first}; take it out of the text"
                raise RecordError(Kind.COMMAND, row.origin, message, field=column)


def _targets(row: Row, columns: tuple[str, ...], *, needed: bool, several: bool) -> list[str]:
    """Returns the target, or all of them where several are allowed; none if the row has none and needs none."""
    values = [row.values.get(column) for column in columns]
    if several and len(values) == 1 and isinstance(values[0], list | tuple):
        found = [_checked_text(row, columns[0], text) for text in values[0] if not _is_absent(text)]
        if needed and not found:
            raise RecordError(Kind.EMPTY, row.origin, "empty", field=columns[0])
        return found
    return [] if not needed and all(map(_is_absent, values)) else [_text(row, columns)]


def _identity(row: Row) -> str | int:
    identity = row.number if row.values.get("id") is None else row.values["id"]
    if isinstance(identity, bool) or not isinstance(identity, str | int):
        message = f"{type(identity).__name__} where text or a whole number is expected"
        raise RecordError(Kind.TYPE, row.origin, message, field="id")
    return identity


def _is_absent(value: object) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _text(row: Row, columns: tuple[str, ...]) -> str:
    """Returns the text of one column, or of several columns' non-empty texts, joined by line breaks."""
    present = [column for column in columns if column in row.values]
    if not present:
        found = ", ".join(row.values) or "none"
        raise RecordError(Kind.MISSING, row.origin, f"no field {' or '.join(columns)} (fields: {found})")
    filled = [column for column in present if len(columns) == 1 or not _is_absent(row.values[column])]
    if not filled:
        raise RecordError(Kind.EMPTY, row.origin, "empty", field=" and ".join(columns))
    return "\n".join(_checked_text(row, column, row.values[column]) for column in filled)


def _checked_text(row: Row, column: str, value: object) -> str:
    if not isinstance(value, str):
        message = f"{type(value).__name__} where text is expected"
        raise RecordError(Kind.TYPE, row.origin, message, field=column)
    if _is_absent(value):
        raise RecordError(Kind.EMPTY, row.origin, "empty", field=column)
    if SURROGATE.search(value):
        message = "holds half of a surrogate pair; escape whole characters"
        raise RecordError(Kind.SURROGATE, row.origin, message, field=column)
    return value
