"""ROUGE against values worked by hand and against the packages called directly."""

import random
from functools import cache

import pytest
from rouge import Rouge

from glm.evaluation.rouge import best_rouge, lcs_length, ngrams, rouge, rouge_chinese
from glm.evaluation.segmentation import jieba_cut

# Texts that trip scorers, each in the place of a prediction and of a reference.
TRICKY = [
    "iPhone 15 Pro多少钱?",
    "ｉＰｈｏｎｅ１５多少钱？",
    "长3.5厘米.宽2.0厘米",
    "？！……。",
    "今天😀真好👨\u200d👩\u200d👧",
    "Hello, world. 你好.",
    "水",
    ". . 水",
    "北京大学\u3000在\n哪里 ",
    "第一段。\n\n第二段！”然后……再见\n",
    "他说：“好。”\n \n“不好……”",
]


def directly(prediction: str, reference: str) -> list[float]:
    """F of ROUGE-1/2/L of texts whose tokens are joined by blanks, by the package's public call."""
    (figures,) = Rouge().get_scores(prediction, reference)
    return [figures[name]["f"] for name in ("rouge-1", "rouge-2", "rouge-l")]


def random_text(generator: random.Random, *, alphabet: str = "甲乙丙丁戊a1 .😀") -> str:
    return "水" + "".join(generator.choices(alphabet, k=generator.randrange(40)))


def characters(text: str) -> list[str]:
    return [character for character in text if not character.isspace()]


@pytest.mark.parametrize(
    ("prediction", "reference", "expected"),
    [
        # precision 5/5, recall 5/6: F 10/11; bigrams 4/4, 4/5: 8/9; common subsequence 5 of 5, 5 of 6
        ("甲乙丙丁戊", "甲乙丙丁戊己", (10 / 11, 8 / 9, 10 / 11)),
        # same characters, no common bigram; longest common subsequence 2 of 4 (such as 甲丁)
        ("丙乙甲丁", "甲乙丙丁", (1, 0, 1 / 2)),
        # distinct n-grams count once: {哈 笑}, {哈哈 哈笑} against {哈笑}: 1/2, 1/1
        ("哈哈哈笑", "哈笑", (1, 2 / 3, 1)),
        # a dot ends a sentence and is no token: {甲 乙 丙}; the bigram 乙丙 spans the dot
        ("甲乙.丙", "甲乙丙", (1, 1, 1)),
        # ROUGE-L joins the matches of all sentence pairs: 丙 and 甲 乙 both count
        ("丙.甲乙", "甲乙丙", (1, 1 / 2, 1)),
        # a full stop does not end a sentence: 3 of 4 against 3 of 3; bigrams 甲乙 of {甲乙 乙。 。丙}, {甲乙 乙丙}
        ("甲乙。丙", "甲乙丙", (6 / 7, 2 / 5, 6 / 7)),
        ("？！", "甲乙", (0, 0, 0)),
        # no bigram in one character: ROUGE-2 is 0 even if it is right
        ("水", "水", (1, 0, 1)),
        ("水", "火", (0, 0, 0)),
    ],
)
def test_by_hand(prediction, reference, expected):
    # The package adds 1e-8 to the denominator of F, so its figures are below the fractions by less than 1e-8.
    assert rouge(prediction, reference) == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("text", ["", "."])
def test_texts_the_package_raises_on_score_0(text):
    for pair in ((text, "天地玄黄"), ("天地玄黄", text)):
        with pytest.raises(ValueError, match="empty"):
            directly(*(" ".join(side) for side in pair))
        assert rouge(*pair) == (0, 0, 0)


@pytest.mark.parametrize("segment", [characters, lambda text: [w for w in jieba_cut(text) if not w.isspace()]])
def test_equals_the_package_exactly(segment):
    generator = random.Random(1)
    pairs = [(prediction, reference) for prediction in TRICKY for reference in TRICKY]
    pairs += [(random_text(generator), random_text(generator)) for _ in range(200)]
    # Three characters only: many equally long common subsequences, so the choice among them shows.
    pairs += [
        (random_text(generator, alphabet="甲乙丙"), random_text(generator, alphabet="甲乙丙")) for _ in range(100)
    ]
    for prediction, reference in pairs:
        tokens = segment(prediction), segment(reference)
        assert list(rouge(*tokens)) == directly(*map(" ".join, tokens)), (prediction, reference)


def test_equals_the_package_on_the_longest_texts_it_takes():
    generator = random.Random(2)
    pair = ["".join(generator.choices("天地玄黄宇宙洪荒日月盈昃", k=300)) for _ in range(2)]
    assert list(rouge(*pair)) == directly(*map(" ".join, pair))


def test_long_texts():
    # 3,000 different characters; the prediction has the halves exchanged, so one bigram of 2,999 is new, one is lost,
    # and the longest common subsequence is one half. The package alone ends in a RecursionError.
    reference = "".join(chr(0x4E00 + i) for i in range(3000))
    prediction = reference[1500:] + reference[:1500]
    with pytest.raises(RecursionError):
        directly(" ".join(prediction[:1000]), " ".join(reference[1000:2000]))
    assert rouge(prediction, reference) == pytest.approx([1, 2998 / 2999, 1 / 2], abs=1e-8)
    assert rouge_chinese(prediction, reference) == pytest.approx([1, 2998 / 2999, 1 / 2], abs=1e-8)


def test_best_of_several_references():
    # Each figure has its own best: ROUGE-1 the shuffled reference (1), ROUGE-2 the other (甲乙 of 2 and 3: 2/5).
    references = ["丙乙甲", "甲乙丁戊"]
    shuffled, other = (rouge("甲乙丙", reference) for reference in references)
    assert (shuffled[1], other[0]) == pytest.approx((0, 4 / 7), abs=1e-8)
    assert best_rouge("甲乙丙", references) == pytest.approx((1, 2 / 5, 4 / 7), abs=1e-8)


def test_rouge_chinese_by_hand():
    # 哈 counts three times in ROUGE-L's lengths, once in ROUGE-1: common subsequence 2 of 4 and of 2
    assert rouge_chinese("哈哈哈笑", "哈笑") == pytest.approx((1, 2 / 3, 2 / 3), abs=1e-8)
    # a dot is a token, and ROUGE-L is of the whole texts: 甲乙 of 4 and 3
    assert rouge_chinese("丙.甲乙", "甲乙丙") == pytest.approx((6 / 7, 2 / 5, 4 / 7), abs=1e-8)


# By rouge_chinese 1.0.3 on jieba's words. The package is no requirement of the tests, for its wheel brings a second
# `rouge` that takes the place of the real one.
@pytest.mark.parametrize(
    ("prediction", "reference", "expected"),
    [
        ("长3.5厘米.宽2.0厘米", "长3.5厘米，宽2.0厘米", (0.8333333283333335, 0.6666666616666668, 0.8571428521428571)),
        # Where a sentence ends at a line break, an empty token counts.
        (
            "第一段。\n\n第二段！”然后……再见\n",
            "第一段。第二段。\n \n再见",
            (0.7142857096938776, 0.3749999953125, 0.5555555508024692),
        ),
        (
            "他说：“好。”\n \n“不好……”",
            "他说：好。\n不好。",
            (0.8235294069204152, 0.31578946903047095, 0.6666666619501135),
        ),
        ("今天 天气。  很好", "今天天气很好。", (0.6666666617283951, 0.2857142808163266, 0.4444444395061729)),
    ],
)
def test_rouge_chinese_equals_the_package(prediction, reference, expected):
    assert rouge_chinese(jieba_cut(prediction), jieba_cut(reference)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("text", ["", " ", "\n \n"])
def test_rouge_chinese_of_an_empty_text_is_0(text):
    assert rouge_chinese(jieba_cut(text), ["水"]) == rouge_chinese(["水"], jieba_cut(text)) == (0, 0, 0)


def test_lcs_length_equals_recursion():
    @cache
    def slow(left: str, right: str) -> int:
        if not left or not right:
            return 0
        if left[-1] == right[-1]:
            return slow(left[:-1], right[:-1]) + 1
        return max(slow(left[:-1], right), slow(left, right[:-1]))

    generator = random.Random(4)
    for _ in range(200):
        left, right = ("".join(generator.choices("甲乙丙", k=generator.randrange(9))) for _ in range(2))
        assert lcs_length(left, right) == slow(left, right)


def test_ngrams():
    assert ngrams("哈哈哈笑", 2) == {("哈", "哈"), ("哈", "笑")}
    assert ngrams("哈", 2) == ngrams("", 1) == set()
