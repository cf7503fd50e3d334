"""Files of predictions: every format, and every way in which a row can be wrong."""

import json

import pytest

from glm.errors import InputError
from glm.evaluation.scored_file import read_scored_file
from glm.evaluation.statistics import Pair

OWN = {"id": 7, "source": "甲乙", "answer": "乙", "predictions": [{"text": "谁", "score": -1.0}], "reference": "谁？"}
LLAMA_FACTORY = {"prompt": "甲乙", "predict": "谁", "label": "谁？"}
MS_SWIFT = {
    "response": "谁",
    "labels": "谁？",
    "logprobs": None,
    "messages": [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "早"},
        {"role": "assistant", "content": "好"},
        {"role": "user", "content": "甲乙"},
        {"role": "assistant", "content": "谁"},
    ],
}
PLAIN = {"prediction": "谁", "reference": "谁？"}


@pytest.fixture
def write(tmp_path):
    """Writes rows, or lines as they are, and returns the path."""

    def to_file(*rows):
        path = tmp_path / "p.jsonl"
        lines = [row if isinstance(row, bytes) else json.dumps(row, ensure_ascii=False).encode() for row in rows]
        path.write_bytes(b"\n".join(lines) + b"\n")
        return path

    return to_file


@pytest.mark.parametrize(
    ("row", "name", "identity", "pair"),
    [
        (OWN, "glm", 7, Pair("谁", ("谁？",), "甲乙", "乙")),
        (OWN | {"id": "a", "predictions": []}, "glm", "a", Pair("", ("谁？",), "甲乙", "乙")),
        (OWN | {"reference": ["谁？", "何人"]}, "glm", 7, Pair("谁", ("谁？", "何人"), "甲乙", "乙")),
        (LLAMA_FACTORY, "llama-factory", 1, Pair("谁", ("谁？",), "甲乙")),
        (LLAMA_FACTORY | {"label": ""}, "llama-factory", 1, Pair("谁", ("",), "甲乙")),
        (MS_SWIFT, "ms-swift", 1, Pair("谁", ("谁？",), "甲乙")),
        ({"query": "甲乙", "response": "谁", "label": "谁？"}, "ms-swift", 1, Pair("谁", ("谁？",), "甲乙")),
        (PLAIN, "plain", 1, Pair("谁", ("谁？",))),
        ({"id": 3, "prediction": "谁", "references": ["谁？", "何"]}, "plain", 3, Pair("谁", ("谁？", "何"))),
    ],
)
def test_formats(write, row, name, identity, pair):
    file = read_scored_file(write(row))
    assert (file.format, file.pairs, file.failed, file.has_ids) == (name, {identity: pair}, [], "id" in row)


def test_line_numbers_are_ids_where_there_are_none(write):
    file = read_scored_file(write(PLAIN, b"  ", PLAIN))
    assert list(file.pairs) == [1, 3] and file.rows == 2


def test_byte_order_mark(write):
    assert read_scored_file(write(b"\xef\xbb\xbf" + json.dumps(PLAIN).encode())).rows == 1


def test_failed_records_are_counted(write):
    failed = {"id": 8, "predictions": [], "error": "d.json, line 2: not JSON"}
    file = read_scored_file(write(failed, OWN))
    assert (list(file.pairs), file.failed, file.rows) == ([7], [8], 2)
    with pytest.raises(InputError, match=r"p\.jsonl: all 1 records failed"):
        read_scored_file(write(failed))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"a": 1, "b": 2}], r"line 1: no known format of predictions \(fields: a, b\); accepted are\n  glm: predict"),
        ([], "no prediction in it"),
        ([PLAIN, b"{"], r"line 2: not JSON \(.*\); one JSON object per line"),
        ([PLAIN, b"\xff"], r"line 2: not UTF-8 \(byte 1\)"),
        ([PLAIN, [1]], "line 2: list where a JSON object is expected"),
        ([PLAIN, LLAMA_FACTORY], r"line 2: no field prediction, which the rows before it have \(plain\)"),
        ([OWN, OWN], r"line 2, field id: 7 is the id of .*p\.jsonl, line 1 too"),
        ([OWN | {"id": True}], "line 1, field id: bool where text or a whole number"),
        ([OWN | {"id": None}], "line 1, field id: NoneType where"),
        ([PLAIN | {"id": 1}, PLAIN], "line 2, field id: some rows have one and some have none"),
        ([PLAIN, PLAIN | {"id": 1}], "line 2, field id: some rows have one and some have none"),
        ([PLAIN | {"prediction": None}], r"line 1: no field prediction$"),
        ([{"prediction": "谁"}], "line 1: no field references or reference: nothing to score against"),
        ([MS_SWIFT | {"labels": None}], "line 1: no field labels or label"),
        ([PLAIN | {"reference": 3}], "line 1, field reference: text, or a list of texts"),
        ([PLAIN | {"reference": []}], "line 1, field reference: text, or a list of texts"),
        ([PLAIN | {"reference": ["a", 3]}], "line 1, field reference: text, or a list of texts"),
        ([PLAIN | {"prediction": 3}], "line 1, field prediction: int where text is expected"),
        ([PLAIN | {"source": ["a"]}], "line 1, field source: list where text is expected"),
        ([OWN | {"predictions": ["谁"]}], "line 1, field predictions: a list of objects with a text"),
        ([OWN | {"predictions": None}], "line 1, field predictions: a list of objects with a text"),
    ],
)
def test_what_is_wrong_is_named(write, rows, message):
    with pytest.raises(InputError, match=message):
        read_scored_file(write(*rows))


@pytest.mark.parametrize(
    "row",
    [
        PLAIN | {"prediction": "\ud83d"},
        PLAIN | {"reference": ["谁", "\ud83d"]},
        PLAIN | {"source": "\ud83d"},
        OWN | {"predictions": [{"text": "\ud83d"}]},
    ],
)
def test_half_a_character_cannot_be_printed(write, row):
    with pytest.raises(InputError, match="line 1, field .*: holds half of a surrogate pair"):
        read_scored_file(write(json.dumps(row).encode()))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("p.csv", "id,prediction,reference,error\na,谁,谁？,\nb,,,too long\n"),
        ("p.json", json.dumps([PLAIN | {"id": "a"}, {"id": "b", "error": "too long"}], indent=1)),
    ],
)
def test_other_formats_of_files(tmp_path, name, content):
    (tmp_path / name).write_text(content, encoding="utf-8")
    file = read_scored_file(tmp_path / name)
    assert (file.pairs, file.failed) == ({"a": Pair("谁", ("谁？",))}, ["b"])


def test_all_accepted_formats_are_listed(write):
    with pytest.raises(InputError) as caught:
        read_scored_file(write({"a": 1}))
    for name in ("glm: ", "llama-factory: predict, label", "ms-swift: response, labels", "plain: prediction"):
        assert f"\n  {name}" in str(caught.value)


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.jsonl: cannot be read \(No such file"):
        read_scored_file(tmp_path / "nowhere.jsonl")


def test_predictions_of_our_own_are_read(write, tmp_path):
    """What `write_predictions` writes."""
    from glm.data.records import Record
    from glm.prediction.predictions import Prediction, Text, write_predictions

    record = Record("x", "甲乙丙", "乙", "谁？", "d.json, line 1")
    path = tmp_path / "own.jsonl"
    write_predictions(path, [Prediction(record, [Text("谁", -1.0, [])])])
    assert read_scored_file(path).pairs == {"x": Pair("谁", ("谁？",), "甲乙丙", "乙")}


def test_rows_without_a_reference_are_not_scored(tmp_path):
    """As predict.py scores them; a file without any is an error."""
    path = tmp_path / "p.jsonl"
    rows = [
        {"id": 1, "predictions": [{"text": "甲"}], "reference": "甲"},
        {"id": 2, "predictions": [{"text": "乙"}]},
        {"id": 3, "predictions": [{"text": "丙"}], "reference": None},
        {"id": 4, "predictions": [], "error": "bad"},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    file = read_scored_file(path)
    assert (list(file.pairs), file.unscored, file.failed, file.rows) == ([1], [2, 3], [4], 4)
    assert file.notes() == [
        f"{path}: 1 of 4 records failed and are not scored",
        f"{path}: 1 of 4 records has a reference; the scores are of these",
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows[1:]))
    with pytest.raises(InputError, match="line 1: no field reference: nothing to score against"):
        read_scored_file(path)
