"""Compiled attention of heads of other sizes than 64: training against NumPy in float64, and a step against it."""

import numpy as np
import paddle
import pytest

from glm.cpu.step_attention import CompiledLayerCache, _attend, paths_of
from glm.cpu.two_part import CompiledTwoPartAttention
from glm.models.glm.configuration import GLMConfig
from glm.models.glm.modeling import GLMForConditionalGeneration
from glm.modules.attention import TwoPartAttention
from glm.modules.block import cpu_attention
from glm.modules.decoding import fastest_cache
from glm.modules.packing import Packing

SIZES = (96, 256)
EXAMPLES = [(130, 70), (64, 64), (1, 129), (0, 3), (7, 0)]


def outcome(kind, projected, slope, *arguments):
    states = paddle.to_tensor(projected, stop_gradient=False)
    context = kind.apply(states, *arguments)
    context.backward(paddle.to_tensor(slope))
    return context.numpy(), states.grad.numpy()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("virtual", [0, 5])
def test_training(size, virtual):
    packing = Packing(np.arange(sum(map(sum, EXAMPLES))), EXAMPLES)
    packing = packing.with_prefix(virtual) if virtual else packing
    n, N = len(packing.places), 2
    generator = np.random.default_rng(size)
    projected, slope = generator.normal(size=(n, 3 * N * size)), generator.normal(size=(n, N * size))
    own = packing.places >= virtual
    slope[~own] = 0.0
    spans = np.array(list(packing.spans()), np.int64)
    want = outcome(TwoPartAttention, projected, slope, packing, N, 0.0)
    tables = projected.astype("float32"), slope.astype("float32")
    got = outcome(CompiledTwoPartAttention, *tables, spans, virtual, N, 0.0)
    np.testing.assert_allclose(got[0][own], want[0][own], atol=5e-6)
    np.testing.assert_allclose(got[1], want[1], atol=2e-5)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("lengths", "R", "slots"), [((1,), 1, 1), ((2, 9), 3, 4), ((5, 12), 7, 9), ((300, 17), 2, 70)]
)
def test_step(size, lengths, R, slots):
    generator = np.random.default_rng(size)
    B, N, L, C, D = len(lengths), 3, max(lengths) + 2, slots + R + 5, size
    draw = lambda *shape: generator.normal(size=shape).astype(np.float32)  # noqa: E731
    projected, context = draw(B, R, 3, N, D), np.full((B, R, N, D), np.nan, np.float32)
    keys, values, slot_keys, slot_values = draw(B, N, L, D), draw(B, N, L, D), draw(B, N, C, D), draw(B, N, C, D)
    ancestors = generator.random((B, R, slots + R)) < 0.6
    ancestors[:, :, slots:] = np.eye(R, dtype=bool)
    _attend(projected, keys, values, slot_keys, slot_values, slots, np.array(lengths), *paths_of(ancestors), context)
    for b, length in enumerate(lengths):
        for r, n in np.ndindex(R, N):
            seen = ancestors[b, r].nonzero()[0]
            own_keys, own_values = (
                np.concatenate([prompt[b, n, :length], slot[b, n, seen]]).astype(np.float64)
                for prompt, slot in ((keys, slot_keys), (values, slot_values))
            )
            scores = own_keys @ projected[b, r, 0, n].astype(np.float64) / D**0.5
            shares = np.exp(scores - scores.max())
            np.testing.assert_allclose(context[b, r, n], shares / shares.sum() @ own_values, atol=2e-5)


@pytest.mark.parametrize(("size", "compiled"), [(64, True), (96, True), (128, True), (32, False), (80, False)])
def test_which_sizes_are_compiled(size, compiled, monkeypatch):
    ran = []
    for each in (CompiledTwoPartAttention, TwoPartAttention):
        monkeypatch.setattr(each, "apply", lambda *_, each=each: ran.append(each))
    cpu_attention(paddle.zeros([5, 3 * 2 * size]), Packing(np.arange(5), [(3, 2)]), 2, 0.0)
    assert ran == [CompiledTwoPartAttention if compiled else TwoPartAttention]
    config = GLMConfig(num_layers=1, vocab_size=16, hidden_size=2 * size, num_attention_heads=2, max_sequence_length=8)
    model = GLMForConditionalGeneration(config)
    assert (fastest_cache(model.stacks[0]) is CompiledLayerCache) == compiled
