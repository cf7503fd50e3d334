"""Compiled attention in two parts against Paddle's operators, and with the dropout that it drew against plain ones."""

import numpy as np
import paddle
import pytest

import glm.cpu.arrays
import glm.cpu.loops
import glm.cpu.two_part
from glm.cpu.arrays import HEAD_SIZE
from glm.cpu.two_part import BLOCK, CompiledTwoPartAttention, _draw
from glm.models.glm.geometry import attention_mask
from glm.modules.attention import TwoPartAttention
from glm.modules.block import cpu_attention
from glm.modules.packing import Packing
from tools.attention_tools import assert_as_by_operators, compiled, drawn, outcome, packing

N, H = 2, 2 * HEAD_SIZE
EXAMPLES = [
    [(9, 5)],
    [(7, 0), (0, 6), (3, 2), (0, 1), (1, 0)],
    [(BLOCK, 1), (BLOCK - 1, BLOCK + 1)],
    [(130, 70), (64, 64), (1, 129)],
]


@pytest.mark.parametrize("examples", EXAMPLES)
def test_against_paddles_operators(examples):
    assert_as_by_operators(compiled, examples, N, H, atol=5e-6)


def test_virtual_tokens_are_keys_and_values_only():
    """What they see, and the gradient of it, is left out; the others see them as they do the rest of Part A."""
    prefixed = packing((9, 5), (70, 3)).with_prefix(7)
    plain = Packing(prefixed.places, prefixed.examples)
    virtual = prefixed.places < 7
    projected, slope = drawn(len(virtual), H)
    slope[paddle.to_tensor(virtual)] = 0.0
    found = []
    for parts in (plain, prefixed):
        context = compiled(projected, parts, N, 0.0)
        context.backward(slope)
        found.append((context.numpy()[~virtual], projected.grad.numpy()))
        projected.clear_grad()
    np.testing.assert_allclose(found[1][0], found[0][0], atol=1e-6)
    np.testing.assert_allclose(found[1][1], found[0][1], atol=1e-6)
    assert not found[1][1][virtual, :H].any() and found[1][1][virtual, H:].all()


def with_masks(projected, parts, masks, dropout):
    """Attention with the given masks [S + T, S + T] of each example and head, in Paddle's operators."""
    contexts = []
    for (start, middle, end), of_heads in zip(parts.spans(), masks, strict=True):
        S, T = middle - start, end - middle
        visible = paddle.to_tensor(attention_mask([S], S, T)[0, 0])
        query, keys, values = projected[start:end].reshape([S + T, 3, N, HEAD_SIZE]).transpose([1, 2, 0, 3]).unbind(0)
        scores = paddle.matmul(query, keys, transpose_y=True) / HEAD_SIZE**0.5
        shares = paddle.nn.functional.softmax(paddle.where(visible, scores, paddle.full_like(scores, -1e30)))
        shares = shares * paddle.to_tensor(np.stack(of_heads)).astype(shares.dtype) / (1 - dropout)
        contexts.append(paddle.matmul(shares, values).transpose([1, 0, 2]).reshape([S + T, H]))
    return paddle.concat(contexts)


@pytest.mark.parametrize("examples", EXAMPLES)
@pytest.mark.parametrize("dropout", [0.1, 0.6])
@pytest.mark.parametrize("threads", [False, True])
@pytest.mark.parametrize("virtual", [0, 7])
def test_dropout_is_that_of_the_masks_drawn(examples, dropout, threads, virtual, monkeypatch):
    monkeypatch.setattr(glm.cpu.two_part, "MIN_PARALLEL_SIZE", 0 if threads else 1 << 40)
    monkeypatch.setattr(glm.cpu.arrays, "cpu_threads", lambda: 2)
    parts = packing(*examples).with_prefix(virtual) if virtual else packing(*examples)
    paddle.seed(7)
    kept, starts = _draw(np.array(list(parts.spans())), virtual, N, dropout)
    assert kept.mean() == pytest.approx(1 - dropout, abs=5 / len(kept) ** 0.5)
    masks = []
    for (S, T), of_example in zip(parts.examples, starts, strict=True):
        masks.append([])
        for start in of_example:
            mask = np.zeros((S + T, S + T), bool)
            middle = start + (S - virtual) * S
            mask[virtual:S, :S] = kept[start:middle].reshape(S - virtual, S)
            mask[S:] = kept[middle : middle + T * (S + T)].reshape(T, S + T)
            masks[-1].append(mask)
    own = parts.places >= virtual

    def of_own(context):  # virtual tokens have no rows of a meaning
        return paddle.where(paddle.to_tensor(own).unsqueeze(1), context, paddle.zeros_like(context))

    n = len(own)
    want = outcome(lambda projected: of_own(with_masks(projected, parts, masks, dropout)), n, H, "float64")
    paddle.seed(7)
    got = outcome(lambda projected: of_own(compiled(projected, parts, N, dropout)), n, H)
    for ours, exact in zip(got, want, strict=True):
        np.testing.assert_allclose(ours, exact, atol=5e-6 / (1 - dropout))


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_threads_change_no_bit(dropout, monkeypatch):
    """Runs go on bit for bit with another number of them."""
    parts, found = packing((130, 70), (64, 64), (1, 129)), []
    for threads in (1, 2):
        monkeypatch.setattr(glm.cpu.loops, "cpu_threads", lambda threads=threads: threads)
        paddle.seed(4)
        found.append(outcome(lambda projected: compiled(projected, parts, N, dropout), 458, H))
    for one, two in zip(*found, strict=True):
        np.testing.assert_array_equal(one, two)


def test_masks_of_heads_and_examples_differ():
    kept, starts = _draw(np.array([[0, 40, 40], [40, 80, 80]]), 0, 2, 0.5)
    tables = [kept[start : start + 1600] for start in starts.flatten()]
    for first in range(4):
        for second in range(first):
            assert 0.4 < (tables[first] == tables[second]).mean() < 0.6


def test_nan_reaches_all_that_see_it():
    parts = packing((70, 5), (3, 4))
    projected = drawn(82, H)[0].detach()
    projected[3] = float("nan")
    context = compiled(projected, parts, N, 0.0)
    assert paddle.isnan(context)[:75].all() and not paddle.isnan(context)[75:].any()


@pytest.mark.parametrize(
    ("heads", "dtype", "kind"),
    [(N, "float32", CompiledTwoPartAttention), (2 * N, "float32", TwoPartAttention), (N, "float64", TwoPartAttention)],
)
def test_which_attention_runs(heads, dtype, kind, monkeypatch):
    ran = []
    for each in (CompiledTwoPartAttention, TwoPartAttention):
        monkeypatch.setattr(each, "apply", lambda *_, each=each: ran.append(each))
    cpu_attention(drawn(5, H, dtype)[0], packing((3, 2)), heads, 0.0)
    assert ran == [kind]
