"""Figures of choices, against sklearn and values worked out by hand."""

import numpy as np
import pytest
from sklearn.metrics import f1_score

from glm.evaluation.accuracy import (
    ASSIGNED,
    MACRO_F1,
    PER_TOKEN,
    assigned,
    confusion,
    score_choices,
)

LABELS = ("a", "b", "c")


def row(prediction, reference, *, scores=(-1.0, -2.0, -3.0), means=None, labels=LABELS, **more):
    shares = np.exp(scores) / np.exp(scores).sum()
    candidates = [
        {"label": label, "text": label, "probability": float(share), "score": float(score)}
        | ({} if means is None else {"mean": mean})
        for label, share, score, mean in zip(labels, shares, scores, means or labels, strict=True)
    ]
    return {
        "id": 1,
        "source": "文",
        "prediction": prediction,
        "reference": reference,
        "candidates": candidates,
        **more,
    }


def test_accuracy_and_macro_f1():
    random = np.random.default_rng(0)
    gold, found = random.choice(LABELS, 50).tolist(), random.choice(LABELS, 50).tolist()
    figures = score_choices([row(a, b) for a, b in zip(found, gold, strict=True)]).figures
    assert figures["accuracy"] == pytest.approx(100 * np.mean(np.array(gold) == np.array(found)))
    assert figures[MACRO_F1] == pytest.approx(100 * f1_score(gold, found, average="macro"))
    assert figures["records"] == 50


def test_a_label_that_occurs_nowhere_is_left_out_of_macro_f1():
    figures = score_choices([row("a", "a"), row("a", "b")]).figures
    assert figures[MACRO_F1] == pytest.approx(100 * f1_score(["a", "b"], ["a", "a"], average="macro"))


def test_log_probability_per_token_is_reported_beside():
    rows = [row("a", "b", means=(-1.0, -0.5, -9.0)), row("a", "a", means=(-1.0, -0.5, -9.0))]
    figures = score_choices(rows).figures
    assert (figures["accuracy"], figures[PER_TOKEN]) == (50.0, 50.0)
    assert PER_TOKEN not in score_choices([row("a", "b")]).figures


def test_any_of_several_references_is_right():
    assert score_choices([row("a", ["b", "a"])]).figures["accuracy"] == 100.0


def test_languages_are_reported_apart():
    figures = score_choices([row("a", "a", language="zh"), row("a", "b", language="en")]).figures
    assert (figures["accuracy (zh)"], figures["accuracy (en)"]) == (100.0, 0.0)


def test_each_candidate_of_a_group_once():
    # Both blanks want a; the second wants it more, so the first gets its second best, b.
    first = row("a", "b", scores=(-1.0, -1.5, -9.0), group="1", exclusive=True)
    second = row("a", "a", scores=(-0.1, -8.0, -9.0), group="1", exclusive=True)
    assert assigned([first, second]) == ["b", "a"]
    figures = score_choices([first, second]).figures
    assert (figures["accuracy"], figures[ASSIGNED]) == (50.0, 100.0)


def test_questions_with_several_answers():
    labels = ("1", "0")
    rows = [
        row("1", "1", scores=(-1.0, -2.0), labels=labels, group="q"),
        row("0", "1", scores=(-1.0, -2.0), labels=labels, group="q"),
        row("0", "0", scores=(-1.0, -2.0), labels=labels, group="p"),
    ]
    figures = score_choices(rows).figures
    assert figures["em (questions)"] == 50.0
    assert figures["f1a"] == pytest.approx(100 * f1_score([1, 1, 0], [1, 0, 0]))


def test_confusion():
    rows = [row("a", "b"), row("a", "b", scores=(-0.1, -5.0, -5.0)), row("c", "c")]
    assert confusion(rows) == {"a": dict(a=0, b=0, c=0), "b": dict(a=2, b=0, c=0), "c": dict(a=0, b=0, c=1)}


def test_by_length_of_the_source():
    rows = [row("a", "a") | {"source": "字" * 10}, row("a", "b") | {"source": "字" * 100}]
    found = score_choices(rows).by_source_length
    assert {name: figures["accuracy"] for name, figures in found.items()} == {"1-64": 100.0, "65-128": 0.0}
