"""Puts a prefix into a tiny model, and computes its keys and values with NumPy."""

import numpy as np

from glm.adapters.files import PREFIX_ENCODER, adapter_weights, add_adapter, prefix_config
from glm.adapters.schema import PrefixSettings
from glm.models.glm.modeling import GLMForConditionalGeneration


def put_prefix(
    model: GLMForConditionalGeneration, *, tokens: int = 3, projection: bool = False, seed: int = 1, std: float = 0.7
) -> PrefixSettings:
    """Gives a model a prefix whose weights are drawn from N(0, std)."""
    config = prefix_config("THUDM/glm-large-chinese", model, tokens=tokens, projection=projection)
    add_adapter(model, config)
    random = np.random.default_rng(seed)
    for weight in adapter_weights(model).values():
        weight.set_value(random.normal(0, std, weight.shape).astype("float32"))
    return config


def encoder_weights(model: GLMForConditionalGeneration) -> dict[str, np.ndarray]:
    """Returns the prefix's weights by their names in PaddleNLP's encoder, float64."""
    return {
        name.rpartition(PREFIX_ENCODER)[2]: weight.numpy().astype("float64")
        for name, weight in adapter_weights(model).items()
    }


def keys_and_values(weights: dict[str, np.ndarray], *, num_layers: int) -> np.ndarray:
    """Returns what an encoder with these weights gives each layer: [layers, 2, P, H]."""
    numbers = weights["0.weight"]
    if "1.weight" in weights:
        inner = np.tanh(numbers @ weights["1.weight"] + weights["1.bias"])
        numbers = inner @ weights["3.weight"] + weights["3.bias"]
    columns = np.split(numbers, 2 * num_layers, axis=1)  # the keys of all layers, then their values: [P, H] each
    return np.array([[columns[layer], columns[num_layers + layer]] for layer in range(num_layers)])
