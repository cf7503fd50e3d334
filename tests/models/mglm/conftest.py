"""The multilingual GLM in float64, with the weights of golden files."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import paddle
import pytest
from paddle import nn
from paddlenlp.transformers.model_utils import no_init_weights

from glm.models.mglm import FAMILY
from tools.reference_files import read_golden, reference_paths


@pytest.fixture
def float64():
    """Models made here are of float64."""
    before = paddle.get_default_dtype()
    paddle.set_default_dtype("float64")
    yield
    paddle.set_default_dtype(before)


@pytest.fixture
def golden_model(float64) -> Callable[..., nn.Layer]:
    """A factory: `golden_model(tensors, config)`, of a golden file's weights and the configuration in its metadata."""

    def make(tensors: Mapping[str, np.ndarray], config: Mapping[str, Any], **settings: Any) -> nn.Layer:
        return model_of(_weights(tensors), {**settings_of(config), **settings})

    return make


def settings_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """A golden file's configuration in the words of ours; without dropout."""
    return {
        "num_layers": config["layers"],
        "hidden_size": config["hidden"],
        "num_attention_heads": config["heads"],
        "vocab_size": config["vocab"],
        "max_sequence_length": config["maxpos"],
        "sandwich_ln": config.get("sandwich", False),
        "pb_relax": config.get("pb_relax", False),
        "additional_sequence_length": config.get("extra", 0),
        "prefix_prompt": config.get("prefix", 0),
        "prompt_func": config.get("prompt_func", "none"),
        **dict.fromkeys(("embedding_dropout_prob", "attention_dropout_prob", "output_dropout_prob"), 0.0),
    }


def _weights(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name.removeprefix("weights/"): table for name, table in tensors.items() if name.startswith("weights/")}


def model_of(weights: Mapping[str, np.ndarray], settings: Mapping[str, Any]) -> nn.Layer:
    """A model of weights under their own names, [out, in]."""
    names = FAMILY.weights
    with no_init_weights():  # random weights are of float32
        model = FAMILY.model_class()(FAMILY.config_class()(**settings))
    found = {names.ours(name)[0]: table for name, table in weights.items()}
    parameters = dict(model.named_parameters())
    assert found.keys() == parameters.keys()
    for name, parameter in parameters.items():
        table = found[name].T if name.endswith(names.linears) else found[name]
        assert list(table.shape) == list(parameter.shape), name
        parameter.set_value(table.astype(str(parameter.dtype).removeprefix("paddle.")))
    model.eval()
    return model


@pytest.fixture(scope="session")
def golden_tokenizer():
    """The tokenizer of all golden task files."""
    return FAMILY.open_tokenizer(reference_paths("mglm", "*.model")[0])


@pytest.fixture
def tiny_mglm(float64) -> nn.Layer:
    """The model of all golden task files."""
    tensors, metadata = read_golden(reference_paths("mglm", "tiny-*.safetensors")[0])
    return model_of(tensors, settings_of(metadata["config"]))
