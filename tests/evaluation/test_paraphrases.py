"""Figures of paraphrases, worked by hand, and self-BLEU against nltk."""

import pytest
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

from glm.evaluation.paraphrases import Paraphrases


def figures(*sources: tuple[str, list[str]]) -> dict[str, float]:
    found = Paraphrases()
    for source, outputs in sources:
        found.add(source, outputs)
    assert found.figures().keys() == found.signatures().keys()
    return found.figures()


def test_copied_ngrams_by_hand():
    # Of 甲乙丙丁戊 the bigrams 甲乙, 乙丙 are in the source; of its two 4-grams none.
    found = figures(("甲乙丙己", ["甲乙丙丁戊"]))
    assert found == {"copied 2-grams (char)": pytest.approx(50.0), "copied 4-grams (char)": 0.0}
    assert figures(("甲乙丙丁", ["甲乙丙丁"]))["copied 4-grams (char)"] == 100.0


def test_means_are_over_sources_and_only_the_best_output_counts_as_copied():
    found = figures(("甲乙", ["甲乙"]), ("甲乙", ["丙丁", "甲乙"]), ("甲", []))
    assert found["copied 2-grams (char)"] == pytest.approx(50.0)


def test_distinct_ngrams_of_the_outputs_by_hand():
    # 甲乙 and 甲丙: tokens 甲 乙 甲 丙, three of four distinct; bigrams 甲乙, 甲丙, both.
    found = figures(("丁", ["甲乙", "甲丙"]), ("丁", ["戊"]))
    assert found["distinct-1 of outputs (char)"] == pytest.approx(75.0)
    assert found["distinct-2 of outputs (char)"] == pytest.approx(100.0)


def test_self_bleu_against_nltk():
    outputs = ["优质粘玉米棒", "优质玉米棒推荐", "东北粘玉米"]
    expected = [
        sentence_bleu(
            [list(other) for other in outputs if other is not text],
            list(text),
            smoothing_function=SmoothingFunction().method3,
        )
        for text in outputs
    ]
    found = figures(("云南玉米", outputs))["self-bleu-4 (char)"]
    assert found == pytest.approx(100 * sum(expected) / 3, abs=1e-6)
    assert figures(("丁", ["甲乙丙丁", "甲乙丙丁"]))["self-bleu-4 (char)"] == pytest.approx(100.0)


def test_an_empty_output_counts_nothing():
    found = figures(("甲乙", ["", ""]))
    assert set(found.values()) == {0.0}
