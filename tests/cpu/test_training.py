"""A whole model with all that is written by hand, against itself in Paddle's operators."""

import numpy as np
import paddle
import pytest

import glm.cpu.arrays
import glm.models.glm.modeling
import glm.modules.layers
from glm.models.glm.geometry import IGNORE_INDEX

DROPOUTS = ("attention_dropout_prob", "embedding_dropout_prob", "output_dropout_prob")
LAYOUTS = {
    "apart": [[(70, 9)], [(5, 12)]],
    "packed": [[(40, 9), (21, 9)], [(5, 12), (0, 0)]],
}


@pytest.fixture
def model(tiny_model, monkeypatch):
    """Two layers with two heads of 64, and no array too small."""
    for module in (glm.modules.layers, glm.cpu.arrays):
        monkeypatch.setattr(module, "MIN_PARALLEL_SIZE", 0)

    def make(**options):
        made = tiny_model(hidden_size=128, num_attention_heads=2, **options)
        made.train()
        return made

    return make


def gradients(model, segments) -> dict[str, np.ndarray]:
    random, L = np.random.default_rng(1), 79
    model.clear_gradients(set_to_zero=False)
    ids = random.integers(0, model.config.vocab_size, (2, L))
    labels = np.where(random.random((2, L)) < 0.3, ids, IGNORE_INDEX)
    positions = random.integers(0, 30, (2, 2, L))
    tensors = (paddle.to_tensor(table) for table in (ids, positions, np.array(segments)))
    loss = model(*tensors, labels=paddle.to_tensor(labels), label_smoothing=0.1)
    loss.backward()
    return {"loss": loss.numpy(), **{name: weight.grad.numpy() for name, weight in model.named_parameters()}}


@pytest.mark.parametrize("segments", LAYOUTS.values(), ids=LAYOUTS)
def test_gradients_are_those_of_paddles_operators(model, segments, monkeypatch):
    own = model()
    found = gradients(own, segments)
    monkeypatch.setattr(glm.modules.layers, "MIN_PARALLEL_SIZE", 1 << 40)
    monkeypatch.setattr(
        glm.modules.block.Attention, "attend_by_example", lambda part, *inputs: part.attend_by_part(*inputs)
    )
    for name, want in gradients(own, segments).items():
        np.testing.assert_allclose(found[name], want, rtol=0, atol=2e-5 * max(1.0, np.abs(want).max()), err_msg=name)


def test_recomputed_layers_draw_the_same_dropout(model):
    own = model(**dict.fromkeys(DROPOUTS, 0.2))
    found = []
    for is_recomputed in (False, True):
        own.glm.transformer.enable_recompute = is_recomputed
        paddle.seed(3)
        found.append(gradients(own, LAYOUTS["apart"]))
    for name, kept in found[0].items():
        np.testing.assert_array_equal(found[1][name], kept, err_msg=name)
