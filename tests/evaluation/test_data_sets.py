"""Figures of several data sets side by side."""

import pytest

from glm.evaluation.data_sets import mean_figures, named


def test_each_set_counts_alike():
    found = mean_figures({"en": {"accuracy": 90.0, "records": 100.0}, "zh": {"accuracy": 60.0, "records": 10.0}})
    assert found == {"accuracy": 75.0, "records": 110.0}


def test_figures_of_languages_are_told_apart_by_their_sets():
    figures = {"en": {"f1 (mlqa, en)": 80.0}, "zh": {"f1 (mlqa, zh)": 40.0}}
    assert mean_figures(figures) == {"f1 (mlqa, mean)": 60.0}
    assert named(figures) == {"f1 (mlqa, mean)": 60.0, "en/f1 (mlqa, en)": 80.0, "zh/f1 (mlqa, zh)": 40.0}


def test_questions_in_another_language_than_their_passages_are_a_task_of_their_own():
    """MLQA's 49 pairs of languages: the 7 equal ones are the usual figure (section 11, 4)."""
    figures = {
        "en-en": {"f1 (mlqa, en)": 80.0, "records": 1.0},
        "zh": {"f1 (mlqa, zh)": 40.0, "records": 1.0},
        "en-zh": {"f1 (mlqa, en)": 3.0, "records": 1.0},
    }
    assert mean_figures(figures) == {"f1 (mlqa, mean)": 60.0, "records": 2.0}
    assert mean_figures({"en-zh": {"f1 (mlqa, en)": 3.0}}) == {"f1 (mlqa, mean)": pytest.approx(3.0)}
