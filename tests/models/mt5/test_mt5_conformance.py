"""Check 14: the baseline against numbers of Hugging Face's mT5."""

import re

import numpy as np
import paddle
import pytest

from glm.generation.config import GenerationConfig
from glm.models.mt5 import FAMILY
from glm.models.mt5.geometry import Prompt
from glm.models.protocol import IGNORE_INDEX
from tools.reference_files import read_golden, reference_files

pytestmark = pytest.mark.conformance
GENERATED = "generated."
PATTERN = re.compile(r"(?:greedy|beam(?P<beams>\d+))(?:_no_repeat(?P<size>\d+))?")
BEAMS = {"length_penalty": 0.7, "early_stopping": "true"}  # of the original script's beam search


def search_of(name):
    """What a decoding is searched by, of its name (`beam5_no_repeat3`)."""
    found = PATTERN.fullmatch(name.removeprefix(GENERATED))
    options = {"num_beams": int(found["beams"] or 1), "no_repeat_ngram_size": int(found["size"] or 0)}
    return options | (BEAMS if found["beams"] else {"length_penalty": 0.0})


@pytest.fixture
def float64():
    """Models made here are of float64: in float32 beams that are nearly alike change places with the kernels."""
    before = paddle.get_default_dtype()
    paddle.set_default_dtype("float64")
    yield
    paddle.set_default_dtype(before)


@pytest.fixture(params=reference_files("mglm/mt5-*.safetensors"))
def golden(request, float64):
    tensors, metadata = read_golden(request.param)
    config = {name: value for name, value in metadata["config"].items() if name != "model_type"}
    model = FAMILY.model_class()(FAMILY.config_class()(**config))
    names = FAMILY.weights
    foreign = {name.removeprefix("weights/"): table for name, table in tensors.items() if name.startswith("weights/")}
    weights = names.settled({names.ours(name)[0]: table for name, table in foreign.items()})
    assert {name: tuple(weight.shape) for name, weight in model.named_parameters()} == names.shapes(config)
    for name, parameter in model.named_parameters():
        table = weights[name].T if name.endswith(names.linears) else weights[name]
        parameter.set_value(table.astype("float64"))
    model.eval()
    return model, tensors


def batch_of(tensors):
    arrays = {
        "input_ids": tensors["input_ids"],
        "attention_mask": tensors["attention_mask"],
        "decoder_input_ids": tensors["targets"][:, :-1],
    }
    return {name: paddle.to_tensor(array) for name, array in arrays.items()}


def test_logits(golden):
    model, tensors = golden
    logits = model(**batch_of(tensors))
    logits = logits[0] if isinstance(logits, tuple) else logits
    np.testing.assert_allclose(logits.numpy(), tensors["logits"], atol=1e-5)


def test_loss(golden):
    model, tensors = golden
    labels = paddle.to_tensor(tensors["labels"])
    loss = float(model(**batch_of(tensors), labels=labels))
    assert loss == pytest.approx(float(tensors["loss"].item()), rel=1e-5)
    items = int((tensors["labels"] != IGNORE_INDEX).sum())
    assert items < tensors["labels"].size  # else PaddleNLP's own loss would be as right
    assert float(model(**batch_of(tensors), labels=labels, num_items=2 * items)) == pytest.approx(loss / 2, rel=1e-6)


@pytest.fixture(params=[True, False], ids=["views", "copies"])
def strides(request):
    """Paddle's views as they come, and as `glm.runtime.device.prepare` sets them for every run."""
    before = paddle.get_flags("FLAGS_use_stride_kernel")
    paddle.set_flags({"FLAGS_use_stride_kernel": request.param})
    yield
    paddle.set_flags(before)


@pytest.mark.usefixtures("strides")
def test_searches(golden):
    model, tensors = golden
    prompts = [
        Prompt(ids[mask > 0]) for ids, mask in zip(tensors["input_ids"], tensors["attention_mask"], strict=True)
    ]
    names = [name for name in tensors if name.startswith(GENERATED)]
    assert names
    for name in names:
        expected = tensors[name][:, 1:]  # the first id is the start token
        config = GenerationConfig(tgt_length=expected.shape[1], **search_of(name))
        for texts, wanted in zip(model.search(prompts, config), expected, strict=True):
            ((tokens, score),) = texts
            ends = np.flatnonzero(wanted == model.config.eos_token_id)
            assert tokens == wanted[: ends[0] if len(ends) else None].tolist(), name
            assert score <= 0
