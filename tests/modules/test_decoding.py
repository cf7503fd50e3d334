"""A model ready to decode gives what an eager one gives: for any number of rows, and within bfloat16's rounding."""

import re

import numpy as np
import paddle
import pytest
from paddle import nn

from glm.cpu.arrays import HEAD_SIZE
from glm.cpu.blocks import ROWS_TOGETHER
from glm.cpu.panels import panels_of
from glm.cpu.products import MOST_COMPILED_ROWS
from glm.cpu.step_attention import CompiledLayerCache
from glm.errors import InputError
from glm.generation.config import GenerationConfig
from glm.generation.search import generate
from glm.models.glm.geometry import BlankInfilling
from glm.modules.arranged import BFloat16DecodingLinear, DecodingLinear, IntegerDecodingLinear
from glm.modules.cache import LayerCache
from glm.modules.decoding import prepare_decoding
from tools.dtype_tools import DTYPES, needs_bfloat16, needs_int8

V = 48
GEOMETRY = BlankInfilling(mask_token_ids=(45,), sop_token_id=46, eop_token_id=47)
ROWS = [
    1,
    2,
    5,
    10,
    16,
    17,
    33,
    MOST_COMPILED_ROWS,
    MOST_COMPILED_ROWS + 1,
    80,
    257,
]  # around what loops and tiles take at once

HEADS = [{}, {"hidden_size": 2 * HEAD_SIZE, "num_attention_heads": 2}]  # the second with compiled attention too


@pytest.fixture
def models(tiny_model):
    """A function: an eager model, and the same one ready to decode."""

    def make(dtype: str = "float32", **options) -> tuple:
        options = {"seed": 5, "vocab_size": V, "hidden_size": 32, "num_attention_heads": 4, **options}
        eager, other = tiny_model(**options), tiny_model(**options)
        prepare_decoding(other, dtype, "cpu")
        return eager, other

    return make


def prompts(*lengths: int, seed: int = 0) -> list:
    generator = np.random.default_rng(seed)
    return [GEOMETRY.prompt([*generator.integers(40, size=length - 2).tolist(), 45], opening=[]) for length in lengths]


def logits_of(model, start: list, beams: int, steps: int, *, seed: int = 1) -> list[np.ndarray]:
    """Logits of prefill and of steps with the same tokens."""
    generator = np.random.default_rng(seed)
    with paddle.no_grad():
        logits, cache = model.prefill(start)
        found = [np.array(logits)]
        cache.reorder(np.zeros((len(start), beams), dtype=np.int64))
        for number in range(steps):
            tokens = generator.integers(40, size=(len(start), beams))
            found.append(np.array(model.step(tokens, np.full(len(start), number), cache)))
            cache.reorder(np.tile(np.arange(beams)[::-1], (len(start), 1)))
    return found


def layer_by_layer(stack, index, states, context):
    """What `Stack.after_attention` gives without its compiled blocks."""
    compiled, stack.compiled_blocks = stack.compiled_blocks, None
    try:
        return stack.after_attention(index, states, context)
    finally:
        stack.compiled_blocks = compiled


# -- float32


@pytest.mark.parametrize(("lengths", "beams"), [((5,), 1), ((12, 5), 5), ((9,) * 3, 6), ((30, 12, 41), 5)])
@pytest.mark.parametrize("heads", HEADS, ids=["products", "attention"])
def test_prefill_and_steps_equal_the_eager_model(models, lengths, beams, heads):
    eager, other = models(**heads)
    assert other.glm.transformer.layer_cache is (CompiledLayerCache if heads else LayerCache)
    for ours, theirs in zip(
        logits_of(other, prompts(*lengths), beams, 4), logits_of(eager, prompts(*lengths), beams, 4), strict=True
    ):
        assert ours.shape == theirs.shape and ours.dtype == theirs.dtype == np.float32
        np.testing.assert_allclose(ours, theirs, atol=1e-5, rtol=1e-5)


def test_any_number_of_rows(models):
    """Few rows go through compiled blocks, more through the layers; those of one call do not depend on another."""
    eager, other = models()
    generator = np.random.default_rng(2)
    stack, theirs = other.glm.transformer, eager.glm.transformer
    for n in (*ROWS, *ROWS[::-1]):
        states, context = (paddle.to_tensor(generator.normal(size=(n, 32)).astype("float32")) for _ in range(2))
        with paddle.no_grad():
            results = [
                (stack.before_attention(states), theirs.before_attention(states), 96),
                *zip(
                    stack.after_attention(0, states, context),
                    theirs.after_attention(0, states, context),
                    (32, 96),
                    strict=True,
                ),
                *zip(
                    stack.after_attention(1, states, context),
                    theirs.after_attention(1, states, context),
                    (32, 32),
                    strict=True,
                ),
                (other.head.logits(states), eager.head.logits(states), V),
            ]
        for ours, expected, width in results:
            assert ours.shape == expected.shape == [n, width]
            np.testing.assert_allclose(ours.numpy(), expected.numpy(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [1, 5, 17, MOST_COMPILED_ROWS, MOST_COMPILED_ROWS + 1, ROWS_TOGETHER + 7])
def test_compiled_blocks_equal_their_layers(models, dtype, n):
    """Few rows, and in panels any number of them. One after the other, the layers give the same but for the order of
    sums, which may turn a rounding."""
    _, other = models(dtype)
    stack = other.glm.transformer
    assert stack.compiled_blocks is not None
    generator = np.random.default_rng(n)
    states, context = (paddle.to_tensor(generator.normal(size=(n, 32)).astype("float32")) for _ in range(2))
    assert stack.compiled_blocks.takes(states) == (n <= MOST_COMPILED_ROWS or dtype != "float32")
    assert stack.compiled_blocks.takes(states, [("task", None)]) == (n <= MOST_COMPILED_ROWS)
    for index in range(2):
        for ours, theirs in zip(
            stack.compiled_blocks(index, states, context), layer_by_layer(stack, index, states, context), strict=True
        ):
            error = np.abs(ours.numpy() - theirs.numpy())
            scale = np.abs(theirs.numpy()).max()
            # of int8 a step is 1/127 of the largest number of a row
            most = {"float32": 1e-5, "bfloat16": 2 * UNIT * scale, "int8": scale / 30}[dtype]
            assert error.max() <= most and error.mean() <= (3e-4 if dtype == "int8" else 1e-4) * scale


def test_blocks_of_odd_sizes_stay_layers(models):
    eager, other = models(hidden_size=24)
    assert other.glm.transformer.compiled_blocks is None
    for ours, theirs in zip(logits_of(other, prompts(9, 5), 3, 3), logits_of(eager, prompts(9, 5), 3, 3), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [10, 16, 17, 600])
def test_results_are_not_overwritten_by_the_next_call(models, dtype, n):
    _, other = models(dtype)
    stack = other.glm.transformer
    first = stack.after_attention(0, paddle.ones([n, 32]), paddle.ones([n, 32]))
    kept = [part.numpy().copy() for part in first]
    stack.after_attention(0, paddle.zeros([n, 32]), paddle.zeros([n, 32]))
    for part, before in zip(first, kept, strict=True):
        np.testing.assert_array_equal(part.numpy(), before)


def test_logits_of_any_shape(models):
    eager, other = models()
    states = paddle.to_tensor(np.random.default_rng(3).normal(size=(3, 5, 32)).astype("float32"))
    assert other.head.logits(states).shape == [3, 5, V]
    np.testing.assert_allclose(other.head.logits(states).numpy(), eager.head.logits(states).numpy(), atol=1e-5)


def test_weights_are_held_once(models):
    """A linear layer's is given up for its arrangement; the head shares that of the word embeddings."""
    eager, other = models()
    layers = dict(other.named_sublayers())
    for name, layer in eager.named_sublayers():
        if isinstance(layer, nn.Linear):
            arranged = layers[name]
            assert isinstance(arranged, DecodingLinear)
            np.testing.assert_array_equal(arranged.arrays[0], layer.weight.numpy().T)
    names = {name for name, _ in other.named_parameters()}
    assert names <= {name for name, _ in eager.named_parameters()}
    other.glm.word_embeddings.weight.set_value(paddle.zeros_like(other.glm.word_embeddings.weight))
    assert not other.head.logits(paddle.ones([2, 32])).any()


@needs_bfloat16
def test_weights_of_bfloat16_are_held_once(models):
    """Those of linear layers, and of the head beside the embeddings, in half of their bytes."""
    eager, other = models("bfloat16")
    layers = dict(other.named_sublayers())
    for name, layer in eager.named_sublayers():
        if isinstance(layer, nn.Linear):
            arranged = layers[name]
            assert isinstance(arranged, BFloat16DecodingLinear)
            rounded = layer.weight.T.astype("bfloat16").numpy()
            np.testing.assert_array_equal(arranged.arrays[0], panels_of(rounded))
            assert arranged.arrays[0].nbytes == 2 * rounded.size or rounded.size % 1024
    held = {name for name, parameter in other.named_parameters() if parameter._is_initialized()}
    assert not any(name.endswith("weight") and "layernorm" not in name for name in held if ".layers." in name)


# -- bfloat16

# A bfloat16 keeps 8 significant bits: rounding changes a number by 2**-9 of it at most.
UNIT = 2.0**-9


@needs_bfloat16
@pytest.mark.parametrize("n", [1, 16, 17, 257])
def test_bfloat16_products_are_rounded_only_in_their_factors(models, n):
    """A sum of k products x * w is off by sum |x w| (2 u + u^2) where both factors were rounded; a LayerNorm before it
    is of full precision."""
    eager, other = models("bfloat16")
    states = paddle.to_tensor(np.random.default_rng(4).normal(size=(n, 32)).astype("float32"))
    weight = eager.glm.word_embeddings.weight.numpy().astype(np.float64)  # [V, H]
    exact = states.numpy().astype(np.float64) @ weight.T
    bound = (2 * UNIT + UNIT**2) * (np.abs(states.numpy()) @ np.abs(weight).T)
    difference = np.abs(other.head.logits(states).numpy() - exact)
    assert (difference <= bound + 1e-6).all()
    assert difference.max() > 1e-4, "no bfloat16 product was computed"

    block = eager.glm.transformer.layers[0]
    with paddle.no_grad():
        normal = block.input_layernorm(states).numpy().astype(np.float64)
    linear = block.attention.query_key_value
    exact = normal @ linear.weight.numpy() + linear.bias.numpy()
    bound = (2 * UNIT + UNIT**2) * (np.abs(normal) @ np.abs(linear.weight.numpy())) + 1e-6
    difference = np.abs(other.glm.transformer.before_attention(states).numpy() - exact)
    assert (difference <= bound).all()
    assert difference.max() > 1e-4


@needs_bfloat16
def test_bfloat16_logits_of_prefill_and_steps(models):
    """Two layers of three roundings each on the residual path: the logits are off by some units of their size."""
    eager, other = models("bfloat16")
    for ours, theirs in zip(
        logits_of(other, prompts(30, 12, 41), 5, 4), logits_of(eager, prompts(30, 12, 41), 5, 4), strict=True
    ):
        assert ours.dtype == np.float32
        error = np.sqrt(np.mean((ours - theirs) ** 2)) / np.sqrt(np.mean(theirs**2))
        assert 1e-5 < error < 8 * UNIT, error


# -- int8


@needs_int8
@pytest.mark.parametrize("num_beams", [1, 4])
def test_int8_logits_and_texts(models, in_order, num_beams):
    """Products are off by about 1 % of their size; the scheme itself is tested in tests/cpu/test_integers.py."""
    eager, other = models("int8", hidden_size=64)
    for ours, theirs in zip(
        logits_of(other, prompts(30, 12, 41), 5, 4), logits_of(eager, prompts(30, 12, 41), 5, 4), strict=True
    ):
        error = np.sqrt(np.mean((ours - theirs) ** 2)) / np.sqrt(np.mean(theirs**2))
        assert ours.dtype == np.float32 and 1e-4 < error < 0.05, error
    config = GenerationConfig(tgt_length=12, num_beams=num_beams)
    options = {"end_token_id": 47, "banned_token_ids": [45, 46]}
    together, alone = (
        in_order(generate(other, start, config, **options)) for start in (prompts(9, 30), prompts(9, 30)[:1])
    )
    for ours, expected in zip(together[0], alone[0], strict=True):  # a row's scale is its own
        assert ours.tokens == expected.tokens and ours.score == pytest.approx(expected.score, abs=1e-5)


@needs_int8
def test_int8_weights_are_held_once_in_a_quarter(models):
    _, other = models("int8", hidden_size=64)
    arranged = [layer for layer in other.sublayers() if isinstance(layer, IntegerDecodingLinear)]
    assert (
        len(arranged) == 8
        and other.head.arranged.arrays[0].dtype == np.uint8
        and all(layer.arrays[0].dtype == np.uint8 for layer in arranged)
    )
    held = {name for name, parameter in other.named_parameters() if parameter._is_initialized()}
    assert not any(name.endswith("weight") and "layernorm" not in name for name in held if ".layers." in name)


@needs_int8
def test_a_weight_that_is_no_number(tiny_model):
    model = tiny_model(hidden_size=32, num_attention_heads=4)
    weight = model.glm.transformer.layers[1].mlp.up.weight
    broken = weight.numpy()
    broken[2, 7] = np.nan
    weight.set_value(broken)
    name = "glm.transformer.layers.1.mlp.dense_h_to_4h.weight"
    with pytest.raises(InputError, match=f"^decode_dtype int8: {name}: row 7 has an infinite number or NaN; "):
        prepare_decoding(model, "int8", "cpu")


# -- what decides


@pytest.mark.parametrize(
    ("dtype", "known", "message"),
    [
        (
            "bfloat16",
            {},
            "this processor has no such products (AMX or AVX512_BF16); use float32",
        ),
        ("bfloat16", {"integer_kernel": "avx2"}, "AVX512_BF16); use int8 or float32"),
        ("int8", {"bfloat16_kernel": "amx_bf16"}, "no such products (AVX2); use bfloat16 or float32"),
    ],
)
def test_products_that_a_processor_does_not_have(tiny_model, monkeypatch, dtype, known, message):
    for name in ("integer_kernel", "bfloat16_kernel"):
        monkeypatch.setattr(f"glm.cpu.panels.{name}", lambda name=name: known.get(name))
    model = tiny_model()
    with pytest.raises(InputError, match=re.escape(message)):
        prepare_decoding(model, dtype, "cpu")
    assert model.head.arranged is None
    prepare_decoding(model, "float32", "cpu")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_which_products_decode(monkeypatch, tiny_model, dtype):
    asked = []
    monkeypatch.setattr("glm.modules.arranged.arrange_weights", lambda model, dtype: asked.append(dtype))
    for name in ("integer_kernel", "bfloat16_kernel"):
        monkeypatch.setattr(f"glm.cpu.panels.{name}", lambda: "avx2")
    model = tiny_model()
    model.train()
    prepare_decoding(model, dtype, "cpu")
    assert asked == [dtype] and not model.training


def test_a_gpu_computes_in_the_type_asked_for(monkeypatch, tiny_model):
    monkeypatch.setattr("glm.modules.arranged.arrange_weights", lambda *_: pytest.fail("arranged for a CPU"))
    model = tiny_model()
    prepare_decoding(model, "bfloat16", "gpu")
    assert {parameter.dtype for parameter in model.parameters()} == {paddle.bfloat16}


# -- decoding


@pytest.mark.parametrize("heads", HEADS, ids=["products", "attention"])
@pytest.mark.parametrize("num_beams", [1, 4])
def test_decoding_equals_eager_decoding(models, in_order, num_beams, heads):
    eager, other = models(**heads)
    config = GenerationConfig(tgt_length=12, num_beams=num_beams, num_return_sequences=num_beams)
    start = prompts(*range(5, 25))
    ours, theirs = (
        in_order(generate(model, start, config, end_token_id=47, batch_size=6, banned_token_ids=[45, 46]))
        for model in (other, eager)
    )
    for found, expected in zip(ours, theirs, strict=True):
        assert [hypothesis.tokens for hypothesis in found] == [hypothesis.tokens for hypothesis in expected]
        for one, two in zip(found, expected, strict=True):
            assert one.score == pytest.approx(two.score, abs=1e-4)
            assert one.token_scores == pytest.approx(two.token_scores, abs=1e-4)
