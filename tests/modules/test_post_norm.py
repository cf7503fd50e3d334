"""The post-LN block against a forward in NumPy that computes every score, and in decoding against itself."""

import math

import numpy as np
import paddle
import pytest

from glm.cpu.blocks import ROWS_TOGETHER
from glm.cpu.products import MOST_COMPILED_ROWS
from glm.modules.arranged import can_be_compiled
from glm.modules.arranged_post_norm import CompiledPostNormBlocks
from glm.modules.block import Block, BlockNames, BlockOptions
from glm.modules.decoding import prepare_decoding
from glm.modules.packing import Packing
from glm.modules.post_norm import PostNormBlock
from glm.modules.stack import Stack
from tools.dtype_tools import DTYPES

NAMES = BlockNames("attention", "mlp", "norm1", "norm2", "qkv_proj", "out_proj", "linear1", "linear2")
ACTIVATIONS = {
    "gelu": np.vectorize(lambda x: x * 0.5 * (1 + math.erf(x / math.sqrt(2)))),
    "gelu_tanh": lambda x: x * 0.5 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
}


def make(activation: str, *, heads: int = 4, hidden: int = 32, mlp_size: int | None = 80) -> PostNormBlock:
    options = BlockOptions(hidden, heads, NAMES, epsilon=1e-12, mlp_size=mlp_size, activation=activation)
    block, numbers = PostNormBlock(options), np.random.default_rng(3)
    for weight in block.parameters():
        weight.set_value(numbers.normal(0.1, 0.4, weight.shape).astype("float32"))
    return block


def norm(states: np.ndarray, layer) -> np.ndarray:
    centred = states - states.mean(-1, keepdims=True)
    scale = np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-12)
    return centred / scale * layer.weight.numpy() + layer.bias.numpy()


def linear(states: np.ndarray, layer) -> np.ndarray:
    return states @ layer.weight.numpy().astype("float64") + layer.bias.numpy()


def expected(block: PostNormBlock, states: np.ndarray, sees: np.ndarray, activation: str, heads: int) -> np.ndarray:
    """[L, H] -> [L, H], who sees whom given as [L, L]."""
    L, H = states.shape
    query, keys, values = np.split(linear(states, block.attention.projection), 3, axis=1)
    context = np.zeros((L, H))
    for head in np.split(np.arange(H), heads):
        scores = query[:, head] @ keys[:, head].T / math.sqrt(H // heads)
        weights = np.where(sees, np.exp(scores - scores.max(1, keepdims=True)), 0.0)
        context[:, head] = weights / weights.sum(1, keepdims=True) @ values[:, head]
    summed = norm(states + linear(context, block.attention.output), block.attention_norm)
    inner = ACTIVATIONS[activation](linear(summed, block.mlp.up))
    return norm(summed + linear(inner, block.mlp.down), block.mlp_norm)


@pytest.mark.parametrize("activation", list(ACTIVATIONS))
@pytest.mark.parametrize(("heads", "hidden", "mlp_size"), [(4, 32, 80), (2, 128, None)], ids=["small", "heads of 64"])
def test_equal_to_a_forward_in_numpy(activation, heads, hidden, mlp_size):
    """Examples with both parts, with an empty Part A (left to right), and with an empty Part B (both directions)."""
    block = make(activation, heads=heads, hidden=hidden, mlp_size=mlp_size)
    examples = [(5, 7), (0, 9), (6, 0)]
    states = np.random.default_rng(4).normal(size=(sum(map(sum, examples)), hidden)).astype("float32")
    found = block(paddle.to_tensor(states), Packing(np.arange(len(states)), examples)).numpy()
    start = 0
    for source, target in examples:
        rows, columns = np.indices((source + target, source + target))
        sees = (columns < source) | ((columns <= rows) & (rows >= source))
        part = slice(start, start + source + target)
        wanted = expected(block, states[part].astype("float64"), sees, activation, heads)
        np.testing.assert_allclose(found[part], wanted, rtol=0, atol=1e-5)
        start = part.stop


class Pile(Stack):
    """Two blocks, no LayerNorm behind them."""

    def __init__(self, hidden: int, activation: str):
        super().__init__()
        self.set_layers([make(activation, heads=hidden // 64, hidden=hidden, mlp_size=None) for _ in range(2)])


class Model(paddle.nn.Layer):
    """What `prepare_decoding` needs."""

    def __init__(self, activation: str, stack: Stack | None = None):
        super().__init__()
        self.stack = stack or Pile(128, activation)
        self.stacks = [self.stack]
        self.head = type("Head", (), {"group": object()})()


@pytest.mark.parametrize("activation", list(ACTIVATIONS))
def test_prepared_for_decoding_it_computes_the_same(activation):
    """The exact GELU in compiled blocks, which would be wrong for another; prefill and a step afterwards equal the
    layers before, for few rows and for many."""
    model = Model(activation)
    states = paddle.randn([MOST_COMPILED_ROWS + 9, 128])
    whole = model.stack(states, Packing(np.arange(MOST_COMPILED_ROWS + 9), [(5, MOST_COMPILED_ROWS + 4)])).numpy()
    prepare_decoding(model, "float32", "cpu")
    assert not can_be_compiled(model.stack)
    assert (type(model.stack.compiled_blocks) is CompiledPostNormBlocks) == (activation == "gelu")
    for read in (8, MOST_COMPILED_ROWS + 8):
        last, cache = model.stack.prefill(states[:read], [(5, read - 5)], [None])
        np.testing.assert_allclose(last[0].numpy(), whole[read - 1], rtol=0, atol=1e-5)
        step = model.stack.step(states[read : read + 1].unsqueeze(0), cache)
        np.testing.assert_allclose(step[0, 0].numpy(), whole[read], rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES[1:])
def test_prompts_pass_through_compiled_blocks_in_panels(dtype):
    """They equal the layers one after the other, but for the order of sums, which may turn a rounding."""
    model, n = Model("gelu"), ROWS_TOGETHER + 7
    prepare_decoding(model, dtype, "cpu")
    states, context = paddle.randn([n, 128]), paddle.randn([n, 128])
    compiled = model.stack.compiled_blocks
    assert compiled.takes(states) and not compiled.takes(states, [("task", None)])
    found = [compiled(index, states, context) for index in range(2)]
    model.stack.compiled_blocks = None
    for index, ours in enumerate(found):
        for part, theirs in zip(ours, model.stack.after_attention(index, states, context), strict=True):
            error, scale = np.abs(part.numpy() - theirs.numpy()), np.abs(theirs.numpy()).max()
            assert error.max() <= scale / 30 and error.mean() <= 3e-4 * scale


class Changed(PostNormBlock):
    """Does more than its base behind attention."""

    def after_attention(self, states, context):
        return super().after_attention(states, context) + 1.0


def test_a_block_that_does_more_is_not_compiled():
    class Other(Stack):
        def __init__(self):
            super().__init__()
            self.set_layers([Changed(BlockOptions(128, 2, NAMES, activation="gelu"))])

    model = Model("gelu", Other())
    prepare_decoding(model, "float32", "cpu")
    assert model.stack.compiled_blocks is None


def test_a_block_with_another_activation_is_not_compiled():
    class PreNorm(Stack):
        def __init__(self):
            super().__init__()
            self.set_layers([Block(BlockOptions(128, 2, NAMES, activation="gelu"))])

    assert not can_be_compiled(PreNorm())
