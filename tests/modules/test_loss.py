"""The training objective against the formula in NumPy, and its gradient against finite differences."""

import math

import numpy as np
import paddle
import pytest

import glm.modules.loss
from glm.modules.loss import Smoothing, costs_and_slopes, smoothed_cross_entropy
from reference.forward import loss as reference_loss

SMOOTHING = [0.0, 0.1, 0.5, 1.0]


def random_case(*, n=6, V=9, scale=3.0):
    generator = np.random.default_rng(5)
    return generator.normal(scale=scale, size=(n, V)).astype("float32"), generator.integers(V, size=n)


def loss_of_logits(logits, labels, **options):
    """The loss through a head that leaves its input as it is."""
    return smoothed_cross_entropy(logits, paddle.eye(logits.shape[1]).astype(logits.dtype), labels, **options)


def loss_and_gradient(logits, labels, label_smoothing):
    tensor = paddle.to_tensor(logits, stop_gradient=False)
    loss = loss_of_logits(tensor, paddle.to_tensor(labels), label_smoothing=label_smoothing)
    loss.backward()
    return float(loss), tensor.grad.numpy()


def test_loss_by_hand():
    # p = 1/2, 1/4, 1/4: -log p in units of log 2 is 1, 2, 2, its mean 5/3
    logits = np.log([[0.5, 0.25, 0.25]]).astype("float32") + 7
    assert loss_and_gradient(logits, np.array([1]), 0.0)[0] == pytest.approx(2 * math.log(2), abs=1e-6)
    assert loss_and_gradient(logits, np.array([1]), 0.1)[0] == pytest.approx(
        (0.9 * 2 + 0.1 * 5 / 3) * math.log(2), abs=1e-6
    )


@pytest.mark.parametrize("label_smoothing", SMOOTHING)
def test_loss_equals_reference(label_smoothing):
    logits, labels = random_case()
    got, _ = loss_and_gradient(logits, labels, label_smoothing)
    assert got == pytest.approx(reference_loss(logits[None], labels[None], label_smoothing), abs=1e-5)


@pytest.mark.parametrize("label_smoothing", SMOOTHING)
def test_gradient_equals_formula_and_finite_differences(label_smoothing):
    logits, labels = random_case()
    n, V = logits.shape
    _, got = loss_and_gradient(logits, labels, label_smoothing)

    powers = np.exp(logits.astype("float64") - logits.max(axis=1, keepdims=True))
    target = (1 - label_smoothing) * np.eye(V)[labels] + label_smoothing / V
    np.testing.assert_allclose(got, (powers / powers.sum(axis=1, keepdims=True) - target) / n, atol=1e-6)

    step = 1e-4
    for row in range(n):
        for column in range(V):
            above, below = logits.astype("float64"), logits.astype("float64")
            above[row, column] += step
            below[row, column] -= step
            rise = reference_loss(above[None], labels[None], label_smoothing)
            rise -= reference_loss(below[None], labels[None], label_smoothing)
            assert got[row, column] == pytest.approx(rise / (2 * step), abs=1e-5)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_large_logits_neither_overflow_nor_vanish(label_smoothing):
    logits = np.array([[3e4, -3e4, 0.0], [-5e4, 1e4, 1e4]], dtype="float32")
    labels = np.array([2, 1])
    got, gradient = loss_and_gradient(logits, labels, label_smoothing)
    assert got == pytest.approx(reference_loss(logits[None], labels[None], label_smoothing), rel=1e-6)
    want = np.array([[1.0, 0, -1], [0, -0.5, 0.5]]) / 2
    smooth = np.array([[2, -1, -1], [-1, 0.5, 0.5]]) / 6  # (p - 1/V) / n
    np.testing.assert_allclose(gradient, (1 - label_smoothing) * want + label_smoothing * smooth, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_logits_are_summed_in_float32(dtype, monkeypatch):
    product = paddle.matmul  # a CPU has none in half precision

    def half(a, b, **options):
        return product(a.astype("float32"), b.astype("float32"), **options).astype(dtype)

    monkeypatch.setattr(paddle, "matmul", half)
    # 4,000 equal logits: the loss is log 4000, and the half-precision numbers beside it are 0.001 away
    logits = paddle.zeros([2, 4000]).astype(dtype)
    loss = loss_of_logits(logits, paddle.to_tensor([0, 3999]), label_smoothing=0.1)
    assert loss.dtype == paddle.float32 and loss.shape == []
    assert float(loss) == pytest.approx(math.log(4000), abs=1e-4)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("chunk", [1, 2, 6, 7, 512])
def test_chunks_do_not_change_loss_and_gradients(chunk, label_smoothing, monkeypatch):
    """In float64 against the formula: d loss / d logits = p - (1 - e) [label] - e / V, divided by n."""
    monkeypatch.setattr(glm.modules.loss, "CHUNK", chunk)
    random = np.random.default_rng(2)
    states, head, labels = random.normal(size=(7, 4)), random.normal(size=(9, 4)), random.integers(9, size=7)
    tensors = [paddle.to_tensor(table, stop_gradient=False) for table in (states, head)]
    loss = smoothed_cross_entropy(*tensors, paddle.to_tensor(labels), label_smoothing=label_smoothing)
    loss.backward()
    logits = states @ head.T
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    target = (1 - label_smoothing) * np.eye(9)[labels] + label_smoothing / 9
    slopes = (probabilities - target) / 7
    assert float(loss) == pytest.approx(-(target * np.log(probabilities)).sum() / 7, abs=1e-12)
    np.testing.assert_allclose(tensors[0].grad.numpy(), slopes @ head, atol=1e-12)
    np.testing.assert_allclose(tensors[1].grad.numpy(), slopes.T @ states, atol=1e-12)


def test_no_more_logits_than_a_chunk_exist(monkeypatch):
    monkeypatch.setattr(glm.modules.loss, "CHUNK", 3)
    shapes, product = [], paddle.matmul

    def recorded(*args, **options):
        result = product(*args, **options)
        shapes.append(result.shape)
        return result

    monkeypatch.setattr(paddle, "matmul", recorded)
    states, head = paddle.randn([11, 4]), paddle.randn([20, 4])
    states.stop_gradient = False
    smoothed_cross_entropy(states, head, paddle.arange(11)).backward()
    assert [shape for shape in shapes if shape[-1] == 20] == [[3, 20]] * 3 + [[2, 20]]


def test_the_form_for_other_devices_is_the_same():
    logits, labels = random_case()
    for label_smoothing in SMOOTHING:
        want = costs_and_slopes(paddle.to_tensor(logits), paddle.to_tensor(labels), Smoothing(label_smoothing), True)
        got = glm.modules.loss._by_paddle(
            paddle.to_tensor(logits), paddle.to_tensor(labels), Smoothing(label_smoothing), None
        )
        for ours, paddles in zip(want, got, strict=True):
            np.testing.assert_allclose(ours.numpy(), paddles.numpy(), atol=1e-6)


def divergence(logits: np.ndarray, labels: np.ndarray, share: float, spared: int) -> np.ndarray:
    """Of each token, from the target distribution to the model's, word by word."""
    found = np.zeros(len(labels))
    for row, label in enumerate(labels):
        V = logits.shape[1]
        target = np.full(V, share / (V - 2))
        target[spared], target[label] = 0.0, 1.0 - share
        log_p = logits[row] - np.log(np.exp(logits[row]).sum())
        positive = target > 0
        found[row] = (target[positive] * (np.log(target[positive]) - log_p[positive])).sum()
    return np.where(labels == spared, 0.0, found)


@pytest.mark.parametrize("by_paddle", [False, True], ids=["on rows", "by Paddle"])
@pytest.mark.parametrize("share", [0.1, 0.5])
def test_smoothing_that_spares_a_token_is_a_divergence(share, by_paddle, monkeypatch):
    """A label that is the spared token costs nothing; the gradient is that of finite differences."""
    logits, labels = random_case()
    logits, labels[2] = logits.astype("float64"), 0
    if by_paddle:
        monkeypatch.setattr(
            glm.modules.loss,
            "costs_and_slopes",
            lambda logits, labels, smoothing, wanted, group: glm.modules.loss._by_paddle(
                logits, labels, smoothing, group
            ),
        )
    tensor = paddle.to_tensor(logits, stop_gradient=False)
    loss = loss_of_logits(tensor, paddle.to_tensor(labels), label_smoothing=Smoothing(share, spared=0))
    loss.backward()
    assert float(loss) == pytest.approx(divergence(logits, labels, share, 0).mean(), abs=1e-12)
    for row, column in np.ndindex(*logits.shape):
        change = np.zeros_like(logits)
        change[row, column] = 1e-5
        above, below = (divergence(logits + sign * change, labels, share, 0).mean() for sign in (1, -1))
        assert tensor.grad.numpy()[row, column] == pytest.approx((above - below) / 2e-5, abs=1e-8)


@pytest.mark.parametrize("chunk", [512, 4])
def test_bias_of_the_head(chunk, monkeypatch):
    """Its gradient, and that the loss with it is the one of logits with it."""
    monkeypatch.setattr(glm.modules.loss, "CHUNK", chunk)
    logits, labels = random_case()
    generator = np.random.default_rng(9)
    states, head, bias = (generator.normal(size=shape) for shape in ((6, 5), (9, 5), (9,)))
    tensors = [paddle.to_tensor(part, stop_gradient=False) for part in (states, head, bias)]
    found = smoothed_cross_entropy(*tensors[:2], paddle.to_tensor(labels), bias=tensors[2], label_smoothing=0.1)
    found.backward()
    expected = paddle.to_tensor(states @ head.T + bias, stop_gradient=False)
    loss = loss_of_logits(expected, paddle.to_tensor(labels), label_smoothing=0.1)
    loss.backward()
    slopes = expected.grad.numpy()
    assert float(found) == pytest.approx(float(loss), abs=1e-12)
    for tensor, gradient in zip(tensors, (slopes @ head, slopes.T @ states, slopes.sum(0)), strict=True):
        np.testing.assert_allclose(tensor.grad.numpy(), gradient, atol=1e-12)
