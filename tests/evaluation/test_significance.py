"""Bootstrap and permutation test against slow, independent versions and against what must hold."""

import itertools
import math
import random

import numpy as np
import pytest
from sacrebleu.metrics import BLEU

from glm.evaluation import metrics, significance
from glm.evaluation.metrics import FIGURES
from glm.evaluation.segmentation import bert_words
from glm.evaluation.significance import compare, table_of_statistics
from glm.evaluation.statistics import COUNTS, VALUES, Pair
from glm.evaluation.trials import figures_of_trials


def pairs_of(count: int, seed: int, *, errors: float) -> list[Pair]:
    """Predictions for the same references, with a share of wrong characters."""
    texts, noise = random.Random(0), random.Random(seed)
    found = []
    for _ in range(count):
        reference = "".join(texts.choices("京都大学在哪里我来到北京清华多少钱", k=12))
        prediction = "".join("错" if noise.random() < errors else character for character in reference)
        found.append(Pair(prediction, (reference,), answer="京"))
    return found


@pytest.fixture(scope="module")
def tables() -> tuple[np.ndarray, np.ndarray]:
    return table_of_statistics(pairs_of(60, 1, errors=0.4)), table_of_statistics(pairs_of(60, 2, errors=0.3))


@pytest.fixture(scope="module")
def compared(tables):
    return compare(*tables, seed=42)


def test_figures_are_those_of_score(compared):
    for errors, seed, name in ((0.4, 1, "first"), (0.3, 2, "second")):
        figures = metrics.score(pairs_of(60, seed, errors=errors)).figures
        assert {figure: getattr(found, name) for figure, found in compared.items()} == pytest.approx(
            {figure: figures[figure] for figure in compared}, rel=1e-12
        )


def test_figures_of_trials_are_those_of_each(tables):
    """Also of sums without a match, without answers, without a token."""
    trials = [*tables[0], *tables[1], tables[0].sum(axis=0), np.zeros_like(tables[0][0])]
    trials[-1][COUNTS.index("records")] = 1
    for number, name in enumerate(("answers", "4-gram matches (char)", "length (jieba)", "reference length (char)")):
        trials[number] = trials[number].copy()
        trials[number][COUNTS.index(name)] = 0
    found = figures_of_trials(np.array(trials))
    for number, trial in enumerate(trials):
        expected = {"answer leaks": 0.0} | metrics.figures_of_sums(trial[: len(COUNTS)], trial[len(COUNTS) :])
        assert {name: value[number] for name, value in found.items()} == pytest.approx(expected, rel=1e-12)


def test_which_figures_are_compared(compared):
    left_out = {"records", "empty references", *(name for name in FIGURES if name.startswith("distinct"))}
    assert set(compared) == set(FIGURES) - left_out


def test_same_seed_same_result(tables, compared):
    assert compare(*tables, seed=42) == compared
    other = compare(*tables, seed=43)["rouge-l (char)"]
    assert (other.low, other.p_value) != (compared["rouge-l (char)"].low, compared["rouge-l (char)"].p_value)


def test_exchanged_files_give_the_opposite(tables, compared):
    """The draws are the same, so the interval is mirrored, and the p-value stays."""
    for name, found in compare(*tables[::-1], seed=42).items():
        assert found.difference == pytest.approx(-compared[name].difference)
        assert (found.low, found.high) == pytest.approx((-compared[name].high, -compared[name].low))
        assert found.p_value == compared[name].p_value


def test_bootstrap_equals_resampled_texts(tables, compared, monkeypatch):
    """sacrebleu on the texts themselves, drawn anew with the same numbers."""
    stream = np.random.default_rng(42).spawn(2)[0]
    bleu = BLEU(tokenize="none", smooth_method="none", force=True)
    texts = [
        [(" ".join(bert_words(pair.prediction)), " ".join(bert_words(pair.references[0]))) for pair in pairs]
        for pairs in (pairs_of(60, 1, errors=0.4), pairs_of(60, 2, errors=0.3))
    ]
    differences = []
    for _ in range(significance.RESAMPLES):
        drawn = stream.integers(60, size=60)
        first, second = (
            bleu.corpus_score([rows[k][0] for k in drawn], [[rows[k][1] for k in drawn]]).score for rows in texts
        )
        differences.append(second - first)
    differences.sort()
    found = compared["bleu-4 (char, corpus)"]
    # numpy's percentiles of 1,000 values lie between the 25th and 26th, and the 975th and 976th
    assert differences[24] <= found.low <= differences[25] and differences[974] <= found.high <= differences[975]


def test_permutation_test_equals_all_permutations():
    """Of 8 records there are 256: the p-value of a mean by every one of them."""
    pairs = pairs_of(8, 3, errors=0.5), pairs_of(8, 5, errors=0.2)
    tables = [table_of_statistics(found) for found in pairs]
    column = len(COUNTS) + VALUES.index("rouge-1 (char)")
    change = tables[1][:, column] - tables[0][:, column]
    sums = [
        abs(math.fsum(sign * d for sign, d in zip(signs, change, strict=True)))
        for signs in itertools.product((1, -1), repeat=8)
    ]
    exact = sum(value >= abs(change.sum()) - 1e-12 for value in sums) / 256
    assert 0.01 < exact < 0.9
    found = compare(*tables, seed=1)["rouge-1 (char)"].p_value
    assert found == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / significance.PERMUTATIONS))


def test_equal_files_do_not_differ(tables):
    for found in compare(tables[0], tables[0], seed=7).values():
        assert (found.difference, found.low, found.high, found.p_value) == (0, 0, 0, 1)


def test_a_clear_difference_is_seen(compared):
    better = compare(
        *(table_of_statistics(pairs_of(60, k, errors=errors)) for k, errors in ((1, 0.6), (2, 0.1))), seed=0
    )
    found = better["rouge-l (char)"]
    assert 0 < found.low < found.difference < found.high
    assert found.p_value == 1 / (significance.PERMUTATIONS + 1)
