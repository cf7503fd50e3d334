"""What is marked as copied, against a slow search for common runs."""

from itertools import product

import pytest

from glm.report.copied import copied_spans, found_span


def shown(spans) -> str:
    return "".join(f"[{text}]" if marked else text for text, marked in spans)


@pytest.mark.parametrize(
    ("text", "source", "expected"),
    [
        ("王维是哪个朝代的人？", "王维留下了名作，是唐代人。", "[王维]是哪个朝代的人？"),
        ("南京的面积和人口是多少？", "南京，简称宁，人口九百万。", "[南京]的面积和[人口]是多少？"),
        ("杭州有什么?", "扬州位于江苏。", "杭州有什么?"),  # single characters are no copy
        ("FIFA和fifa在哪年成立", "国际足联（FIFA）成立", "[FIFA]和[fifa]在哪年[成立]"),
        ("art 的意思", "start of party", "art 的意思"),  # a part of a word is no copy
        ("１９９８年", "于1998年出生", "[１９９８年]"),  # NFKC
        ("北 京市的", "北京市", "[北 京市]的"),
        ("唐代，诗人。", "他是唐代，诗人。", "[唐代，诗人]。"),  # ends with a word
        ("，唐代", "在，唐代", "，[唐代]"),  # and begins with one
        ("3岁", "3个", "3岁"),  # one digit is one character
        ("<b>扬州</b>", "扬州", "<b>[扬州]</b>"),
        ("唐代唐代", "唐代", "[唐代][唐代]"),
        ("", "唐代", ""),
        ("唐代", "", "唐代"),
        ("。。。", "。。。", "。。。"),
    ],
)
def test_worked_examples(text, source, expected):
    assert shown(copied_spans(text, source)) == expected


def test_longest_runs_from_the_left():
    """Every text of up to six of three characters, against trying all ends from the longest."""
    source = "甲乙丙乙甲"
    for size in range(7):
        for letters in product("甲乙丙", repeat=size):
            text, place, expected = "".join(letters), 0, ""
            while place < size:
                ends = (end for end in range(size, place + 1, -1) if text[place:end] in source)
                end = next(ends, None)
                expected += f"[{text[place:end]}]" if end else text[place]
                place = end or place + 1
            assert shown(copied_spans(text, source)) == expected


def test_nothing_is_lost():
    text = " a  b\n唐 代，x_y 𠀀𠀁\u200b"
    assert "".join(span.text for span in copied_spans(text, "唐代 x 𠀀𠀁")) == text


def test_the_first_occurrence_of_a_part():
    assert shown(found_span("甲乙甲", "甲")) == "[甲]乙甲"
    assert shown(found_span("甲乙", "丙")) == "甲乙"
    assert shown(found_span("甲乙", "")) == "甲乙"
