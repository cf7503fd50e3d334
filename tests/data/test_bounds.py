"""What a file may make of memory: rows, cells and unpacked bytes have a size, and what is larger is named."""

import gzip
import io
import json
import tracemalloc
from itertools import islice

import pyarrow
import pyarrow.parquet
import pytest

from glm.data.columns import ColumnOptions
from glm.data.corpora import CorpusFiles
from glm.data.formats import guess_row_count, json_lines, read_rows
from glm.data.records import RecordFile
from glm.errors import InputError

GOOD = {"context": "a", "answer": "a", "question": "b"}
LARGE = {"context": "x" * 3000, "answer": "x", "question": "b"}
LINES = [json.dumps(GOOD), json.dumps(LARGE), json.dumps(GOOD)]


def kinds(rows) -> list[str]:
    return ["error" if row.error else "row" for row in rows]


def write(path, data: bytes):
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize("name", ["a.json", "a.jsonl.gz"])
def test_a_line(tmp_path, name):
    path = write(tmp_path / name, "\n".join(LINES).encode())
    rows = list(read_rows(path, most=2000))
    assert kinds(rows) == ["row", "error", "row"] and rows[2].number == 3
    assert str(rows[1].error).startswith(f"{path}, line 2: more than 2000 bytes; raise --max_record_bytes")
    assert kinds(read_rows(path, most=4000)) == kinds(read_rows(path)) == ["row"] * 3


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.txt.gz"])
def test_a_line_without_an_end(tmp_path, monkeypatch, name):
    """Of a small file that unpacks to a large one, not everything is unpacked to find it."""
    monkeypatch.setattr("glm.data.formats.MOST_OF_LINE", 100_000)
    monkeypatch.setattr("glm.data.formats.CHUNK", 1000)
    unpacked, read = [], gzip.GzipFile.readline
    monkeypatch.setattr(gzip.GzipFile, "readline", lambda file, size: unpacked.append(size) or read(file, size))
    path = write(tmp_path / name, b'{"a": 1}\n{"a": "' + b"x" * 5_000_000)
    with pytest.raises(InputError, match=f"{name}, line 2: more than 1.* bytes, and no end; split the file"):
        list(read_rows(path, most=2000) if "json" in name else CorpusFiles(str(path), most=2000))
    assert sum(unpacked) < 300_000
    assert guess_row_count(path) is None


def test_a_line_of_a_corpus(tmp_path):
    """Of one that is too large, no part is taken for a document; the numbers of others are those of their lines."""
    (tmp_path / "a.txt").write_text("good\n" + "x" * 4500 + "\nfine\n", encoding="utf-8")
    found = list(CorpusFiles(str(tmp_path / "a.txt"), most=2000))
    assert [getattr(item, "text", "bad") for item in found] == ["good", "bad", "fine"]
    assert found[1].error.startswith(f"{tmp_path / 'a.txt'}, line 2: more than 2000 bytes")
    assert found[2].origin.endswith("line 3")


def test_a_line_of_standard_input():
    text = "\n".join([*LINES, LINES[1][:-1]]).encode()
    assert kinds(json_lines(io.BytesIO(text), name="standard input", most=2000)) == ["row", "error", "row", "error"]


def test_an_item_of_a_list(tmp_path, monkeypatch):
    monkeypatch.setattr("glm.data.formats.CHUNK", 100)
    path = write(tmp_path / "a.json", f"[{', '.join(LINES)}]".encode())
    with pytest.raises(InputError, match=r"a.json, record 2 \(line 1\): more than 2000 bytes; raise --max_record"):
        list(read_rows(path, most=2000))
    assert kinds(read_rows(path, most=4000)) == ["row"] * 3


def test_a_packed_document(tmp_path, monkeypatch):
    monkeypatch.setattr("glm.data.formats.CHUNK", 100)
    text = json.dumps({"version": 1, "data": [GOOD] * 100}, indent=1).encode()
    with pytest.raises(InputError, match="unpacks to more than 2000 bytes"):
        list(read_rows(write(tmp_path / "a.json.gz", text), most=2000))
    assert len(list(read_rows(write(tmp_path / "a.json", text), most=2000))) == 100  # its need is the file's own


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.csv.gz"])
def test_a_line_of_a_table(tmp_path, name):
    mark = "\t" if ".tsv" in name else ","
    table = "\n".join([mark.join(GOOD), mark.join("abc"), mark.join(["x" * 3000, "x", "b"])])
    path = write(tmp_path / name, table.encode())
    with pytest.raises(InputError, match="line 3: more than 2000 bytes"):
        list(read_rows(path, most=2000))
    assert kinds(read_rows(path, most=4000)) == ["row", "row"]


def test_a_cell_of_many_lines(tmp_path):
    """Each of its lines is small; a quote that is never closed takes in no more than a row may be."""
    path = write(tmp_path / "a.csv", ("context,answer,question\na,b,c\n" + '"' + "x\n" * 3000 + '",a,b\n').encode())
    assert kinds(islice(read_rows(path, most=2000), 2)) == ["row", "error"]
    assert kinds(read_rows(path, most=8000)) == ["row", "row"]


def test_rows_of_parquet(tmp_path):
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([GOOD, LARGE, GOOD]), path)
    rows = list(read_rows(path, most=2000))
    assert kinds(rows) == ["row", "error", "row"]
    assert str(rows[1].error).startswith(f"{path}, row 2: more than 2000 bytes")
    assert kinds(read_rows(path)) == ["row"] * 3


def test_a_text_of_parquet_that_is_not_utf8(tmp_path):
    path = tmp_path / "a.parquet"
    texts = pyarrow.array([b"a", b"\xff\xfe", "问".encode()], type=pyarrow.binary())
    column = pyarrow.Array.from_buffers(pyarrow.string(), 3, texts.buffers())
    pyarrow.parquet.write_table(pyarrow.table({"context": column, "answer": ["a"] * 3, "question": ["b"] * 3}), path)
    rows = list(read_rows(path))
    assert kinds(rows) == ["row", "error", "row"] and rows[2].values["context"] == "问"
    assert str(rows[1].error) == f"{path}, row 2: a text of it is not UTF-8"


@pytest.mark.parametrize("start", [b"", b"[", b'{"data": [', b'{"a": "'])
def test_a_bomb_takes_little_memory(tmp_path, start):
    """300 MB of blanks in 300 kB."""
    path = tmp_path / "bomb.json.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(start)
        for _ in range(300):
            file.write(b" " * 1_000_000)
    tracemalloc.start()
    try:
        list(read_rows(path, most=4_000_000))
    except InputError as error:
        assert str(path) in str(error)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 << 20


def test_the_option_reaches_the_file(tmp_path):
    path = write(tmp_path / "a.json", "\n".join(LINES).encode())
    records = list(RecordFile(path, wishes=ColumnOptions(max_record_bytes=2000)))
    assert [type(record).__name__ for record in records] == ["Record", "BadRecord", "Record"]
