"""Files of the multilingual GLM: both namings, a tracker, an iteration's folder and a bare file; bit for bit."""

import itertools
import json
import math

import numpy as np
import pytest

from glm.checkpoint.convert import WRITERS, export_checkpoint, import_checkpoint, reshard_checkpoint
from glm.checkpoint.inspection import inspect_checkpoint
from glm.checkpoint.whole import open_model
from glm.errors import InputError
from glm.models import registry
from glm.models.mglm import FAMILY
from glm.models.mglm.configuration import MGLMConfig
from glm.models.presets import preset_file
from tools.checkpoint_tools import Tensor, write_torch

SIZES = {"num_layers": 2, "vocab_size": 256, "hidden_size": 8, "num_attention_heads": 2, "max_sequence_length": 9}
SIZES["block_position_encoding"] = True
KINDS = {
    "plain": {},
    "sandwich": {"sandwich_ln": True},
    "longer": {"additional_sequence_length": 5},
    "prompt": {"prefix_prompt": 3},
    "prompt-mlp": {"prefix_prompt": 3, "prompt_func": "mlp"},
    "prompt-lstm": {"prefix_prompt": 3, "prompt_func": "lstm"},
}


def weights_of(settings):
    generator = np.random.default_rng(0)
    return {
        name: generator.normal(size=shape).astype("float16") for name, shape in FAMILY.weights.shapes(settings).items()
    }


def foreign(weights, *, naming):
    """As files have them: [out, in], under the original's names or those of GLM (`--old-checkpoint`)."""
    names, found = FAMILY.weights, {}
    for name, table in weights.items():
        (theirs,) = names.made_of(name, "megatron") if naming == "mglm" else (name.removeprefix("glm."),)
        found[theirs] = np.ascontiguousarray(table.T) if name.endswith(names.linears) else table
    return found


def write_pt(path, weights):
    path.parent.mkdir(parents=True, exist_ok=True)
    module = {name: Tensor(table, "float16") for name, table in weights.items()}
    write_torch(path, {"module": module, "iteration": 7, "mp_world_size": 1})
    return path


def assert_same(model, weights):
    assert model.weights.keys() == weights.keys()
    for name, tensor in model.weights.items():
        assert tensor.load().tobytes() == np.ascontiguousarray(weights[name]).tobytes(), name


@pytest.fixture
def preset(tmp_path):
    """A configuration file of a small model."""

    def write(**settings):
        path = tmp_path / "preset.json"
        path.write_text(json.dumps({"model_type": "mglm", **SIZES, **settings}), encoding="utf-8")
        return str(path)

    return write


@pytest.mark.parametrize("naming", ["mglm", "glm"])
@pytest.mark.parametrize("place", ["pretrained.pt", "7/mp_rank_00_model_states.pt", "tracker"])
def test_every_place_and_naming(tmp_path, preset, naming, place):
    weights = weights_of(SIZES)
    source = tmp_path / "there"
    file = source / ("7/mp_rank_00_model_states.pt" if place == "tracker" else place)
    write_pt(file, foreign(weights, naming=naming))
    if place == "tracker":
        (source / "latest_checkpointed_iteration.txt").write_text("7", encoding="utf-8")
    given = {"tracker": source, "pretrained.pt": file}.get(place, file.parent)
    model = import_checkpoint(given, tmp_path / "here", preset=preset())
    assert (model.source.family.name, model.source.format) == ("mglm", "megatron")
    assert_same(open_model(tmp_path / "here"), weights)
    config = json.loads((tmp_path / "here" / "config.json").read_text(encoding="utf-8"))
    assert (config["model_type"], config["max_sequence_length"]) == ("mglm", 9)


@pytest.mark.parametrize("kind", KINDS)
def test_original_names_are_recognised_and_say_what_there_is(tmp_path, kind):
    settings = {**SIZES, **KINDS[kind]}
    write_pt(tmp_path / "model.pt", foreign(weights_of(settings), naming="mglm"))
    (tmp_path / "config.json").write_text('{"num_attention_heads": 2}', encoding="utf-8")
    model = open_model(tmp_path / "model.pt")
    assert model.source.family.name == "mglm"
    for name, value in settings.items():
        assert model.config[name] == value, name
    assert_same(model, weights_of(settings))
    parameters = FAMILY.model_class()(MGLMConfig(**settings)).state_dict()
    assert {name: tuple(weight.shape) for name, weight in parameters.items()} == FAMILY.weights.shapes(settings)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", [form for form in WRITERS if form != "fairseq"])  # which is GanLM's
def test_exported_and_imported(tmp_path, kind, form):
    settings = {**SIZES, **KINDS[kind]}
    write_pt(tmp_path / "model.pt", foreign(weights_of(settings), naming="mglm"))
    (tmp_path / "config.json").write_text('{"num_attention_heads": 2}', encoding="utf-8")
    export_checkpoint(tmp_path / "model.pt", tmp_path / form, to=form)
    assert_same(open_model(tmp_path / form), weights_of(settings))
    assert inspect_checkpoint(tmp_path / form).problem is None


@pytest.mark.parametrize(("first", "second"), itertools.permutations((1, 2), 2))
def test_resharded(tmp_path, first, second):
    write_pt(tmp_path / "model.pt", foreign(weights_of(SIZES), naming="mglm"))
    (tmp_path / "config.json").write_text('{"num_attention_heads": 2}', encoding="utf-8")
    export_checkpoint(tmp_path / "model.pt", tmp_path / "first", to="megatron", degree=first)
    reshard_checkpoint(tmp_path / "first", tmp_path / "second", degree=second)
    model = open_model(tmp_path / "second")
    assert len(model.source.ranks) == second
    assert_same(model, weights_of(SIZES))


def test_partial_file_needs_its_base(tmp_path):
    weights = weights_of(SIZES)
    base = write_pt(tmp_path / "base" / "model.pt", foreign(weights, naming="mglm"))
    (tmp_path / "base" / "config.json").write_text('{"num_attention_heads": 2}', encoding="utf-8")
    trained = {name: table + 1 for name, table in weights.items() if ".layers.1." in name}
    partial = write_pt(tmp_path / "tuned" / "tuned.pt", foreign(trained, naming="mglm"))
    with pytest.raises(InputError, match="(?s)missing.*--base"):
        import_checkpoint(partial, tmp_path / "none")
    assert not (tmp_path / "none").exists()
    import_checkpoint(partial, tmp_path / "whole", base=base)
    assert_same(open_model(tmp_path / "whole"), weights | trained)


def test_published_size():
    """Check 15."""
    settings = json.loads(preset_file("mglm-1b.json").read_text(encoding="utf-8"))
    shapes = FAMILY.weights.shapes(settings)
    assert sum(map(math.prod, shapes.values())) == 1_067_280_384
    assert [shape[0] for name, shape in shapes.items() if "position_embeddings" in name] == [1025, 1025]
    assert registry.of_model("mglm-1b.json") is FAMILY
    large = json.loads(preset_file("mglm-large.json").read_text(encoding="utf-8"))
    assert sum(map(math.prod, FAMILY.weights.shapes(large).values())) == 560_525_312
