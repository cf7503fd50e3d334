"""Products of training in bfloat16: against NumPy's in float64 of operands that Paddle has rounded."""

import numpy as np
import paddle
import pytest

from glm.cpu.bfloat16 import ROWS, BFloat16Linear, product, rounded
from glm.modules.loss import smoothed_cross_entropy
from glm.runtime.onednn import multiplies_bfloat16

needs_instructions = pytest.mark.skipif(not multiplies_bfloat16(), reason="the processor has no AVX512_BF16 or AMX")
# What a number is rounded by at most, relative to it: of 24 and of 8 binary digits.
UNIT, UNIT_OF_BFLOAT16 = 2.0**-24, 2.0**-8


def drawn(*shapes: tuple[int, ...]) -> list[np.ndarray]:
    random = np.random.default_rng(11)
    return [random.normal(size=shape).astype(np.float32) for shape in shapes]


def by_paddle(table: np.ndarray) -> np.ndarray:
    """Rounded to bfloat16, in float64."""
    return paddle.to_tensor(table).astype("bfloat16").astype("float32").numpy().astype(np.float64)


def assert_is_sum(found: np.ndarray, a: np.ndarray, b: np.ndarray, added: np.ndarray | float = 0.0) -> None:
    """[m, k] times [k, n] in float64, within what adding k products up in float32 may cost in any order."""
    most = (a.shape[1] + 1) * UNIT * (np.abs(a) @ np.abs(b) + np.abs(added))
    assert (np.abs(found - (a @ b + added)) <= most).all()


def test_numbers_are_rounded_to_the_nearest_of_two_the_even_one():
    bits = [0x3F808000, 0x3F818000, 0x3F808001, 0x3F807FFF, 0xBF808001, 0x7F7FFFFF, 0x7F800000, 0xFF800000, 1, 0]
    found = rounded(paddle.to_tensor(np.array([bits], np.uint32).view(np.float32)))[0]
    assert [hex(number) for number in found] == [
        *("0x3f80", "0x3f82", "0x3f81", "0x3f80", "0xbf81"),
        *("0x7f80", "0x7f80", "0xff80", "0x0", "0x0"),  # the largest float32 becomes infinite
    ]


def test_not_a_number_stays_one():
    nans = np.array([[0x7FC00000, 0x7F800001, 0xFFFFFFFF]], np.uint32).view(np.float32)
    found = rounded(paddle.to_tensor(nans)).astype(np.uint32) << np.uint32(16)
    assert np.isnan(found.view(np.float32)).all()


def test_many_numbers_are_rounded_as_paddle_rounds_them():
    (table,) = drawn((37, 1001))
    found = (rounded(paddle.to_tensor(table)).astype(np.uint32) << np.uint32(16)).view(np.float32)
    np.testing.assert_array_equal(found, by_paddle(table))


@needs_instructions
@pytest.mark.parametrize("transpose_a", [False, True])
@pytest.mark.parametrize("transpose_b", [False, True])
@pytest.mark.parametrize(("m", "k", "n"), [(1, 1, 1), (3, 7, 2), (65, 130, 33), (256, 300, 515)])
def test_products(m, k, n, transpose_a, transpose_b):
    a, b = drawn((m, k), (k, n))
    factors = [
        np.ascontiguousarray(part.T) if turned else part for part, turned in ((a, transpose_a), (b, transpose_b))
    ]
    found = product(
        *(rounded(paddle.to_tensor(part)) for part in factors), transpose_a=transpose_a, transpose_b=transpose_b
    )
    assert found.dtype == paddle.float32
    assert_is_sum(found.numpy(), by_paddle(a), by_paddle(b))


@needs_instructions
def test_no_rows():
    assert product(np.empty((0, 4), np.uint16), np.empty((4, 3), np.uint16)).shape == [0, 3]
    states = paddle.zeros([0, 4])
    states.stop_gradient = False
    weight, bias = (paddle.to_tensor(part, stop_gradient=False) for part in drawn((4, 3), (3,)))
    BFloat16Linear.apply(states, weight, bias).sum().backward()
    assert float(weight.grad.abs().sum()) == float(bias.grad.abs().sum()) == 0.0


@needs_instructions
@pytest.mark.parametrize("lead", [(5,), (3, ROWS + 1)])
def test_a_linear_and_its_gradients(lead):
    states, weight, bias, grad = drawn((*lead, 48), (48, 20), (20,), (*lead, 20))
    operands = [paddle.to_tensor(part, stop_gradient=False) for part in (states, weight, bias)]
    output = BFloat16Linear.apply(*operands)
    output.backward(paddle.to_tensor(grad))
    x, w, g = by_paddle(states).reshape(-1, 48), by_paddle(weight), by_paddle(grad).reshape(-1, 20)
    assert_is_sum(output.numpy().reshape(-1, 20), x, w, bias)
    assert_is_sum(operands[0].grad.numpy().reshape(-1, 48), g, w.T)
    assert_is_sum(operands[1].grad.numpy(), x.T, g)
    ones = np.ones((1, len(g)))  # the bias is no factor: its gradient is of numbers that are not rounded
    assert_is_sum(operands[2].grad.numpy()[None], ones, grad.reshape(-1, 20).astype(np.float64))


@needs_instructions
@pytest.mark.parametrize("frozen", [(0,), (1, 2), (0, 1, 2)])
def test_a_frozen_part_has_no_gradient(frozen):
    tables = drawn((6, 8), (8, 4), (4,), (6, 4))
    whole, partly = ([paddle.to_tensor(part, stop_gradient=False) for part in tables[:3]] for _ in range(2))
    for number in frozen:
        partly[number].stop_gradient = True
    BFloat16Linear.apply(*whole).backward(paddle.to_tensor(tables[3]))
    output = BFloat16Linear.apply(*partly)
    if len(frozen) < 3:
        output.backward(paddle.to_tensor(tables[3]))
    for number, (one, other) in enumerate(zip(whole, partly, strict=True)):
        if number in frozen:
            assert other.grad is None
        else:
            np.testing.assert_array_equal(one.grad.numpy(), other.grad.numpy())


@needs_instructions
@pytest.mark.parametrize("chunk", [4, 512])
def test_the_loss_of_a_head(chunk, monkeypatch):
    """Against the formula p - [label] in float64, of operands that are rounded; the gradient of logits is, too."""
    monkeypatch.setattr("glm.modules.loss.CHUNK", chunk)
    states, head, bias = drawn((10, 24), (50, 24), (50,))
    labels = np.arange(10) * 4
    operands = [paddle.to_tensor(part, stop_gradient=False) for part in (states, head)]
    loss = smoothed_cross_entropy(
        *operands, paddle.to_tensor(labels), bias=paddle.to_tensor(bias), num_items=1, in_bfloat16=True
    )
    loss.backward()
    x, w = by_paddle(states), by_paddle(head)
    logits = x @ w.T + bias
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert float(loss) == pytest.approx(-np.log(shares[np.arange(10), labels]).sum(), rel=1e-6)
    slopes = shares - np.eye(50)[labels]
    for found, a, b in ((operands[0], slopes, w), (operands[1], slopes.T, x)):
        most = (UNIT_OF_BFLOAT16 + 1e-5) * (np.abs(a) @ np.abs(b)) + 1e-6
        assert (np.abs(found.grad.numpy() - a @ b) <= most).all()
    exact = smoothed_cross_entropy(
        *operands, paddle.to_tensor(labels), bias=paddle.to_tensor(bias), num_items=1, in_bfloat16=False
    )
    assert float(exact) != float(loss)
