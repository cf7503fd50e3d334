"""Windows of documents, and what losses are divided by."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm.evaluation.language_model import Perplexity, detokenized, exponential, windows_of


@given(
    ids=st.lists(st.integers(0, 99), min_size=2, max_size=60),
    length=st.integers(2, 20),
    share=st.floats(0.01, 1.0),
    unidirectional=st.booleans(),
)
def test_every_id_but_the_first_is_scored_exactly_once(ids, length, share, unidirectional):
    step = max(1, round(share * length))
    windows = windows_of(ids, length=length, step=step, unidirectional=unidirectional)
    assert [token for window in windows for token in window.scored] == ids[1:]
    assert len(windows) == max(math.ceil((len(ids) - length) / step) + 1, 1)
    for number, window in enumerate(windows):
        part = [*window.source, *window.opening, *window.scored]
        assert part == ids[number * step :][: len(part)] and len(part) <= length
        assert len(window.source) <= 1 or not unidirectional


def test_windows_by_hand():
    first, second, third = windows_of(list("abcdefgh"), length=4, step=2)
    assert (first.source, first.scored) == (["a"], list("bcd"))
    assert (second.source, second.scored) == (list("cd"), list("ef"))
    assert (third.source, third.scored) == (list("ef"), list("gh"))
    _, second, _ = windows_of(list("abcdefgh"), length=4, step=2, unidirectional=True)
    assert (second.source, second.opening, second.scored) == (["c"], ["d"], list("ef"))
    assert windows_of(["a"], length=4, step=2) == []


def test_denominators():
    total = Perplexity(loss=30.0)
    total.add_document("ab cd ef", [1, 2, 3, 4], "ab", windows=1)
    total.add_document("gh ij", [5, 6], "gh", windows=1)
    total.add_document("k", [7], "k", windows=0)
    figures = total.figures()
    assert (figures["documents"], figures["windows"], total.too_short) == (3, 2, 1)
    assert figures["scored ids"] == 3 + 1 and figures["perplexity (id)"] == pytest.approx(math.exp(30 / 4))
    assert figures["scored characters"] == 6 + 3
    assert figures["bits per character"] == pytest.approx(30 / 9 / math.log(2))
    assert figures["scored words"] == 2 + 1 and figures["perplexity (word)"] == pytest.approx(math.exp(10))


def test_a_text_without_blanks_has_no_words():
    total = Perplexity(loss=3.0)
    total.add_document("北京是首都", [1, 2, 3], "北京", windows=1)
    assert "perplexity (word)" not in total.figures() and total.figures()["scored characters"] == 3


def test_nothing_is_capped():
    assert exponential(25.0) == pytest.approx(math.exp(25))
    assert exponential(1e6) == math.inf


def test_nothing_to_score():
    with pytest.raises(ValueError, match="no document has two ids"):
        Perplexity().figures()


def test_wikitext_is_undone():
    text = ' = = Robert = = \n He had a 12 @-@ year , 1 @,@ 000 role ( in " Herons " ) . It \'s so'
    assert detokenized(text) == ' == Robert ==\n He had a 12-year, 1,000 role (in "Herons"). It\'s so'
