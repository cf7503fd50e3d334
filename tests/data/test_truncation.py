"""Cutting passages: the answer's own sentence stays, and no more is cut than must be."""

import random

import pytest

from glm.data.truncation import find_answer, shorten_context

FIVE = ["春天来了。", "他住在松江！", "水是什么？", "铁很重；", "火车开了。"]  # 5, 6, 5, 4 and 5 characters
PASSAGE = "".join(FIVE)


def at_most(length: int):
    return lambda text: len(text) <= length


@pytest.mark.parametrize(
    ("answer", "length", "expected"),
    [
        # the answer in the first sentence
        ("春天", 5, "春天来了。"),
        ("春天", 10, "春天来了。"),
        ("春天", 11, "春天来了。他住在松江！"),
        ("春天", 24, "春天来了。他住在松江！水是什么？铁很重；"),
        # in the middle: one sentence after, one before, in turn
        ("什么", 5, "水是什么？"),
        ("什么", 8, "水是什么？"),
        ("什么", 9, "水是什么？铁很重；"),
        ("什么", 13, "水是什么？铁很重；"),
        ("什么", 14, "水是什么？铁很重；火车开了。"),
        ("什么", 15, "他住在松江！水是什么？铁很重；"),
        ("什么", 20, "他住在松江！水是什么？铁很重；火车开了。"),
        # no room after it: before it only
        ("松江", 11, "他住在松江！水是什么？"),
        ("铁", 9, "铁很重；火车开了。"),
        # in the last
        ("火车", 5, "火车开了。"),
        ("火车", 9, "铁很重；火车开了。"),
        ("火车", 14, "水是什么？铁很重；火车开了。"),
        # across two sentences: both stay
        ("松江！水是", 11, "他住在松江！水是什么？"),
        ("松江！水是", 14, "他住在松江！水是什么？"),
        ("松江！水是", 15, "他住在松江！水是什么？铁很重；"),
        # up to the very end of its sentence
        ("松江！", 6, "他住在松江！"),
        # the first occurrence counts
        ("了", 6, "春天来了。"),
        # not in the passage: its start
        ("冬天", 5, "春天来了。"),
        ("冬天", 16, "春天来了。他住在松江！水是什么？"),
        # everything fits
        ("什么", 25, PASSAGE),
        ("冬天", 25, PASSAGE),
    ],
)
def test_whole_sentences(answer, length, expected):
    assert shorten_context(PASSAGE, answer, at_most(length)) == expected


def test_a_side_that_is_full_does_not_stop_the_other():
    # after "丁。" comes a sentence too long to add; the short ones before it still fit
    passage = "甲。乙。丙。丁。" + "长" * 30 + "。"
    assert shorten_context(passage, "丁", at_most(8)) == "甲。乙。丙。丁。"
    passage = "长" * 30 + "。甲。乙。丙。丁。"
    assert shorten_context(passage, "甲", at_most(8)) == "甲。乙。丙。丁。"


@pytest.mark.parametrize(
    ("answer", "length", "expected"),
    [
        ("45", 2, "45"),
        ("45", 3, "45"),  # as much before as after
        ("45", 4, "3456"),
        ("45", 6, "234567"),
        ("01", 4, "0123"),  # nothing before it: more after
        ("01", 5, "01234"),
        ("89", 5, "56789"),
        ("0123456789", 9, None),
        ("45", 1, None),
        ("99", 3, "012"),  # not in the passage: its start
        ("", 3, "012"),
    ],
)
def test_one_long_sentence_is_cut_around_the_answer(answer, length, expected):
    assert shorten_context("0123456789", answer, at_most(length)) == expected


def test_window_stays_within_the_sentence():
    passage = "前面的话。" + "0123456789" + "。后面的话。"
    assert shorten_context(passage, "12", at_most(6)) == "012345"
    assert shorten_context(passage, "12", at_most(7)) == "0123456"
    assert shorten_context(passage, "89", at_most(5)) == "6789。"
    assert shorten_context(passage, "89", at_most(7)) == "456789。"


def test_answer_across_two_long_sentences():
    passage = "0123456789。abcdefghij。"
    assert shorten_context(passage, "89。ab", at_most(9)) == "6789。abcd"
    assert shorten_context(passage, "89。ab", at_most(5)) == "89。ab"
    assert shorten_context(passage, "89。ab", at_most(4)) is None


FULL_WIDTH = str.maketrans("0123456789abc%", "０１２３４５６７８９ａｂｃ％")


@pytest.mark.parametrize(
    ("passage", "answer", "found"),
    [
        ("建于１９９９年。", "1999", "１９９９"),
        ("建于1999年。", "１９９９", "1999"),
        ("住在New York市", "NewYork", "New York"),
        ("住在NewYork市", "New  York", "NewYork"),
        ("气温３ ５℃左右", "35°C", "３ ５℃"),
        ("在扬\u200b州出生", "扬州", "扬\u200b州"),
        ("咖啡cafe\u0301馆", "caf\u00e9", "cafe\u0301"),
        ("製品ｶﾞｽです", "ガス", "ｶﾞｽ"),
        ("第一行\n第二行", "第一行第二行", "第一行\n第二行"),
        ("甲1999乙１９９９", "１９９９", "１９９９"),  # as it is written comes first
    ],
)
def test_an_answer_in_another_form_is_found(passage, answer, found):
    start, end = find_answer(passage, answer)
    assert passage[start:end] == found


@pytest.mark.parametrize(
    ("passage", "answer"), [("建于1999年", "2000"), ("", "甲"), ("甲", ""), ("甲", None), ("甲", "\u200b")]
)
def test_an_answer_that_is_not_there(passage, answer):
    assert find_answer(passage, answer) is None


@pytest.mark.parametrize("seed", range(5))
def test_the_sentence_of_an_answer_in_another_form_is_kept(seed):
    """As that of the same answer in the passage's own form."""
    generator = random.Random(seed)
    for _ in range(50):
        sentences = ["".join(generator.choices("甲乙丙丁戊己", k=8)) + "。" for _ in range(9)]
        answer = f"{generator.randrange(1000, 9999)}a%"
        own = answer.translate(FULL_WIDTH)
        sentences.insert(generator.randrange(9), f"建于{own}年。")
        passage = "".join(sentences)
        result = shorten_context(passage, answer, at_most(30))
        assert own in result and result == shorten_context(passage, own, at_most(30))


def test_closing_quotes_belong_to_their_sentence():
    passage = "他说：“我来了！”她说：“好。”大家都走了。"
    assert shorten_context(passage, "我来", at_most(9)) == "他说：“我来了！”"
    assert shorten_context(passage, "好", at_most(8)) == "她说：“好。”"


def test_runs_of_marks_end_one_sentence():
    assert shorten_context("真的吗？！！好。走吧。", "真", at_most(6)) == "真的吗？！！"


def test_line_ends_end_sentences():
    assert shorten_context("第一段\n第二段\n第三段", "第二段", at_most(4)) == "第二段\n"
    assert shorten_context("第一段\n第二段\n第三段", "三", at_most(3)) == "第三段"


def test_a_decimal_point_ends_no_sentence():
    assert shorten_context("重3.5千克。长二米。", "5", at_most(6)) == "3.5千克"
    assert shorten_context("重3.5千克。长二米。", "5", at_most(7)) == "重3.5千克。"


def test_nothing_is_asked_of_a_passage_that_fits():
    asked = []
    assert shorten_context(PASSAGE, "铁", lambda text: asked.append(text) or True) == PASSAGE
    assert asked == [PASSAGE]


def test_long_passage_is_cut_with_few_questions():
    """`fits` tokenizes: a passage of 20,000 characters in one sentence must not ask once a character."""
    asked = []
    text = "字" * 20_000

    def fits(part):
        asked.append(len(part))
        return len(part) <= 500

    assert len(shorten_context(text, "字", fits)) == 500
    assert len(asked) < 25


@pytest.mark.parametrize("seed", range(20))
def test_random_passages(seed):
    """Substring, fits, holds the answer, maximal: not one more sentence on either side, no wider window."""
    generator = random.Random(seed)
    for _ in range(100):
        passage = "".join(generator.choices("甲乙丙丁戊己庚辛。！\n”", k=generator.randrange(1, 60)))
        start = generator.randrange(len(passage))
        answer = passage[start : start + generator.randrange(1, 8)]
        length = generator.randrange(1, len(passage) + 2)
        result = shorten_context(passage, answer, at_most(length))
        if len(answer) > length:
            assert result is None
            continue
        assert result in passage and answer in result and 0 < len(result) <= length
        if len(passage) <= length:
            assert result == passage
            continue
        place = passage.find(answer)
        sentences = sentences_of(passage)
        bounds = [sum(map(len, sentences[:number])) for number in range(len(sentences) + 1)]
        own_start = max(bound for bound in bounds if bound <= place)
        own_end = min(bound for bound in bounds if bound >= place + len(answer))
        if own_end - own_start <= length:  # whole sentences
            fitting = [
                (first, last)
                for first in bounds
                for last in bounds
                if first <= own_start and own_end <= last and last - first <= length
            ]
            chosen = [(first, last) for first, last in fitting if passage[first:last] == result]
            assert chosen, (passage, answer, length, result)
            assert any(
                not any((first, last) != (f, t) and first <= f and t <= last for first, last in fitting)
                for f, t in chosen
            ), (passage, answer, length, result)
        else:  # a window: one more character on both sides no longer fits
            assert passage[own_start:own_end].find(result) >= 0
            grown = [
                passage[max(own_start, place - margin) : min(own_end, place + len(answer) + margin)]
                for margin in range(len(passage))
            ]
            assert result == max((window for window in grown if len(window) <= length), key=len)


def sentences_of(passage: str) -> list[str]:
    """Sentences with their end marks and closing quotes, found character by character."""
    sentences, current, ended, quoted = [], "", False, False
    for character in passage:
        mark = character in "。！\n"
        if (ended and not mark and character != "”") or (quoted and mark):
            sentences.append(current)
            current, ended, quoted = "", False, False
        current += character
        if mark:
            ended = True
        elif ended and character == "”":
            quoted = True
    return [*sentences, current] if current else sentences
