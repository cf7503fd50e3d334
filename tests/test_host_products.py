"""Products of a few rows against NumPy in float64: any number of rows and outputs, each row by itself."""

import numpy as np
import paddle
import pytest

from glm.host_products import FEW, OUTPUTS, HostLinear


def drawn(n: int, inputs: int, outputs: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """States [n, inputs], a weight [outputs, inputs], a bias [outputs]."""
    generator = np.random.default_rng(n * inputs + outputs)
    return tuple(
        generator.normal(size=shape).astype(np.float32) for shape in ((n, inputs), (outputs, inputs), (outputs,))
    )


@pytest.mark.parametrize("n", [1, 2, 4, 5, 6, 9, 10, 13, FEW, FEW + 1])
@pytest.mark.parametrize(
    ("inputs", "outputs"), [(16, 1), (16, 2), (48, OUTPUTS - 1), (64, OUTPUTS), (112, 3 * OUTPUTS + 5)]
)
@pytest.mark.parametrize("biased", [True, False])
def test_products(n, inputs, outputs, biased):
    states, weight, bias = drawn(n, inputs, outputs)
    layer = HostLinear(paddle.to_tensor(weight), paddle.to_tensor(bias) if biased else None)
    exact = states.astype(np.float64) @ weight.T.astype(np.float64) + (bias if biased else 0.0)
    # A float32 sum is off by an epsilon of what was added up, for each of its numbers at most.
    bound = np.finfo(np.float32).eps * (inputs + 1) * (np.abs(states) @ np.abs(weight).T + np.abs(bias) + 1e-30)
    assert (np.abs(layer(paddle.to_tensor(states)).numpy() - exact) <= bound).all()


def test_a_row_does_not_depend_on_its_company():
    states, weight, bias = drawn(FEW, 96, 70)
    layer = HostLinear(paddle.to_tensor(weight), paddle.to_tensor(bias))
    together = layer(paddle.to_tensor(states)).numpy()
    for row in range(FEW):
        np.testing.assert_array_equal(layer(paddle.to_tensor(states[row : row + 1])).numpy()[0], together[row])


def test_infinities_and_nan_pass_through():
    states, weight, bias = drawn(3, 16, 4)
    states[1, 2], states[2, 3] = np.inf, np.nan
    found = HostLinear(paddle.to_tensor(weight), paddle.to_tensor(bias))(paddle.to_tensor(states)).numpy()
    assert np.isfinite(found[0]).all() and np.isinf(found[1]).all() and np.isnan(found[2]).all()
