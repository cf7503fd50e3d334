"""LayerNorm's gradients of more rows than one thread adds up, against Paddle's in float64."""

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest

import glm.cpu.loops
from glm.cpu.rows import ROWS, layer_norm_gradients


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
