"""Columns: every layout people's files have, what the user names, and what is refused as it could be otherwise."""

import json

import pytest

from glm.data.columns import RECOGNISED, ColumnOptions, Columns, choose_columns
from glm.data.records import Record, read_records
from glm.data.templates import find_template, own_template
from glm.errors import InputError

QG, PAIR = find_template("question_generation"), find_template("pair")


def choose(present: str, template=PAIR, wishes=RECOGNISED, *, need_target=True) -> Columns:
    return choose_columns(present.split(), template, wishes, name="a.json", need_target=need_target)


@pytest.mark.parametrize(
    ("present", "template", "source", "answer", "target"),
    [
        ("id context answer question", QG, "context", "answer", "question"),
        ("source title target", QG, "source", "title", "target"),
        ("context answer question", PAIR, "context", None, "question"),
        ("source title target", PAIR, "source", None, "target"),
        ("source target", PAIR, "source", None, "target"),
        ("src tgt", PAIR, "src", None, "tgt"),
        ("instruction input output", PAIR, "instruction input", None, "output"),
        ("instruction output", PAIR, "instruction", None, "output"),
        ("query response history", PAIR, "query", None, "response"),
        ("content summary", PAIR, "content", None, "summary"),
        ("context answer question title", QG, "context", "answer", "question"),
        ("source answer target", QG, "source", "answer", "target"),  # mixed
    ],
)
def test_layouts(present, template, source, answer, target):
    expected = Columns(tuple(source.split()), (answer,) if answer else None, (target,))
    assert choose(present, template) == expected


def test_without_targets():
    assert choose("context answer", QG, need_target=False) == Columns(("context",), ("answer",), None)
    assert choose("query", need_target=False) == Columns(("query",), None, None)
    assert choose("source target", need_target=False) == Columns(("source",), None, ("target",))


def test_named_columns():
    wishes = ColumnOptions(source_column="en", target_column="de")
    assert choose("en de", wishes=wishes) == Columns(("en",), None, ("de",))
    assert choose("en target", wishes=ColumnOptions(source_column="en")) == Columns(("en",), None, ("target",))
    assert choose("a b target", wishes=ColumnOptions(source_column="a, b")).source == ("a", "b")
    wishes = ColumnOptions(source_column="context", target_column="target")
    assert choose("context source target question", wishes=wishes) == Columns(("context",), None, ("target",))


UNKNOWN = "a.json: no column is recognised as the {0}; name it with --{0}_column (columns: {1})"
BOTH = "a.json: no column is recognised as the source nor as the target; name them, e.g. {0} (columns: {1})"
NO_ANSWER = (
    "a.json: no column is recognised as the answer; name it with --answer_column, or take a template without {answer} "
    "(--task_name, --template) (columns: source, target)"
)
SEVERAL = "a.json: its columns can be read in more than one way; say which: {0}; or {1}"
NO_COLUMN = "{0}: no such column in a.json (columns: source, target)"


@pytest.mark.parametrize(
    ("present", "template", "wishes", "message"),
    [
        ("en de", PAIR, {}, BOTH.format("--source_column en --target_column de", "en, de")),
        ("src de", PAIR, {}, UNKNOWN.format("target", "src, de")),
        ("source target", QG, {}, NO_ANSWER),
        ("", PAIR, {}, BOTH.format("--source_column X --target_column Y", "none")),
        (
            "src tgt query response",
            PAIR,
            {},
            SEVERAL.format(
                "--source_column src --target_column tgt", "--source_column query --target_column response"
            ),
        ),
        (
            "en target output",
            PAIR,
            {"source_column": "en"},
            SEVERAL.format("--source_column en --target_column target", "--source_column en --target_column output"),
        ),
        (
            "src query other",
            PAIR,
            {},
            "a.json: more than one column can be the source; say which: --source_column query or --source_column src",
        ),
        ("source target", PAIR, {"source_column": "sorce"}, NO_COLUMN.format("source_column sorce")),
        ("source target", PAIR, {"target_column": "t"}, NO_COLUMN.format("target_column t")),
        (
            "source target",
            PAIR,
            {"answer_column": "source"},
            "answer_column source: the template has no field {answer}; leave it out",
        ),
    ],
)
def test_what_is_refused(present, template, wishes, message):
    with pytest.raises(InputError) as caught:
        choose(present, template, ColumnOptions(**wishes))
    assert str(caught.value) == message


def test_a_target_that_is_named_has_to_be_there_for_prediction_too():
    with pytest.raises(InputError) as caught:
        choose("context answer question", QG, ColumnOptions(target_column="questoin"), need_target=False)
    assert str(caught.value) == (
        "target_column questoin: no such column in a.json (columns: context, answer, question)"
    )


def test_what_a_model_was_trained_with_need_not_be_there():
    wishes = ColumnOptions("text", None, "keywords", inherited=frozenset({"source_column", "target_column"}))
    assert choose("text keywords", wishes=wishes) == Columns(("text",), None, ("keywords",))
    assert choose("text", wishes=wishes, need_target=False) == Columns(("text",), None, None)
    assert choose("source target", wishes=wishes) == Columns(("source",), None, ("target",))
    wishes = ColumnOptions("text", None, "keywords", inherited=frozenset({"target_column"}))
    with pytest.raises(InputError, match="source_column text: no such column"):
        choose("source target", wishes=wishes)


def test_other_fields_of_a_template_are_columns():
    template = own_template("风格：{style}，正文：{source}[gMASK]")
    assert choose("source target style", template).extras == ("style",)
    with pytest.raises(
        InputError, match=r"template: its field style is no column of a.json \(columns: source, target\)"
    ):
        choose("source target", template)


def test_the_only_field_of_a_template_is_a_column_if_there_is_one():
    template = own_template("关键词：{keywords}[gMASK]")
    assert choose("keywords target", template) == Columns(("keywords",), None, ("target",))
    assert choose("keywords source target", template) == Columns(("keywords",), None, ("target",))
    assert choose("source target", template) == Columns(("source",), None, ("target",))
    wishes = ColumnOptions(source_column="source")
    assert choose("keywords source target", template, wishes) == Columns(("source",), None, ("target",))


def test_in_words():
    assert str(choose("instruction input output")) == "source = instruction + input, target = output"
    template = own_template("{style}{answer}{source}[gMASK]")
    assert str(choose("source title target style", template)) == (
        "source = source, answer = title, target = target, style = style"
    )


# -- the records that come of it


@pytest.fixture
def write(tmp_path):
    def write(*rows: dict):
        path = tmp_path / "a.json"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return write


def test_several_columns_are_joined_by_line_breaks(write):
    path = write(
        {"instruction": "改写", "input": "甲", "output": "乙"},
        {"instruction": "写诗", "input": "", "output": "丙"},
        {"instruction": "写信", "output": "丁"},
    )
    assert [record.source for record in read_records(path, PAIR)] == ["改写\n甲", "写诗", "写信"]
    path = write({"instruction": " ", "input": "", "output": "丙"})
    with pytest.raises(InputError, match="line 1, field instruction and input: empty"):
        read_records(path, PAIR)


def test_extra_fields_are_checked_as_others_are(write):
    template = own_template("{style}：{source}[gMASK]")
    path = write({"source": "甲", "target": "乙", "style": "丙"})
    assert read_records(path, template) == [Record(1, "甲", None, "乙", f"{path}, line 1", {"style": "丙"})]
    with pytest.raises(InputError, match="line 1, field style: empty"):
        read_records(write({"source": "甲", "target": "乙", "style": ""}), template)


def test_columns_are_those_of_the_first_rows_together(write):
    path = write({"instruction": "甲", "output": "乙"}, {"instruction": "丙", "input": "丁", "output": "戊"})
    assert [record.source for record in read_records(path, PAIR)] == ["甲", "丙\n丁"]


TITLE, SUMMARY = find_template("title"), find_template("summary")


@pytest.mark.parametrize(
    ("present", "template", "source", "answer", "target"),
    [
        ("content title", TITLE, "content", None, "title"),
        ("id abst title keyword", TITLE, "abst", None, "title"),
        ("source title", TITLE, "source", None, "title"),
        ("text headline", TITLE, "text", None, "headline"),
        ("content title summary", TITLE, "content", None, "title"),
        ("content title summary", SUMMARY, "content", None, "summary"),
        ("content title", SUMMARY, "content", None, "title"),
        ("text summary", SUMMARY, "text", None, "summary"),
        ("article summary", SUMMARY, "article", None, "summary"),
        ("document summary", SUMMARY, "document", None, "summary"),
        ("id article highlights", SUMMARY, "article", None, "highlights"),
        ("dialogue summary", SUMMARY, "dialogue", None, "summary"),
        ("原文 摘要", SUMMARY, "原文", None, "摘要"),
        ("source title target", SUMMARY, "source", None, "target"),
        ("prompt response", PAIR, "prompt", None, "response"),
        ("prompt completion", PAIR, "prompt", None, "completion"),
        ("input output", PAIR, "input", None, "output"),
        ("question answer", PAIR, "question", None, "answer"),
        ("sentence1 sentence2 label", PAIR, "sentence1", None, "sentence2"),
        ("question answer passage", QG, "passage", "answer", "question"),
        ("title paragraph question answer", QG, "paragraph", "answer", "question"),
        ("问题 答案 正文", QG, "正文", "答案", "问题"),
        ("Content SUMMARY", SUMMARY, "Content", None, "SUMMARY"),
        ("Question Answer Passage", QG, "Passage", "Answer", "Question"),
    ],
)
def test_names_of_public_data_sets(present, template, source, answer, target):
    assert choose(present, template) == Columns((source,), (answer,) if answer else None, (target,))


@pytest.mark.parametrize("need_target", [True, False])
@pytest.mark.parametrize("wish", ["content", " content ", "CONTENT", "\ufeffContent"])
def test_blanks_and_capitals_are_no_obstacle(wish, need_target):
    present = [" content ", "Target"]
    wishes = ColumnOptions(source_column=wish, target_column="target")
    found = choose_columns(present, PAIR, wishes, name="a.json", need_target=need_target)
    assert found == Columns((" content ",), None, ("Target",))


def test_names_that_differ_in_capitals_alone_are_apart():
    assert choose("Text text summary", SUMMARY).source == ("text",)
    with pytest.raises(InputError, match="no such column"):
        choose("Text TEXT summary", SUMMARY, ColumnOptions(source_column="text"))


def test_sources_of_a_task_that_can_be_more_than_one():
    with pytest.raises(InputError, match="--source_column content --target_column title; or --source_column abst"):
        choose("content abst title", TITLE)


def test_columns_that_predictions_keep():
    assert choose("source target Url", wishes=ColumnOptions(keep_columns="url, target")).kept == ("Url", "target")
    assert choose("source target url", wishes=ColumnOptions(keep_columns="all")).kept == ("source", "target", "url")
    with pytest.raises(InputError, match=r"keep_columns urls: no such column in a.json \(columns: source, target\)"):
        choose("source target", wishes=ColumnOptions(keep_columns="source,urls"))


@pytest.mark.parametrize(
    ("present", "task", "source", "target"),
    [
        ("news headline", "title", "news", "headline"),
        ("body headlines", "title", "body", "headlines"),
        ("document abstract", "summary", "document", "abstract"),
        ("article abstract title", "title", "article abstract", "title"),
        ("source_text target_text", "pair", "source_text", "target_text"),
        ("input_text target_text", "pair", "input_text", "target_text"),
        ("sentence paraphrase", "pair", "sentence", "paraphrase"),
        ("review_body review_title", "pair", "review_body", "review_title"),
    ],
)
def test_more_columns_of_public_data_sets(present, task, source, target):
    if " " in source:  # both could be it
        with pytest.raises(InputError, match="--source_column"):
            choose(present, find_template(task))
        return
    columns = choose(present, find_template(task))
    assert (columns.source, columns.target) == ((source,), (target,))


def test_short_names_of_question_generation():
    columns = choose("para ans ques", QG)
    assert (columns.source, columns.answer, columns.target) == (("para",), ("ans",), ("ques",))


@pytest.mark.parametrize("blank", ["\xa0", "\u2003", "\u202f", "\u2060", "\u200e"])
def test_blanks_of_any_width_around_a_name(blank):
    columns = choose_columns([f"{blank}Content", f"summary{blank}"], PAIR, RECOGNISED, name="a", need_target=True)
    assert (columns.source, columns.target) == ((f"{blank}Content",), (f"summary{blank}",))


@pytest.mark.parametrize("name", ["reference", "references"])
def test_a_file_of_predictions_is_predicted_again(name):
    assert choose(f"id source answer {name} predictions", QG).target == (name,)
    assert choose(f"passage answer question {name}", QG).target == ("question",)
    assert choose(f"source {name}").target == (name,)
