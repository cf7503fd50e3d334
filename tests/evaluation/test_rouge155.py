"""ROUGE-1.5.5: by hand, and on real predictions against the script's own figures."""

from pathlib import Path

import pytest

from glm.evaluation.protocols import PROTOCOLS
from glm.evaluation.rouge155 import rouge155, sentences, stem
from glm.evaluation.statistics import Pair
from tools.reference_files import reference_json

TOLERANCE = 0.02


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


@pytest.mark.conformance
@pytest.mark.parametrize("system", ["convs2s", "lead"])
def test_check_20_xsum_predictions(system, real_data):
    """Published, by the script itself, and by a package that copies it."""
    facts = reference_json("ganlm", "rouge.json")
    folder = Path(real_data) / "data" / "xsum_predictions"
    if not (folder / f"{system}.txt").is_file() or system not in facts["systems"]:
        pytest.skip(f"{folder} has no {system}.txt")
    texts = [(folder / f"{name}.txt").read_text(encoding="utf-8").splitlines() for name in (system, "gold")]
    found = PROTOCOLS["rouge-1.5.5"]([Pair(prediction, (gold,)) for prediction, gold in zip(*texts, strict=True)])
    tools = facts["systems"][system]
    published = tools["published ROUGE-1.5.5"]["f-score"]
    package = next(tools[name] for name in tools if name.endswith("weight_factor 1.0"))
    for kind in "12l":
        own = found.figures[f"rouge-{kind}"]
        assert own == pytest.approx(published[f"rouge{kind.upper()}"], abs=TOLERANCE)
        assert own == pytest.approx(package[f"rouge-{kind}"]["f"], abs=TOLERANCE)
    assert "rouge-1.5.5" in found.signature and "wordnet" in found.signature
