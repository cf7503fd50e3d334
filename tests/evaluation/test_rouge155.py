"""ROUGE-1.5.5 by hand; against the script's own figures it is held where GanLM's golden numbers are."""

import pytest

from glm.evaluation.rouge155 import rouge155, sentences, stem


def test_stems_are_porters_but_for_wordnets_exceptions():
    assert [stem(word) for word in ("were", "said", "children", "running", "was", "feet")] == [
        *("be", "say", "child", "run"),
        *("was", "foot"),  # of three characters nothing is taken off
    ]


def test_what_is_no_letter_or_digit_parts_words():
    assert sentences("It's U.S.-made:\n\n 3,000 cars!") == [["it", "s", "u", "s", "make"], ["3", "000", "car"]]


def test_figures_by_hand():
    """Of 5 and 4 words 3 are common, of 4 and 3 bigrams one; the longest common subsequence has 3."""
    one, two, longest = rouge155("the cat sat down here", "the cat lay here")
    assert one == pytest.approx(2 * 3 / 9)
    assert two == pytest.approx(2 * 1 / 7)
    assert longest == pytest.approx(2 * 3 / 9)


def test_a_word_counts_as_often_as_both_texts_have_it():
    assert rouge155("a a a b", "a a c")[0] == pytest.approx(2 * 2 / 7)


def test_lcs_of_several_sentences_is_a_union():
    """Lin 2004, section 3.2: w1 w2 w3 w4 w5 with w1 w2 w6 w7 w8 and w1 w3 w8 w9 w5 has w1 w2 w3 w5 in common."""
    longest = rouge155("w1 w2 w6 w7 w8\nw1 w3 w8 w9 w5", "w1 w2 w3 w4 w5")[2]
    assert longest == pytest.approx(2 * (4 / 10) * (4 / 5) / (4 / 10 + 4 / 5))


def test_texts_without_words_count_0():
    assert rouge155("", "a b") == rouge155("a b", "。") == rouge155("你好", "你好") == (0.0, 0.0, 0.0)
