"""Reads the documents of a corpus: JSON lines, tables and parquet with a column of text, plain text, folders.

A corpus is one path or several, joined by commas. A folder is a data set that Hugging Face's `datasets` saved, or else
stands for all files in it. Plain text (`.txt`, `.txt.gz`) has a document a line, or documents with blank lines between
them. A row that cannot be used is a `BadRecord`, as in `glm.data.records`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from glm.data.formats import (
    MOST_BYTES,
    UTF8_START,
    Row,
    bounded_lines,
    likely_encoding,
    open_text_file,
    read_rows,
    too_large,
)
from glm.data.problems import Kind, RecordError
from glm.data.records import BadRecord
from glm.errors import InputError

LINE, BLANK_LINE = DOCUMENT_ENDS = ("line", "blank_line")
TEXT = ".txt"
DATA_SET = ("state.json", "dataset_dict.json")  # of a folder that `datasets` saved
CHARACTERS = 1 << 18  # characters of the documents that are checked and encoded together
DOCUMENTS = 1 << 12


class Document(NamedTuple):
    """A document's text, and where it is from."""

    text: str
    origin: str  # "file, line n", for messages
    number: int = 0  # of its line or row
    field: str = ""  # of the row that has it, for messages


@dataclass(frozen=True)
class CorpusFiles:
    """The files of a corpus, read anew for each iteration.

    Args:
        path: one or several, joined by commas.
        column: column of the text, if rows have several.
        ends_at: what ends a document of plain text, see `DOCUMENT_ENDS`.
        reserved: texts that no document may hold.
        most: bytes of a document.

    Raises:
        InputError: there is no such file, or none in a folder.
    """

    path: str
    column: str = "text"
    ends_at: str = LINE
    reserved: Sequence[str] = ()
    most: int = MOST_BYTES

    def __post_init__(self):
        self.files  # noqa: B018 - reports missing files at once

    @property
    def files(self) -> list[Path]:
        """Returns the files and data sets of the corpus, in order."""
        whole = Path(self.path)
        paths = [whole] if whole.exists() else [Path(part.strip()) for part in self.path.split(",")]
        return [file for path in paths for file in _files_of(path)]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        files = [path for file in self.files for path in (file.rglob("*") if file.is_dir() else [file])]
        return sum(path.stat().st_size for path in files)

    def __iter__(self) -> Iterator[Document | BadRecord]:
        return chain.from_iterable(self.batches())

    def batches(self) -> Iterator[list[Document | BadRecord]]:
        """Groups documents up to a number of characters; a longer one is a group by itself."""
        group: list[Document | BadRecord] = []
        size = 0
        for item in chain.from_iterable(map(self._items, self.files)):
            group.append(item)
            size += len(item.text) if isinstance(item, Document) else 0
            if size >= CHARACTERS or len(group) >= DOCUMENTS:
                yield self._checked(group)
                group, size = [], 0
        if group:
            yield self._checked(group)

    def _items(self, path: Path) -> Iterator[Document | BadRecord]:
        is_text = Path(path.name.removesuffix(".gz")).suffix.lower() == TEXT and path.is_file()
        return self._texts(path) if is_text else self._rows(path)

    def _checked(self, group: list[Document | BadRecord]) -> list[Document | BadRecord]:
        """Replaces unusable documents by `BadRecord`. All texts are searched as one, which is much faster; only if
        something is found, one by one."""
        texts = [item.text for item in group if isinstance(item, Document)]
        together = "\n".join(texts)
        if "" in texts or not _can_be_encoded(together) or any(token in together for token in self.reserved):
            return [self._judged(item) if isinstance(item, Document) else item for item in group]
        return group

    def _rows(self, path: Path) -> Iterator[Document | BadRecord]:
        column = self.column
        for row in read_rows(path, most=self.most):
            text = row.values.get(column)
            if isinstance(text, str):
                yield Document(text.strip(), row.origin, row.number, column)
                continue
            try:
                self._refuse(row)
            except RecordError as error:
                yield BadRecord(row.number, row.origin, str(error), error.kind)

    def _refuse(self, row: Row) -> NoReturn:
        """Raises RecordError: why there is no text in a row."""
        if row.error is not None:
            raise row.error
        if self.column not in row.values:
            message = f"no such field (fields: {', '.join(row.values) or 'none'}); name it with --text_column"
            raise RecordError(Kind.MISSING, row.origin, message, field=self.column)
        found = type(row.values[self.column]).__name__
        raise RecordError(Kind.TYPE, row.origin, f"{found} where text is expected", field=self.column)

    def _texts(self, path: Path) -> Iterator[Document | BadRecord]:
        try:
            with open_text_file(path) as file:
                for number, lines in self._blocks(file, str(path)):
                    origin = f"{path}, line {number}"
                    try:
                        yield Document(_decoded(lines, origin, self.most).strip(), origin, number)
                    except RecordError as error:
                        yield BadRecord(number, origin, str(error), error.kind)
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error

    def _blocks(self, file: Any, name: str) -> Iterator[tuple[int, bytes]]:
        """Yields the bytes of each document of plain text, with the number of its first line."""
        block, first = b"", 0
        for number, line in enumerate(bounded_lines(file, name, self.most), start=1):
            line = line.removeprefix(UTF8_START) if number == 1 else line
            if self.ends_at == LINE:
                if line.strip():
                    yield number, line
                continue
            if line.strip():
                first = first if block else number
                block = (block + line)[: self.most + 1]
            elif block:
                yield first, block
                block = b""
        if block:
            yield first, block

    def _judged(self, document: Document) -> Document | BadRecord:
        try:
            self._judge(document)
        except RecordError as error:
            return BadRecord(document.number, document.origin, str(error), error.kind)
        return document

    def _judge(self, document: Document) -> None:
        """Raises RecordError for a document that cannot be used."""
        text, origin = document.text, document.origin
        where = {"field": document.field} if document.field else {}
        if not text:
            raise RecordError(Kind.EMPTY, origin, "empty", **where)
        if not _can_be_encoded(text):
            raise RecordError(Kind.SURROGATE, origin, "half a surrogate pair", **where)
        if held := [token for token in self.reserved if token in text]:
            message = f"holds the command token {held[0]}, which would be learnt as text; take it out"
            raise RecordError(Kind.COMMAND, origin, message, **where)


def _can_be_encoded(text: str) -> bool:
    """Returns whether a text holds no half of a surrogate pair."""
    try:
        text.encode("utf-16-le")  # the fastest one
    except UnicodeEncodeError:
        return False
    return True


def _files_of(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise InputError(f"{path}: {'is a pipe or a device' if path.exists() else 'no such file or folder'}")
    if any((path / name).is_file() for name in DATA_SET):
        return [path]
    found = sorted(file for file in path.rglob("*") if file.is_file() and not _is_hidden(file.relative_to(path)))
    if not found:
        raise InputError(f"{path}: no file in this folder")
    return found


def _is_hidden(path: Path) -> bool:
    return any(part.startswith((".", "_")) for part in path.parts)


def _decoded(line: bytes, origin: str, most: int) -> str:
    if len(line) > most:
        raise RecordError(Kind.SYNTAX, origin, too_large(most))
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        guess = likely_encoding(line)
        named = f" (it may be {guess})" if guess else ""
        message = f"not UTF-8 (byte {error.start + 1}){named}; convert the file to UTF-8"
        raise RecordError(Kind.ENCODING, origin, message) from error
