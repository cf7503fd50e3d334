"""Reads the rows of a data file of any format: JSON lines, JSON, CSV, TSV, parquet, a datasets folder.

JSON, CSV and TSV may be compressed with gzip. The format is told by the file's name, and JSON from JSON lines by the
first character. Two kinds of files without a header are told by their first line: U+0001 between source and target
(UniLM's fine-tuning), and one text a line. A row that cannot be parsed is a row with an error; what makes the rest of
a file unreadable is an `InputError`.
"""

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from glm.data.problems import Kind, RecordError
from glm.errors import InputError, shown
from glm.runtime.json_structure import json_problem
from glm.runtime.plain_files import check_plain

GZIP_START = b"\x1f\x8b"
AS_CSV = "save the table as CSV in UTF-8"
# How files begin that are no text, or not the text that was meant, and what to do.
OTHER_STARTS = {
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": f"an old Excel workbook (.xls); {AS_CSV}",
    b"PK\x03\x04": f"a ZIP archive, as Excel's files are; {AS_CSV}",
    b"%PDF-": f"a PDF; {AS_CSV}",
    b"SQLite format 3": f"an SQLite database; {AS_CSV}",
    b"PAR1": "a parquet file under another name; name it .parquet",
    b"ARROW1": "an Arrow file; save the table as parquet or as CSV in UTF-8",
    b"\x89HDF": f"an HDF5 file; {AS_CSV}",
    b"\xfd7zXZ": "packed with xz; unpack it, or pack it with gzip",
    b"BZh91AY": "packed with bzip2; unpack it, or pack it with gzip",
    b"\x28\xb5\x2f\xfd": "packed with zstd; unpack it, or pack it with gzip",
    b"7z\xbc\xaf": "a 7z archive; unpack it",
    b"Rar!": "a RAR archive; unpack it",
    **dict.fromkeys((b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"), "a pickle of Python; save it as JSON lines"),
    b"version https://git-lfs": "a pointer of Git LFS in the file's place; fetch the file (git lfs pull)",
    **dict.fromkeys(
        (b"<!doctype html", b"<html"), "an HTML page, as a failed download leaves; download the file again"
    ),
    b"<?xml": f"an XML file; {AS_CSV}",
}
TAR_MARK, TAR_PLACE = b"ustar", 257
PYTHON_OBJECT = re.compile(r"\{\s*'|\{.*:\s*(None|True|False)\s*[,}]")
SENTENCE = re.compile("[。！；]|，.*，")  # in the header of a table: it is a row
MOST_OF_START = 512  # bytes by which a file is recognised
UTF16_STARTS = (b"\xff\xfe", b"\xfe\xff")
UTF8_START = b"\xef\xbb\xbf"
BLANKS = "\ufeff\u200b \t\u3000"  # ignored around names in a header
UNDECODED = re.compile("[\udc80-\udcff]")  # bytes that are not UTF-8, as Python's `surrogateescape` decodes them
SEPARATOR = re.compile(r"\s*,?\s*")  # between the items of a JSON list
FIELD_SEPARATOR = "\x01"  # in files without a header
PAIRS = "no header: U+0001 stands between source and target"
TEXTS = "no header: each line is a source"
CHINESE = re.compile("[\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
FIRST_LINE = 1 << 16  # bytes inspected to recognise files without a header
LONGEST_NAME = 4  # Chinese characters of a column's name; if there are more, the first line of a table is a text
MOST_OF_LINE = 512 << 20  # bytes of a line that is too large, after which nobody looks for its end
MOST_BYTES = 32 << 20  # default limit of a row; reading takes twice as much memory
CHUNK = 1 << 20  # characters of a JSON list read at a time
# Names of lists of rows in an object, and of lists that are a field of one row.
ROW_LISTS = {"data", "rows", "records", "examples", "items", "instances", "train", "dev", "test", "validation"}
FIELD_LISTS = {"messages", "conversations", "conversation", "paragraphs", "qas", "answers", "answer", "question"}
FIELD_LISTS |= {"history", "choices", "references", "targets", "tags", "keywords"}
FIELD_LISTS |= {"candidates", "questions", "entities", "predictions"}
OTHER_SEPARATORS = {
    ";": "semicolons",
    "\t": "tabs",
    "|": "bars",
    "，": "full-width commas",
    "；": "full-width semicolons",
}
ROWS_AT_ONCE = 1024  # read from a columnar file


@dataclass(frozen=True)
class Row:
    """One row of a data file."""

    number: int  # line number from 1, or row number where a file has no lines
    origin: str  # "file, line n", for messages
    values: dict[str, Any]  # by column; empty if there is an error
    error: RecordError | None = None


def read_rows(path: str | Path, *, most: int = MOST_BYTES) -> Iterator[Row]:
    """Yields the rows of a file or folder; empty lines are skipped.

    Args:
        most: bytes of a row (`--max_record_bytes`): a larger one is a row with an error, or ends the reading where
            nothing after it could be told from it.

    Raises:
        InputError: the file cannot be read, or not to its end.
    """
    path = Path(path)
    name = str(path)
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    try:
        check_plain(path)
        if path.is_dir():
            yield from _folder_rows(path)
        elif suffix == ".parquet":
            yield from _parquet_rows(path, most)
        else:
            with open_text_file(path) as file:
                if (kind := _kind_without_header(file, suffix)) is not None:
                    yield from _lines_without_header(file, name, has_pairs=kind == PAIRS)
                elif suffix in (".csv", ".tsv"):
                    yield from _table_rows(file, name, is_tsv=suffix == ".tsv", most=most)
                elif is_json_document(file, most):
                    yield from _document_rows(file, name, most)
                else:
                    yield from _json_lines_of_file(file, name, most)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error


@contextmanager
def open_text_file(path: Path) -> Iterator[BinaryIO]:
    """Opens a text file as bytes, decompressed if needed.

    Raises:
        InputError: it is UTF-16, or another kind of file; or its compressed bytes are damaged, wherever that is found.
    """
    try:
        check_plain(path)
        with open(path, "rb") as raw:
            packed = raw.read(2) == GZIP_START
            raw.seek(0)
            with gzip.open(raw) if packed else raw as file:
                start = file.read(MOST_OF_START)
                file.seek(0)
                if start.startswith(UTF16_STARTS):
                    raise InputError(f"{path}: UTF-16 text; convert the file to UTF-8, e.g. iconv -f UTF-16 -t UTF-8")
                if b"\0" in start[:2]:
                    raise InputError(f"{path}: UTF-16 text without a mark, or no text; convert the file to UTF-8")
                if other := _other_kind(start):
                    raise InputError(f"{path}: {other}")
                yield file
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path}: damaged gzip file ({error}); the rows before the damage were not used") from error


def _other_kind(start: bytes) -> str | None:
    """What a file is that begins so, and what to do; None for a text."""
    if start[TAR_PLACE:].startswith(TAR_MARK):
        return "a TAR archive; unpack it"
    plain = start.removeprefix(UTF8_START).lstrip().lower()
    for begins, message in OTHER_STARTS.items():
        if start.startswith(begins) or (begins.startswith(b"<") and plain.startswith(begins)):
            return message
    return None


def guess_row_count(path: Path) -> int | None:
    """Estimates the number of rows for the progress bar; None where only reading, or much unpacking, would tell."""
    if path.is_dir():
        return None
    if path.suffix == ".parquet":
        import pyarrow.parquet

        return pyarrow.parquet.ParquetFile(path).metadata.num_rows
    with open_text_file(path) as file:
        if is_json_document(file):
            return None
        count = 0
        for block in iter(lambda: file.read(CHUNK), b""):
            count += block.count(b"\n")
            if isinstance(file, gzip.GzipFile) and file.tell() > MOST_OF_LINE:
                return None
        return count


def has_byte_order_mark(path: Path) -> bool:
    """Whether a text file starts with UTF-8's byte order mark, which is skipped."""
    if path.is_dir() or path.suffix == ".parquet":
        return False
    with open_text_file(path) as file:
        return file.read(3) == UTF8_START


# -- lines without a header


def format_without_header(path: Path) -> str | None:
    """Describes what the lines of a text file without a header hold; None for other files."""
    if path.is_dir() or path.suffix == ".parquet":
        return None
    with open_text_file(path) as file:
        return _kind_without_header(file, Path(path.name.removesuffix(".gz")).suffix.lower())


def _kind_without_header(file: BinaryIO, suffix: str) -> str | None:
    """Returns PAIRS or TEXTS, by the first line that is not empty; None for a file with a header, or JSON."""
    start = file.read(FIRST_LINE).removeprefix(UTF8_START).lstrip()
    file.seek(0)
    line = start.partition(b"\n")[0].decode("utf-8", errors="replace").rstrip()
    if FIELD_SEPARATOR in line and not line.startswith(("{", "[")):
        return PAIRS
    if suffix == ".txt":
        return None if line.startswith(("{", "[")) else TEXTS
    if suffix != ".csv" or any(mark in line for mark in ',"'):
        return None
    return TEXTS if len(CHINESE.findall(line)) > LONGEST_NAME else None


def _lines_without_header(file: BinaryIO, name: str, *, has_pairs: bool) -> Iterator[Row]:
    """Yields a row for each line that is not empty."""
    for number, line in enumerate(file, start=1):
        origin = f"{name}, line {number}"
        try:
            text = _decoded(line, origin, start_of_file=number == 1)
            if text:
                yield Row(number, origin, _pair(text, origin) if has_pairs else {"source": text})
        except RecordError as error:
            yield Row(number, origin, {}, error)


def _pair(text: str, origin: str) -> dict[str, str]:
    parts = text.split(FIELD_SEPARATOR)
    if len(parts) != 2:
        message = f"{len(parts) - 1} separators U+0001, and one is expected, between source and target"
        raise RecordError(Kind.SYNTAX, origin, message)
    return dict(zip(("source", "target"), parts, strict=True))


# -- JSON


def json_lines(lines: Iterable[bytes], *, name: str, most: int = MOST_BYTES, first: int = 1) -> Iterator[Row]:
    """Yields a row for each line that is not empty.

    Args:
        lines: of bytes.
        name: stands for the file in messages.
        most: bytes of a line.
        first: the number of the first line.
    """
    for number, line in enumerate(bounded_lines(lines, name, most), start=first):
        origin = f"{name}, line {number}"
        try:
            if len(line) > most:
                raise RecordError(Kind.SYNTAX, origin, too_large(most))
            text = _decoded(line, origin, start_of_file=number == 1)
            if text:
                yield Row(number, origin, _object(text, origin))
        except RecordError as error:
            yield Row(number, origin, {}, error)


def _json_lines_of_file(file: BinaryIO, name: str, most: int) -> Iterator[Row]:
    """Yields what `json_lines` does: parses many lines at once, in half the time, and one by one where that fails."""
    lines, first = bounded_lines(file, name, most), 1
    while block := _block_of(lines):
        values = _parsed_together(block, most, start_of_file=first == 1)
        if values is None:
            yield from json_lines(block, name=name, most=most, first=first)
        else:
            for number, value in enumerate(values, start=first):
                yield Row(number, f"{name}, line {number}", value)
        first += len(block)


def _block_of(lines: Iterator[bytes]) -> list[bytes]:
    """Returns the next lines of a file, about `CHUNK` bytes."""
    block, size = [], 0
    for line in lines:
        block.append(line)
        size += len(line)
        if size >= CHUNK:
            break
    return block


def _parsed_together(lines: list[bytes], most: int, *, start_of_file: bool) -> list[dict[str, Any]] | None:
    """Returns the object in each of these lines; None if one of them is not one object, or is too long."""
    if max(map(len, lines)) > most:
        return None
    try:
        # The zeros distinguish lines with one value each from lines with a part of one, or several.
        text = b",0,".join(lines).decode("utf-8-sig" if start_of_file else "utf-8")
        values = json.loads(f"[{text}]")
    except (ValueError, RecursionError):
        return None
    objects = values[::2]
    is_good = len(objects) == len(lines) and values[1::2] == [0] * (len(lines) - 1)
    return objects if is_good and all(type(value) is dict for value in objects) else None


def too_large(most: int) -> str:
    """Returns the message for a row that is larger than allowed."""
    return f"more than {most} bytes; raise --max_record_bytes if it is meant to be so large"


def bounded_lines(lines: Iterable[bytes], name: str, most: int) -> Iterator[bytes]:
    """Yields the lines of a file; of one with more than `most` bytes only the first `most + 1`.

    Raises:
        InputError: a line has no end within `MOST_OF_LINE` bytes; a small packed file may unpack to such a one.
    """
    if not hasattr(lines, "readline"):
        yield from lines
        return
    number = 0
    while line := _beginning(lines, most):
        number, size = number + 1, len(line)
        yield line
        if len(line) > most:
            while line and not line.endswith(b"\n"):
                line = lines.readline(CHUNK)
                size += len(line)
                if size > max(MOST_OF_LINE, most):
                    raise InputError(f"{name}, line {number}: more than {size - 1} bytes, and no end; split the file")


def _beginning(lines: BinaryIO, most: int) -> bytes:
    """Reads a line, or `most + 1` bytes of a longer one: piece by piece, since at once it would be there twice."""
    line = lines.readline(min(CHUNK, most + 1))
    if len(line) < CHUNK or line.endswith(b"\n"):
        return line
    long = bytearray(line)
    while len(long) <= most and (piece := lines.readline(min(CHUNK, most + 1 - len(long)))):
        long += piece
        if piece.endswith(b"\n"):
            break
    return bytes(long) if len(long) <= most else long  # of what is too long nothing but its length is asked


def _decoded(line: bytes, origin: str, *, start_of_file: bool) -> str:
    try:
        return line.decode("utf-8-sig" if start_of_file else "utf-8").strip()
    except UnicodeDecodeError as error:
        raise RecordError(Kind.ENCODING, origin, _not_utf8(line, f"byte {error.start + 1}")) from error


def _not_utf8(line: bytes, place: str) -> str:
    message = f"not UTF-8 ({place}); convert the file to UTF-8"
    encoding = likely_encoding(line)
    return message if encoding is None else f"{message} (it may be {encoding})"


def likely_encoding(data: bytes) -> str | None:
    """Guesses the Chinese encoding of bytes that are not UTF-8: the one that gives more common characters.

    Nearly all bytes are something in GB18030. In GB2312 the common characters, and punctuation, begin with the bytes
    A1 to A3 and B0 to D7, in Big5 with A1 to A3 and A4 to C6.
    """
    shares = {}
    for name, codec, common, first in (
        ("GB18030", "gb18030", "gb2312", range(0xB0, 0xD8)),
        ("Big5", "cp950", "big5", range(0xA4, 0xC7)),
    ):
        text = data.decode(codec, "replace")
        codes = [character.encode(common, "ignore")[:1] for character in text if not character.isascii()]
        good = sum(code[0] in first or code[0] in range(0xA1, 0xA4) for code in codes if code)
        shares[name] = good / max(len(codes), 1)
    best = max(shares, key=shares.get)
    return best if shares[best] > 0.5 else None


def _json_advice(line: str) -> str:
    """What to do about a line that is no JSON."""
    line = line.strip()
    if PYTHON_OBJECT.match(line):
        return "it is written as Python prints it; write it with json.dumps"
    if line.startswith("{") and line.endswith("},"):
        return "take the commas behind the objects away"
    return "one JSON object per line is expected"


def _object(text: str, origin: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = (
            f"{error.msg}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else json_problem(error)
        )
        message = f"not JSON ({reason}); {_json_advice(text)}"
        raise RecordError(Kind.SYNTAX, origin, message) from error
    return _checked_object(value, origin)


PASSAGE = ("context", "questions", "id")


def _is_passage(value: object) -> bool:
    """Whether an item of a list is a passage of C3: its lines, its questions, and an id."""
    if not isinstance(value, list) or len(value) != len(PASSAGE):
        return False
    lines, questions, _ = value
    return isinstance(lines, list) and isinstance(questions, list) and all(isinstance(q, dict) for q in questions)


def _checked_object(value: object, origin: str) -> dict[str, Any]:
    if _is_passage(value):
        return dict(zip(PASSAGE, value, strict=True))
    if not isinstance(value, dict):
        raise RecordError(Kind.SYNTAX, origin, f"{type(value).__name__} where a JSON object is expected")
    return value


def is_json_document(file: BinaryIO, most: int = MOST_BYTES) -> bool:
    """Whether a file is one JSON value rather than one per line: it starts with `[`, or its first line opens an object
    that ends later, or it is a single object with a list of rows."""
    start = file.read(CHUNK)
    file.seek(len(start) - len(start.removeprefix(UTF8_START).lstrip()))
    line = _beginning(file, most)
    if len(line) > most:
        file.seek(0)
        return line.startswith(b"[")
    line = line.strip()
    opens = line.startswith(b"{")
    is_all = opens and not any(block.strip() for block in iter(lambda: file.read(CHUNK), b""))
    file.seek(0)
    if line.startswith(b"["):
        return True
    return opens and (line.endswith((b"{", b"[", b",")) or (is_all and _holds_rows(line)))


def _holds_rows(line: bytes) -> bool:
    try:
        document = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return bool(row_lists(document) or _nested_list(document) or _turned(document))


def _nested_list(document: dict[str, Any]) -> tuple[str, list[Any]] | None:
    """The one list of rows one level deeper in an object, as `{"data": {"rows": [...]}}`, and where it stands."""
    found = [
        (f"{key}.{name}", value[name])
        for key, value in document.items()
        if isinstance(value, dict) and key not in FIELD_LISTS
        for name in row_lists(value)
    ]
    return found[0] if len(found) == 1 else None


def _turned(document: dict[str, Any]) -> str:
    """What is wrong with an object that holds a table by its columns, or rows by their names; empty if nothing is."""
    values = list(document.values())
    if len(values) > 1 and all(isinstance(value, dict) and value for value in values):
        by_column = all(value.keys() == values[0].keys() for value in values) and all(map(str.isdigit, values[0]))
    elif len(values) > 1 and all(isinstance(value, list) and len(value) == len(values[0]) > 1 for value in values):
        by_column = True
    else:
        return ""
    what = "the table stands in it by columns" if by_column else "rows stand in it by their names"
    return f"{what}; write a list of rows, or one row per line (pandas: to_json(orient='records', lines=True))"


def row_lists(document: dict[str, Any]) -> list[str]:
    """Returns the names of the lists in an object that are lists of rows, not a field of one row."""

    def is_rows(value: object) -> bool:
        return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)

    return [
        key
        for key, value in document.items()
        if isinstance(value, list) and (key in ROW_LISTS or (is_rows(value) and key not in FIELD_LISTS))
    ]


def _document_rows(file: BinaryIO, name: str, most: int) -> Iterator[Row]:
    text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
    try:
        start = text.read(CHUNK).lstrip()
        if start[0] == "[":
            items = _array_items(text, start[1:], name, most)
        else:
            items = _items_within(start + _rest(text, name, most, packed=isinstance(file, gzip.GzipFile)), name)
        for number, (value, origin) in enumerate(items, start=1):
            try:
                yield Row(number, origin, _checked_object(value, origin))
            except RecordError as error:
                yield Row(number, origin, {}, error)
    except UnicodeDecodeError as error:
        encoding = likely_encoding(bytes(error.object)) or "GB18030"
        advice = f"convert the file to UTF-8, e.g. iconv -f {encoding} -t UTF-8"
        raise InputError(f"{name}: not UTF-8; {advice}") from error


def _rest(text: io.TextIOWrapper, name: str, most: int, *, packed: bool) -> str:
    """Reads the rest of a document; of a compressed one at most `most` characters, as its size is unknown."""
    if not packed:
        return text.read()
    found = text.read(most + 1)
    if len(found) > most:
        raise InputError(f"{name}: unpacks to {too_large(most)}, or unpack it")
    return found


def _items_within(text: str, name: str) -> Iterator[tuple[Any, str]]:
    """Yields the items of the only list in a JSON object, as in `{"version": 1, "data": [...]}`."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        advice = _json_advice(text.lstrip().partition("\n")[0])
        raise InputError(f"{name}: not JSON ({json_problem(error)}); {advice}, or a list") from error
    lists = row_lists(document)
    if not lists and (nested := _nested_list(document)) is not None:
        place, rows = nested
        yield from ((value, f"{name}, {place} {number}") for number, value in enumerate(rows, start=1))
        return
    if not lists and (turned := _turned(document)):
        raise InputError(f"{name}: {turned}")
    if not lists and document.keys() and not all(isinstance(value, list) for value in document.values()):
        yield document, f"{name}, record 1"
        return
    if len(lists) != 1:
        found = ", ".join(lists or [key for key, value in document.items() if isinstance(value, list)]) or "none"
        raise InputError(
            f"{name}: a JSON object with one list of rows is expected; lists in it: {found}; write each into a file "
            "of its own"
        )
    for number, value in enumerate(document[lists[0]], start=1):
        yield value, f"{name}, {lists[0]} {number}"


def _array_items(text: io.TextIOWrapper, buffer: str, name: str, most: int) -> Iterator[tuple[Any, str]]:
    """Yields the items of a JSON list; holds no more of the file than its longest item needs.

    Args:
        text: the rest of the file.
        buffer: what was read of it, without the opening bracket.
    """
    decode = json.JSONDecoder().raw_decode
    place, line, number = 0, 1, 0
    while True:
        start = SEPARATOR.match(buffer, place).end()
        line += buffer.count("\n", place, start)
        place = start
        if buffer.startswith("]", place):
            return
        try:
            value, end = decode(buffer, place)
        except (ValueError, RecursionError) as error:
            more = text.read(max(CHUNK, len(buffer) - place))
            if not more or isinstance(error, RecursionError):
                reason = error.msg if isinstance(error, json.JSONDecodeError) else json_problem(error)
                raise InputError(f"{name}, line {line}: not JSON ({reason}); nothing after it can be read") from error
            buffer, place = buffer[place:] + more, 0
            if len(buffer) > most + CHUNK:
                raise InputError(f"{name}, record {number + 1} (line {line}): {too_large(most)}") from error
            continue
        number += 1
        yield value, f"{name}, record {number} (line {line})"
        line += buffer.count("\n", place, end)
        place = end


# -- tables


def _table_rows(file: BinaryIO, name: str, *, is_tsv: bool, most: int) -> Iterator[Row]:
    """Yields the rows of a table with a header. Quotes have a meaning in CSV (RFC 4180), but not in TSV (IANA)."""
    csv.field_size_limit(most)
    text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
    lines = _bounded_text(text, name, most)
    if is_tsv:
        table = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
    else:
        table = csv.reader(lines, strict=True)
    header: list[str] | None = None
    while True:
        line = table.line_num + 1
        origin = f"{name}, line {line}"
        try:
            cells = next(table, None)
            if cells is None:
                return
            # An empty line; but `,,` is a row without values.
            if not any(cells) and (len(cells) < 2 or header is None):
                continue
            if header is None:
                header = _checked_header([cell.strip(BLANKS) for cell in cells], name)
                continue
            _check_quotes(header, cells, origin, table.line_num - line)
            yield Row(line, origin, _cells(header, cells, origin))
        except csv.Error as error:
            if "unexpected end of data" in str(error):
                message = "a quote is opened and never closed; nothing after it can be read"
                raise InputError(f"{origin}: {message}") from error
            more = table.line_num - line
            lost = f"; a quote that is opened takes the lines to line {line + more} into it" if more else ""
            yield Row(line, origin, {}, RecordError(Kind.SYNTAX, origin, f"not CSV ({error}){lost}"))
        except RecordError as error:
            yield Row(line, origin, {}, error)


def _bounded_text(text: io.TextIOWrapper, name: str, most: int) -> Iterator[str]:
    """Yields the lines of a table. Raises InputError at one that is too large, because the end of its row is
    unknown."""
    number = 0
    while line := text.readline(most + 1):
        number += 1
        if len(line) > most:
            raise InputError(f"{name}, line {number}: {too_large(most)}; nothing after it can be read")
        yield line


def _check_quotes(header: list[str], cells: list[str], origin: str, more: int) -> None:
    """Raises RecordError if a cell with many lines is in fact rows joined by a stray quote: all lines between its
    first and last have as many cells as the header."""
    for column, cell in zip(header, cells, strict=False):
        lines = cell.splitlines()[1:-1]
        if len(lines) > 1 and len(header) > 1 and all(line.count(",") == len(header) - 1 for line in lines):
            message = f'a quote that is opened takes {more} rows into one cell; take it out, or double it ("")'
            raise RecordError(Kind.SYNTAX, origin, message, field=column)


def _checked_header(cells: list[str], name: str) -> list[str]:
    if found := _undecoded(cells):
        raise InputError(f"{name}, line 1: {_not_utf8(found, 'the header')}")
    others = [words for separator, words in OTHER_SEPARATORS.items() if separator in cells[0]]
    if len(cells) == 1 and others:
        raise InputError(
            f"{name}, line 1: the header is one column, {cells[0]}, and looks separated by {others[0]}; save the "
            "table with commas (.csv) or tabs (.tsv)"
        )
    if any(map(SENTENCE.search, cells)):
        raise InputError(
            f"{name}, line 1: looks like a row, and names of columns are expected; add a line with names, e.g. "
            f"{'source,target' if len(cells) < 3 else 'context,answer,question'}"
        )
    twice = sorted({cell for cell in cells if cells.count(cell) > 1})
    if twice:
        raise InputError(f"{name}, line 1: the header has the column {', '.join(twice)} twice; rename one of them")
    return cells


def _cells(header: list[str], cells: list[str], origin: str) -> dict[str, str]:
    if len(cells) != len(header):
        message = f"{len(cells)} cells where the header has {len(header)} ({', '.join(header)})"
        raise RecordError(Kind.SYNTAX, origin, message)
    for column, cell in zip(header, cells, strict=True):
        if found := _undecoded([cell]):
            raise RecordError(Kind.ENCODING, origin, _not_utf8(found, f"column {column}"))
    return dict(zip(header, cells, strict=True))


def _undecoded(cells: list[str]) -> bytes:
    """Returns the bytes of cells that are not all UTF-8; empty if they are."""
    text = "\t".join(cells)
    return text.encode("utf-8", "surrogateescape") if UNDECODED.search(text) else b""


# -- columnar files


def _parquet_rows(path: Path, most: int) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.ParquetFile(path, buffer_size=CHUNK)  # reads pages one by one, not a whole row group
        before = 0
        for batch in table.iter_batches(batch_size=ROWS_AT_ONCE):
            for number, values in enumerate(_values_together(batch, most), start=before + 1):
                origin = f"{path}, row {number}"
                if values is None:
                    yield _parquet_row(batch.slice(number - before - 1, 1), number, origin, most)
                else:
                    yield Row(number, origin, values)
            before += batch.num_rows
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: cannot be read as parquet ({shown(str(error))})") from error


def _values_together(batch: Any, most: int) -> list[dict[str, Any] | None]:
    """Returns the rows of a batch; None for each if one of them may be too large or is not UTF-8."""
    try:
        return batch.to_pylist() if batch.nbytes <= most else [None] * batch.num_rows
    except UnicodeDecodeError:
        return [None] * batch.num_rows


def _parquet_row(row: Any, number: int, origin: str, most: int) -> Row:
    """Makes a row from a parquet row; an error if it is too large or one of its texts is not UTF-8."""
    try:
        if row.nbytes > most:
            raise RecordError(Kind.SYNTAX, origin, too_large(most))
        (values,) = row.to_pylist()
        return Row(number, origin, values)
    except UnicodeDecodeError:
        return Row(number, origin, {}, RecordError(Kind.ENCODING, origin, "a text of it is not UTF-8"))
    except RecordError as error:
        return Row(number, origin, {}, error)


def _folder_rows(path: Path) -> Iterator[Row]:
    if (path / "dataset_dict.json").is_file():
        splits = ", ".join(sorted(str(folder) for folder in path.iterdir() if folder.is_dir()))
        raise InputError(f"{path}: holds several splits; give the folder of one of them: {splits}")
    if not (path / "state.json").is_file():
        raise InputError(f"{path}: no data set that Hugging Face's datasets saved (save_to_disk) is in this folder")
    import datasets

    try:
        table = datasets.load_from_disk(str(path))
    except Exception as error:  # whatever the error, the folder has to be fixed
        raise InputError(f"{path}: cannot be read as a data set ({error})") from error
    batches = table.iter(batch_size=ROWS_AT_ONCE)
    rows = (dict(zip(batch, row, strict=True)) for batch in batches for row in zip(*batch.values(), strict=True))
    yield from _numbered(rows, path)


def _numbered(rows: Iterable[dict[str, Any]], path: Path) -> Iterator[Row]:
    for number, values in enumerate(rows, start=1):
        yield Row(number, f"{path}, row {number}", values)
