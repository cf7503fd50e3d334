"""Products in int8: every kernel's integers exactly, and the layer against the same scheme in NumPy."""

import numpy as np
import paddle
import pytest
from numba import njit

from glm.cpu.integers import CHUNK, OFFSET, quantize_weight
from glm.cpu.panels import CONFIGURATION, INTEGER_KERNELS, PANEL, has_kernel, kernel_of, panels_of
from glm.modules.arranged import IntegerDecodingLinear, Quantized
from tools.dtype_tools import needs_int8


def rounded(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows as integers, and their scales [rows, 1], by the same float32 operations."""
    largest = np.abs(numbers).max(axis=1, keepdims=True)
    return np.rint(numbers * (np.float32(127) / np.maximum(largest, np.float32(1e-30)))), largest / np.float32(127)


def drawn(n: int, inputs: int, outputs: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """States [n, inputs], a weight [outputs, inputs], a bias [outputs]."""
    generator = np.random.default_rng(n * inputs + outputs)
    return tuple(
        generator.normal(size=shape).astype(np.float32) for shape in ((n, inputs), (outputs, inputs), (outputs,))
    )


def layer_of(weight, bias):
    """A layer of a weight [outputs, inputs] that is quantized now."""
    return IntegerDecodingLinear(Quantized(*quantize_weight(weight)), None if bias is None else paddle.to_tensor(bias))


@pytest.mark.parametrize("kind", INTEGER_KERNELS)
def test_a_kernel_gives_the_integers(kind):
    if not has_kernel(kind):
        pytest.skip(f"this processor has no {kind}")
    generator = np.random.default_rng(1)
    n, inputs, outputs = 40, 150, 45
    weight, states = generator.integers(-127, 128, (outputs, inputs)), np.zeros((n, 192), np.int8)
    states[:, :inputs] = generator.integers(-127, 128, (n, inputs))
    weight[:3], states[1, :inputs], states[2, :inputs] = 127, 127, -127  # the largest sums too
    exact = states[:, :inputs].astype(np.int64) @ weight.T
    panels = panels_of((weight + OFFSET).astype(np.uint8))
    for rows in set(INTEGER_KERNELS[kind]):
        kernel = kernel_of(kind, rows)

        @njit
        def run(panel, sums, r, kernel=kernel):
            kernel(CONFIGURATION, states, panel, sums, r)

        for panel, r in [(0, 0), (1, 0), (0, 1), (1, n - rows)]:
            sums = np.full((rows, PANEL), 7, np.int32)
            run(panels[panel], sums, r)
            found = sums - OFFSET * states[r : r + rows].astype(np.int64).sum(axis=1, keepdims=True)
            known = exact[r : r + rows, panel * PANEL : (panel + 1) * PANEL]
            np.testing.assert_array_equal(found[:, : known.shape[1]], known)


@needs_int8
@pytest.mark.parametrize("n", [1, 2, 3, 6, 7, 12, 13, 16, 17, 31, 32, 33, 100])
@pytest.mark.parametrize(
    ("inputs", "outputs"), [(1, 1), (31, 17), (64, 32), (65, 33), (100, 133), (512, 64), (513, 64), (640, 33)]
)
@pytest.mark.parametrize("biased", [True, False])
def test_products(n, inputs, outputs, biased):
    """The sums are exact; what stands behind them is rounded as float32 is."""
    states, weight, bias = drawn(n, inputs, outputs)
    layer = layer_of(weight, bias if biased else None)
    found = layer(paddle.to_tensor(states))
    (x, x_scales), (w, w_scales) = rounded(states), quantize_weight(weight)
    sums = x.astype(np.int64) @ w.astype(np.int64).T
    expected = sums * (x_scales * w_scales.astype(np.float64)) + (bias if biased else 0.0)
    within = 1e-5
    if inputs <= 512:  # what is left of the states
        # The difference is rounded once, as by a processor's fused multiply-add.
        x, x_scales = rounded((states.astype(np.float64) - x.astype(np.float64) * x_scales).astype(np.float32))
        expected += (x.astype(np.int64) @ w.astype(np.int64).T) * (x_scales * w_scales.astype(np.float64))
        # A scale may differ in its last bit, and a number in the middle of two integers then by a step.
        within += float(x_scales.max() * np.abs(weight).max())
    assert found.shape == [n, outputs]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6, atol=within)


@needs_int8
@pytest.mark.parametrize(
    ("inputs", "least", "most"), [(1024, 0.0095, 0.012), (512, 0.006, 0.0085), (128, 0.005, 0.0075)]
)
def test_close_to_float32(inputs, least, most):
    """With few inputs, whose states have two parts, only the weights' rounding is left."""
    states, weight, bias = drawn(20, inputs, 96)
    exact = states.astype(np.float64) @ weight.T.astype(np.float64) + bias
    error = layer_of(weight, bias)(paddle.to_tensor(states)).numpy() - exact
    assert least < np.sqrt(np.mean(error**2) / np.mean(exact**2)) < most


@needs_int8
def test_a_row_does_not_depend_on_its_company():
    states, weight, bias = drawn(50, 96, 70)
    layer = layer_of(weight, bias)
    together = layer(paddle.to_tensor(states)).numpy()
    for row in range(50):
        np.testing.assert_array_equal(layer(paddle.to_tensor(states[row : row + 1])).numpy()[0], together[row])


@needs_int8
@pytest.mark.parametrize(("n", "inputs"), [(150, CHUNK // 64), (1100, CHUNK // 2048)])  # of one part, and of two
def test_more_states_than_a_chunk(n, inputs):
    states, weight, bias = drawn(n, inputs, 33)
    layer = layer_of(weight, bias)
    together = layer(paddle.to_tensor(states)).numpy()
    for start in range(0, n, 30):
        np.testing.assert_array_equal(
            layer(paddle.to_tensor(states[start : start + 30])).numpy(), together[start:][:30]
        )


@needs_int8
def test_zeros_infinities_and_nan():
    states, weight, bias = drawn(4, 80, 40)
    states[0], weight[5] = 0, 0
    states[1, 2], states[2, 3] = np.inf, np.nan
    found = layer_of(weight, bias)(paddle.to_tensor(states)).numpy()
    np.testing.assert_array_equal(found[0], bias)
    assert np.isnan(found[1]).all() and np.isnan(found[2]).all() and np.isfinite(found[3]).all()
    assert found[3, 5] == bias[5]


@pytest.mark.parametrize("wrong", [np.inf, -np.inf, np.nan])
def test_a_weight_that_is_no_number(wrong):
    weight = drawn(1, 8, 6)[1]
    weight[4, 2] = wrong
    with pytest.raises(ValueError, match="^row 4 has an infinite number or NaN$"):
        quantize_weight(weight)


def test_quantized_weight():
    integers_, scales = quantize_weight(np.array([[0.5, -1.27, 0.0], [0, 0, 0]], np.float32))
    np.testing.assert_allclose(scales, [0.01, 0.0], rtol=1e-6)
    np.testing.assert_array_equal(integers_, [[50, -127, 0], [0] * 3])


def test_panels_of_bytes():
    weight = np.random.default_rng(0).integers(1, 255, (70, 80)).astype(np.uint8)
    panels = panels_of(weight)
    assert panels.shape == (3, 2, 2048) and panels.flags.c_contiguous
    panels = panels.reshape(3, 2, 2, 16, 16, 4)
    for panel, step, tile, quad, output, place in np.ndindex(panels.shape):
        o, i = 32 * panel + 16 * tile + output, 64 * step + 4 * quad + place
        assert panels[panel, step, tile, quad, output, place] == (weight[o, i] if o < 70 and i < 80 else 0)
