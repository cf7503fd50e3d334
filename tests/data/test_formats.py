"""Formats: the same rows from every one of them, rows that cannot be parsed, and files that cannot be read on."""

import gzip
import json

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from glm.data import formats
from glm.data.formats import guess_row_count, has_byte_order_mark, read_rows
from glm.data.problems import Kind
from glm.data.records import read_records
from glm.errors import InputError

ROWS = [
    {"context": "白鹿湖在松江。", "answer": "松江", "question": "白鹿湖在哪里？"},
    {"context": "他说：“走”，\n就走了。", "answer": "走", "question": '"谁"走了,?'},
    {"context": "第一段。\u2028第二段。", "answer": "第一", "question": "哪一段？"},
]


@pytest.fixture
def write(tmp_path):
    """A function: the path of a file with this content."""

    def write(name: str, content: str | bytes):
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def as_json_lines(rows) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def quoted(cell: str) -> str:
    return '"' + cell.replace('"', '""') + '"'


def as_csv(rows) -> str:
    return "\r\n".join(",".join(map(quoted, cells)) for cells in [rows[0].keys(), *(row.values() for row in rows)])


def as_tsv(rows) -> str:
    return "\n".join("\t".join(cells) for cells in [rows[0].keys(), *(row.values() for row in rows)]) + "\n"


FLAT = [{name: text.replace("\n", " ") for name, text in row.items()} for row in ROWS]  # TSV has no line breaks


@pytest.mark.parametrize(
    ("name", "content", "rows"),
    [
        ("a.jsonl", as_json_lines(ROWS), ROWS),
        ("a.json", as_json_lines(ROWS), ROWS),
        ("a.txt", as_json_lines(ROWS), ROWS),
        ("a.json", json.dumps(ROWS), ROWS),
        ("a.json", "\ufeff \n" + json.dumps(ROWS, ensure_ascii=False, indent=1) + "\n", ROWS),
        ("a.json", json.dumps({"version": "1", "data": ROWS}, indent=2), ROWS),
        ("a.csv", as_csv(ROWS), ROWS),
        ("a.csv", "\ufeff" + as_csv(ROWS), ROWS),
        ("a.CSV", as_csv(ROWS), ROWS),
        ("a.tsv", as_tsv(FLAT), FLAT),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_the_same_rows_from_every_text_format(write, name, content, rows, packed):
    path = write(f"{name}.gz", gzip.compress(content.encode())) if packed else write(name, content)
    found = list(read_rows(path))
    assert [row.values for row in found] == rows and all(row.error is None for row in found)
    assert [row.origin.startswith(f"{path}, ") for row in found] == [True] * 3
    assert [record.target for record in read_records(path)] == [row["question"] for row in rows]


@pytest.mark.parametrize("chunk", [1, 40, 1 << 20])
@pytest.mark.parametrize(
    "odd",
    [
        '{"a": 1},0,{"a": 2}',  # as two lines that are parsed together
        '{"a": [1',
        "2]}",
        "[1]",
        "7",
        "",
        "\u3000",
        '{"a": "' + "x" * 60 + '"}',
        '{"a": NaN}',
        "[" * 2000,
    ],
)
def test_lines_that_are_parsed_together_are_rows_of_their_own(write, monkeypatch, chunk, odd):
    """Numbers, values and errors are those of each line by itself, wherever a block ends."""
    monkeypatch.setattr(formats, "CHUNK", chunk)
    lines = ['{"a": 0}', '{"a": 1}', odd, '{"a": 3}', odd, "2]}", '{"a": "\u6c34\\n"}']
    path = write("a.jsonl", b"\xef\xbb\xbf" + "\n".join(lines).encode())
    rows = list(read_rows(path, most=60))
    numbers = [number for number, line in enumerate(lines, start=1) if line.strip()]
    assert [row.number for row in rows] == numbers
    for row in rows:
        assert row.origin == f"{path}, line {row.number}"
        try:
            value = json.loads(lines[row.number - 1])
        except (ValueError, RecursionError):
            value = None
        is_good = isinstance(value, dict) and len(lines[row.number - 1]) < 60
        assert (row.error is None) == is_good and (not is_good or repr(row.values) == repr(value))


def test_gzip_is_told_by_its_content(write):
    path = write("a.json", gzip.compress(as_json_lines(ROWS).encode()))
    assert [row.values for row in read_rows(path)] == ROWS


def test_parquet(tmp_path):
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    assert [row.values for row in read_rows(path)] == ROWS
    assert [row.origin for row in read_rows(path)] == [f"{path}, row {number}" for number in (1, 2, 3)]
    assert guess_row_count(path) == 3


def test_folder_of_datasets(tmp_path):
    folder = tmp_path / "set"
    datasets.Dataset.from_list(ROWS).select([2, 0]).save_to_disk(str(folder))
    assert [row.values for row in read_rows(folder)] == [ROWS[2], ROWS[0]]
    assert [row.number for row in read_rows(folder)] == [1, 2]


def test_folder_of_several_splits(tmp_path):
    folder = tmp_path / "set"
    datasets.DatasetDict({"train": datasets.Dataset.from_list(ROWS)}).save_to_disk(str(folder))
    with pytest.raises(InputError) as caught:
        list(read_rows(folder))
    assert str(caught.value) == f"{folder}: holds several splits; give the folder of one of them: {folder / 'train'}"
    assert len(list(read_rows(folder / "train"))) == 3


# -- where rows are


def test_lines_of_a_table_with_line_breaks_in_its_cells(write):
    path = write("a.csv", 'source,target\n"a\nb",c\n\nd,e\n')
    assert [(row.number, row.origin, row.values["target"]) for row in read_rows(path)] == [
        (2, f"{path}, line 2", "c"),
        (5, f"{path}, line 5", "e"),
    ]


def test_places_in_a_json_list(write):
    path = write("a.json", '[\n {"a": "1"},\n {"a":\n "2"}, {"a": "3"}\n]')
    places = [row.origin.removeprefix(f"{path}, ") for row in read_rows(path)]
    assert places == ["record 1 (line 2)", "record 2 (line 3)", "record 3 (line 4)"]
    assert [row.number for row in read_rows(path)] == [1, 2, 3]


@pytest.mark.parametrize("chunk", [1, 2, 7, 64])
def test_a_json_list_is_read_in_pieces(write, monkeypatch, chunk):
    monkeypatch.setattr(formats, "CHUNK", chunk)
    rows = [{"a": '白\\"]},[{' * number, "n": number} for number in range(9)]
    for indent in (None, 2):
        path = write("a.json", json.dumps(rows, ensure_ascii=False, indent=indent))
        assert [row.values for row in read_rows(path)] == rows


def test_quotes_of_tsv_are_text(write):
    path = write("a.tsv", 'source\ttarget\n"浪子"燕青\t"谁"\n')
    assert [row.values for row in read_rows(path)] == [{"source": '"浪子"燕青', "target": '"谁"'}]


# -- rows that cannot be parsed


def errors(path) -> list[tuple[int, Kind, str]]:
    return [
        (row.number, row.error.kind, str(row.error).removeprefix(f"{row.origin}: "))
        for row in read_rows(path)
        if row.error
    ]


def test_rows_of_a_table_with_other_numbers_of_cells(write):
    path = write("a.csv", "source,target\na,b\na\na,b,c\nd,e\n")
    assert errors(path) == [
        (3, Kind.SYNTAX, "1 cells where the header has 2 (source, target)"),
        (4, Kind.SYNTAX, "3 cells where the header has 2 (source, target)"),
    ]
    assert [row.values["source"] for row in read_rows(path) if not row.error] == ["a", "d"]


def test_quote_within_a_cell(write):
    path = write("a.csv", 'source,target\n"a"x,b\nc,d\n')
    ((number, kind, message),) = errors(path)
    assert (number, kind) == (2, Kind.SYNTAX) and message.startswith("not CSV (")
    assert [row.values for row in read_rows(path) if not row.error] == [{"source": "c", "target": "d"}]


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_cell_in_another_encoding(write, name):
    separator = "," if name == "a.csv" else "\t"
    lines = [f"source{separator}target", f"中文{separator}b", f"c{separator}d"]
    path = write(name, b"\n".join([lines[0].encode(), lines[1].encode("gb18030"), lines[2].encode()]))
    message = "not UTF-8 (column source); convert the file to UTF-8 (it may be GB18030)"
    assert errors(path) == [(2, Kind.ENCODING, message)]
    assert [row.values.get("source") for row in read_rows(path)] == [None, "c"]


def test_items_of_a_list_that_are_no_objects(write):
    path = write("a.json", '[{"a": "1"}, 5, ["x"], {"a": "2"}]')
    assert [message for _, _, message in errors(path)] == [
        "int where a JSON object is expected",
        "list where a JSON object is expected",
    ]
    assert [row.values for row in read_rows(path)] == [{"a": "1"}, {}, {}, {"a": "2"}]


# -- files that cannot be read, or not to their ends: never fewer rows without a word


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", 'source,target\na,b\n"c,d\ne,f\n', r"line 3: a quote is opened and never closed; nothing after it"),
        ("a.csv", "source,source\na,b\n", "line 1: the header has the column source twice"),
        ("a.json", '[{"a": 1},\n {"a": 2', "line 2: not JSON .*; nothing after it can be read"),
        ("a.json", '[{"a": 1}, {"a" 2}, {"a": 3}]', r"line 1: not JSON \(Expecting ':' delimiter\); nothing after"),
        ("a.json", "[" + "[" * 100_000, "line 1: not JSON"),
        ("a.json", '{\n"a": []', "not JSON"),
        ("a.json", '{\n"a": [], "b": []}', "a JSON object with one list of rows is expected; lists in it: a, b"),
        ("a.json", '[{"a": "中"}]'.encode("gb18030"), "not UTF-8; convert the file to UTF-8"),
        ("a.json", as_json_lines(ROWS).encode("utf-16"), "UTF-16 text; convert the file to UTF-8"),
        ("a.jsonl.gz", gzip.compress(as_json_lines(ROWS).encode() * 50)[:-20], "damaged gzip file"),
        ("a.parquet", b"PAR1 not", "cannot be read as parquet"),
        ("a.xlsx", b"PK\x03\x04 workbook", "a ZIP archive, as Excel's files are; save the table as CSV"),
        ("a.csv", "正文,标题\n甲,乙".encode("gb18030"), r"line 1: not UTF-8 \(the header\).*may be GB18030"),
    ],
)
def test_damaged_files(write, name, content, message):
    path = write(name, content)
    with pytest.raises(InputError, match=message) as caught:
        list(read_rows(path))
    assert str(caught.value).startswith(str(path))


def test_damage_behind_the_rows_that_columns_are_recognised_by(write):
    text = "".join(f'{{"a": "{number}"}}\n' for number in range(100_000)).encode()
    path = write("a.json", gzip.compress(text)[:-1000])
    with pytest.raises(InputError, match="damaged gzip file"):
        guess_row_count(path)


def test_rows_before_a_damage_are_not_the_whole_file(write):
    path = write("a.json", '[{"a": "1"}, {"a": "2"}, {')
    rows = read_rows(path)
    assert [next(rows).values, next(rows).values] == [{"a": "1"}, {"a": "2"}]
    with pytest.raises(InputError):
        next(rows)


# -- the first bytes, and about how many rows


def test_byte_order_mark(write, tmp_path):
    assert has_byte_order_mark(write("a.json", b"\xef\xbb\xbf{}"))
    assert has_byte_order_mark(write("a.csv.gz", gzip.compress(b"\xef\xbb\xbfa,b")))
    assert not has_byte_order_mark(write("b.json", b"{}"))
    assert not has_byte_order_mark(tmp_path)


def test_guess_of_the_number_of_rows(write):
    assert guess_row_count(write("a.jsonl", as_json_lines(ROWS))) == 3
    assert guess_row_count(write("a.jsonl.gz", gzip.compress(as_json_lines(ROWS).encode()))) == 3
    assert guess_row_count(write("a.json", json.dumps(ROWS))) is None


def test_a_row_without_values_does_not_vanish(write):
    rows = list(read_rows(write("a.csv", "source,target\na,b\n,\n\n   \nc,d\n")))
    assert [(row.number, row.values.get("source")) for row in rows] == [(2, "a"), (3, ""), (5, None), (6, "c")]
    rows = list(read_rows(write("a.tsv", "\t\nsource\ttarget\n\t\na\tb\n")))
    assert [(row.number, list(row.values.values())) for row in rows] == [(3, ["", ""]), (4, ["a", "b"])]


@pytest.mark.parametrize(
    "content",
    [
        'source,target\n"a,b\nc,d\ne,f\ng,"h\n',  # closed by the quote that opens another cell
        'source,target\n"a,b\nc,d\ne,f\ng,h",i\nj,k\n',
        'source,target,more\n"a,b,c\nd,e,f\ng,h,i\nj",k,l\n',
    ],
)
def test_rows_that_a_stray_quote_joins_are_named(write, content):
    rows = [row for row in read_rows(write("a.csv", content)) if row.error]
    assert len(rows) == 1 and rows[0].number == 2 and rows[0].error.kind is Kind.SYNTAX
    assert "a quote that is opened takes" in str(rows[0].error)


def test_a_cell_of_several_lines_is_no_stray_quote(write):
    rows = list(read_rows(write("a.csv", 'source,target\n"甲，\n乙\n丙, 丁, 戊\n己",b\n"a,b\nc,d",e\n')))
    assert [row.values["target"] for row in rows] == ["b", "e"]


# -- JSON in any white space


ITEMS = [{"source": "甲", "target": "乙"}, {"source": "丙", "target": "丁"}]


@pytest.mark.parametrize("indent", [None, 0, 1, 4])
@pytest.mark.parametrize("name", ["data", "rows", "train", "made_up"])
def test_white_space_decides_nothing(write, indent, name):
    document = {"version": "1", "meta": {"n": 2}, name: ITEMS}
    rows = list(read_rows(write("a.json", "\ufeff \n" + json.dumps(document, indent=indent) + "\n\n")))
    assert [row.values for row in rows] == ITEMS
    (row,) = read_rows(write("b.json", json.dumps(ITEMS[0], indent=indent)))
    assert row.values == ITEMS[0]


def test_lines_that_hold_lists_are_lines(write):
    lines = [{"data": [{"source": "甲"}]}] * 2
    assert [row.values for row in read_rows(write("a.json", as_json_lines(lines)))] == lines
    for field in ("messages", "answers", "paragraphs"):
        (row,) = read_rows(write("b.jsonl", json.dumps({field: [{"a": "b"}]}) + "\n"))
        assert row.values == {field: [{"a": "b"}]}


# -- what was saved otherwise


TEXT = "扬州位于江苏省，著名的景点是瘦西湖。"
TRADITIONAL = "臺灣位於太平洋，著名的景點是日月潭與阿里山，人口約兩千萬。"


@pytest.mark.parametrize(
    ("text", "codec", "encoding"),
    [
        (TEXT, "gb18030", "GB18030"),
        (TEXT, "gbk", "GB18030"),
        (TRADITIONAL, "big5", "Big5"),
        (TRADITIONAL[:4], "cp950", "Big5"),
        ("国家图书馆的藏书", "gb2312", "GB18030"),
        ("圖書館的藏書很多", "big5", "Big5"),
    ],
)
def test_the_encoding_is_told(write, text, codec, encoding):
    line = json.dumps({"a": text}, ensure_ascii=False)
    (row,) = read_rows(write("a.jsonl", line.encode(codec)))
    assert str(row.error).endswith(f"convert the file to UTF-8 (it may be {encoding})")
    with pytest.raises(InputError, match=f"iconv -f {encoding} -t UTF-8"):
        list(read_rows(write("a.json", f"[{line}]".encode(codec))))
    with pytest.raises(InputError, match=f"it may be {encoding}"):
        list(read_rows(write("a.csv", f"{text},b\nc,d\n".encode(codec))))


def test_bytes_of_no_chinese_encoding(write):
    (row,) = read_rows(write("a.jsonl", '{"a": "café crème"}'.encode("latin-1")))
    assert str(row.error).endswith("convert the file to UTF-8")


@pytest.mark.parametrize("name", ["a.xls", "a.csv", "a.json"])
def test_an_old_workbook(write, name):
    path = write(name, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600))
    with pytest.raises(InputError, match=r"an old Excel workbook \(.xls\); save the table as CSV in UTF-8"):
        list(read_rows(path))


def test_utf16_without_a_mark(write):
    for codec in ("utf-16-le", "utf-16-be"):
        with pytest.raises(InputError, match="UTF-16 text"):
            list(read_rows(write("a.json", '{"a": "甲"}'.encode(codec))))


def test_names_in_a_header_are_without_blanks(write):
    for name, separator in (("a.csv", ","), ("a.tsv", "\t")):
        path = write(name, f"\ufeff \ufeffcontent {separator}\u3000summary \n甲 {separator}乙\n")
        assert [row.values for row in read_rows(path)] == [{"content": "甲 ", "summary": "乙"}]


@pytest.mark.parametrize(
    ("separator", "words"), [(";", "semicolons"), ("\t", "tabs"), ("|", "bars"), ("，", "full-width")]
)
def test_a_table_with_other_separators_gets_a_hint(write, separator, words):
    path = write("a.csv", f"content{separator}summary\n甲{separator}乙\n")
    with pytest.raises(InputError, match=f"line 1: the header is one column, .*separated by {words}"):
        list(read_rows(path))


OTHER_FILES = {
    b"%PDF-1.7\n": "a PDF; save the table as CSV in UTF-8",
    b"SQLite format 3\0": "an SQLite database; save the table",
    b"PAR1" + bytes(8): "a parquet file under another name; name it .parquet",
    b"\xfd7zXZ\0": "packed with xz; unpack it, or pack it with gzip",
    b"BZh91AY&SY": "packed with bzip2; unpack it",
    b"\x28\xb5\x2f\xfd\x04": "packed with zstd; unpack it",
    b"\x80\x04\x95\x10": "a pickle of Python; save it as JSON lines",
    b"version https://git-lfs.github.com/spec/v1\n": r"a pointer of Git LFS in the file's place; fetch .*git lfs pull",
    b"\n <!DOCTYPE html><html>": "an HTML page, as a failed download leaves",
    b"\xef\xbb\xbf<HTML lang=zh>": "an HTML page, as a failed download leaves",
    b'<?xml version="1.0"?>': "an XML file; save the table",
    b"train.json".ljust(257, b"\0") + b"ustar\0": "a TAR archive; unpack it",
}


@pytest.mark.parametrize("start", OTHER_FILES, ids=[message.partition(";")[0] for message in OTHER_FILES.values()])
@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_files_of_another_kind_are_named(write, start, name):
    for content in (start, gzip.compress(start)):
        with pytest.raises(InputError, match=f"{name}: {OTHER_FILES[start]}"):
            list(read_rows(write(name, content)))


@pytest.mark.parametrize("indent", [None, 1])
def test_rows_one_level_deeper(write, indent):
    document = {"version": 1, "data": {"name": "x", "rows": ROWS}}
    rows = list(read_rows(write("a.json", json.dumps(document, indent=indent))))
    assert [row.values for row in rows] == ROWS and rows[1].origin.endswith("a.json, data.rows 2")


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize(
    ("document", "what"),
    [
        ({name: [row[name] for row in ROWS] for name in ROWS[0]}, "the table stands in it by columns"),
        ({name: {"0": "甲", "1": "乙"} for name in ROWS[0]}, "the table stands in it by columns"),
        ({"q1": ROWS[0], "q2": ROWS[1]}, "rows stand in it by their names"),
    ],
)
def test_a_table_that_stands_otherwise_is_an_error_that_says_how(write, document, what, indent):
    with pytest.raises(InputError, match=rf"{what}; write a list of rows.*orient='records', lines=True"):
        list(read_rows(write("a.json", json.dumps(document, indent=indent))))


def test_a_record_with_nested_fields_is_a_record(write):
    record = {"context": "甲", "answers": {"text": ["乙"], "start": [0]}, "tags": ["a", "b"]}
    assert [row.values for row in read_rows(write("a.json", json.dumps(record, indent=1)))] == [record]


@pytest.mark.parametrize(
    ("line", "advice"),
    [
        ("{'context': '甲'}", "it is written as Python prints it; write it with json.dumps"),
        ('{"context": None}', "it is written as Python prints it"),
        ('{"context": "甲"},', "take the commas behind the objects away"),
        ('{"context": "甲"', "one JSON object per line is expected"),
    ],
)
def test_what_to_do_about_a_line_that_is_no_json(write, line, advice):
    content = '{"context": "甲"}\n' + line + "\n"
    assert advice in str(next(row.error for row in read_rows(write("a.jsonl", content)) if row.error))
    if line.endswith("},"):
        with pytest.raises(InputError, match="take the commas behind the objects away"):
            list(read_rows(write("b.json", f"{line}\n{line}\n")))


@pytest.mark.parametrize("header", ["甲城位于乙河北岸。,甲城", "他来了，看了，走了,题目"])
def test_a_table_without_a_header(write, header):
    with pytest.raises(InputError, match="line 1: looks like a row, and names of columns .* e.g. source,target"):
        list(read_rows(write("a.csv", f"{header}\n乙,丙\n")))
