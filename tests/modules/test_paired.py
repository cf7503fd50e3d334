"""Attention between two tables: hand-written and compiled against Paddle's operators, values and gradients."""

import numpy as np
import paddle
import pytest

from glm.modules.paired import Pairs, by_example, paired_attention

SEEN = Pairs((3, 130, 1), (70, 5, 260))


def tables(head_size, dtype, *, bias, seed=0):
    random, N = np.random.default_rng(seed), 2
    shapes = [(134, N * head_size), (335, 2 * N * head_size)]
    arrays = [random.normal(0, 1, shape).astype(dtype) for shape in shapes]
    if bias:
        arrays.append(random.normal(0, 1, (N, 2 * 300 + 1)).astype(dtype))
    tensors = [paddle.to_tensor(array) for array in arrays]
    for tensor in tensors:
        tensor.stop_gradient = False
    return tensors


def results(function, tensors, **options):
    bias = tensors[2] if len(tensors) > 2 else None
    queries, pairs = tensors[:2]
    if function is paired_attention:  # as parts of one table: their memory has gaps
        queries = paddle.concat([queries, queries], axis=1)[:, : queries.shape[1]]
    context = function(queries, pairs, SEEN, 2, bias=bias, **options)
    weights = np.random.default_rng(9).normal(0, 1, context.shape).astype(str(context.dtype).rpartition(".")[2])
    (context * paddle.to_tensor(weights)).sum().backward()
    return [context.numpy(), *(tensor.grad.numpy() for tensor in tensors)]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    "head_size, dtype, close", [(64, "float32", 2e-4), (8, "float64", 1e-12), (8, "float32", 1e-4)]
)
def test_values_and_gradients_are_those_of_paddles_operators(head_size, dtype, close, bias):
    """64 is compiled, 8 is NumPy's."""
    found = results(paired_attention, tables(head_size, dtype, bias=bias))
    wanted = results(by_example, tables(head_size, dtype, bias=bias))
    for own, other in zip(found, wanted, strict=True):
        assert np.abs(own - other).max() <= close * max(1.0, np.abs(other).max())


@pytest.mark.parametrize("head_size, dtype", [(64, "float32"), (8, "float64")])
def test_dropout_has_the_right_mean_and_gradients_of_what_it_drew(head_size, dtype):
    queries, pairs, bias = tables(head_size, dtype, bias=True)
    paddle.seed(3)
    runs = [paired_attention(queries, pairs, SEEN, 2, bias=bias, dropout=0.3).numpy() for _ in range(400)]
    exact = paired_attention(queries, pairs, SEEN, 2, bias=bias).numpy()
    assert np.abs(np.mean(runs, axis=0) - exact).max() < 0.25
    assert np.abs(runs[0] - runs[1]).max() > 0.1
    direction = np.random.default_rng(4).normal(0, 1, pairs.shape).astype(dtype)

    def loss(step):
        paddle.seed(5)
        moved = pairs.detach() + paddle.to_tensor(step * direction)
        moved.stop_gradient = False
        total = (paired_attention(queries, moved, SEEN, 2, bias=bias, dropout=0.3) ** 2).sum()
        return total, moved

    total, moved = loss(np.asarray(0.0, dtype))
    total.backward()
    slope = float((moved.grad * paddle.to_tensor(direction)).sum())
    h = 1e-6 if dtype == "float64" else 1e-3
    differences = (float(loss(np.asarray(h, dtype))[0]) - float(loss(np.asarray(-h, dtype))[0])) / (2 * h)
    assert slope == pytest.approx(differences, rel=1e-6 if dtype == "float64" else 2e-2)
