"""`--bf16` on a CPU: which products of a model are in bfloat16, and that nothing else is."""

import numpy as np
import paddle
import pytest
from paddlenlp.peft import LoRAConfig, LoRAModel

from glm.cpu.bfloat16 import BFloat16Linear, HeadProducts
from glm.models.glm.configuration import GLMConfig
from glm.models.glm.modeling import GLMForConditionalGeneration
from glm.modules.layers import Linear
from glm.runtime.onednn import multiplies_bfloat16
from glm.training.precision import train_in_bfloat16

pytestmark = pytest.mark.skipif(not multiplies_bfloat16(), reason="the processor has no AVX512_BF16 or AMX")
SIZES = {"num_layers": 2, "hidden_size": 64, "num_attention_heads": 2, "vocab_size": 60, "max_sequence_length": 32}
NO_DROPOUT = dict.fromkeys(("attention_dropout_prob", "embedding_dropout_prob", "output_dropout_prob"), 0.0)
BATCH = {
    "input_ids": np.arange(14).reshape(2, 7),
    "position_ids": np.tile([[0, 1, 2, 3, 2, 2, 2], [0, 0, 0, 0, 1, 2, 3]], (2, 1, 1)),
    "labels": np.array([[-100] * 4 + [5, 6, 7], [-100] * 4 + [8, 9, 10]]),
    "segments": np.tile([[4, 3]], (2, 1, 1)),
}


@pytest.fixture
def model():
    paddle.seed(3)
    model = GLMForConditionalGeneration(GLMConfig(**SIZES, **NO_DROPOUT))
    model.draw_weights()
    return model


def loss_and_gradients(model) -> tuple[float, dict[str, np.ndarray]]:
    loss = model(**{name: paddle.to_tensor(table) for name, table in BATCH.items()})
    loss.backward()
    gradients = {name: part.grad.numpy() for name, part in model.named_parameters() if part.grad is not None}
    for part in model.parameters():
        part.clear_gradient(False)
    return float(loss), gradients


def distance(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.linalg.norm(one - other) / np.linalg.norm(other))


def test_gradients_are_those_of_float32_within_bfloat16(model):
    model.train()
    loss, gradients = loss_and_gradients(model)
    train_in_bfloat16(model)
    rounded_loss, rounded_gradients = loss_and_gradients(model)
    assert rounded_loss != loss and rounded_loss == pytest.approx(loss, rel=2**-8)
    assert rounded_gradients.keys() == gradients.keys()
    for name, gradient in gradients.items():
        assert rounded_gradients[name].dtype == np.float32
        if ".query_key_value.bias" in name:  # that of keys is 0 but for rounding, as softmax does not see it
            continue
        assert 0 < distance(rounded_gradients[name], gradient) < 0.03, name


def test_every_linear_and_the_head_take_part(model, monkeypatch):
    train_in_bfloat16(model)
    model.train()
    shapes, apply = [], BFloat16Linear.apply
    monkeypatch.setattr(BFloat16Linear, "apply", lambda *parts: shapes.append(parts[1].shape) or apply(*parts))
    heads, begin = [], HeadProducts.__init__
    monkeypatch.setattr(HeadProducts, "__init__", lambda self, head: heads.append(head.shape) or begin(self, head))
    loss_and_gradients(model)
    assert shapes == 2 * [[64, 192], [64, 64], [64, 256], [256, 64]]
    assert heads == [[GLMConfig(**SIZES).vocab_size, 64]]


def test_what_does_not_learn_is_float32(model):
    model.eval()
    loss, _ = loss_and_gradients(model)
    train_in_bfloat16(model)
    assert loss_and_gradients(model)[0] == loss
    assert {part.dtype for part in model.state_dict().values()} == {paddle.float32}


def test_recompute_changes_no_bit(model):
    train_in_bfloat16(model)
    model.train()
    loss, gradients = loss_and_gradients(model)
    model.glm.transformer.enable_recompute = True
    again, gradients_again = loss_and_gradients(model)
    assert again == loss
    for name, gradient in gradients.items():
        np.testing.assert_array_equal(gradients_again[name], gradient)


def test_lora_multiplies_the_frozen_weight_in_bfloat16(model):
    targets = [name for name, layer in model.named_sublayers() if isinstance(layer, Linear)]
    LoRAModel(model, LoRAConfig(target_modules=targets, r=4, lora_alpha=8, dtype="float32"))
    model.train()
    drawn = np.random.default_rng(0)
    for name, part in model.named_parameters():
        if "lora_B" in name:
            part.set_value(drawn.normal(scale=0.02, size=part.shape).astype(np.float32))
    loss, gradients = loss_and_gradients(model)
    train_in_bfloat16(model)
    rounded_loss, rounded_gradients = loss_and_gradients(model)
    assert rounded_loss != loss and rounded_loss == pytest.approx(loss, rel=2**-8)
    assert {name.rpartition(".")[2] for name in gradients} == {"lora_A", "lora_B"}
    for name, gradient in gradients.items():
        assert 0 < distance(rounded_gradients[name], gradient) < 0.03, name
