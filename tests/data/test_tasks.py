"""Tasks: the user's own templates and labels, and the forms in which published data come."""

import json

import pytest

from glm.data.columns import RECOGNISED
from glm.data.formats import Row
from glm.data.records import BadRecord
from glm.data.task_records import TaskFile, open_records, reader_of
from glm.data.task_table import TASKS, find_frame, in_language
from glm.data.tasks import CHOOSE, EXTRACT, Cut, blank_of, parse_labels, parse_parts
from glm.data.templates import Template
from glm.errors import InputError
from glm.evaluation.answers import ARTICLES
from glm.models.glm import FAMILY

TEMPLATE = "前提：{premise}假设：{hypothesis}由前提看，假设是对的吗？[MASK]。"
LABELS = "对=entailment,错=contradiction,可能=neutral"


def records(name, values, *, need_label=True, pattern=None):
    task = TASKS[name] if isinstance(name, str) else name
    reader = reader_of(task, RECOGNISED, pattern_id=pattern, need_label=need_label, reserved=FAMILY.reserved)
    return list(reader.records(Row(7, "data.json, line 7", values)))


def record(name, values, **how):
    (found,) = records(name, values, **how)
    assert not isinstance(found, BadRecord), found.error
    return found


def error(name, values, **how):
    (found,) = records(name, values, **how)
    assert isinstance(found, BadRecord)
    return found.error


def text(name, values, *, pattern=None, **how):
    """A record's text, parts separated by |."""
    parts = TASKS[name].pattern(pattern).parts_of(record(name, values, pattern=pattern, **how).values)
    return "|".join(part if isinstance(part, str) else part.text for part in parts)


# -- the user's own


def test_a_template_of_the_users_own():
    task = find_frame("dureader_qg", TEMPLATE, None, LABELS)
    assert (task.kind, dict(task.pattern(None).labels)) == (
        CHOOSE,
        {"entailment": "对", "contradiction": "错", "neutral": "可能"},
    )
    assert task.pattern(None).parts == (
        "前提：",
        Cut("{premise}", 0),
        "假设：",
        Cut("{hypothesis}", 1),
        "由前提看，假设是对的吗？",
        "[MASK]",
        "。",
    )
    found = record(task, {"premise": "下雨了。", "hypothesis": "天晴。", "label": "contradiction"})
    assert (found.labels, found.right) == (("entailment", "contradiction", "neutral"), (1,))


def test_a_word_without_a_label_is_its_own():
    assert parse_labels("是, 不是=no") == {"是": "是", "no": "不是"}
    assert parse_labels("是，不是＝no，也许＝maybe") == {"是": "是", "no": "不是", "maybe": "也许"}


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ("对", "at least two"),
        ("对=a,错=a", "stands twice"),
        ("对=a,对=b", "stands twice"),
        ("对=a,,错=b", "an empty pair"),
        ("=a,错=b", "has no word"),
    ],
)
def test_labels_that_cannot_be_used(labels, told):
    with pytest.raises(InputError, match=told):
        parse_labels(labels)


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("{premise}", "no blank"),
        ("{premise}[MASK]还是[MASK]", "more than one blank"),
        ("{premise}【MASK】", "no blank in it; one .*; 【MASK】 is text: its brackets are full-width"),
        ("[MASK]。", "no field"),
        ("{premise[MASK]", "premise"),
        ("{a.b}[MASK]", "a field is a name"),
        ("{0}[MASK]", "a field is a name"),
    ],
)
def test_templates_that_cannot_be_used(template, told):
    with pytest.raises(InputError, match=told):
        parse_parts(template)


def test_a_list_of_parts_in_a_file(tmp_path):
    path = tmp_path / "parts.json"
    path.write_text(json.dumps(["“", "{premise}", "”？", "[MASK]"]), encoding="utf-8")
    assert parse_parts(str(path)) == ("“", Cut("{premise}", 0), "”？", "[MASK]")
    assert parse_parts(path.read_text()) == parse_parts(str(path))
    for encoding in ("utf-8-sig", "utf-16"):  # as editors of Windows save it
        path.write_text('["{premise}", "[MASK]"]', encoding=encoding)
        assert parse_parts(str(path)) == (Cut("{premise}", 0), "[MASK]")
    path.write_text('{"parts": []}', encoding="utf-8")
    with pytest.raises(InputError, match="a list of texts is expected"):
        parse_parts(str(path))
    with pytest.raises(InputError, match="cannot be read as JSON"):
        parse_parts(str(tmp_path / "none.json"))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("no_such_task", None, None, None), "unknown; known tasks: dureader_qg.*cmrc2018"),
        (("ocnli", None, "开头", None), "target_prefix"),
        (("dureader_qg", None, None, "对=a,错=b"), "give the text with the blank too"),
        (("c3", None, None, "对=a,错=b"), "brings its candidates"),
        (("ocnli", None, None, "对=entailment,错=contradiction"), "no word for the label neutral"),
        (("cmrc2018", TEMPLATE, None, None), "a layout of its own"),
    ],
)
def test_frames_that_do_not_go_together(arguments, told):
    with pytest.raises(InputError, match=told):
        find_frame(*arguments)


def test_the_words_of_a_task_can_be_replaced():
    task = find_frame("ocnli", None, None, "是=entailment,否=contradiction,也许=neutral")
    assert dict(task.pattern(None).labels) == {"entailment": "是", "contradiction": "否", "neutral": "也许"}
    assert find_frame("dureader_qg", None, None, None) == find_frame("question_generation", None, None, None)


def test_a_pattern_that_a_task_does_not_have():
    with pytest.raises(InputError, match="pattern_id 9: pawsx has the patterns 0, 1, 2, 3, 4"):
        TASKS["pawsx"].pattern(9)


# -- published forms: what is read, and the text that is made of it

BUILT_IN = """xnli pawsx mnli copa rte cb boolq multirc wic wsc record race squad tnews ocnli cmnli afqmc cluewsc c3
chid cmrc2018 multichoice lambada""".split()


def test_the_built_in_tasks():
    assert set(BUILT_IN) <= set(TASKS)
    for task in TASKS.values():
        for pattern in task.patterns.values():
            if not callable(pattern.parts):
                assert blank_of(pattern.parts) in FAMILY.blanks


@pytest.mark.parametrize(
    ("name", "values", "want", "label"),
    [
        ("rte", {"premise": "P.", "hypothesis": "H.", "label": 0}, '"|H|" ?|[MASK]|,| "|P.|"', "entailment"),
        ("cb", {"premise": "P", "hypothesis": "H", "label": "neutral"}, '"|H|" ?|[MASK]|,| "|P|"', "neutral"),
        (
            "boolq",
            {"passage": "P.", "question": "is it", "label": True},
            "P.| Question:| is it|? Answer:|[MASK]|.",
            "true",
        ),
        (
            "wic",
            {"sentence1": "A", "sentence2": "B", "word": "w", "label": False},
            '"A" / "B"| Similar sense of "w"?|[MASK]|.',
            "false",
        ),
        ("mnli", {"premise": "P.", "hypothesis": "H.", "label": 2}, '"|P|" ?|[MASK]|, "|H.|"', "contradiction"),
        ("tnews", {"sentence": "标", "label": "108"}, "标题：|标|类别：|[MASK]", "108"),
        ("tnews", {"sentence": "标", "keywords": "词", "label": 106}, "标题：|标|关键词：|词|类别：|[MASK]", "106"),
        ("afqmc", {"sentence1": "甲", "sentence2": "乙", "label": "0"}, "甲|？|你是说|乙|？|[MASK]|。", "0"),
        (
            "ocnli",
            {"sentence1": "甲", "sentence2": "乙", "label": "neutral"},
            "前提：|甲|假设：|乙|由前提看，假设是对的吗？|[MASK]|。",
            "neutral",
        ),
    ],
)
def test_texts_with_labels(name, values, want, label):
    found = record(name, values)
    assert text(name, values) == want
    assert found.labels[found.right[0]] == label and found.target == label


@pytest.mark.parametrize(
    ("name", "values", "want", "words", "right"),
    [
        (
            "copa",
            {
                "premise": "It rained.",
                "question": "effect",
                "choice1": "I got wet.",
                "choice2": "I slept.",
                "label": 0,
            },
            '"| i got wet|" or "| i slept|"?|It rained|, so|[MASK]|.',
            (" i got wet", " i slept"),
            0,
        ),
        (
            "race",
            {"article": "A.", "question": "He is _ today.", "options": ["ill", "well"], "answer": "B"},
            "A.|He is |[MASK]| today.",
            ("ill", "well"),
            1,
        ),
        (
            "race",
            {"article": "A.", "question": "Who {is} it?", "options": ["a", "b"], "answer": "A"},
            "A.| Question:| Who {is} it?| Answer:|[MASK]",
            ("a", "b"),
            0,
        ),
        (
            "c3",
            {"context": ["男：早。", "女：早。"], "question": "几点？", "choice": ["早上", "晚上"], "answer": "早上"},
            "短文：|男：早。\n女：早。|问题：|几点？|答案：|[MASK]|。",
            ("早上", "晚上"),
            0,
        ),
        (
            "multichoice",
            {"inputs": "天空是[MASK]的。", "choices": ["蓝", "红"], "label": 1},
            "天空是|[MASK]|的。",
            ("蓝", "红"),
            1,
        ),
        ("multichoice", {"inputs": "问？", "choices": ["蓝", "红"], "label": "红"}, "问？|[MASK]|", ("蓝", "红"), 1),
        ("lambada", {"text": "He went home"}, "He went|[gMASK]", (" home",), 0),
    ],
)
def test_texts_with_candidates_of_their_own(name, values, want, words, right):
    found = record(name, values)
    assert text(name, values) == want
    assert (found.words, found.right) == (words, (right,))


def test_every_idiom_of_a_passage_is_a_question():
    values = {
        "content": "他#idiom1#，终于#idiom2#。",
        "candidates": ["坚持不懈", "如愿以偿", "半途而废"],
        "answers": {"#idiom1#": 0, "#idiom2#": 1},
    }
    first, second = records("chid", values)
    assert first.values == {"before": "他", "after": "，终于____。"} and first.right == (0,)
    assert second.values == {"before": "他____，终于", "after": "。"} and second.right == (1,)
    assert first.group == second.group and first.id != second.id


@pytest.mark.parametrize("cell", ['["蓝色", "红 色"]', "['蓝色', '红 色']", [" 蓝色 ", "红 色"]])
def test_a_list_in_a_cell(cell):
    """A table has no lists: JSON, or what pandas writes of one."""
    found = record("multichoice", {"inputs": "天空是", "choices": cell, "label": "1"})
    assert (found.words, found.right) == (("蓝色", "红 色"), (1,))
    asked = {"context": "甲来了。", "question": "谁？", "answers": "['甲', '乙']"}
    assert record("cmrc2018", asked).answers == ("甲", "乙")
    assert record("cmrc2018", {**asked, "answers": "[1]"}).answers == ("[1]",)


@pytest.mark.parametrize(("label", "right"), [("A", 0), ("b", 1), ("Ｂ", 1), ("红", 1), ("1", 1), (0, 0)])
def test_a_choice_is_named_by_number_text_or_letter(label, right):
    values = {"inputs": "天空是", "choices": ["蓝", "红"], "label": label}
    assert record("multichoice", values).right == (right,)
    assert record("multichoice", {**values, "choices": ["b", "a"], "label": "a"}).right == (1,)  # itself a choice
    assert "'C': is none of the choices" in error("multichoice", {**values, "label": "C"})


def test_race_and_c3_with_several_questions():
    values = {"article": "A", "questions": ["q1", "q2"], "options": [["a", "b"], ["c", "d"]], "answers": ["B", "A"]}
    assert [found.right for found in records("race", values)] == [(1,), (0,)]
    questions = [{"question": "问", "choice": ["甲", "乙"], "answer": "乙"}] * 2
    assert [found.right for found in records("c3", {"context": ["文"], "questions": questions})] == [(1,), (1,)]


def test_multirc_is_asked_answer_by_answer():
    answers = [{"text": "a", "label": 1}, {"text": "b", "label": 0}]
    values = {"passage": {"text": "P", "questions": [{"question": "q", "answers": answers}]}}
    found = records("multirc", values)
    assert [(one.target, one.group) for one in found] == [("1", "7.0"), ("0", "7.0")]
    assert [one.id for one in found] == ["7.0", "7.1"]
    assert [one.id for one in records("multirc", {**values, "idx": 3})] == ["3.0.0", "3.0.1"]


def test_record_asks_for_an_entity():
    values = {
        "passage": {"text": "Ann met Bob.", "entities": [{"start": 0, "end": 2}, {"start": 8, "end": 10}]},
        "qas": [{"query": "@placeholder met Bob.", "answers": [{"text": "Ann"}]}],
    }
    found = record("record", values)
    assert found.words == ("Ann", "Bob") and found.right == (0,)
    assert found.values["before"] == "" and found.values["after"] == " met Bob."


def test_wsc_marks_the_pronoun():
    values = {
        "text": "Ann told Bob that he won.",
        "target": {"span1_text": "Bob", "span2_text": "he", "span2_index": 4},
        "candidates": ["Ann", "Bob"],
        "label": False,
    }
    found = record("wsc", values)
    assert text("wsc", values).startswith("Ann told Bob that *he* won.| The pronoun '*he*' refers to|[MASK]|.")
    assert found.words == ("Bob", "Ann") and found.right == (1,)
    wrong = {**values, "target": {**values["target"], "span2_index": 3}}
    assert "line 7, field span2_index: word 3 of the text is 'that'" in error("wsc", wrong)


WSC = {"text": "Mark told Pete lies, which he put in.", "label": True, "idx": 4}
WSC["target"] = {"span1_text": "Mark", "span1_index": 0, "span2_text": "he", "span2_index": 5}


def test_wsc_as_it_is_published_has_no_candidates():
    """SuperGLUE's own file: the noun is right if it is what the model writes."""
    found = record("wsc", WSC)
    assert text("wsc", WSC).startswith("Mark told Pete lies, which *he* put in.|")
    assert (found.words, found.right, found.lone, found.equality, found.id) == (("Mark",), (0,), True, True, 4)
    wrong = record("wsc", {**WSC, "label": False})
    assert (wrong.right, wrong.equality) == ((), False)
    assert record("wsc", {**WSC, "label": None}, need_label=False).equality is None
    assert "field label: none in it" in error("wsc", {**WSC, "label": None})


def test_wsc_with_candidates_as_texts_or_objects():
    for candidates in (["Pete", "lies", "Pete"], [{"text": "Pete"}, {"text": "lies"}, {"text": "mark"}]):
        found = record("wsc", {**WSC, "candidates": candidates})
        assert (found.words, found.right, found.lone) == (("Mark", "Pete", "lies"), (0,), False)
    assert "field candidates: none but 'Mark'" in error("wsc", {**WSC, "candidates": ["Mark"]})


def test_c3_as_it_is_published(tmp_path):
    """A list of lists: the lines of a passage, its questions, an id."""
    asked = [
        {"question": "问一", "choice": ["甲", "乙"], "answer": "乙"},
        {"question": "问二", "choice": ["丙", "丁"], "answer": "丙"},
    ]
    path = tmp_path / "c3.json"
    path.write_text(
        json.dumps([[["男：早。", "女：早。"], asked, "1-1"], [["文"], asked[:1], "1-2"]]), encoding="utf-8"
    )
    found = list(open_records(path, TASKS["c3"]))
    assert [(one.id, one.values["question"], one.right) for one in found] == [
        ("1-1.0", "问一", (1,)), ("1-1.1", "问二", (0,)), ("1-2", "问一", (1,))
    ]  # fmt: skip
    assert found[0].values["context"] == "男：早。\n女：早。"


def test_ids_repeat_in_another_language_only(tmp_path):
    path = tmp_path / "qa.json"
    asked = {"id": "q", "context": "甲来了。", "question": "谁？", "answers": ["甲"]}
    rows = [{**asked, "lang": "zh"}, {**asked, "lang": "en"}, {**asked, "lang": "zh"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    first, second, third = open_records(path, TASKS["squad_v1"])
    assert (first.language, second.language) == ("zh", "en")
    assert third.error == f"{path}, line 3, field id: q is the id of another question in zh ({path}, line 1)"


def test_a_language_that_the_metric_has_no_rule_for():
    values = {"context": "c", "question": "q", "answers": ["c"], "lang": "fr"}
    assert "line 7, field lang: fr: the figures of mlqa have rules for en, es, hi, vi, de, ar, zh" in error(
        "mlqa", values
    )
    assert record("squad_v1", values).language == "fr"
    assert set(TASKS["mlqa"].languages) == set(ARTICLES)


def test_a_data_set_named_by_its_language():
    assert in_language(TASKS["squad_v1"], "el").language == "el"
    assert {in_language(TASKS["squad_v1"], name).language for name in ("zh", "zh-CN", "zh-Hans")} == {"zh"}
    assert in_language(TASKS["squad_v1"], "dev") == TASKS["squad_v1"]
    values = {"context": "c", "question": "q", "answers": ["c"]}
    assert "field lang: el" in error(in_language(TASKS["mlqa"], "el"), values)


def test_a_data_set_named_by_the_languages_of_passage_and_question():
    """As MLQA's files are called: the answer stands in the passage, so its language has the say."""
    assert in_language(TASKS["mlqa"], "zh-en").language == in_language(TASKS["mlqa"], "zh-zh").language == "zh"
    for name in ("zh-dev", "zh-en-de", "en2zh"):
        assert in_language(TASKS["mlqa"], name) == TASKS["mlqa"]


def test_tydiqa_says_the_language_in_its_ids():
    values = {"context": "c", "question": "q", "answers": ["c"], "id": "finnish-12-3"}
    assert record("tydiqa", values).language == "fi" and record("tydiqa", {**values, "id": "7"}).language == "en"


def test_cluewsc_wants_the_index_to_match_its_text():
    target = {"span1_text": "手机", "span1_index": 2, "span2_text": "它", "span2_index": 5}
    found = text("cluewsc", {"text": "我的手机响它响", "target": target, "label": "true"})
    assert found == "我的#手机#响*它*响|代词'*它*'|[MASK]|指#手机#."
    wrong = {**target, "span1_index": 1}
    told = error("cluewsc", {"text": "我的手机响它响", "target": wrong, "label": "true"})
    assert told == "data.json, line 7, field span1_index: the text there is '的手', not '手机'"


def test_squad_in_its_forms():
    asked = {"id": "q", "question": "谁？", "answers": [{"text": "甲", "answer_start": 0}]}
    article = {"title": "t", "paragraphs": [{"context": "甲来了。", "qas": [asked]}]}
    forms = [{"version": 1, "data": [article]}, article, article["paragraphs"][0]]
    forms.append(
        {"id": "q", "context": "甲来了。", "question": "谁？", "answers": {"text": ["甲"], "answer_start": [0]}}
    )
    for values in forms:
        found = record("cmrc2018", values)
        assert (found.id, found.answers, found.values["question"]) == ("q", ("甲",), "谁？")
    assert record("squad", {**forms[-1], "answers": {"text": []}}).answers == ()


def test_rows_on_which_nobody_agrees_are_left_out():
    assert records("ocnli", {"sentence1": "甲", "sentence2": "乙", "label": "-"}) == []


# -- what cannot be used

NLI = {"sentence1": "甲", "sentence2": "乙"}


@pytest.mark.parametrize(
    ("name", "values", "told"),
    [
        ("ocnli", {**NLI, "label": "maybe"}, "line 7, field label: 'maybe' is none of entailment"),
        ("ocnli", {**NLI}, "line 7, field label: none in it"),
        ("ocnli", {**NLI, "label": [1]}, "line 7, field label: list where a label is expected"),
        ("ocnli", {"sentence1": "甲", "label": "neutral"}, "no field hypothesis or sentence2 or text_b"),
        ("ocnli", {**NLI, "sentence1": 3, "label": "neutral"}, "field sentence1: int where text"),
        ("ocnli", {**NLI, "sentence1": " ", "label": "neutral"}, "field sentence1: empty"),
        ("ocnli", {**NLI, "sentence1": "a[MASK]", "label": "neutral"}, "command token [MASK]"),
        ("ocnli", {**NLI, "sentence1": "\ud800", "label": "neutral"}, "surrogate"),
        ("multichoice", {"inputs": "[MASK][MASK]", "choices": ["a", "b"], "label": 0}, "more than one [MASK]"),
        (
            "multichoice",
            {"inputs": "问", "choices": ["a", "b"], "label": 2},
            "field label: 2: the record has 2 choices",
        ),
        ("multichoice", {"inputs": "问", "choices": ["a", "b"], "label": "c"}, "none of the choices"),
        ("multichoice", {"inputs": "问", "choices": [], "label": 0}, "field choices: a list of texts"),
        ("multichoice", {"inputs": "问", "choices": ["a", 1], "label": 0}, "field choices[1]: int where text"),
        ("multichoice", {"inputs": "问", "choices": ["a", "[gMASK]"], "label": 0}, "command token"),
        ("race", {"article": "A", "question": "q", "options": ["a"], "answer": "Z"}, "the record has 1 choices"),
        ("copa", {"question": "why", "premise": "p", "choice1": "a", "choice2": "b"}, "neither cause nor effect"),
        ("chid", {"content": "没有成语", "candidates": ["a"], "answer": 0}, "field content: no #idiom# in it"),
        ("record", {"passage": {"text": "t", "entities": []}, "qas": [{"query": "no"}]}, "no @placeholder"),
        ("lambada", {"text": "word"}, "field text: one word"),
        ("squad", {"context": "c", "question": "q"}, "field answers: none in it"),
        ("squad", {"context": "c", "question": "q", "answers": 3}, "field answers: a text"),
    ],
)
def test_rows_that_cannot_be_used(name, values, told):
    message = error(name, values)
    assert told in message and "data.json, line 7" in message


def test_prediction_needs_no_label():
    assert record("ocnli", NLI, need_label=False).right == ()


# -- files


def test_a_file_of_questions(tmp_path):
    path = tmp_path / "data.json"
    lines = [{**NLI, "label": "neutral", "id": "a"}, {**NLI, "label": "x"}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    file = open_records(path, TASKS["ocnli"])
    assert isinstance(file, TaskFile)
    good, bad = file
    assert good.id == "a" and bad.id == 2 and f"{path}, line 2" in bad.error
    assert list(file) == [good, bad]  # read anew
    assert not isinstance(open_records(path, Template("{sentence1}[gMASK]"), need_target=False), TaskFile)


def test_the_label_column_can_be_named():
    reader = reader_of(TASKS["ocnli"], replace_target("gold"))
    (found,) = reader.records(Row(1, "f, line 1", {**NLI, "gold": "neutral"}))
    assert found.target == "neutral"
    (bad,) = reader.records(Row(1, "f, line 1", {**NLI, "label": "neutral"}))
    assert "field gold: no such field" in bad.error


def replace_target(name):
    from dataclasses import replace

    return replace(RECOGNISED, target_column=name)


def test_columns_that_a_task_names_itself():
    from dataclasses import replace

    with pytest.raises(InputError, match="source_column x: ocnli names its columns itself"):
        reader_of(TASKS["ocnli"], replace(RECOGNISED, source_column="x"))


def test_kinds():
    assert {task.kind for task in TASKS.values()} == {CHOOSE, EXTRACT}
