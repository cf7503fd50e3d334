"""Products of a few rows against NumPy in float64: any number of rows and outputs, each row by itself."""

import numpy as np
import paddle
import pytest
from numba import njit

from glm.cpu.panels import BFLOAT16_KERNELS, CONFIGURATION, PANEL, has_kernel, kernel_of, panels_of
from glm.cpu.products import CHUNK, MOST_COMPILED_ROWS, TASK
from glm.modules.arranged import BFloat16DecodingLinear, DecodingLinear
from tools.dtype_tools import needs_bfloat16


def drawn(n: int, inputs: int, outputs: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """States [n, inputs], a weight [outputs, inputs], a bias [outputs]."""
    generator = np.random.default_rng(n * inputs + outputs)
    return tuple(
        generator.normal(size=shape).astype(np.float32) for shape in ((n, inputs), (outputs, inputs), (outputs,))
    )


@pytest.mark.parametrize("n", [1, 2, 4, 5, 6, 8, 9, 10, 13, 16, 17, MOST_COMPILED_ROWS, MOST_COMPILED_ROWS + 1])
@pytest.mark.parametrize(("inputs", "outputs"), [(16, 1), (16, 2), (48, TASK - 1), (64, TASK), (112, 3 * TASK + 5)])
@pytest.mark.parametrize("biased", [True, False])
def test_products(n, inputs, outputs, biased):
    states, weight, bias = drawn(n, inputs, outputs)
    layer = DecodingLinear(paddle.to_tensor(weight), paddle.to_tensor(bias) if biased else None)
    exact = states.astype(np.float64) @ weight.T.astype(np.float64) + (bias if biased else 0.0)
    # A float32 sum is off by an epsilon of what was added up, for each of its numbers at most.
    bound = np.finfo(np.float32).eps * (inputs + 1) * (np.abs(states) @ np.abs(weight).T + np.abs(bias) + 1e-30)
    assert (np.abs(layer(paddle.to_tensor(states)).numpy() - exact) <= bound).all()


@pytest.mark.parametrize("n", [6, 8, 11, 13, 16, 17, 18, MOST_COMPILED_ROWS])
def test_a_row_does_not_depend_on_its_company(n):
    states, weight, bias = drawn(n, 96, 70)
    layer = DecodingLinear(paddle.to_tensor(weight), paddle.to_tensor(bias))
    together = layer(paddle.to_tensor(states)).numpy()
    for row in range(n):
        np.testing.assert_array_equal(layer(paddle.to_tensor(states[row : row + 1])).numpy()[0], together[row])


@pytest.mark.parametrize("kind", [DecodingLinear, pytest.param(BFloat16DecodingLinear, marks=needs_bfloat16)])
@pytest.mark.parametrize("nan", [0x7FC00000, 0xFFC00000, 0x7F800001, 0x7FFFFFFF, 0xFFFFFFFF])
def test_infinities_and_nan_pass_through(kind, nan):
    states, weight, bias = drawn(3, 16, 4)
    states[1, 2] = np.inf
    states.view(np.uint32)[2, 3] = nan
    found = kind(paddle.to_tensor(weight), paddle.to_tensor(bias))(paddle.to_tensor(states)).numpy()
    assert np.isfinite(found[0]).all() and np.isinf(found[1]).all() and np.isnan(found[2]).all()


# -- bfloat16 in panels


def of_bfloat16(numbers: np.ndarray) -> np.ndarray:
    """Rounded to bfloat16, in float64."""
    return paddle.to_tensor(numbers).astype("bfloat16").astype("float64").numpy()


def test_panels():
    weight = np.arange(70 * 40, dtype=np.uint16).reshape(70, 40)
    panels = panels_of(weight)
    assert panels.shape == (3, 2, 1024) and panels.flags.c_contiguous
    panels = panels.reshape(3, 2, 2, 16, 16, 2)
    for panel, step, tile, pair, output, place in np.ndindex(panels.shape):
        o, i = 32 * panel + 16 * tile + output, 32 * step + 2 * pair + place
        expected = weight[o, i] if o < 70 and i < 40 else 0
        assert panels[panel, step, tile, pair, output, place] == expected


@pytest.mark.parametrize("kind", BFLOAT16_KERNELS)
def test_kernels_of_bfloat16(kind):
    """The sums of exact products, up to the order of adding up."""
    if not has_kernel(kind):
        pytest.skip(f"this processor has no {kind}")
    states, weight, _ = (paddle.to_tensor(part).astype("bfloat16") for part in drawn(40, 96, 45))
    exact = states.astype("float64").numpy() @ weight.astype("float64").numpy().T
    panels, rounded = panels_of(weight.numpy()), states.numpy()
    for rows in set(BFLOAT16_KERNELS[kind]):
        kernel = kernel_of(kind, rows)

        @njit
        def run(panel, sums, r, kernel=kernel):
            kernel(CONFIGURATION, rounded, panel, sums, r)

        for panel, r in [(0, 0), (1, 0), (0, 1), (1, 40 - rows)]:
            sums = np.full((rows, PANEL), 7, np.float32)
            run(panels[panel], sums, r)
            known = exact[r : r + rows, panel * PANEL : (panel + 1) * PANEL]
            np.testing.assert_allclose(sums[:, : known.shape[1]], known, rtol=1e-5, atol=1e-4)


@needs_bfloat16
@pytest.mark.parametrize("n", [1, 2, 15, 16, 17, 31, 32, 33, 48, 49, 100])
@pytest.mark.parametrize(("inputs", "outputs"), [(1, 1), (31, 17), (32, 32), (33, 31), (96, 64), (100, 133)])
@pytest.mark.parametrize("biased", [True, False])
def test_products_in_tiles(n, inputs, outputs, biased):
    """Only the factors are rounded: the rest is off by what float32 sums are."""
    states, weight, bias = drawn(n, inputs, outputs)
    layer = BFloat16DecodingLinear(paddle.to_tensor(weight), paddle.to_tensor(bias) if biased else None)
    exact = of_bfloat16(states) @ of_bfloat16(weight).T + (bias if biased else 0.0)
    bound = np.finfo(np.float32).eps * (inputs + 1) * (np.abs(states) @ np.abs(weight).T + np.abs(bias) + 1e-30)
    found = layer(paddle.to_tensor(states))
    assert found.shape == [n, outputs] and (np.abs(found.numpy() - exact) <= 1.02 * bound).all()


@needs_bfloat16
def test_a_row_of_tiles_does_not_depend_on_its_company():
    states, weight, bias = drawn(50, 96, 70)
    layer = BFloat16DecodingLinear(paddle.to_tensor(weight), paddle.to_tensor(bias))
    together = layer(paddle.to_tensor(states)).numpy()
    for row in range(50):
        np.testing.assert_array_equal(layer(paddle.to_tensor(states[row : row + 1])).numpy()[0], together[row])


@needs_bfloat16
@pytest.mark.parametrize("n", [63, 64, 65, 300])
def test_more_states_than_a_chunk(n):
    inputs = CHUNK // 2 // 64  # a chunk of 64 rows
    states, weight, bias = drawn(n, inputs, 33)
    found = BFloat16DecodingLinear(paddle.to_tensor(weight), paddle.to_tensor(bias))(paddle.to_tensor(states)).numpy()
    np.testing.assert_allclose(found, of_bfloat16(states) @ of_bfloat16(weight).T + bias, atol=2e-3)
