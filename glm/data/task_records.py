"""Reads and checks the questions of tasks that choose or extract."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from glm.data.columns import ColumnOptions
from glm.data.formats import Row, json_lines, read_rows
from glm.data.problems import Kind, RecordError
from glm.data.records import RECOGNISED, SURROGATE, BadRecord, Record, RecordFile, stream_records
from glm.data.tasks import EXTRACT, FieldProblem, Frame, Item, Pattern, Task
from glm.data.templates import Template
from glm.errors import InputError, UsageError

DERIVED = "_open"  # suffix of fields that hold another field's text in another form


@dataclass(frozen=True)
class TaskRecord(Record):
    """A question of a task. Its texts as `source` and the right answer as `target` are for people, as in `Record`.

    Args:
        fields: its texts by name.
        labels: names of its candidates.
        words: the texts of its candidates, side by side with `labels`.
        right: numbers of the candidates that are right; empty if it is not known.
        answers: texts that are right, of a task that extracts; None if it is not known.
        group: what questions of the same group share.
        language: language of the question.
        is_named: whether its id is one of the data's own.
        lone: its one candidate is to be what the model writes.
        equality: whether it is; None if it is not known.
    """

    fields: tuple[tuple[str, str], ...] = ()
    labels: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    right: tuple[int, ...] = ()
    answers: tuple[str, ...] | None = None
    group: str | None = None
    language: str = ""
    is_named: bool = False
    lone: bool = False
    equality: bool | None = None

    @property
    def values(self) -> dict[str, str]:
        """Its texts by name."""
        return dict(self.fields)


def _readable(fields: Mapping[str, str]) -> str:
    """Formats the texts of a question for people, the two around a blank in one line."""
    shown = {name: text for name, text in fields.items() if not name.endswith(DERIVED)}
    if "before" in shown and "after" in shown:
        shown["before"] += f"____{shown.pop('after')}"
    return "\n".join(filter(None, shown.values()))


class TaskReader:
    """Reads rows of a data file as questions of a task.

    Args:
        pattern: brings the words of labels.
        label_column: column of the label, if the user named it.
        need_label: whether a question without one is unusable.
        reserved: texts that no field may hold.
    """

    def __init__(
        self,
        task: Task,
        pattern: Pattern,
        *,
        label_column: str | None = None,
        need_label: bool = True,
        reserved: Sequence[str] = (),
    ):
        self.task = task
        self.pattern = pattern
        self.label_column = label_column
        self.need_label = need_label
        self.reserved = reserved

    def records(self, row: Row) -> Iterator[TaskRecord | BadRecord]:
        """Yields the questions of a row; an unusable one is a `BadRecord`."""
        identity: str | int = row.number
        try:
            if row.error is not None:
                raise row.error
            values = row.values
            if self.label_column is not None:
                if self.label_column not in values:
                    message = f"no such field (fields: {', '.join(values) or 'none'})"
                    raise RecordError(Kind.MISSING, row.origin, message, field=self.label_column)
                values = {**values, "label": values[self.label_column]}
            items = list(self.task.read(values))
        except RecordError as error:
            yield BadRecord(identity, row.origin, str(error), error.kind, row.values)
            return
        except FieldProblem as problem:
            error = RecordError(problem.kind, row.origin, problem.message, field=problem.name)
            yield BadRecord(identity, row.origin, str(error), error.kind, row.values)
            return
        for place, item in enumerate(items):
            alone = len(items) == 1
            own = item.key if item.key is not None else row.number if alone else f"{row.number}.{place}"
            origin = row.origin if alone else f"{row.origin}, question {place + 1}"
            try:
                yield self._record(item, own, origin, row.number)
            except RecordError as error:
                yield BadRecord(own, origin, str(error), error.kind, row.values)

    def _record(self, item: Item, identity: str | int, origin: str, number: int) -> TaskRecord:
        """Makes a record. Raises RecordError if the question cannot be used."""
        language = item.language or self.task.language
        if self.task.languages is not None and language not in self.task.languages:
            message = f"{language}: the figures of {self.task.name} have rules for {', '.join(self.task.languages)}"
            raise RecordError(Kind.LABEL, origin, message, field="lang")
        words = item.choices or tuple(self.pattern.labels.values())
        labels = tuple(word.strip() for word in item.choices) if item.choices else tuple(self.pattern.labels)
        self._check_texts(item, origin)
        right = item.right or self._right(item, labels, origin)
        if self.need_label and not right and item.answers is None and item.equality is None:
            field = "answers" if self.task.kind == EXTRACT else self.label_column or "label"
            raise RecordError(Kind.MISSING, origin, "none in it, and it is needed to learn or to score", field=field)
        target = labels[right[0]] if right else item.answers[0] if item.answers else None
        return TaskRecord(
            id=identity,
            source=_readable(item.fields),
            answer=None,
            target=target if target is not None or item.answers is None else "",
            origin=origin,
            fields=tuple(item.fields.items()),
            labels=labels,
            words=words,
            right=right,
            answers=item.answers,
            group=None if item.group is None else f"{number}.{item.group}",
            language=language,
            is_named=item.key is not None,
            lone=item.lone,
            equality=item.equality,
        )

    def _right(self, item: Item, labels: Sequence[str], origin: str) -> tuple[int, ...]:
        label = item.label
        if label is None or self.task.kind == EXTRACT:
            return ()
        if isinstance(label, int):
            if not 0 <= label < len(labels):
                message = f"{label}: the record has {len(labels)} choices, 0 to {len(labels) - 1}"
                raise RecordError(Kind.LABEL, origin, message, field=self.label_column or "label")
            return (label,)
        label = label if label in labels else self.task.aliases.get(label, label)
        if label not in labels:
            message = f"{label!r:.60} is none of {', '.join(labels)}"
            raise RecordError(Kind.LABEL, origin, message, field=self.label_column or "label")
        return (labels.index(label),)

    def _check_texts(self, item: Item, origin: str) -> None:
        """Raises RecordError for a text that the model would read as a command, or that is not UTF-8."""
        texts = {**item.fields, **{f"choices[{place}]": text for place, text in enumerate(item.choices)}}
        texts |= {f"answers[{place}]": text for place, text in enumerate(item.answers or ())}
        for name, text in texts.items():
            if SURROGATE.search(text):
                message = "holds half of a surrogate pair; escape whole characters"
                raise RecordError(Kind.SURROGATE, origin, message, field=name)
            held = [token for token in self.reserved if token in text]
            if held:
                message = f"holds the command token {held[0]}; take it out of the text"
                raise RecordError(Kind.COMMAND, origin, message, field=name)


class TaskFile(RecordFile):
    """The questions of a file; the interface of `RecordFile`."""

    def __init__(self, path: str | Path, reader: TaskReader, most: int | None = None):
        self.most = most
        self.path = Path(path)
        self.name = str(path)
        self.reader = reader
        self.reserved = reader.reserved
        self.need_target = reader.need_label
        first = list(islice(read_rows(self.path), 1))
        if not first:
            raise InputError(f"{path}: no record in it; one JSON object per line is expected")
        self.target_column = reader.label_column or "label"
        self.columns = f"task {reader.task.name}"
        self.has_ids = True

    @property
    def target_name(self) -> str:
        """Name of the label's column."""
        return self.target_column

    def __iter__(self) -> Iterator[TaskRecord | BadRecord]:
        seen: dict[tuple[str, str | int], str] = {}
        records = (record for row in read_rows(self.path) for record in self.reader.records(row))
        for record in islice(records, self.most):
            yield self._once(record, seen) if isinstance(record, TaskRecord) and record.is_named else record

    @staticmethod
    def _once(record: TaskRecord, seen: dict[tuple[str, str | int], str]) -> TaskRecord | BadRecord:
        """Makes a question's id unique within its language, because metrics and prediction files tell questions apart
        by it."""
        first = seen.setdefault((record.language, record.id), record.origin)
        if first == record.origin:
            return record
        message = f"{record.id} is the id of another question in {record.language} ({first})"
        error = RecordError(Kind.REPEATED_ID, record.origin, message, field="id")
        return BadRecord(record.id, record.origin, str(error), error.kind, record.values)


def reader_of(task: Task, wishes: ColumnOptions, *, pattern_id: int | None = None, **how: Any) -> TaskReader:
    """Makes the reader of a task's files; options as for `TaskReader`.

    Raises:
        UsageError: columns were named that a task does not have.
    """
    for name in ("source_column", "answer_column"):
        if (value := getattr(wishes, name)) is not None:
            raise UsageError(f"{name} {value}: {task.name} names its columns itself; leave it out")
    return TaskReader(task, task.pattern(pattern_id), label_column=wishes.target_column, **how)


def open_records(
    path: str | Path,
    frame: Frame,
    wishes: ColumnOptions = RECOGNISED,
    *,
    need_target: bool = True,
    each_needs_target: bool | None = None,
    several_targets: bool = False,
    most: int | None = None,
    reserved: Sequence[str] = (),
    pattern_id: int | None = None,
) -> RecordFile:
    """Opens the records of a file, by template or task; arguments as for `RecordFile`. Raises InputError as it
    does."""
    if isinstance(frame, Template):
        return RecordFile(
            path,
            frame,
            wishes,
            need_target=need_target,
            each_needs_target=each_needs_target,
            several_targets=several_targets,
            most=most,
            reserved=reserved,
        )
    need_target = need_target if each_needs_target is None else each_needs_target
    reader = reader_of(frame, wishes, pattern_id=pattern_id, need_label=need_target, reserved=reserved)
    return TaskFile(path, reader, most)


def stream_of(
    lines: Iterable[bytes],
    frame: Frame,
    wishes: ColumnOptions,
    *,
    name: str,
    need_target: bool,
    several_targets: bool,
    reserved: Sequence[str],
    pattern_id: int | None = None,
) -> Iterator[Record | BadRecord]:
    """Yields the records of JSON lines, by template or task; arguments as for `stream_records`."""
    if isinstance(frame, Template):
        how = {"need_target": need_target, "several_targets": several_targets, "reserved": reserved}
        return stream_records(lines, frame, wishes, name=name, **how)
    reader = reader_of(frame, wishes, pattern_id=pattern_id, need_label=need_target, reserved=reserved)
    return (record for row in json_lines(lines, name=name) for record in reader.records(row))
