"""Templates: the text frame of DuReaderQG, and that records cannot break out of it."""

import pytest

from glm.command_tokens import COMMAND_TOKENS
from glm.data.records import Record
from glm.data.templates import TEMPLATES, Template, find_template
from glm.errors import InputError


def record_of(context: str, answer: str) -> Record:
    return Record(1, context, answer, None, "data.json, line 1")


def test_dureader_qg():
    template = find_template("dureader_qg")
    text = template.source_text(record_of("白鹿湖在松江。", "松江"), "白鹿湖在松江。")
    assert text == "答案：松江，上下文：白鹿湖在松江。"
    assert template.target_prefix == "在已知答案的前提下，问题："


def test_the_context_given_is_used_and_not_the_records():
    text = find_template("dureader_qg").source_text(record_of("很长的一段话", "长"), "长的")
    assert text == "答案：长，上下文：长的"


@pytest.mark.parametrize("text", ["{", "}", "{answer}", "{context}", "{0}", "%s", "\\n", "[gMASK]"])
def test_text_is_no_part_of_the_frame(text):
    assert find_template("dureader_qg").source_text(record_of("", text), text) == f"答案：{text}，上下文：{text}"


def test_only_the_blank_at_the_end_is_taken_off():
    template = Template(source="{context}[gMASK]？{answer}[gMASK]", target_prefix="")
    assert template.source_text(record_of("", "乙"), "甲") == "甲[gMASK]？乙"


@pytest.mark.parametrize("name", list(TEMPLATES))
def test_every_template_has_one_blank_at_its_end(name):
    template = TEMPLATES[name]
    assert template.source.endswith("[gMASK]")
    assert sum(template.source.count(command) for command in COMMAND_TOKENS) == 1
    assert not any(command in template.target_prefix for command in COMMAND_TOKENS)
    assert "{answer}" in template.source and "{context}" in template.source


@pytest.mark.parametrize("name", ["dureader", "", "DUREADER_QG"])
def test_unknown_task(name):
    with pytest.raises(InputError) as caught:
        find_template(name)
    assert str(caught.value) == f"task_name {name}: unknown; known tasks: dureader_qg"
