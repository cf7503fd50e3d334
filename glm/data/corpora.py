"""Reads the documents of a corpus: JSON lines, tables and parquet with a column of text, plain text, folders.

A corpus is one path or several, joined by commas. A folder is a data set that Hugging Face's `datasets` saved, or else
stands for all files in it. Plain text (`.txt`, `.txt.gz`) has a document a line, or documents with blank lines between
them. A row that cannot be used is a `BadRecord`, as in `glm.data.records`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glm.data.formats import MOST_BYTES, UTF8_START, likely_encoding, open_text_file, read_rows, too_large
from glm.data.problems import Kind, RecordError
from glm.data.records import SURROGATE, BadRecord
from glm.errors import InputError

LINE, BLANK_LINE = DOCUMENT_ENDS = ("line", "blank_line")
TEXT = ".txt"
DATA_SET = ("state.json", "dataset_dict.json")  # of a folder that `datasets` saved


@dataclass(frozen=True)
class Document:
    """A document's text, and where it is from."""

    text: str
    origin: str  # "file, line n", for messages


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

    def __iter__(self) -> Iterator[Document | BadRecord]:
        for file in self.files:
            is_text = Path(file.name.removesuffix(".gz")).suffix.lower() == TEXT and file.is_file()
            yield from self._texts(file) if is_text else self._rows(file)

    def _rows(self, path: Path) -> Iterator[Document | BadRecord]:
        for row in read_rows(path, most=self.most):
            try:
                if row.error is not None:
                    raise row.error
                yield self._document(self._text_of(row.values, row.origin), row.origin, field=self.column)
            except RecordError as error:
                yield BadRecord(row.number, row.origin, str(error), error.kind)

    def _text_of(self, values: dict[str, Any], origin: str) -> str:
        if self.column not in values:
            message = f"no such field (fields: {', '.join(values) or 'none'}); name it with --text_column"
            raise RecordError(Kind.MISSING, origin, message, field=self.column)
        text = values[self.column]
        if not isinstance(text, str):
            raise RecordError(Kind.TYPE, origin, f"{type(text).__name__} where text is expected", field=self.column)
        return text

    def _texts(self, path: Path) -> Iterator[Document | BadRecord]:
        try:
            with open_text_file(path) as file:
                for number, lines in self._blocks(file):
                    origin = f"{path}, line {number}"
                    try:
                        yield self._document(_decoded(lines, origin, self.most), origin)
                    except RecordError as error:
                        yield BadRecord(number, origin, str(error), error.kind)
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error

    def _blocks(self, file: Any) -> Iterator[tuple[int, bytes]]:
        """Yields the bytes of each document of plain text, with the number of its first line."""
        block, first = b"", 0
        for number, line in enumerate(iter(lambda: file.readline(self.most + 1), b""), start=1):
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

    def _document(self, text: str, origin: str, *, field: str = "") -> Document:
        where = {"field": field} if field else {}
        if not text.strip():
            raise RecordError(Kind.EMPTY, origin, "empty", **where)
        if SURROGATE.search(text):
            raise RecordError(Kind.SURROGATE, origin, "half a surrogate pair", **where)
        if held := [token for token in self.reserved if token in text]:
            message = f"holds the command token {held[0]}, which would be learnt as text; take it out"
            raise RecordError(Kind.COMMAND, origin, message, **where)
        return Document(text.strip(), origin)


def _files_of(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise InputError(f"{path}: no such file or folder")
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
