"""LayerNorm's gradients of more rows than one thread adds up, against Paddle's in float64; and what threads and places
in memory must not change."""

from itertools import permutations

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest

import glm.cpu.loops
from glm.cpu.integers import _finish_row
from glm.cpu.rows import ROWS, _differentiate_norm, layer_norm_gradients, normalize

EPSILON = np.float32(1e-5)
ROW_LOOPS = {
    "normalize": (lambda x, weight, bias, y: normalize(x[None], weight, bias, EPSILON, y[None]), 4),
    "normalize in place": (lambda y, weight, bias: normalize(y[None], weight, bias, EPSILON, y[None]), 3),
    "gradients": (
        lambda x, grad, weight, *found: _differentiate_norm(
            x[None], grad[None], found[0][None], weight, EPSILON, found[1][None], found[2][None]
        ),
        6,
    ),
    "finish": (lambda sums, scales, bias, y: _finish_row(sums.view(np.int32), 7, EPSILON, scales, bias, y), 4),
}


def drawn(*shapes: tuple[int, ...]) -> list[np.ndarray]:
    random = np.random.default_rng(5)
    return [random.normal(1.0, 2.0, shape) for shape in shapes]


@pytest.mark.parametrize(("dtype", "error"), [("float32", 2e-6), ("float64", 1e-13)])
@pytest.mark.parametrize("rows", [1, ROWS, 2 * ROWS + 1])
def test_gradients_of_a_layer_norm(rows, dtype, error):
    arrays = drawn((rows, 40), (40,), (40,), (rows, 40))
    states, weight, bias, grad = (paddle.to_tensor(array, "float64", stop_gradient=False) for array in arrays)
    F.layer_norm(states, [40], weight, bias, 2**-10).backward(grad)
    found = layer_norm_gradients(states.astype(dtype), weight.astype(dtype), 2**-10, grad.astype(dtype))
    for ours, paddles in zip(found, (states.grad, weight.grad, bias.grad), strict=True):
        assert ours.dtype == getattr(paddle, dtype)
        scale = np.abs(paddles.numpy()).max()
        np.testing.assert_allclose(ours.numpy(), paddles.numpy(), rtol=0, atol=error * scale)


def test_threads_change_no_bit(monkeypatch):
    arrays = drawn((5 * ROWS, 40), (40,), (5 * ROWS, 40))
    states, weight, grad = (paddle.to_tensor(array, "float32") for array in arrays)
    found = []
    for threads in (1, 2):
        monkeypatch.setattr(glm.cpu.loops, "cpu_threads", lambda threads=threads: threads)
        found.append([part.numpy() for part in layer_norm_gradients(states, weight, 1e-5, grad)])
    for one, two in zip(*found, strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("size", [16, 32, 40, 48])
@pytest.mark.parametrize("name", ROW_LOOPS)
def test_neighbours_in_memory_change_no_bit(name, size):
    """Rows that lie a few vectors apart, in every order, and far apart."""
    loop, count = ROW_LOOPS[name]
    values = np.random.default_rng(3).normal(1.0, 2.0, (count, size)).astype("float32")
    found = set()
    for order in permutations(range(count)):
        for gap in (0, 4, 1024):
            memory = np.zeros((count, size + gap), np.float32)
            rows = [memory[place, :size] for place in order]
            for row, value in zip(rows, values, strict=True):
                row[:] = value
            loop(*rows)
            found.add(np.stack(rows).tobytes())
    assert len(found) == 1
