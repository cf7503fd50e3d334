"""Layouts: SQuAD's articles and conversations become rows of columns, or an error that says what they are."""

import json

import pytest

from glm.data.columns import ColumnOptions
from glm.data.records import BadRecord, RecordFile, read_records, stream_records
from glm.data.templates import find_template
from glm.errors import InputError

PAIR = find_template("pair")


@pytest.fixture
def write(tmp_path):
    """A function: the path of a file with this value as JSON, or with these rows as its lines."""

    def write(value, *, indent=None):
        path = tmp_path / "a.json"
        lines = value if isinstance(value, tuple) else (value,)
        path.write_text("\n".join(json.dumps(line, ensure_ascii=False, indent=indent) for line in lines), "utf-8")
        return path

    return write


def article(*questions, context="白鹿湖在松江。", **more) -> dict:
    return {"title": "湖", "paragraphs": [{"context": context, "qas": list(questions), **more}]}


def asked(number: int, **changes) -> dict:
    answers = [{"text": "松江", "answer_start": 4}, {"text": "松", "answer_start": 4}]
    return {"id": f"q{number}", "question": f"第{number}问？", "answers": answers} | changes


@pytest.mark.parametrize("indent", [None, 1])
def test_articles_of_squad(write, indent):
    articles = [article(asked(1), asked(2)), article(asked(3), context="松江有河。")]
    records = read_records(write({"version": "v1.0", "data": articles}, indent=indent))
    assert [(r.id, r.source, r.answer, r.target) for r in records] == [
        ("q1", "白鹿湖在松江。", "松江", "第1问？"),
        ("q2", "白鹿湖在松江。", "松江", "第2问？"),
        ("q3", "松江有河。", "松江", "第3问？"),
    ]
    assert records[2].origin.endswith("data 2, paragraph 1, question 1")
    assert [(r.id, r.target) for r in read_records(write(tuple(articles)))] == [(r.id, r.target) for r in records]
    assert len(read_records(write(articles))) == 3


def test_the_first_form_of_cmrc(write):
    question = {"query_id": "TRIAL_1", "query_text": "在哪里？", "answers": ["松江", "松江县"]}
    value = [{"context_id": "T", "context_text": "白鹿湖在松江。", "qas": [question], "title": "湖"}]
    (record,) = read_records(write(value))
    assert (record.id, record.source, record.answer, record.target) == (
        "TRIAL_1",
        "白鹿湖在松江。",
        "松江",
        "在哪里？",
    )


@pytest.mark.parametrize(
    "answers", [{"text": ["松江", "松"], "answer_start": [4, 4]}, [{"text": "松江"}], ["松江"], {"text": "松江"}]
)
def test_answers_of_a_flat_row(write, answers):
    (record,) = read_records(write(({"context": "白鹿湖在松江。", "question": "在哪里？", "answers": answers},)))
    assert record.answer == "松江"


def test_what_is_wrong_in_an_article_is_that_row_alone(write):
    value = [article(asked(1, answers=[]), "bad", asked(2), asked(3, question=7)), {"paragraphs": [{"context": "甲"}]}]
    found = list(RecordFile(write(value)))
    assert [isinstance(item, BadRecord) for item in found] == [True, True, False, True, True]
    for item, message in zip(
        found, ("answer: empty", "str where a q", "", "int where text", "no list of q"), strict=True
    ):
        assert message in getattr(item, "error", "")
    assert "paragraph 1, question 1" in found[0].error


# -- conversations


def openai(*turns) -> dict:
    return {"messages": [{"role": role, "content": text} for role, text in turns]}


def sharegpt(*turns) -> dict:
    names = {"user": "human", "assistant": "gpt"}
    return {"conversations": [{"from": names.get(role, role), "value": text} for role, text in turns]}


@pytest.mark.parametrize("layout", [openai, sharegpt])
def test_one_turn_is_a_pair(write, layout):
    path = write((layout(("user", "甲"), ("assistant", "乙")), layout(("user", "丙"), ("assistant", "丁"))))
    assert [(r.source, r.target) for r in read_records(path, PAIR)] == [("甲", "乙"), ("丙", "丁")]
    path = write([layout(("user", "甲"), ("assistant", "乙")) | {"id": 7}])
    assert [(r.id, r.source) for r in read_records(path, PAIR)] == [(7, "甲")]
    (record,) = stream_records([json.dumps(layout(("user", "甲"))).encode()], PAIR, name="f", need_target=False)
    assert (record.source, record.target) == ("甲", None)


MORE = [
    ([("system", "你是"), ("user", "甲"), ("assistant", "乙")], "a system text", ("甲", "乙")),
    ([("user", "甲"), ("assistant", "乙"), ("user", "丙"), ("assistant", "丁")], "2 turns", ("丙", "丁")),
    ([("user", "甲"), ("assistant", "乙"), ("user", "丙")], "2 turns", ("丙", None)),
    ([("user", "甲"), ("tool", "x"), ("assistant", "乙")], "turns of user, tool, assistant", ("甲", None)),
]


@pytest.mark.parametrize(("turns", "found", "last"), MORE)
@pytest.mark.parametrize("layout", [openai, sharegpt])
def test_more_than_one_turn(write, layout, turns, found, last):
    good = layout(("user", "戊"), ("assistant", "己"))
    path = write((good, layout(*turns)))
    _, bad = RecordFile(path, PAIR)
    assert bad.error.startswith(f"{path}, line 2, field {next(iter(good))}: {found}, and a pair is one turn")
    assert "--multi_turn last" in bad.error
    *_, record = read_records(path, PAIR, wishes=ColumnOptions(multi_turn="last"), need_target=False)
    assert (record.source, record.target) == last


@pytest.mark.parametrize("turns", [[], ["甲"], [{"role": "assistant", "content": "甲"}], [{"role": "user"}]])
def test_conversations_that_are_none(write, turns):
    good = openai(("user", "戊"), ("assistant", "己"))
    for mode in ("error", "last"):
        _, bad = RecordFile(write((good, {"messages": turns})), PAIR, ColumnOptions(multi_turn=mode))
        assert isinstance(bad, BadRecord) and "line 2" in bad.error


@pytest.mark.parametrize(
    ("more", "field"), [({"history": [["甲", "乙"]]}, "history"), ({"system": "你是助手"}, "system")]
)
def test_history_beside_an_instruction(write, more, field):
    row = {"instruction": "写", "input": "甲", "output": "乙"}
    path = write((row | {"history": [], "system": ""}, row | more))
    good, bad = RecordFile(path, PAIR)
    assert good.source == "写\n甲" and f"line 2, field {field}: is not empty" in bad.error
    assert len(read_records(path, PAIR, wishes=ColumnOptions(multi_turn="last"))) == 2


def test_a_layout_that_is_a_template_s_own_columns(write):
    with pytest.raises(InputError, match="no column is recognised as the answer"):
        read_records(write((openai(("user", "甲"), ("assistant", "乙")),)))


@pytest.mark.parametrize(
    "turn",
    [
        {"human": "甲？", "assistant": "乙。"},  # Firefly
        {"system": "", "input": "甲？", "output": "乙。"},  # XTuner
        {"question": "甲？", "answer": "乙。"},
    ],
)
def test_turns_that_hold_question_and_answer(write, turn):
    (record,) = read_records(write({"conversation": [turn]}), PAIR)
    assert (record.source, record.target) == ("甲？", "乙。")
    with pytest.raises(InputError, match="field conversation: 2 turns, and a pair is one turn"):
        read_records(write({"conversation": [turn, turn]}), PAIR)
    if "system" in turn:
        with pytest.raises(InputError, match="field conversation: a system text"):
            read_records(write({"conversation": [turn | {"system": "你是助手"}]}), PAIR)


def test_the_parts_of_a_turn_are_one_text(write):
    def row(*parts):
        return {"messages": [{"role": "user", "content": list(parts)}, {"role": "assistant", "content": "乙。"}]}

    (record,) = read_records(write(row({"type": "text", "text": "甲"}, {"type": "text", "text": "乙？"})), PAIR)
    assert record.source == "甲\n乙？"
    with pytest.raises(InputError, match=r"field messages: a part of a turn is no text \(image_url\); take it out"):
        read_records(write(row({"type": "image_url", "image_url": {"url": "x"}})), PAIR)
