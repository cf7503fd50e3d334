"""Freezing and layer-wise rates, against lists of names written out."""

import pytest

from glm.errors import UsageError
from glm.models.glm.weights import GLMWeights
from glm.training.parameters import freeze, set_layerwise_rates, trained

NAMES = GLMWeights()
EMBEDDINGS = {
    "glm.word_embeddings.weight",
    "glm.transformer.position_embeddings.weight",
    "glm.transformer.block_position_embeddings.weight",
}
LAST = {"glm.transformer.final_layernorm.weight", "glm.transformer.final_layernorm.bias"}
IN_LAYER = {
    f"{part}.{kind}"
    for part in (
        "input_layernorm",
        "attention.query_key_value",
        "attention.dense",
        "post_attention_layernorm",
        "mlp.dense_h_to_4h",
        "mlp.dense_4h_to_h",
    )
    for kind in ("weight", "bias")
}


def layers(*numbers: int) -> set[str]:
    return {f"glm.transformer.layers.{number}.{name}" for number in numbers for name in IN_LAYER}


@pytest.fixture
def model(tiny_model):
    model = tiny_model(num_layers=12)
    model.train()
    return model


@pytest.mark.parametrize(
    ("parts", "frozen"),
    [
        ("embeddings", EMBEDDINGS),
        ("final_layernorm", LAST),
        ("layers.1", layers(1)),  # neither 10 nor 11
        ("layers.0-2", layers(0, 1, 2)),
        ("layers.9-11|layers.0", layers(0, 9, 10, 11)),
        ("embeddings|layers.0-11", EMBEDDINGS | layers(*range(12))),
        ("layers.0-5|layers.3-11|final_layernorm", layers(*range(12)) | LAST),
    ],
)
def test_freeze(model, parts, frozen):
    everything = EMBEDDINGS | LAST | layers(*range(12))
    assert {name for name, _ in trained(model)} == everything
    freeze(NAMES, model, parts, num_layers=12)
    assert {name for name, _ in trained(model)} == everything - frozen
    assert {name for name, weight in model.named_parameters() if weight.stop_gradient} == frozen


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ("embedding", "freeze embedding: embedding is unknown; join layers.N, layers.N-M, embeddings and"),
        ("embeddings|", "freeze embeddings|: an empty part is unknown"),
        ("", "freeze : an empty part is unknown"),
        ("embeddings,layers.1", "embeddings,layers.1 is unknown"),
        ("layers.x", "layers.x is unknown"),
        ("layers.12", "layers.12 is no range of layers of the model, which has 0 to 11"),
        ("layers.3-12", "layers.3-12 is no range of layers"),
        ("layers.5-3", "layers.5-3 is no range of layers"),
        ("embeddings|final_layernorm|layers.0-11", "leaves nothing to train"),
        ("layers." + "9" * 5000, "is unknown; join"),
        (".*|(a+)+", ".* is unknown"),
        ("|".join(["embeddings"] * 257), "has more than 256 parts"),
    ],
)
def test_what_cannot_be_frozen(model, parts, message):
    with pytest.raises(UsageError) as caught:
        freeze(NAMES, model, parts, num_layers=12)
    assert message in str(caught.value) and len(str(caught.value)) < 600


def test_part_of_a_name():
    assert {NAMES.part_of(name) for name in layers(7)} == {7} and {NAMES.part_of(name) for name in layers(11)} == {11}
    assert {NAMES.part_of(name) for name in EMBEDDINGS} == {"embeddings"}
    assert {NAMES.part_of(name) for name in LAST} == {"final_layernorm"}


def test_layerwise_rates(model):
    set_layerwise_rates(NAMES, model, 0.5, num_layers=12)
    rates = {name: weight.optimize_attr["learning_rate"] for name, weight in model.named_parameters()}
    expected = dict.fromkeys(EMBEDDINGS, 2**-12) | dict.fromkeys(LAST, 1.0)
    for number in range(12):
        expected |= dict.fromkeys(layers(number), 2.0 ** (number - 11))
    assert rates == expected
