"""Checks 1 to 4 of the specification: the model against numbers of its original, in float64."""

import numpy as np
import paddle
import pytest
from paddlenlp.transformers.model_utils import no_init_weights

from glm.models.glm.configuration import GLMConfig
from glm.models.glm.geometry import BlankInfilling, Prompt
from glm.models.glm.modeling import GLMForConditionalGeneration
from glm.models.mglm import FAMILY
from glm.models.protocol import IGNORE_INDEX
from tools.reference_files import read_golden, reference_files

pytestmark = pytest.mark.conformance
MODELS = reference_files("mglm/model-*.safetensors")
EXACT = 1e-9
SMOOTHED = "loss_smoothing_"  # and how much
# Decoding hands out logits in float32, whatever it computes in: their rounding.
ROUNDED = 2e-6


def batch_of(tensors):
    """What the model takes, of a golden file: columns below `sep` are Part A, and nothing is padding."""
    B, S = tensors["ids"].shape
    segments = np.stack([tensors["sep"], S - tensors["sep"]], axis=1)[:, None]  # [B, 1, 2]
    places = np.arange(S)
    for sep, mask in zip(tensors["sep"], tensors["mask"], strict=True):
        assert (mask == ((places < sep) | (places <= places[:, None]))).all(), "the mask is another one"
    labels = np.where(tensors["loss_mask"] > 0, tensors["labels"], IGNORE_INDEX)
    arrays = {
        "input_ids": tensors["ids"],
        "position_ids": tensors["positions"],
        "segments": segments,
        "labels": labels,
    }
    return {name: paddle.to_tensor(array.astype(np.int64)) for name, array in arrays.items()}


def largest_difference(ours, theirs):
    return np.abs(np.asarray(ours) - theirs).max()


@pytest.mark.parametrize("path", MODELS)
def test_logits_losses_and_gradient(golden_model, path):  # check 1
    tensors, metadata = read_golden(path)
    model = golden_model(tensors, metadata["config"])
    batch = batch_of(tensors)
    labels = batch.pop("labels")
    assert largest_difference(model(**batch), tensors["logits"]) < EXACT
    assert largest_difference(model(**batch, labels=labels), tensors["loss"]) < EXACT
    model.train()
    (smoothed,) = [name for name in tensors if name.startswith(SMOOTHED)]
    loss = model(**batch, labels=labels, label_smoothing=float(smoothed.removeprefix(SMOOTHED)))
    assert largest_difference(loss, tensors[smoothed]) < EXACT
    loss.backward()
    norms = {name: float(weight.grad.norm()) for name, weight in model.named_parameters() if weight.grad is not None}
    total = np.sqrt(sum(norm**2 for norm in norms.values()))
    assert largest_difference(total, tensors["grad_norm"]) < EXACT
    for foreign, norm in metadata["grad_norms"].items():
        assert abs(norms.get(FAMILY.weights.ours(foreign)[0], 0.0) - norm) < EXACT, foreign


@pytest.mark.parametrize("path", [param for param in MODELS if "pbrelax" in str(param.id) or param.id == "none"])
def test_relaxed_layernorm_is_seen_in_the_logits(golden_model, path):  # check 2
    tensors, metadata = read_golden(path)
    model = golden_model(tensors, metadata["config"], pb_relax=False)
    batch = batch_of(tensors)
    del batch["labels"]
    difference = largest_difference(model(**batch), tensors["logits"])
    assert difference > 10 * EXACT  # what holds with the option would not hold without


@pytest.mark.parametrize("path", MODELS)
def test_cached_steps(golden_model, path):  # check 3
    tensors, metadata = read_golden(path)
    model = golden_model(tensors, metadata["config"])
    sep, positions = int(tensors["sep"][0]), tensors["positions"][0]
    geometry = BlankInfilling(mask_token_ids=(), sop_token_id=-1, eop_token_id=-1)
    prompt = GoldenPrompt(
        geometry=geometry,
        source_ids=tensors["ids"][0, :sep],
        opening_ids=tensors["ids"][0, sep : sep + 1],
        opening_position_ids=positions[:, sep : sep + 1],
        place=int(positions[0, sep]),
        given=0,
        all_positions=positions,
    )
    logits, cache = model.prefill([prompt])
    for number, (token, expected) in enumerate(zip(tensors["decode.tokens"], tensors["decode.logits"], strict=True)):
        assert largest_difference(logits.reshape(-1), expected) < ROUNDED * np.abs(expected).max()
        assert int(logits.argmax()) == token
        logits = model.step(np.array([[token]]), np.array([number]), cache)


class GoldenPrompt(Prompt):
    """A prompt whose positions are those of a golden file."""

    def __init__(self, *, all_positions, **fields):
        super().__init__(**fields)
        object.__setattr__(self, "all_positions", all_positions)

    @property
    def position_ids(self):
        return self.all_positions[:, : len(self)]

    def step_position_ids(self, number):
        first = self.opening_position_ids[:, :1]
        return first + np.array([[0], [1 + number]])


def test_glm_reads_the_same_weights(tiny_mglm, float64):  # check 4
    config = tiny_mglm.config
    sizes = ("num_layers", "hidden_size", "num_attention_heads", "vocab_size")
    settings = {name: getattr(config, name) for name in sizes}
    settings["max_sequence_length"] = config.max_sequence_length - 1
    with no_init_weights():
        glm = GLMForConditionalGeneration(GLMConfig(**settings))
    theirs = dict(tiny_mglm.named_parameters())
    for name, weight in glm.named_parameters():
        weight.set_value(theirs[name])
    glm.eval()
    generator = np.random.default_rng(0)
    rows = config.max_sequence_length
    batch = {
        "input_ids": generator.integers(config.vocab_size, size=(3, 40)),
        "position_ids": generator.integers(rows, size=(3, 2, 40)),
        "segments": np.array([[[30, 10]], [[1, 39]], [[20, 7]]]),
    }
    batch = {name: paddle.to_tensor(table) for name, table in batch.items()}
    assert (tiny_mglm(**batch).numpy() == glm(**batch).numpy()).all()
