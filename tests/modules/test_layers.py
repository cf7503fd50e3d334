"""Layers written by hand for training on a CPU, against Paddle's own and against arithmetic."""

import math

import numpy as np
import paddle
import pytest
from paddle import nn
from paddle.distributed.fleet.utils import recompute

import glm.cpu.arrays
import glm.modules.layers
from glm.modules.layers import (
    GELU,
    Dropout,
    ExactGELU,
    LayerNorm,
    Linear,
    TiedEmbedding,
    column_sums,
    worth_by_hand,
)
from glm.modules.loss import smoothed_cross_entropy


@pytest.fixture(autouse=True, params=[1, 2], ids=["one thread", "two threads"])
def by_hand(request, monkeypatch):
    """Small arrays too, in blocks of 16 numbers."""
    monkeypatch.setattr(glm.modules.layers, "MIN_PARALLEL_SIZE", 0)
    monkeypatch.setattr(glm.cpu.arrays, "MIN_PARALLEL_SIZE", 0)
    monkeypatch.setattr(glm.cpu.arrays, "BLOCK", 16)
    monkeypatch.setattr(glm.modules.layers, "STREAM", 64)
    monkeypatch.setattr(glm.cpu.arrays, "cpu_threads", lambda: request.param)
    glm.cpu.arrays._pool.cache_clear()
    yield
    glm.cpu.arrays._pool.cache_clear()


def numbers(*shape: int, seed: int = 0) -> paddle.Tensor:
    return paddle.to_tensor(np.random.default_rng(seed).normal(1.0, 2.0, shape))  # float64


def result_and_gradients(layer: nn.Layer, states: paddle.Tensor, slope: paddle.Tensor) -> list[np.ndarray]:
    """What a layer returns, and gradients of states and parameters."""
    states = states.clone().detach()
    states.stop_gradient = False
    layer.train()
    result = layer(states)
    result.backward(slope)
    return [result.numpy(), states.grad.numpy(), *(weight.grad.numpy() for weight in layer.parameters())]


@pytest.mark.parametrize("shape", [(7, 8), (2, 3, 8), (1, 8)])
@pytest.mark.parametrize(
    ("own", "paddles", "width"),
    [(lambda: Linear(8, 5), lambda: nn.Linear(8, 5), 5), (lambda: LayerNorm(8), lambda: nn.LayerNorm(8), 8)],
    ids=["linear", "layernorm"],
)
def test_equal_to_paddles_layer(own, paddles, width, shape, monkeypatch):
    own, paddles = own().to(dtype="float64"), paddles().to(dtype="float64")
    for number, (mine, theirs) in enumerate(zip(own.parameters(), paddles.parameters(), strict=True)):
        mine.set_value(numbers(*mine.shape, seed=number + 1))
        theirs.set_value(mine)
    states, slope = numbers(*shape, seed=7), numbers(*shape[:-1], width, seed=8)
    expected = result_and_gradients(paddles, states, slope)
    monkeypatch.setattr(nn.Linear, "forward", None)  # so that nothing falls back on them
    monkeypatch.setattr(nn.LayerNorm, "forward", None)
    for mine, theirs in zip(result_and_gradients(own, states, slope), expected, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-11)


def test_few_numbers_are_left_to_paddle(monkeypatch):
    monkeypatch.setattr(glm.modules.layers, "MIN_PARALLEL_SIZE", 16)
    assert worth_by_hand(paddle.ones([2, 8])) and not worth_by_hand(paddle.ones([3, 5]))
    monkeypatch.setattr(glm.modules.layers._Linear, "apply", None)
    monkeypatch.setattr(glm.modules.layers._LayerNorm, "apply", None)
    layer = nn.Sequential(LayerNorm(5), Linear(5, 5))
    layer.train()
    assert layer(paddle.ones([3, 5])).shape == [3, 5]


def test_column_sums():
    table = numbers(9, 6)
    np.testing.assert_allclose(column_sums(table).numpy(), table.numpy().sum(0), rtol=1e-12)


@pytest.mark.parametrize("worth", [0, 1 << 30], ids=["by hand", "by Paddle"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gelu(worth, dtype, monkeypatch):
    """And its gradient, against the formula in float64 and its central differences."""
    monkeypatch.setattr(glm.modules.layers, "MIN_PARALLEL_SIZE", worth)

    def gelu(x):
        return x * 0.5 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))

    x = np.linspace(-12, 12, 3000)
    states = paddle.to_tensor(x.reshape(2, 15, 100), dtype, stop_gradient=False)
    layer, slope = GELU(), np.cos(x)
    layer.train()
    result = layer(states)
    result.backward(paddle.to_tensor(slope.reshape(states.shape), dtype))
    exact = slope * (gelu(x + 1e-5) - gelu(x - 1e-5)) / 2e-5
    np.testing.assert_allclose(result.numpy().ravel(), gelu(x), rtol=1e-6, atol=2e-6)
    np.testing.assert_allclose(states.grad.numpy().ravel(), exact, atol=3e-6)


@pytest.mark.parametrize("worth", [0, 1 << 30], ids=["by hand", "by Paddle"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_exact_gelu(worth, dtype, monkeypatch):
    """And its gradient, against the error function of Python's library; outside training too."""
    monkeypatch.setattr(glm.modules.layers, "MIN_PARALLEL_SIZE", worth)
    x = np.linspace(-12, 12, 3000)
    phi = 0.5 * (1 + np.array([math.erf(number / math.sqrt(2)) for number in x]))
    states = paddle.to_tensor(x.reshape(2, 15, 100), dtype, stop_gradient=False)
    layer, slope = ExactGELU(), np.cos(x)
    result = layer(states)
    result.backward(paddle.to_tensor(slope.reshape(states.shape), dtype))
    np.testing.assert_allclose(result.numpy().ravel(), x * phi, rtol=0, atol=1e-6)
    exact = slope * (phi + x * np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi))
    np.testing.assert_allclose(states.grad.numpy().ravel(), exact, rtol=0, atol=1e-6)
    layer.eval()
    np.testing.assert_allclose(layer(states).numpy().ravel(), x * phi, rtol=0, atol=1e-6)


def test_gelu_by_hand_is_that_of_training_in_float32(monkeypatch):
    monkeypatch.setattr(nn.GELU, "forward", lambda self, states: "Paddle's")
    layer = GELU()
    assert layer(paddle.ones([3, 5])) is not None and layer(paddle.ones([3, 5], "float64")) == "Paddle's"
    layer.eval()
    assert layer(paddle.ones([3, 5])) == "Paddle's"


@pytest.mark.parametrize("ids", [[1, 4, 1], [5]])
def test_gradient_of_a_table_that_is_the_head_too(ids):
    """In two steps, so that it is added to what is there."""
    own, paddles = TiedEmbedding(6, 8), nn.Embedding(6, 8)
    paddles.weight.set_value(own.weight)
    for table in (own, paddles):
        table.train()
        for _ in range(2):
            states = table(paddle.to_tensor([ids])) * numbers(1, len(ids), 8).astype("float32")
            logits = paddle.matmul(states.square(), table.weight, transpose_y=True)
            logits.square().sum().backward()
    assert not own.weight.grad.is_selected_rows()
    np.testing.assert_allclose(own.weight.grad.numpy(), paddles.weight.grad.numpy(), rtol=1e-6)


def test_gradient_of_a_table_without_labels():
    table = TiedEmbedding(6, 8)
    table.train()
    states = table(paddle.to_tensor([3, 1]))
    smoothed_cross_entropy(states[:0], table.weight, paddle.zeros([0], "int64")).backward()
    assert not table.weight.grad.is_selected_rows() and not table.weight.grad.any()


@pytest.mark.parametrize("is_frozen", [False, True])
def test_gradient_through_a_frozen_norm(is_frozen, monkeypatch):
    """Of few numbers too: Paddle's own is wrong where the weight is frozen. Against finite differences, in float64."""
    monkeypatch.setattr(glm.modules.layers, "MIN_PARALLEL_SIZE", 1 << 30)
    layer = LayerNorm(8).to(dtype="float64")
    layer.train()
    layer.weight.set_value(numbers(8, seed=1))
    layer.weight.stop_gradient = is_frozen
    states, slope, direction = (numbers(3, 8, seed=seed) for seed in (2, 3, 4))
    states.stop_gradient = False
    (layer(states) * slope).sum().backward()
    ends = [float((layer(states + step * direction) * slope).sum()) for step in (1e-6, -1e-6)]
    assert float((states.grad * direction).sum()) == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-7)


def test_dropout_leaves_means_and_drops_the_same_in_both_passes():
    layer, states = Dropout(0.25), paddle.ones([400, 50])
    states.stop_gradient = False
    layer.train()
    result = layer(states)
    result.sum().backward()
    values, counts = np.unique(result.numpy(), return_counts=True)
    np.testing.assert_allclose(values, [0.0, 1 / 0.75], rtol=1e-6)
    assert counts[0] / 20000 == pytest.approx(0.25, abs=0.02)
    np.testing.assert_array_equal(states.grad.numpy(), result.numpy())
    assert (layer(states).numpy() != result.numpy()).any()
    layer.eval()
    np.testing.assert_array_equal(layer(states).numpy(), states.numpy())


@pytest.mark.parametrize("build", [lambda: Linear(8, 8), lambda: LayerNorm(8)], ids=["linear", "layernorm"])
@pytest.mark.parametrize("frozen", [0, 1, 2], ids=["states", "weight", "bias"])
def test_what_is_frozen_gets_no_gradient(build, frozen):
    layer = build()
    layer.train()
    found = []
    for is_frozen in (False, True):
        parts = [paddle.ones([3, 8]) * paddle.arange(8.0), *layer.parameters()]
        for place, part in enumerate(parts):
            part.stop_gradient = is_frozen and place == frozen
            part.clear_gradient(False)
        (layer(parts[0]) * paddle.arange(8.0)).sum().backward()
        found.append([None if part.grad is None else part.grad.numpy() for part in parts])
    for place, (free, rest) in enumerate(zip(*found, strict=True)):
        assert free is not None and (rest is None) == (place == frozen)
        if rest is not None:
            np.testing.assert_array_equal(rest, free)


def test_recomputed_layers_draw_the_same_dropout():
    layers = nn.Sequential(LayerNorm(8), Linear(8, 8), Dropout(0.5))
    layers.train()
    found = []
    for function in (layers, lambda states: recompute(layers, states)):
        paddle.seed(3)
        states = paddle.to_tensor(np.random.default_rng(4).normal(size=(6, 8)), "float32", stop_gradient=False)
        layers.clear_gradients()
        function(states).sum().backward()
        found.append([states.grad.numpy(), *(weight.grad.numpy() for weight in layers.parameters())])
    for kept, again in zip(*found, strict=True):
        assert np.abs(kept).max() > 0
        np.testing.assert_array_equal(again, kept)
