"""Records: what a line may hold, and that whatever else it holds is an error that names file, line and field."""

import json

import pytest

from glm.data.columns import ColumnOptions
from glm.data.published import fetch_records
from glm.data.records import BadRecord, Record, read_records, stream_records
from glm.data.templates import QUESTION_GENERATION, find_template
from glm.errors import InputError, UsageError

GOOD = {"context": "白鹿湖在松江。", "answer": "松江", "question": "白鹿湖在哪里？"}
COMMANDS = (
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


def line_of(**changes) -> str:
    """A good record as JSON, with fields changed, or taken out where the value is `...`."""
    row = {name: value for name, value in {**GOOD, **changes}.items() if value is not ...}
    return json.dumps(row, ensure_ascii=False)


@pytest.fixture
def write(tmp_path):
    def write(content: str | bytes):
        path = tmp_path / "train.json"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def test_fields_and_ids(write):
    path = write(f"{line_of()}\n{line_of(id='Q-7')}\n{line_of(id=0)}\n")
    assert read_records(path) == [
        Record(1, "白鹿湖在松江。", "松江", "白鹿湖在哪里？", f"{path}, line 1"),
        Record("Q-7", "白鹿湖在松江。", "松江", "白鹿湖在哪里？", f"{path}, line 2"),
        Record(0, "白鹿湖在松江。", "松江", "白鹿湖在哪里？", f"{path}, line 3"),
    ]


def test_names_of_dureader_qg(write):
    path = write(json.dumps({"source": "水在零度结冰。", "title": "零度", "target": "水在几度结冰？", "id": 9}))
    assert read_records(str(path)) == [Record(9, "水在零度结冰。", "零度", "水在几度结冰？", f"{path}, line 1")]


def test_names_may_be_mixed(write):
    (record,) = read_records(write(json.dumps({"source": "甲乙", "answer": "甲", "target": "谁？"})))
    assert (record.source, record.answer, record.target) == ("甲乙", "甲", "谁？")


def test_columns_that_can_be_read_in_two_ways(write):
    path = write(json.dumps({**GOOD, "source": "某书", "title": "题目", "target": "甲"}))
    with pytest.raises(InputError) as caught:
        read_records(path)
    assert str(caught.value) == (
        f"{path}: its columns can be read in more than one way; say which: "
        "--source_column context --answer_column answer --target_column question; or "
        "--source_column source --answer_column title --target_column target"
    )
    wishes = ColumnOptions(source_column="context")
    with pytest.raises(InputError, match="more than one way"):
        read_records(path, wishes=wishes)
    wishes = ColumnOptions(source_column="context", answer_column="answer", target_column="question")
    (record,) = read_records(path, wishes=wishes)
    assert (record.source, record.answer, record.target) == tuple(GOOD.values())


def test_other_columns_do_no_harm(write):
    (record,) = read_records(write(line_of(title="某书", origin="x", score=3)))
    assert (record.source, record.answer, record.target) == tuple(GOOD.values())


@pytest.mark.parametrize("question", ["", "  ", None])
def test_no_question_and_no_id(write, question):
    row = {"context": "甲乙", "answer": "甲", "question": question, "id": None}
    (record,) = read_records(write(json.dumps(row)), need_target=False)
    assert record.target is None and record.id == 1


@pytest.mark.fault
def test_byte_order_mark_crlf_and_blank_lines(write):
    records = read_records(write(b"\xef\xbb\xbf" + f"{line_of()}\r\n\r\n  \n{line_of(answer='白鹿湖')}\r\n".encode()))
    assert [(record.id, record.answer) for record in records] == [(1, "松江"), (4, "白鹿湖")]
    assert records[1].origin.endswith("train.json, line 4")


def test_last_line_needs_no_line_end(write):
    assert len(read_records(write(line_of() + "\n" + line_of()))) == 2


@pytest.mark.fault
@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\u3000"])
def test_only_a_line_feed_ends_a_line(write, separator):
    context = f"第一段。{separator}第二段。"
    (record,) = read_records(write(line_of(context=context)))
    assert record.source == context


def test_text_is_kept_as_it_is(write):
    (record,) = read_records(write(line_of(context=" 甲，{乙}\n[丙] ", answer=" 甲", question="Ａ？ ")))
    assert (record.source, record.answer, record.target) == (" 甲，{乙}\n[丙] ", " 甲", "Ａ？ ")


def test_lines_may_come_from_a_stream():
    lines = iter([line_of().encode(), b"\n", line_of().encode() + b"\n"])
    records = list(stream_records(lines, name="standard input", reserved=COMMANDS))
    assert [record.origin for record in records] == ["standard input, line 1", "standard input, line 3"]


# -- bad input


@pytest.mark.fault
@pytest.mark.parametrize(
    ("row", "message"),
    [
        (line_of(answer=...), ", line 2: no field answer (fields: context, question)"),
        (line_of(question=...), ", line 2: no field question (fields: context, answer)"),
        (line_of(context=...), ", line 2: no field context (fields: answer, question)"),
        ("{}", ", line 2: no field context (fields: none)"),
        (line_of(answer=""), ", line 2, field answer: empty"),
        (line_of(question=" \u3000\t"), ", line 2, field question: empty"),
        (line_of(context=""), ", line 2, field context: empty"),
        (line_of(answer=7), ", line 2, field answer: int where text is expected"),
        (line_of(answer=None), ", line 2, field answer: NoneType where text is expected"),
        (line_of(question=["甲"]), ", line 2, field question: list where text is expected"),
        (line_of(context={"text": "甲"}), ", line 2, field context: dict where text is expected"),
        (line_of(id=1.5), ", line 2, field id: float where text or a whole number is expected"),
        (line_of(id=True), ", line 2, field id: bool where text or a whole number is expected"),
        (f"[{line_of()}]", ", line 2: list where a JSON object is expected"),
        ('"text"', ", line 2: str where a JSON object is expected"),
        ("7", ", line 2: int where a JSON object is expected"),
        (line_of()[:-1], ", line 2: not JSON (Expecting ',' delimiter, column "),
        ("{'context': 1}", "column 2); it is written as Python prints it; write it with json.dumps"),
        (line_of() + line_of(), ", line 2: not JSON (Extra data, column "),
        ("[" * 100_000, ", line 2: not JSON (nested too deeply);"),
        ('{"a":' * 100_000, ", line 2: not JSON (nested too deeply);"),
    ],
)
def test_bad_line(write, row, message):
    path = write(f"{line_of()}\n{row}\n{line_of()}\n")
    with pytest.raises(InputError) as caught:
        read_records(path)
    assert str(path) in str(caught.value) and message in str(caught.value)
    assert not isinstance(caught.value, UsageError)


@pytest.mark.parametrize("field", ["context", "answer", "question", "source", "title", "target"])
@pytest.mark.parametrize("command", COMMANDS)
def test_command_token_in_text(write, field, command):
    names = {"source": "context", "title": "answer", "target": "question"}
    changes = {names[field]: ...} if field in names else {}
    path = write(line_of(**changes, **{field: f"前{command}后"}))
    with pytest.raises(InputError) as caught:
        read_records(path, reserved=COMMANDS)
    assert (
        str(caught.value)
        == f"{path}, line 1, field {field}: holds the command token {command}; take it out of the text"
    )


@pytest.mark.parametrize("text", ["[mask]", "[ MASK]", "MASK", "<n>", "</s>", "［MASK］", "<|startofpiece|"])
def test_text_that_only_looks_like_a_command(write, text):
    (record,) = read_records(write(line_of(context=text)))
    assert record.source == text


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.json: cannot be read \(No such file or directory\)"):
        read_records(tmp_path / "nowhere.json")


def test_folder_in_place_of_a_file(tmp_path):
    with pytest.raises(InputError, match="no data set that Hugging Face's datasets saved"):
        read_records(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\n\n", b" \r\n\t\n", b"\xef\xbb\xbf"])
def test_empty_file(write, content):
    path = write(content)
    with pytest.raises(InputError) as caught:
        read_records(path)
    assert str(caught.value) == f"{path}: no record in it; one JSON object per line is expected"


@pytest.mark.fault
@pytest.mark.parametrize("encoding", ["gb18030", "utf-16", "big5"])
def test_not_utf8(write, encoding):
    text = line_of(context="臺灣", answer="臺", question="臺？")
    path = write(line_of().encode() + b"\n" + text.encode(encoding))
    with pytest.raises(InputError, match=r"train\.json, line 2: not UTF-8 \(byte \d+\); convert the file to UTF-8"):
        read_records(path)


def test_byte_of_a_wrong_encoding(write):
    with pytest.raises(InputError, match=r"line 1: not UTF-8 \(byte 14\)"):
        read_records(write(b'{"context": "\xff"}'))


def test_byte_order_mark_only_at_the_start(write):
    with pytest.raises(InputError, match="line 2: not JSON"):
        read_records(write(f"{line_of()}\n\ufeff{line_of()}"))


@pytest.mark.fault
def test_number_that_python_does_not_read(write):
    with pytest.raises(InputError, match=r"line 1: not JSON \(a number of too many digits\)"):
        read_records(write('{"id": ' + "1" * 5000 + "}"))


@pytest.mark.fault
@pytest.mark.parametrize("half", ["\ud83d", "\udfff"])
@pytest.mark.parametrize("field", ["context", "answer", "question"])
def test_half_a_surrogate_pair(write, field, half):
    raw = json.dumps({**GOOD, field: "甲" + half})  # written as \ud83d or so, hence the file itself is UTF-8
    with pytest.raises(InputError, match=f"line 1, field {field}: holds half of a surrogate pair"):
        read_records(write(raw))


# -- without question


@pytest.mark.parametrize("changes", [{"question": ...}, {"question": ""}, {"question": None}])
def test_question_is_optional_for_prediction(write, changes):
    path = write(line_of(**changes))
    (record,) = read_records(path, need_target=False)
    assert record.target is None and record.answer == "松江"
    with pytest.raises(InputError, match="no column is recognised as the target|line 1, field question"):
        read_records(path)


def test_question_that_is_there_is_kept_and_checked(write):
    (record,) = read_records(write(line_of()), need_target=False)
    assert record.target == "白鹿湖在哪里？"
    with pytest.raises(InputError, match=r"field question: holds the command token \[gMASK\]"):
        read_records(write(line_of(question="[gMASK]")), need_target=False, reserved=COMMANDS)
    with pytest.raises(InputError, match="field question: list where text"):
        read_records(write(line_of(question=["甲"])), need_target=False)


def test_answer_is_needed_for_prediction_too(write):
    with pytest.raises(InputError, match="no column is recognised as the answer; name it with --answer_column"):
        read_records(write(line_of(answer=...)), need_target=False)


# -- several references


@pytest.mark.parametrize(
    ("value", "references"),
    [
        (["谁？", "是谁？"], ("谁？", "是谁？")),
        (["谁？"], ("谁？",)),
        ("谁？", ("谁？",)),
        (["", "谁？", None, " "], ("谁？",)),
        ([], ()),
        (["", None], ()),
        (None, ()),
    ],
)
def test_a_target_may_be_a_list_of_references(write, value, references):
    (record,) = read_records(
        write(line_of(question=value)), need_target=False, several_targets=True, reserved=COMMANDS
    )
    assert record.references == references and record.target == (references[0] if references else None)


def test_references_of_a_list_are_checked(write):
    for value, message in ((["谁？", 7], "int where text"), (["谁[MASK]"], "holds the command token")):
        with pytest.raises(InputError, match=f"line 1, field question: {message}"):
            read_records(write(line_of(question=value)), need_target=False, several_targets=True, reserved=COMMANDS)
    with pytest.raises(InputError, match="list where text is expected"):
        read_records(write(line_of(question=["谁？", "是谁？"])))  # a training record
    with pytest.raises(InputError, match="field question: empty"):
        read_records(write(line_of(question=[])), several_targets=True)


def test_a_reference_that_comes_late_is_found(write):
    """After more rows than columns are recognised by."""
    lines = [line_of(question=...)] * 130 + [line_of(question="谁？"), line_of(question=...)]
    path = write("\n".join(lines))
    records = read_records(path, need_target=False)
    assert [number for number, record in enumerate(records) if record.references] == [130]
    own = write("\n".join(lines).replace("question", "frage"))
    records = read_records(own, wishes=ColumnOptions(target_column="frage"), need_target=False)
    assert sum(len(record.references) for record in records) == 1
    with pytest.raises(InputError, match=r"target_column frgae: no such column"):
        read_records(own, wishes=ColumnOptions(target_column="frgae"), need_target=False)


def test_a_stream_whose_references_come_late():
    lines = [line_of(question=...).encode(), line_of(question="谁？").encode(), line_of(question=...).encode()]
    records = list(stream_records(lines, name="f.json", need_target=False))
    assert [record.references for record in records] == [(), ("谁？",), ()]


# -- one at a time, bad ones too

BAD_LINES = [
    # line, id where it can be read, message
    (
        '{"id": "q2", "context"',
        ...,
        "not JSON (Expecting ':' delimiter, column 23); one JSON object per line is expected",
    ),
    (b'{"id": "q2", "context": "\xff"}', ..., "not UTF-8 (byte 26); convert the file to UTF-8"),
    ('["id", "q2"]', ..., "list where a JSON object is expected"),
    (line_of(id=None, answer=""), ..., "field answer: empty"),
    (line_of(id="q2", answer=""), "q2", "field answer: empty"),
    (line_of(id=0, context="甲[MASK]"), 0, "field context: holds the command token [MASK]; take it out of the text"),
    (line_of(id="q2", question=7), "q2", "field question: int where text is expected"),
    (line_of(id=1.5), ..., "field id: float where text or a whole number is expected"),
    (line_of(id=[], answer=""), ..., "field id: list where text or a whole number is expected"),
    (line_of(id=False), ..., "field id: bool where text or a whole number is expected"),
]


@pytest.mark.parametrize(("line", "identity", "message"), BAD_LINES)
def test_bad_line_of_a_stream_is_an_item(line, identity, message):
    line = line if isinstance(line, bytes) else line.encode()
    lines = [line_of().encode(), b" \n", line + b"\r\n", line_of(id="good").encode()]
    first, bad, last = stream_records(lines, name="f.json", reserved=COMMANDS)
    assert isinstance(first, Record) and isinstance(last, Record) and (first.id, last.id) == (1, "good")
    separator = ", " if message.startswith("field") else ": "
    assert bad == BadRecord(
        3 if identity is ... else identity, "f.json, line 3", f"f.json, line 3{separator}{message}"
    )


@pytest.mark.parametrize(("line", "identity", "message"), BAD_LINES)
def test_error_of_a_list_is_the_first_of_the_stream(write, line, identity, message):
    lines = [line_of().encode(), line if isinstance(line, bytes) else line.encode(), b"worse"]
    path = write(b"\n".join(lines))
    _, bad, _ = stream_records(lines, name=str(path), reserved=COMMANDS)
    with pytest.raises(InputError) as caught:
        read_records(path, reserved=COMMANDS)
    assert str(caught.value) == bad.error


@pytest.mark.fault
def test_stream_is_read_one_line_at_a_time():
    lines = iter([line_of().encode(), b"bad"] * 5)
    records = stream_records(lines, name="f.json", reserved=COMMANDS)
    assert [next(records).id for _ in range(6)] == [1, 2, 3, 4, 5, 6]
    assert len(list(lines)) == 4


def test_stream_of_an_open_file(write):
    with open(write(b"\xef\xbb\xbf" + f"{line_of()}\r\n\n{line_of(answer='白鹿湖')}".encode()), "rb") as file:
        assert [(record.id, record.answer) for record in stream_records(file, name="f", reserved=COMMANDS)] == [
            (1, "松江"),
            (3, "白鹿湖"),
        ]


def test_stream_without_a_line():
    assert list(stream_records([b"\n", b"  "], name="f.json")) == []


def test_stream_without_questions():
    lines = [line_of(question=None).encode(), line_of(question="[MASK]").encode()]
    record, bad = stream_records(lines, name="f.json", need_target=False, reserved=COMMANDS)
    assert record.target is None and isinstance(bad, BadRecord)
    assert all(isinstance(record, BadRecord) for record in stream_records(lines, name="f.json", reserved=COMMANDS))


def test_stream_whose_columns_are_not_recognised():
    with pytest.raises(InputError) as caught:
        list(stream_records([b"not JSON", line_of(question=...).encode()], name="f.json"))
    assert str(caught.value) == (
        "f.json: no column is recognised as the target; name it with --target_column (columns: context, answer)"
    )


# -- published data sets


def test_published_data_set(monkeypatch):
    asked = []

    def load_dataset(name, *, splits):
        asked.append((name, splits))
        good = {"source": "甲乙", "title": "甲", "target": "谁？"}
        return [{**good, "id": 5}, {**good, "title": ""}, good]

    monkeypatch.setattr("paddlenlp.datasets.load_dataset", load_dataset)
    first, second, third = fetch_records("dureader_qg", "dev", QUESTION_GENERATION)
    assert asked == [("dureader_qg", "dev")]
    assert [(record.id, record.target, record.origin) for record in (first, third)] == [
        (5, "谁？", "dureader_qg dev, row 1"),
        (3, "谁？", "dureader_qg dev, row 3"),
    ]
    assert second == BadRecord(2, "dureader_qg dev, row 2", "dureader_qg dev, row 2, field title: empty")


def test_task_without_a_published_data_set():
    with pytest.raises(InputError, match="task_name summary: no data set can be fetched by this name; give files"):
        fetch_records("summary", "train", find_template("summary"))


def test_published_data_set_without_network(monkeypatch):
    def load_dataset(name, *, splits):
        raise ConnectionError("no route")

    monkeypatch.setattr("paddlenlp.datasets.load_dataset", load_dataset)
    with pytest.raises(InputError) as caught:
        fetch_records("dureader_qg", "train", QUESTION_GENERATION)
    assert str(caught.value) == (
        "task_name dureader_qg: the data set could not be fetched (ConnectionError: no route); "
        "give files of your own with --train_file and --dev_file"
    )
