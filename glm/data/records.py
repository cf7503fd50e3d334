"""Lines of a JSON file become records, checked before anything else happens to them."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from glm.command_tokens import COMMAND_TOKENS
from glm.errors import InputError

# DuReaderQG's loaders call the fields source (passage), title (answer) and target (question). The first name wins: a
# record with `context` may have a `source` or `title` of another meaning.
FIELD_NAMES = {"context": ("context", "source"), "answer": ("answer", "title"), "question": ("question", "target")}


@dataclass(frozen=True)
class Record:
    """One line of data: a passage, an answer within it, and the question, None where it is to be generated."""

    id: str | int  # as in the data, or the line number
    context: str
    answer: str
    question: str | None
    origin: str  # "file, line n", for messages


@dataclass(frozen=True)
class BadRecord:
    """One line of data that is no usable record."""

    id: str | int  # as in the data where it is usable, or the line number
    origin: str
    error: str  # what is wrong, with file, line and field


def read_records(path: str | Path, *, need_question: bool = True) -> list[Record]:
    """Reads a file of one JSON object per line, UTF-8; empty lines are skipped.

    Args:
        need_question: False allows records without question, for prediction.

    Raises:
        InputError: the file is missing, empty or not UTF-8, or a record is unusable; file, line and field are named.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    return parse_records(content.split(b"\n"), name=str(path), need_question=need_question)


def parse_records(lines: Iterable[bytes], *, name: str, need_question: bool = True) -> list[Record]:
    """Records of lines of bytes; `name` stands for the file in messages. Raises as `read_records`."""
    records = []
    for record in stream_records(lines, name=name, need_question=need_question):
        if isinstance(record, BadRecord):
            raise InputError(record.error)
        records.append(record)
    if not records:
        raise InputError(f"{name}: no record in it; one JSON object per line is expected")
    return records


def stream_records(lines: Iterable[bytes], *, name: str, need_question: bool = True) -> Iterator[Record | BadRecord]:
    """The record of each line that is not empty, one line at a time; an unusable line is a `BadRecord`, not an error.

    Args:
        lines: Lines of bytes, such as a file opened in binary mode.
        name: Stands for the file in messages.
        need_question: False allows records without question.
    """
    for number, line in enumerate(lines, start=1):
        origin = f"{name}, line {number}"
        identity = number
        try:
            text = _text(line, origin, start_of_file=number == 1)
            if not text:
                continue
            row = _row(text, origin)
            identity = _identity(row, origin, number)  # before the fields, for a `BadRecord` has it too
            record = record_of_row(row, origin=origin, number=number, need_question=need_question)
        except InputError as error:
            record = BadRecord(identity, origin, str(error))
        yield record


def _text(line: bytes, origin: str, *, start_of_file: bool) -> str:
    try:
        return line.decode("utf-8-sig" if start_of_file else "utf-8").strip()
    except UnicodeDecodeError as error:
        raise InputError(f"{origin}: not UTF-8 (byte {error.start + 1}); convert the file to UTF-8") from error


def _row(text: str, origin: str) -> dict:
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = f"{error.msg}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
        raise InputError(f"{origin}: not JSON ({reason}); one JSON object per line is expected") from error
    if not isinstance(row, dict):
        raise InputError(f"{origin}: {type(row).__name__} where a JSON object is expected")
    return row


def record_of_row(row: dict, *, origin: str, number: int, need_question: bool) -> Record:
    """The record of one JSON object. Raises InputError naming `origin` and the field."""
    identity = _identity(row, origin, number)
    question = None
    if need_question or not all(_absent(row.get(name)) for name in FIELD_NAMES["question"]):
        question = _field(row, "question", origin)
    return Record(identity, _field(row, "context", origin), _field(row, "answer", origin), question, origin)


def _identity(row: dict, origin: str, number: int) -> str | int:
    identity = number if row.get("id") is None else row["id"]
    if isinstance(identity, bool) or not isinstance(identity, str | int):
        raise InputError(f"{origin}, field id: {type(identity).__name__} where text or a whole number is expected")
    return identity


def _absent(value: object) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _field(row: dict, field: str, origin: str) -> str:
    name = next((name for name in FIELD_NAMES[field] if name in row), None)
    if name is None:
        raise InputError(f"{origin}: no field {' or '.join(FIELD_NAMES[field])} (fields: {', '.join(row) or 'none'})")
    value = row[name]
    if not isinstance(value, str):
        raise InputError(f"{origin}, field {name}: {type(value).__name__} where text is expected")
    if _absent(value):
        raise InputError(f"{origin}, field {name}: empty")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise InputError(f"{origin}, field {name}: holds half of a surrogate pair; escape whole characters")
    for command in COMMAND_TOKENS:
        if command in value:
            raise InputError(f"{origin}, field {name}: holds the command token {command}; take it out of the text")
    return value
