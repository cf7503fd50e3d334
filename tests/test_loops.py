"""What compiled loops compute with, against NumPy in float64."""

import numpy as np
import pytest
from numba import njit

from glm.loops import exponential, exponentiate, greatest
from glm.vectors import dot_products, mixtures

_ten, _five = dot_products(10, 2), dot_products(5, 4)
_mix, _add = mixtures(5, 32), mixtures(5, 32, ahead=4096, add=True)


@njit
def dots(states, weight, output):
    for o in range(0, len(weight), 4):
        _five(states, weight, output, 0, o)
    for r in range(5, len(states), 10):
        for o in range(0, len(weight), 2):
            _ten(states, weight, output, r, o)


@njit
def mix(shares, values, length, sums, adds):
    for r in range(0, len(sums), 5):
        if adds:
            _add(shares, values, length, sums, r)
        else:
            _mix(shares, values, length, sums, r)


@njit
def exponentials(numbers):
    return np.array([exponential(number) for number in numbers])


def drawn(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("last", [0.0, 3.0, -50.0])
def test_shares_of_scores(last):
    """exp to a few units of the last place down to 2^-126, below which a share is as good as nothing."""
    scores = np.concatenate([np.linspace(-87, 0, 5000), [-200.0, -1e9]]).astype(np.float32) + np.float32(last)
    found = scores.copy()
    largest, total = exponentiate(found)
    want = np.exp(scores.astype(np.float64) - scores.max())
    np.testing.assert_allclose(found[:5000], want[:5000], rtol=8e-6)
    assert (found[5000:] < 2e-38).all()
    assert largest == scores.max() and total == pytest.approx(want.sum(), rel=1e-5)


@pytest.mark.parametrize(
    "numbers", [[0.0], [-0.0, -1.0], [-3.5, -3.25, -1e30], [1e-40, 2e-40], [5.0, np.inf, -np.inf]]
)
def test_the_greatest(numbers):
    for order in (numbers, numbers[::-1], [*numbers] * 30):
        assert greatest(np.array(order, np.float32)) == np.float32(max(numbers))


def test_the_greatest_of_many():
    for n in range(1, 200):
        numbers = drawn(n)
        assert greatest(numbers) == numbers.max() and greatest(-np.abs(numbers)) == -np.abs(numbers).min()


def test_ends_of_the_exponential():
    found = exponentials(np.array([0.0, 88.0, -87.0, 200.0, -200.0, np.inf, -np.inf, np.nan], np.float32))
    np.testing.assert_allclose(found[:3], np.exp([0.0, 88.0, -87.0]), rtol=8e-6)
    assert found[3] == found[5] == 2.0**127 * np.float32(1.0000001)
    assert found[4] == found[6] < 1.2e-38 and np.isnan(found[7])


@pytest.mark.parametrize("n", [1, 4, 5, 6, 14, 15, 16, 31])
@pytest.mark.parametrize(("inputs", "outputs"), [(16, 1), (48, 3), (64, 30)])
def test_dot_products_into_a_wider_table(n, inputs, outputs):
    """Rows of the output may have more room than there are outputs; it is left alone."""
    states, weight = drawn(n, inputs), drawn(outputs, inputs)
    table = np.full((n, outputs + 3), 7.0, np.float32)
    dots(states, weight, table)
    np.testing.assert_allclose(table[:, :outputs], states @ weight.T.astype(np.float64), atol=1e-4)
    assert (table[:, outputs:] == 7.0).all()


@pytest.mark.parametrize("n", [1, 4, 5, 6, 13])
@pytest.mark.parametrize("length", [0, 1, 17])
@pytest.mark.parametrize("adds", [False, True])
@pytest.mark.parametrize("turned", [False, True], ids=["rows", "columns"])
def test_mixtures(n, length, adds, turned):
    shares, values, sums = drawn(n, 20), drawn(20, 40), drawn(n, 35)
    before = sums.copy()
    mix(shares.T.copy().T if turned else shares, values, length, sums, adds)
    expected = shares[:, :length].astype(np.float64) @ values[:length, :32] + (before[:, :32] if adds else 0.0)
    np.testing.assert_allclose(sums[:, :32], expected, atol=1e-5)
    assert (sums[:, 32:] == before[:, 32:]).all()
