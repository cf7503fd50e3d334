"""Compiled attention of a step against plain NumPy in float64, and the caches it reads against the paths by hand."""

import mmap

import numpy as np
import paddle
import pytest

from glm.cpu.arrays import HEAD_SIZE
from glm.cpu.step_attention import CompiledLayerCache, _attend, paths_of


def plain_attention(query, keys, values):
    """One row over what it sees: query [D], keys and values [n, D]."""
    scores = keys @ query
    shares = np.exp(scores - scores.max())
    return shares / shares.sum() @ values


# lengths around what loops take at once (4 keys, 5 rows), alone and together
@pytest.mark.parametrize(
    ("lengths", "R", "slots"),
    [((1,), 1, 1), ((2, 9), 3, 4), ((8, 7, 15), 5, 23), ((5, 12), 7, 9), ((4,), 11, 3), ((300, 17), 2, 70)],
)
@pytest.mark.parametrize("size", [0.01, 1.0, 8.0])
def test_a_step_equals_plain_attention(lengths, R, slots, size):
    generator = np.random.default_rng(len(lengths))
    B, N, L, C, D = len(lengths), 3, max(lengths) + 2, slots + R + 5, HEAD_SIZE
    draw = lambda *shape: (generator.normal(size=shape) * size).astype(np.float32)  # noqa: E731
    projected, context = draw(B, R, 3, N, D), np.full((B, R, N, D), np.nan, np.float32)
    query = projected[:, :, 0].astype(np.float64) / 8
    keys, values, slot_keys, slot_values = draw(B, N, L, D), draw(B, N, L, D), draw(B, N, C, D), draw(B, N, C, D)
    ancestors = generator.random((B, R, slots + R)) < 0.6
    ancestors[:, :, slots:] = np.eye(R, dtype=bool)
    before = slot_keys.copy(), slot_values.copy()
    _attend(projected, keys, values, slot_keys, slot_values, slots, np.array(lengths), *paths_of(ancestors), context)
    for found, earlier, new in zip((slot_keys, slot_values), before, (1, 2), strict=True):
        earlier[:, :, slots : slots + R] = projected[:, :, new].transpose(0, 2, 1, 3)
        np.testing.assert_array_equal(found, earlier)
    for b, length in enumerate(lengths):
        for r in range(R):
            for n in range(N):
                seen = ancestors[b, r].nonzero()[0]
                all_keys, all_values = (
                    np.concatenate([prompt[b, n, :length], slot[b, n, seen]]).astype(np.float64)
                    for prompt, slot in ((keys, slot_keys), (values, slot_values))
                )
                want = plain_attention(query[b, r, n], all_keys, all_values)
                # float32 scores of this size are off by some units of their last place, and weights by as much
                error = 2e-6 * max(1.0, size**2) * size
                np.testing.assert_allclose(context[b, r, n], want, rtol=0, atol=10 * error)


def test_paths_by_hand():
    ancestors = np.array([[[1, 0, 1, 1], [0, 1, 0, 0]], [[1, 1, 0, 0], [0, 0, 0, 1]]], dtype=bool)
    paths, counts = paths_of(ancestors)
    assert counts.tolist() == [[3, 1], [2, 1]]
    assert [paths[b, r, : counts[b, r]].tolist() for b in range(2) for r in range(2)] == [[0, 2, 3], [1], [0, 1], [3]]


def test_prompts_of_unlike_length():
    """Keys and values of each prompt from the left, zero behind its end."""
    projected = paddle.arange(3 * 3 * 2 * HEAD_SIZE, dtype="float32").reshape([3, -1])  # 3 tokens, 2 heads
    keys, values = CompiledLayerCache.of_prompts(projected, [1, 2], 2).prompt
    table = projected.numpy().reshape(3, 3, 2, HEAD_SIZE)
    for part, place in ((keys, 1), (values, 2)):
        assert part.shape == (2, 2, 2, HEAD_SIZE)
        assert (part[0, :, 0] == table[0, place]).all() and (part[0, :, 1] == 0).all()
        assert (part[1, :, 0] == table[1, place]).all() and (part[1, :, 1] == table[2, place]).all()


def test_large_prompts_lie_outside_the_heap():
    """Where they would take the place of the next layer's temporaries (`glm.cpu.arrays.zeros_apart`)."""
    projected = paddle.ones([1200, 3 * 4 * HEAD_SIZE])
    memory = CompiledLayerCache.of_prompts(projected, [500, 700], 4).prompt[0]
    while isinstance(memory, np.ndarray):
        memory = memory.base
    assert isinstance(memory.obj if isinstance(memory, memoryview) else memory, mmap.mmap)
