"""Packed examples, and attention on random numbers."""

import numpy as np
import paddle

from glm.cpu.two_part import CompiledTwoPartAttention
from glm.models.glm.configuration import GLMConfig
from glm.modules.block import Attention
from glm.modules.packing import Packing


def packing(*examples) -> Packing:
    """Makes the packing of one row with these examples."""
    return Packing.of(np.array([examples]), sum(map(sum, examples)))


def drawn(n: int, H: int, dtype: str = "float32") -> tuple[paddle.Tensor, paddle.Tensor]:
    """[n, 3H] with a gradient, and one of [n, H]."""
    random = np.random.default_rng(n)
    projected = paddle.to_tensor(random.normal(size=(n, 3 * H)), dtype, stop_gradient=False)
    return projected, paddle.to_tensor(random.normal(size=(n, H)), dtype)


def compiled(projected: paddle.Tensor, packing: Packing, num_heads: int, dropout: float) -> paddle.Tensor:
    """Compiled attention of packed examples: [n, 3H] -> [n, H]."""
    spans = np.array(list(packing.spans()), np.int64)
    return CompiledTwoPartAttention.apply(projected, spans, packing.virtual, num_heads, dropout)


def outcome(function, n: int, H: int, dtype: str = "float32") -> tuple[np.ndarray, np.ndarray]:
    """Returns the result of attention on random numbers, and the gradient with respect to them."""
    projected, slope = drawn(n, H, dtype)
    context = function(projected)
    context.backward(slope)
    return context.numpy(), projected.grad.numpy()


def assert_as_by_operators(kind, examples: list[tuple[int, int]], num_heads: int, H: int, *, atol: float) -> None:
    """Compares a kind of attention (its function), without dropout, with Paddle's operators."""
    parts = packing(*examples)
    n = len(parts.places)
    slow = Attention(GLMConfig(hidden_size=H, num_attention_heads=num_heads).block)
    slow.eval()
    want = outcome(lambda projected: slow.attend_by_part(projected, parts), n, H)
    got = outcome(lambda projected: kind(projected, parts, num_heads, 0.0), n, H)
    for ours, paddles in zip(got, want, strict=True):
        np.testing.assert_allclose(ours, paddles, atol=atol)
