"""The check of a file: every problem with its place, every row counted, lengths against a count by hand."""

import json
import random
from array import array
from collections import Counter

import pytest

from glm.data import check as check_module
from glm.data.check import FileCheck, check_file
from glm.data.columns import ColumnOptions
from glm.data.examples import EncodedRecord, ExampleEncoder
from glm.data.problems import Kind
from glm.data.records import BadRecord, RecordFile
from glm.data.report import FileReport
from glm.data.templates import find_template, own_template
from glm.errors import InputError
from glm.models.glm import FAMILY as GLM

GOOD = {"context": "白鹿湖在松江。", "answer": "松江", "question": "白鹿湖在哪里？"}


@pytest.fixture
def encoder(tokenizer):
    def make(*, src_length=60, tgt_length=40, **options) -> ExampleEncoder:
        template = find_template("dureader_qg")
        return ExampleEncoder(GLM, tokenizer, template, src_length=src_length, tgt_length=tgt_length, **options)

    return make


@pytest.fixture
def write(tmp_path):
    """A function: a file of rows (a dict, or a line as it is)."""

    def write(*rows: dict | str | bytes, name: str = "a.json"):
        lines = [row if isinstance(row, str | bytes) else json.dumps(row, ensure_ascii=False) for row in rows]
        (tmp_path / name).write_bytes(b"\n".join(x if isinstance(x, bytes) else x.encode() for x in lines))
        return tmp_path / name

    return write


def checked(path, encoder, **options) -> tuple[FileCheck, list[EncodedRecord | BadRecord]]:
    found, batches = check_file(RecordFile(path, reserved=GLM.reserved), encoder, **options)
    return found, [item for batch in batches for item in batch]


def problems(report: FileReport, path) -> dict[str, list[str]]:
    return {group.kind: [text.removeprefix(f"{path}, ") for text in group.first] for group in report.problems}


def test_every_problem_in_one_pass(write, encoder):
    path = write(
        GOOD,
        "not JSON",
        {**GOOD, "answer": 7},
        {**GOOD, "question": " "},
        {"context": "甲", "answer": "甲"},
        {**GOOD, "context": "甲[MASK]"},
        b'{"context": "\xd6\xd0"}',
        json.dumps({**GOOD, "context": "\ud800"}),
        {"context": "河" * 99, "answer": "河的北岸，" * 30, "question": "谁？"},
        {**GOOD, "question": "白鹿湖在哪里？" * 9},
        {**GOOD, "context": "白鹿湖\x00在\x1a松江。"},
        {**GOOD, "context": "白鹿湖在\ufffd松江。"},
        GOOD,
        {**GOOD, "id": 5, "context": "一。松江"},
        {**GOOD, "id": 5, "context": "二。松江"},
        {**GOOD, "id": "5", "context": "三。松江"},
    )
    found, items = checked(path, encoder())
    report = found.report()
    assert (report.read, report.used, report.refused) == (16, 7, 9)
    assert [isinstance(item, BadRecord) for item in items] == [n in range(1, 10) for n in range(16)]
    assert [item.error for item in items[1:10]] == [f"{path}, {text}" for text in (
        "line 2: not JSON (Expecting value, column 1); one JSON object per line is expected",
        "line 3, field answer: int where text is expected",
        "line 4, field question: empty",
        "line 5: no field question (fields: context, answer)",
        "line 6, field context: holds the command token [MASK]; take it out of the text",
        "line 7: not UTF-8 (byte 14); convert the file to UTF-8 (it may be GB18030)",
        "line 8, field context: holds half of a surrogate pair; escape whole characters",
        "line 9, field answer: does not fit into src_length 60",
        items[9].error.removeprefix(f"{path}, "),
    )]  # fmt: skip
    assert "line 10, field target: " in items[9].error and "tgt_length 40 has room for" in items[9].error
    assert problems(report, path) == {
        "cannot be parsed": [items[1].error.removeprefix(f"{path}, ")],
        "wrong type": ["line 3, field answer: int where text is expected"],
        "empty field": ["line 4, field question: empty"],
        "missing field": ["line 5: no field question (fields: context, answer)"],
        "command token": [items[5].error.removeprefix(f"{path}, ")],
        "wrong encoding": [items[6].error.removeprefix(f"{path}, ")],
        "half a surrogate pair": [items[7].error.removeprefix(f"{path}, ")],
        "source too long": ["line 9, field answer: does not fit into src_length 60"],
        "target too long": [items[9].error.removeprefix(f"{path}, ")],
        "control character": [
            "line 11, field context: holds the control character U+0000",
            "line 12, field context: holds the control character U+FFFD",
        ],
        "duplicate row": ["line 13: is line 1 once more"],
        "duplicate id": ["line 15, field id: is that of line 14 too"],
    }
    assert report.problem_count == 13
    for group in report.problems:
        assert group.count == len(group.first) and group.advice
        assert group.refused == (group.kind not in ("control character", "duplicate row", "duplicate id"))


def test_no_problem(write, encoder):
    report = checked(write(GOOD), encoder())[0].report()
    assert (report.problems, report.warnings, report.refused, report.unknown_rows) == ([], [], 0, 0)
    assert report.columns == "source = context, answer = answer, target = question"
    assert FileReport.from_dict(json.loads(json.dumps(report.as_dict()))) == report


def test_byte_order_mark(write, encoder):
    path = write(b"\xef\xbb\xbf" + json.dumps(GOOD).encode())
    report = checked(path, encoder())[0].report()
    assert (report.problems, report.used) == ([], 1)
    assert report.notes == [f"{path}: starts with a byte order mark, which is skipped"]
    assert report.notices()[1:] == [f"note: {report.notes[0]}"]


@pytest.mark.parametrize("text", ["甲\t乙", "甲\n乙", "甲\r\n乙", "甲\u3000乙", "甲\u2028乙", "甲\x85乙"])
def test_white_space_is_no_control_character(write, encoder, text):
    assert checked(write({**GOOD, "context": text}), encoder())[0].report().problems == []


def test_an_id_may_be_any_text(write, encoder):
    """Also half of a surrogate pair, which no text of a record may hold."""
    ids = ["\ud800", "\udfff", "\x00", "\ud800"]
    path = write(*(json.dumps({**GOOD, "id": name}) for name in ids))
    found, items = checked(path, encoder())
    assert [item.record.id for item in items] == ids
    assert (found.report().read, found.report().used) == (4, 4)


def test_many_problems_are_counted_and_some_are_kept(write, encoder):
    found, _ = checked(write(*["bad"] * 30, GOOD), encoder(), shown=4, most_refused=6)
    (group,) = found.report().problems
    assert (group.count, len(group.first), len(found.report().bad_rows)) == (30, 4, 6)


def test_reading_ends_early_where_too_much_is_refused(write, encoder, monkeypatch):
    monkeypatch.setattr(check_module, "BATCH", 5)
    path = write(*["bad"] * 95, *[{**GOOD, "id": n} for n in range(5)])
    found, items = checked(path, encoder(), most_refused=3)
    assert (len(items), found.report().read) == (15, 15)  # 15 > 3 + 10
    assert checked(path, encoder())[0].read == 100


def test_rows_of_two_files(write, encoder):
    train = checked(write(*[{**GOOD, "id": n, "context": f"松江{n}"} for n in range(5)]), encoder())[0]
    path = write({**GOOD, "context": "松江3"}, {**GOOD, "context": "松江7"}, {**GOOD, "context": "松江0"}, name="b")
    dev = checked(path, encoder())[0]
    dev.compare("train", train.row_hashes)
    assert problems(dev.report(), path) == {"row in two files": ["line 1: is in train too", "line 3: is in train too"]}


def test_repeated_values_against_a_plain_search():
    generator = random.Random(3)
    for size in (0, 1, 2, 50):
        values = array("Q", [generator.randrange(size) for _ in range(size)])
        plain = [(values.index(v), n) for n, v in enumerate(values) if v in values[:n]]
        assert list(check_module.repeated(values)) == plain


# -- lengths


def test_lengths_against_a_count_by_hand(write, encoder, tokenizer, sentences):
    rows = [{"context": text, "answer": text[:2], "question": text[:5]} for text in sentences[:40]]
    report = checked(write(*rows), encoder(src_length=200))[0].report()
    sources = [len(tokenizer.encode_text(f"答案：{row['answer']}，上下文：{row['context']}")) + 3 for row in rows]
    targets = [len(tokenizer.encode_text(row["question"])) for row in rows]
    opening = len(tokenizer.encode_text("在已知答案的前提下，问题："))
    for found, values in (
        (report.lengths["source"]["tokens"], sorted(sources)),
        (report.lengths["source"]["characters"], sorted(len(row["context"]) for row in rows)),
        (report.lengths["target"]["tokens"], sorted(targets)),
        (report.lengths["target"]["characters"], [5] * 40),
    ):
        expected = {"min": values[0], "median": values[19], "95 %": values[37], "99 %": values[39], "max": values[-1]}
        assert found == expected
    assert report.recommended == {
        "src_length": -(-max(sources) // 8) * 8,
        "tgt_length": -(-(max(targets) + opening + 1) // 8) * 8,
    }


def test_recommended_lengths_cut_no_target_and_refuse_no_row(write, encoder, sentences):
    path = write(*[{"context": text, "answer": text[:2], "question": text[:9]} for text in sentences])
    lengths = checked(path, encoder(src_length=500, tgt_length=100))[0].report().recommended
    report = checked(path, encoder(**lengths))[0].report()
    assert (report.refused, report.cut_targets) == (0, 0) and report.warnings == report.warnings[: report.cut_sources]
    with_less = encoder(src_length=lengths["src_length"], tgt_length=lengths["tgt_length"] - 8)
    assert checked(path, with_less)[0].report().refused > 0


def test_what_lengths_cut(write, encoder, tokenizer):
    long = {**GOOD, "context": "白鹿湖在松江。" + "水在零度结冰。" * 20}
    many = {**GOOD, "question": "白鹿湖在哪里？" * 9}
    path = write(GOOD, long, many)
    found = checked(path, encoder(src_length=40, allow_cut_targets=True))[0].report()
    uncut = len(tokenizer.encode_text(f"答案：松江，上下文：{long['context']}")) + 3
    assert (found.used, found.cut_sources, found.lost_tokens, found.cut_targets) == (3, 1, uncut - 40, 1)
    assert found.warnings == [
        f"{path}: 1 of 3 sources are longer than src_length 40 and are cut; they lose {uncut - 40} tokens or more",
        f"{path}: 1 of 3 targets do not fit into tgt_length 40 and are cut",
    ]


def test_minimum_longer_than_targets(write, encoder, tokenizer):
    path = write(GOOD, {**GOOD, "question": "白鹿湖在哪里？白鹿湖在哪里？"})
    one, two = (len(tokenizer.encode_text("白鹿湖在哪里？" * n)) for n in (1, 2))
    assert one < two
    (warning,) = checked(path, encoder(tgt_length=90, min_tgt_length=two))[0].report().warnings
    assert warning.startswith(
        f"{path}: 1 of 2 targets have fewer tokens than min_tgt_length {two} (median {one}): what is generated will"
    )
    (warning,) = checked(path, encoder(tgt_length=90, min_tgt_length=55))[0].report().warnings
    assert "2 of 2 targets have fewer tokens than min_tgt_length 55" in warning
    assert checked(path, encoder(tgt_length=90, min_tgt_length=one))[0].report().warnings == []


def test_unknown_pieces(write, encoder, tokenizer):
    path = write(GOOD, {**GOOD, "context": "龘在松江，䶮在松江，龘在松江。"}, {**GOOD, "question": "龘在哪里？"})
    report = checked(path, encoder())[0].report()
    assert (report.unknown_rows, Counter(report.unknown_pieces)) == (2, Counter({"龘": 3, "䶮": 1}))
    assert report.refused == 0


# -- how many may be refused


def report_of(write, encoder, *rows) -> FileReport:
    return checked(write(*rows), encoder(), most_refused=9)[0].report()


def test_require(write, encoder):
    good = report_of(write, encoder, GOOD)
    good.require(0)
    one = report_of(write, encoder, GOOD, "bad")
    one.require(1)
    with pytest.raises(InputError, match=r"^[^\n]*a\.json, line 2: not JSON[^\n]*$"):
        one.require(0)
    three = report_of(write, encoder, GOOD, "bad", {**GOOD, "answer": ""}, "bad")
    with pytest.raises(InputError) as caught:
        three.require(2)
    message = str(caught.value)
    assert "3 of the 4 rows read cannot be used, and max_bad_records is 2; `python -m glm check` lists all" in message
    assert all(text in message for text in ("line 2: not JSON", "line 3, field answer: empty", "line 4: not JSON"))
    with pytest.raises(InputError, match="none of its 2 rows can be used; the first: .*line 1, field answer: empty"):
        report_of(write, encoder, {**GOOD, "answer": ""}, "bad").require(2)


def test_kinds_have_advice():
    assert all(kind.advice for kind in Kind) and {kind for kind in Kind if kind.refuses} == set(Kind) - {
        Kind.CONTROL,
        Kind.MARK,
        Kind.INVISIBLE,
        Kind.NULL_WORD,
        Kind.DUPLICATE_ID,
        Kind.DUPLICATE_ROW,
        Kind.SHARED_ROW,
        Kind.SHORT,
        Kind.BOILERPLATE,
    }


# -- what exports and web pages leave


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        ("白\u200b鹿\u200c湖", "characters U+200B, U+200C"),
        ("\u2060白鹿\u2060湖", "character U+2060"),
        ("白鹿湖\u200e", "character U+200E"),
        ("\u202a白鹿湖\u202c", "characters U+202A, U+202C"),
        ("白\u00ad鹿湖", "character U+00AD"),
        ("白\u200d鹿湖", "character U+200D"),
    ],
)
def test_invisible_characters_are_named(write, encoder, text, codes):
    path = write({**GOOD, "question": f"{text}在哪里？"})
    report = checked(path, encoder())[0].report()
    assert problems(report, path) == {"invisible character": [f"line 1, field question: holds the invisible {codes}"]}
    assert report.used == 1


@pytest.mark.parametrize("emoji", ["👨\u200d👩\u200d👧", "❤\ufe0f\u200d🔥", "👩🏽\u200d🚀"])
def test_a_joiner_within_an_emoji_belongs_there(write, encoder, emoji):
    assert checked(write({**GOOD, "question": f"{emoji}？"}), encoder())[0].report().problems == []


@pytest.mark.parametrize("word", ["nan", "NaN", " NULL ", "None", "#N/A", r"\N", "<NA>", "#REF!", "n/a"])
def test_missing_values_that_became_words(tmp_path, encoder, word):
    path = tmp_path / "export.csv"
    path.write_text(f"passage_text,answer,question\n白鹿湖在松江。,松江,谁？\n白鹿湖。,湖,{word}\n", encoding="utf-8")
    file = RecordFile(path, wishes=ColumnOptions(source_column="passage_text"))
    found, batches = check_file(file, encoder())
    assert sum(map(len, batches)) == 2
    report = found.report()
    assert problems(report, path) == {
        "missing value as a word": [f"line 3, field question: is nothing but {word.strip()}"]
    }
    assert (report.used, report.refused) == (2, 0)


def test_a_word_among_others_is_no_missing_value(write, encoder):
    rows = [{**GOOD, "question": text} for text in ("None是什么？", "nan boy", "空")]
    assert checked(write(*rows), encoder())[0].report().problems == []


def test_a_cut_source_without_its_answer_is_a_warning(write, encoder):
    long = "白鹿湖在河的北岸。" * 20
    rows = [{**GOOD, "context": long, "answer": answer} for answer in ("云台山", "北岸", "青石镇")]
    report = checked(write(*rows), encoder())[0].report()
    assert report.cut_sources == 3
    assert any("2 of the sources that are cut do not hold their answer" in text for text in report.warnings)


def test_a_template_with_a_character_without_piece_is_a_warning(write, tokenizer):
    encoder = ExampleEncoder(GLM, tokenizer, own_template("😀{source}[gMASK]"), src_length=60, tgt_length=40)
    found, batches = check_file(RecordFile(write(GOOD), encoder.template), encoder)
    assert sum(map(len, batches)) == 1
    assert found.report().warnings == [
        "template: the tokenizer has no piece for 😀, which the model cannot tell apart"
    ]


def test_several_targets_count_in_what_makes_rows_equal(write, encoder):
    rows = [{**GOOD, "question": list(texts)} for texts in (("甲？", "乙？"), ("甲？", "丙？"), ("甲？", "乙？"))]
    path = write(*rows)
    found, batches = check_file(RecordFile(path, several_targets=True), encoder())
    assert sum(map(len, batches)) == 3
    assert problems(found.report(), path) == {"duplicate row": ["line 3: is line 1 once more"]}
