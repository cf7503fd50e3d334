"""Check 14: the baseline against numbers of Hugging Face's mT5."""

import numpy as np
import paddle
import pytest

from glm.generation.config import GenerationConfig
from glm.models.mt5 import FAMILY
from glm.models.mt5.geometry import Prompt
from glm.models.protocol import IGNORE_INDEX
from tools.reference_files import read_golden, reference_files

pytestmark = pytest.mark.conformance
SEARCHES = {
    "greedy": {"num_beams": 1, "length_penalty": 0.0, "no_repeat_ngram_size": 0},
    "beam5": {"num_beams": 5, "length_penalty": 0.7, "early_stopping": "true", "no_repeat_ngram_size": 0},
    "beam5_no_repeat3": {"num_beams": 5, "length_penalty": 0.7, "early_stopping": "true", "no_repeat_ngram_size": 3},
}


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
@pytest.mark.parametrize("kind", SEARCHES)
def test_search(golden, kind):
    model, tensors = golden
    expected = tensors[f"generated.{kind}"][:, 1:]  # the first id is the start token
    prompts = [
        Prompt(ids[mask > 0]) for ids, mask in zip(tensors["input_ids"], tensors["attention_mask"], strict=True)
    ]
    config = GenerationConfig(tgt_length=expected.shape[1], **SEARCHES[kind])
    found = model.search(prompts, config)
    for texts, wanted in zip(found, expected, strict=True):
        ((tokens, score),) = texts
        ends = np.flatnonzero(wanted == 1)
        assert tokens == wanted[: ends[0] if len(ends) else None].tolist()
        assert score <= 0
