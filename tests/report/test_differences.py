"""How a text differs from its reference: values by hand, and what edits have to add up to."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm.report.differences import ADDED, MISSING, SAME, Edit, edits, nearest, similarity

TEXTS = st.text(st.sampled_from("甲乙丙 ab,1？?Ａ"), max_size=12)


@pytest.mark.parametrize(
    ("text", "reference", "expected"),
    [
        ("谁写了书?", "谁写了书？", 1.0),
        ("ABC", "a b c", 1.0),
        ("甲乙", "甲丙", 0.5),
        ("甲", "甲乙丙丁", 0.25),
        ("", "甲", 0.0),
        ("", "", 1.0),
    ],
)
def test_similarity(text, reference, expected):
    assert similarity(text, reference) == pytest.approx(expected)


def test_the_nearest_of_several_references():
    assert nearest("甲乙丙", ["丙", "甲乙", "乙丙"]) == ("甲乙", pytest.approx(2 / 3))


def test_words_are_whole():
    assert edits("谁写 this book", "谁写 that book") == [
        Edit(SAME, "谁写 "),
        Edit(MISSING, "that"),
        Edit(ADDED, "this"),
        Edit(SAME, " book"),
    ]


@given(TEXTS, TEXTS)
def test_edits_make_the_text_of_its_reference(text, reference):
    found = edits(text, reference)
    assert "".join(part for kind, part in found if kind != MISSING) == text
    kept = sum(len(part) for kind, part in found if kind != ADDED)
    assert kept == len(reference)
    assert all(part for _, part in found)
