"""Punctuation: back to full width what stands beside Chinese characters, and nothing else."""

import unicodedata

import pytest

from glm.data.punctuation import count_marks, to_full_width


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("松江有多少人口?", "松江有多少人口？"),
        ("时间是3:15,地点:松江;对吗?!", "时间是3:15，地点：松江；对吗？！"),
        ("人口1,000万,面积3.5平方", "人口1,000万，面积3.5平方"),
        ("王维(701年-761年)是谁?", "王维（701年-761年）是谁？"),
        ("Python(3.11)是什么?", "Python(3.11)是什么？"),
        ("什么是DNA?", "什么是DNA？"),
        ("他说: “走”, 就走了...", "他说：“走”，就走了……"),
        ("a, b: c?", "a, b: c?"),
        ("10:30~11:30", "10:30~11:30"),
        ("在1999年,IBM公司", "在1999年，IBM公司"),
        ("", ""),
        ("甲)乙(", "甲）乙（"),
    ],
)
def test_marks(text, expected):
    assert to_full_width(text) == expected
    assert to_full_width(expected) == expected


@pytest.mark.parametrize(
    "text",
    ["扬州在哪里？", "他问：“谁（甲）来了？”", "第一，甲；第二，乙！", "3:15，还是4:20？", "《诗经》是谁写的……"],
)
def test_what_nfkc_takes_away_comes_back(text):
    assert to_full_width(unicodedata.normalize("NFKC", text)) == text


def test_counts():
    assert count_marks("甲，乙?丙, a,b") == (1, 2)
    assert count_marks("a, b?") == (0, 0)
