"""EM and F1 of answers: values worked out by hand, and the published protocols' own numbers."""

import pytest

from glm.evaluation.answers import exact_and_f1, score_answers
from glm.prediction.answers import says_nothing, selected


@pytest.mark.parametrize(
    ("prediction", "answer", "protocol", "language", "want"),
    [
        ("the Carolina Panthers", "Carolina Panthers", "squad", "en", (1.0, 1.0)),
        ("北京大学", "北京", "squad", "zh", (0.0, 0.0)),
        ("北京大学", "北京", "mlqa", "zh", (0.0, 2 / 3)),
        ("《红楼梦》", "红楼梦", "mlqa", "zh", (1.0, 1.0)),
        ("《红楼梦》", "红楼梦", "squad", "zh", (0.0, 0.0)),
        ("", "红楼梦", "mlqa", "zh", (0.0, 0.0)),
        ("the", "a", "squad", "en", (1.0, 0.0)),  # nothing is left of both
    ],
)
def test_pairs(prediction, answer, protocol, language, want):
    assert exact_and_f1(prediction, [answer], protocol, language) == pytest.approx(want)


def test_the_best_of_several_answers_counts():
    assert exact_and_f1("北京", ["上海", "北京"], "mlqa", "zh") == (1.0, 1.0)


def row(prediction, references, language):
    return {"id": "q", "prediction": prediction, "references": references, "language": language, "context": "文"}


def test_languages_never_pool_by_id():
    rows = [row("right", ["right"], "en"), row("错", ["对"], "zh")]
    figures = score_answers(rows).figures
    assert (figures["f1 (squad, en)"], figures["f1 (squad, zh)"], figures["f1 (squad, mean)"]) == (100.0, 0.0, 50.0)
    assert figures["records"] == 2


def test_a_language_that_a_protocol_has_no_rule_for():
    figures = score_answers([row("à", ["à"], "fr")]).figures
    assert "f1 (squad, fr)" in figures and "f1 (mlqa, fr)" not in figures
    with pytest.raises(ValueError, match="MLQA has rules for"):
        exact_and_f1("à", ["à"], "mlqa", "fr")


def test_windows():
    assert [says_nothing(text) for text in ("N/A", "n / a", "", "Paris")] == [True, True, True, False]
    assert selected(["N/A", "n/a", "Paris", "London"]) == 2
    assert selected(["N/A", "N/A"]) == 0
