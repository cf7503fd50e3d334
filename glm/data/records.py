"""Lines of a JSON file become records, checked before anything else happens to them."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from glm.errors import InputError

# DuReaderQG's loaders call the fields source (passage), title (answer) and target (question).
FIELD_NAMES = {"context": ("context", "source"), "answer": ("answer", "title"), "question": ("question", "target")}
COMMAND_TEXTS = (
    "[MASK]",
    "[sMASK]",
    "[gMASK]",
    "[CLS]",
    "[SEP]",
    "[UNK]",
    "<|startofpiece|>",
    "<|endofpiece|>",
    "<|endoftext|>",
)


@dataclass(frozen=True)
class Record:
    """One line of data: a passage, an answer within it, and the question, None where it is to be generated."""

    id: str | int  # as in the data, or the line number
    context: str
    answer: str
    question: str | None
    origin: str  # "file, line n", for messages


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
    records = list(_parse(lines, name, need_question))
    if not records:
        raise InputError(f"{name}: no record in it; one JSON object per line is expected")
    return records


def _parse(lines: Iterable[bytes], name: str, need_question: bool) -> Iterator[Record]:
    for number, line in enumerate(lines, start=1):
        origin = f"{name}, line {number}"
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
        except UnicodeDecodeError as error:
            raise InputError(f"{origin}: not UTF-8 (byte {error.start + 1}); convert the file to UTF-8") from error
        if not text:
            continue
        try:
            row = json.loads(text)
        except (ValueError, RecursionError) as error:
            reason = f"{error.msg}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
            raise InputError(f"{origin}: not JSON ({reason}); one JSON object per line is expected") from error
        if not isinstance(row, dict):
            raise InputError(f"{origin}: {type(row).__name__} where a JSON object is expected")
        yield record_of_row(row, origin=origin, number=number, need_question=need_question)


def record_of_row(row: dict, *, origin: str, number: int, need_question: bool) -> Record:
    """The record of one JSON object. Raises InputError naming `origin` and the field."""
    question = _field(row, "question", origin) if need_question or _present(row, "question") else None
    context, answer = _field(row, "context", origin), _field(row, "answer", origin)
    identity = row.get("id", number)
    if isinstance(identity, bool) or not isinstance(identity, str | int):
        raise InputError(f"{origin}, field id: {type(identity).__name__} where text or a whole number is expected")
    return Record(identity, context, answer, question, origin)


def _present(row: dict, field: str) -> bool:
    return any(row.get(name) for name in FIELD_NAMES[field])


def _field(row: dict, field: str, origin: str) -> str:
    names = [name for name in FIELD_NAMES[field] if name in row]
    if not names:
        raise InputError(f"{origin}: no field {' or '.join(FIELD_NAMES[field])} (fields: {', '.join(row) or 'none'})")
    if len(names) > 1:
        raise InputError(f"{origin}: both fields {' and '.join(names)}; keep one")
    value = row[names[0]]
    if not isinstance(value, str):
        raise InputError(f"{origin}, field {names[0]}: {type(value).__name__} where text is expected")
    if not value.strip():
        raise InputError(f"{origin}, field {names[0]}: empty")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise InputError(f"{origin}, field {names[0]}: holds half of a surrogate pair; escape whole characters")
    for command in COMMAND_TEXTS:
        if command in value:
            raise InputError(f"{origin}, field {names[0]}: holds the command token {command}; take it out of the text")
    return value
