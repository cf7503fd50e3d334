"""Templates: the built-in ones, those of users, and that records cannot break out of them."""

from dataclasses import replace

import pytest

from glm.data.templates import TEMPLATES, Template, find_template, own_template
from glm.errors import InputError
from glm.models.glm import FAMILY as GLM
from glm.models.glm.tokenization import COMMAND_TOKENS


def test_dureader_qg():
    template = find_template("dureader_qg")
    assert template.texts("白鹿湖在松江。", answer="松江") == ["答案：松江，上下文：白鹿湖在松江。", ""]
    assert template.target_prefix == "在已知答案的前提下，问题："
    assert find_template("question_generation") == template


@pytest.mark.parametrize("text", ["{", "}", "{answer}", "{context}", "{0}", "%s", "\\n", "[gMASK]"])
def test_text_is_no_part_of_the_frame(text):
    assert find_template("dureader_qg").texts(text, answer=text) == [f"答案：{text}，上下文：{text}", ""]


@pytest.mark.parametrize("name", list(TEMPLATES))
def test_built_in_templates_are_such_as_users_may_write(name):
    template = TEMPLATES[name]
    own = own_template(template.source, template.target_prefix)
    assert (own.source, own.target_prefix) == (template.source, template.target_prefix)
    blank, extras = ("[gMASK]", ()) if template.summaries is None else ("[sMASK]", ("prompt",))
    assert template.source.endswith(blank) and template.blank == blank
    assert template.source_name in ("source", "context") and template.extra_names == extras
    assert sum(template.source.count(command) for command in COMMAND_TOKENS) == 1


@pytest.mark.parametrize("name", ["dureader", "", "DUREADER_QG"])
def test_unknown_task(name):
    with pytest.raises(InputError) as caught:
        find_template(name)
    known = "dureader_qg, question_generation, summary, title, advertisement, paraphrase, pair, ncls, ncls_multitask, "
    known += "lcsts, mt5_summary, mt, summarization, dialogue, qa, nlg"
    meant = "; did you mean dureader_qg?" if name else ""
    assert str(caught.value) == f"task_name {name}: unknown{meant}; known tasks: {known}"


def test_text_after_the_blank_and_other_blanks():
    template = own_template("{style}：[sMASK]正文：{source}")
    assert (template.blank, template.source_name, template.extra_names) == ("[sMASK]", "source", ("style",))
    assert template.texts("甲", extras={"style": "乙"}) == ["乙：", "正文：甲"]
    assert not template.needs_answer


def test_a_field_that_is_alone_is_the_source():
    template = own_template("关键词：{keywords}，文案：[gMASK]")
    assert template.source_name == "keywords" and template.extra_names == ()
    assert template.texts("甲") == ["关键词：甲，文案：", ""]


def test_braces_that_are_text():
    assert own_template("{{{source}}}[gMASK]").texts("甲") == ["{甲}", ""]


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("{source}", "one blank"),
        ("{source}[gMASK][gMASK]", "one blank"),
        ("{source}[MASK][sMASK]", "one blank"),
        ("{answer}[gMASK]", "call the text that may be cut {source}"),
        ("{a}{b}[gMASK]", "call the text that may be cut {source}"),
        ("{source}{context}[gMASK]", "call the text that may be cut {source}"),
        ("文本[gMASK]", "call the text that may be cut {source}"),
        ("{source[gMASK]", "a brace that is text is written twice|a field is a name"),
        ("{source}}[gMASK]", "a brace that is text is written twice"),
        ("{}[gMASK]", "a field is a name in braces and nothing else"),
        ("{0}[gMASK]", "a field is a name in braces and nothing else"),
        ("{source.__class__}[gMASK]", "a field is a name in braces and nothing else"),
        ("{source!r}[gMASK]", "a field is a name in braces and nothing else"),
        ("{source:>9}[gMASK]", "a field is a name in braces and nothing else"),
    ],
)
def test_templates_that_cannot_be_used(source, reason):
    with pytest.raises(InputError, match=reason) as caught:
        own_template(source)
    assert str(caught.value).startswith(f"template {source}: ")


@pytest.mark.parametrize(
    ("source", "opening", "reason"),
    [
        ("[CLS]{source}[gMASK]", "", r"template .*: one blank and no other command token \(\[CLS\]\)"),
        ("{source}[gMASK]", "问[MASK]", r"target_prefix 问\[MASK\]: holds a command token"),
        ("{source}[tMASK]", "", r"template .*: \[tMASK\] is no blank of GLM; use \[MASK\], \[sMASK\], \[gMASK\]"),
    ],
)
def test_what_a_family_cannot_lay_out(source, opening, reason):
    with pytest.raises(InputError, match=reason):
        own_template(source, opening).check(GLM)


def test_a_family_without_blanks_writes_behind_its_source():
    plain = replace(GLM, title="Plain", blanks=(), reserved=())
    own_template("正文：{source}，摘要：[gMASK]").check(plain)
    with pytest.raises(InputError, match=r"Plain writes behind its source; put \[gMASK\] last"):
        own_template("{source}[gMASK]。").check(plain)


def test_the_template_is_a_value():
    assert Template("{source}[gMASK]") == Template("{source}[gMASK]", "") != Template("{source}[gMASK]", "问")


def test_a_misspelt_task():
    with pytest.raises(
        InputError, match=r"task_name sumary: unknown; did you mean summary\?; known tasks: dureader_qg"
    ):
        find_template("sumary")
    with pytest.raises(InputError, match="task_name zzz: unknown; known tasks"):
        find_template("zzz")
