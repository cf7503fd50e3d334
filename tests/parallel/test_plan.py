"""The tensor-parallel plan: splitting and merging, and that the ranks' results add up to the whole's."""

import numpy as np
import pytest

from glm.errors import InputError
from glm.models.glm.configuration import GLMConfig
from glm.models.glm.weights import GLMWeights
from glm.parallel.plan import merge_weight, split_weight
from reference.forward import gelu, softmax

PLAN = GLMWeights.plan
LAYER = "glm.transformer.layers.0."


@pytest.mark.parametrize("degree", [1, 2, 4])
def test_check_08_split_and_merge_is_bit_identical(tiny_model, degree):
    model = tiny_model(hidden_size=32, num_attention_heads=4, vocab_size=40)
    for name, value in model.state_dict().items():
        weight = value.numpy()
        parts = split_weight(PLAN, name, weight, degree=degree)
        split = any(name.endswith(ending) for ending in PLAN)
        assert [part.size for part in parts] == [weight.size // degree if split else weight.size] * degree
        assert (merge_weight(PLAN, name, parts) == weight).all()


def test_fused_weight_gives_each_rank_its_heads_of_all_three():
    bias = np.array(["q0", "q1", "q2", "q3", "k0", "k1", "k2", "k3", "v0", "v1", "v2", "v3"])
    first, second = split_weight(PLAN, "attention.query_key_value.bias", bias, degree=2)
    assert first.tolist() == ["q0", "q1", "k0", "k1", "v0", "v1"]
    assert second.tolist() == ["q2", "q3", "k2", "k3", "v2", "v3"]


def test_of_loras_matrices_the_one_is_split_that_meets_the_split_axis():
    """The parts' products are the parts of the whole's product, or add up to it."""
    numbers = np.random.default_rng(0)
    first, second = numbers.normal(size=(8, 3)), numbers.normal(size=(3, 24))
    fused = LAYER + "attention.query_key_value"
    assert [len(part) for part in split_weight(PLAN, f"{fused}.lora_A", first, degree=2)] == [8, 8]
    parts = [first @ part for part in split_weight(PLAN, f"{fused}.lora_B", second, degree=2)]
    np.testing.assert_array_equal(merge_weight(PLAN, f"{fused}.weight", parts), first @ second)
    dense = LAYER + "attention.dense"
    states, back = numbers.normal(size=(5, 24)), second.T
    products = [
        mine @ part
        for mine, part in zip(
            np.split(states, 2, 1), split_weight(PLAN, f"{dense}.lora_A", back, degree=2), strict=True
        )
    ]
    np.testing.assert_allclose(sum(products), states @ back, atol=1e-12)
    assert [part.shape for part in split_weight(PLAN, f"{dense}.lora_B", first.T, degree=2)] == [(3, 8)] * 2


def layer(name: str, generator, *shape: int) -> tuple[str, np.ndarray]:
    return LAYER + name, generator.normal(size=shape)


def attention(states, fused, fused_bias, dense, *, heads: int):
    """One product per head, summed; the residual bias is not added here."""
    query, keys, values = np.split(states @ fused + fused_bias, 3, axis=-1)
    size = query.shape[-1] // heads
    contexts = []
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        contexts.append(softmax(query[:, part] @ keys[:, part].T / np.sqrt(size)) @ values[:, part])
    return np.concatenate(contexts, axis=-1) @ dense


@pytest.mark.parametrize("degree", [2, 4])
def test_outputs_of_the_ranks_sum_to_the_whole(degree):
    generator = np.random.default_rng(0)
    states = generator.normal(size=(5, 16))
    shapes = {
        "attention.query_key_value.weight": (16, 48),
        "attention.query_key_value.bias": (48,),
        "attention.dense.weight": (16, 16),
        "mlp.dense_h_to_4h.weight": (16, 64),
        "mlp.dense_h_to_4h.bias": (64,),
        "mlp.dense_4h_to_h.weight": (64, 16),
    }
    weights = dict(layer(name, generator, *shape) for name, shape in shapes.items())
    ranks = [
        dict(zip(weights, parts, strict=True))
        for parts in zip(
            *(split_weight(PLAN, name, weight, degree=degree) for name, weight in weights.items()), strict=True
        )
    ]

    def attend(held, heads):
        return attention(states, *(held[LAYER + name] for name in list(shapes)[:3]), heads=heads)

    def feed(held):
        first, bias, second = (held[LAYER + name] for name in list(shapes)[3:])
        return gelu(states @ first + bias) @ second

    np.testing.assert_allclose(sum(attend(held, 4 // degree) for held in ranks), attend(weights, 4), atol=1e-12)
    np.testing.assert_allclose(sum(feed(held) for held in ranks), feed(weights), atol=1e-12)


def test_a_degree_that_does_not_divide_is_refused():
    with pytest.raises(InputError, match=r"degree 3: does not divide .*word_embeddings.weight \[40, 8\]"):
        split_weight(PLAN, "glm.word_embeddings.weight", np.zeros((40, 8)), degree=3)


def test_degrees_that_fit_are_named():
    with pytest.raises(
        InputError,
        match="tensor_parallel_degree 3: does not divide num_attention_heads 16 and vocab_size 50048; "
        "possible are 1, 2, 4, 8, 16$",
    ):
        GLMConfig(num_attention_heads=16, hidden_size=1024, vocab_size=50048, tensor_parallel_degree=3)
    with pytest.raises(InputError, match="degree 8: does not divide vocab_size 12; possible are 1, 2, 4$"):
        GLMConfig(num_attention_heads=16, hidden_size=32, vocab_size=12, tensor_parallel_degree=8)
    with pytest.raises(InputError, match="tensor_parallel_degree 0: .*possible are 1, 2$"):
        GLMConfig(num_attention_heads=2, hidden_size=32, vocab_size=12, tensor_parallel_degree=0)
    assert GLMConfig(num_attention_heads=16, vocab_size=50048, tensor_parallel_degree=16)
