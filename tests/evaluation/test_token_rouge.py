"""ROUGE of token ids, by hand; published numbers are with the multilingual GLM's."""

import pytest

from glm.evaluation.token_rouge import NAMES, TokenRouge, token_rouge, without_repeats
from tools.letter_tokenizer import Letters

ENCODE = Letters().encode_text


def test_by_hand():
    """`abcb` and `abd`: shared a, b; ab; and the common subsequence ab."""
    assert token_rouge("abcb", "abd", ENCODE) == pytest.approx((4 / 7, 2 / 5, 4 / 7))


@pytest.mark.parametrize(("prediction", "reference"), [("", "a"), ("a", ""), ("", "")])
def test_an_empty_text_scores_nothing(prediction, reference):
    assert token_rouge(prediction, reference, ENCODE) == (0.0, 0.0, 0.0)


def test_sentences_that_stood_before_are_left_out():
    assert without_repeats("a b c[SEP]A b c d[SEP]e f[SEP]") == "a b c e f"
    assert without_repeats("a b c[SEP]a b c d e") == "a b c a b c d e"  # 3 of 5


def test_means_and_the_best_reference():
    found = TokenRouge(ENCODE, "0123456789abcdef")
    assert found.figures() == {}
    found.add_row({"predictions": [{"text": "ab"}], "reference": ["xy", "ab"]})
    found.add_row({"predictions": [], "reference": "ab"})
    found.add_row({"predictions": [{"text": "ab"}]})
    assert found.figures() == dict.fromkeys(NAMES, 50.0)
    assert "ids-0123456789ab" in found.signatures()[NAMES[0]]
