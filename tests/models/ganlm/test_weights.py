"""Names, shapes and files of GanLM's weights: fairseq's in, ours out, and back with the same bits."""

import argparse
import json
import math
import pickle
import shutil

import numpy as np
import pytest

from glm.checkpoint.convert import export_checkpoint, import_checkpoint
from glm.checkpoint.formats import FAIRSEQ_MODEL, open_checkpoint
from glm.checkpoint.loading import find_family, load_config, load_model
from glm.checkpoint.pickles import Window, read_pickle
from glm.checkpoint.tensors import LazyTensor
from glm.checkpoint.torch_files import read_torch, write_torch
from glm.checkpoint.whole import open_model
from glm.errors import InputError, UsageError
from glm.models.ganlm import FAMILY
from glm.models.ganlm.weights import COPIES_OF_WORDS, FOREIGN_WORDS, GanLMWeights
from glm.models.presets import PRESET_FOLDER

NAMES = GanLMWeights()
WORDS_OF_LARGE, LARGE, BASE = 250104, 1_032_934_914, 431_325_314


class Small:
    """A tokenizer, as far as a configuration asks for it."""

    vocab_size = 40


def lazy(array: np.ndarray) -> LazyTensor:
    return LazyTensor(array.shape, str(array.dtype), lambda: array)


def fairseq_weights(model) -> dict[str, LazyTensor]:
    """A model's weights as fairseq has them: by its names, PyTorch's way round, tied ones four times."""
    found = {}
    for name, weight in model.named_parameters():
        table = weight.numpy()
        parts = NAMES.made_of(name, "fairseq")
        pieces = np.split(table.T if name.endswith(NAMES.linears) else table, len(parts))
        found |= {part: lazy(np.ascontiguousarray(piece)) for part, piece in zip(parts, pieces, strict=True)}
    found |= {copy: found[FOREIGN_WORDS] for copy in COPIES_OF_WORDS}
    return found | {"encoder.discriminator.version": lazy(np.array([3.0], np.float32))}


def options_of(config) -> dict:
    return NAMES.foreign_options(config.to_dict(), "fairseq")


@pytest.fixture(params=[False, True], ids=["own layers", "shared layers"])
def model(request, ganlm_model):
    return ganlm_model(share_generator_discriminator=request.param)


@pytest.fixture
def checkpoint(tmp_path, model, ganlm_folder):
    """A file of fairseq with the tokenizer beside it."""
    for name in FAMILY.tokenizer_files:
        shutil.copyfile(ganlm_folder / name, tmp_path / name)
    cfg = {"model": options_of(model.config), "task": {"_name": "seq2seq_generation"}}
    write_torch(tmp_path / "model.pt", {"model": fairseq_weights(model), "cfg": cfg, "args": None})
    return tmp_path / "model.pt"


@pytest.mark.parametrize("preset, count", [("ganlm-large", LARGE), ("ganlm-base", BASE)])
def test_published_models_have_exactly_as_many_parameters(preset, count):
    config = json.loads((PRESET_FOLDER / f"{preset}.json").read_text())
    assert config["vocab_size"] == WORDS_OF_LARGE
    assert sum(map(math.prod, NAMES.shapes(config).values())) == count


def test_a_file_of_fairseq_is_read_with_the_same_bits(checkpoint, model):
    for path in (checkpoint, checkpoint.parent):
        whole = open_model(path)
        assert whole.source.format == "fairseq"
        assert find_family(str(path)).name == "ganlm"
        for name, weight in model.named_parameters():
            assert np.array_equal(whole.weights[name].load(), weight.numpy()), name
        for field in NAMES.agreed:
            assert whole.config[field] == getattr(model.config, field), field


def test_a_model_is_loaded_from_a_file_of_fairseq(checkpoint, model, ganlm_config):
    config = load_config(FAMILY, str(checkpoint), Small())
    loaded = load_model(FAMILY, str(checkpoint), config)
    for (name, own), (_, other) in zip(model.named_parameters(), loaded.named_parameters(), strict=True):
        assert np.array_equal(own.numpy(), other.numpy()), name


def test_to_our_folder_and_back_to_fairseq(checkpoint, model, tmp_path):
    import_checkpoint(checkpoint, tmp_path / "ours")
    assert (tmp_path / "ours" / "spm.model").is_file() and (tmp_path / "ours" / "dict.txt").is_file()
    export_checkpoint(tmp_path / "ours", tmp_path / "theirs", to="fairseq")
    tree = read_torch(tmp_path / "theirs" / "checkpoint.pt")
    wanted = fairseq_weights(model)
    wanted.pop("encoder.discriminator.version")
    if model.discriminator is None:
        wanted = {
            name: tensor for name, tensor in wanted.items() if "discriminator.layers" not in name or "enc" in name
        }
    assert set(tree[FAIRSEQ_MODEL]) == set(wanted)
    for name, tensor in wanted.items():
        assert np.array_equal(tree[FAIRSEQ_MODEL][name].lazy().load(), tensor.load()), name
    assert open_model(tmp_path / "theirs").config == open_model(tmp_path / "ours").config


TORCH_READS = """
import sys
import numpy, torch
weights = torch.load(sys.argv[1], weights_only=True)["model"]
numpy.savez(sys.argv[2], **{name: tensor.numpy() for name, tensor in weights.items()})
"""
TORCH_WRITES = """
import argparse, json, sys
import numpy, torch
with numpy.load(sys.argv[1]) as arrays:
    weights = {name: torch.from_numpy(array) for name, array in arrays.items()}
words = weights["encoder.discriminator.embed_tokens.weight"]  # one tensor by four names, as fairseq has it
for name in ("decoder.generator.embed_tokens.weight", "decoder.generator.output_projection.weight"):
    weights[name] = words
options = argparse.Namespace(**json.loads(sys.argv[3]))
torch.save({"model": weights, "cfg": {"model": options}, "args": None}, sys.argv[2])
"""


def test_torch_reads_what_is_exported(checkpoint, model, tmp_path, torch_python):
    """Every weight, where it takes nothing but tensors too."""
    import_checkpoint(checkpoint, tmp_path / "ours")
    export_checkpoint(tmp_path / "ours", tmp_path / "theirs", to="fairseq")
    torch_python(TORCH_READS, tmp_path / "theirs" / "checkpoint.pt", tmp_path / "read.npz")
    wanted = read_torch(tmp_path / "theirs" / "checkpoint.pt")[FAIRSEQ_MODEL]
    with np.load(tmp_path / "read.npz") as found:
        assert set(found.files) == set(wanted)
        for name, tensor in wanted.items():
            assert np.array_equal(found[name], tensor.lazy().load()), name
        weight = dict(model.named_parameters())["encoder.layers.0.mlp.fc1.weight"]
        assert np.array_equal(found["encoder.discriminator.layers.0.fc1.weight"], weight.numpy().T)


def test_what_torch_saves_is_read(checkpoint, model, tmp_path, torch_python):
    """With its options in a namespace, as fairseq saves them, and words that four names share."""
    arrays = {name: tensor.load() for name, tensor in fairseq_weights(model).items()}
    np.savez(tmp_path / "arrays.npz", **arrays)
    torch_python(TORCH_WRITES, tmp_path / "arrays.npz", checkpoint, json.dumps(options_of(model.config)))
    config = load_config(FAMILY, str(checkpoint), Small())
    loaded = load_model(FAMILY, str(checkpoint), config)
    for (name, own), (_, other) in zip(model.named_parameters(), loaded.named_parameters(), strict=True):
        assert np.array_equal(own.numpy(), other.numpy()), name


def test_other_formats_are_refused(checkpoint, tmp_path):
    with pytest.raises(UsageError, match="no program reads a GanLM in it"):
        export_checkpoint(checkpoint, tmp_path / "other", to="megatron")


def test_options_in_a_namespace_are_read_without_its_code(tmp_path):
    path = tmp_path / "options"
    for protocol in (2, 4):
        path.write_bytes(pickle.dumps({"args": argparse.Namespace(encoder_layers=3, names=["a"])}, protocol=protocol))
        with path.open("rb") as file:
            found = read_pickle(Window(file, path))
        assert found["args"].values == {"encoder_layers": 3, "names": ["a"]}


@pytest.mark.parametrize("wish", [pickle.dumps(shutil.rmtree), b"\x80\x02cshutil\nrmtree\n)\x81."])
def test_a_pickle_that_wants_to_call_something_is_refused(tmp_path, wish):
    path = tmp_path / "wish"
    path.write_bytes(wish)
    with path.open("rb") as file, pytest.raises(InputError, match="refused"):
        read_pickle(Window(file, path))


def test_tied_weights_that_differ_are_refused(checkpoint, model):
    weights = fairseq_weights(model)
    other = weights[FOREIGN_WORDS].load().copy()
    other[3, 2] += 1
    weights[COPIES_OF_WORDS[0]] = lazy(other)
    write_torch(checkpoint, {"model": weights, "cfg": {"model": options_of(model.config)}})
    with pytest.raises(InputError, match=r"decoder.generator.embed_tokens.weight: has other numbers"):
        open_checkpoint(checkpoint)


@pytest.mark.parametrize(
    "option, value, message",
    [
        ("encoder_layers", 3, "encoder_layers: 2 in the weights, 3"),
        ("generator_decoder_layers", 1, "generator_layers: 2 in the weights, 1"),
        ("encoder_attention_heads", 4, "attention heads|num_attention_heads: 3 in the weights, 4"),
        ("rel_pos_buckets", 16, "relative_buckets: 32 in the weights, 16"),
        ("max_target_positions", 31, "max_target_positions: 30 in the weights, 31"),
    ],
)
def test_options_that_contradict_the_weights_are_refused(checkpoint, model, option, value, message):
    options = {**options_of(model.config), option: value}
    write_torch(checkpoint, {"model": fairseq_weights(model), "cfg": {"model": options}})
    with pytest.raises(InputError, match=message):
        open_model(checkpoint)


@pytest.mark.parametrize(
    "name", ["encoder.discriminator.layers.1.fc1.weight", "decoder.generator.layers.0.encoder_attn.k_proj.bias"]
)
def test_a_missing_weight_is_refused(checkpoint, model, name):
    weights = fairseq_weights(model)
    weights.pop(name)
    write_torch(checkpoint, {"model": weights, "cfg": {"model": options_of(model.config)}})
    with pytest.raises(InputError, match="missing|weights, and"):
        open_model(checkpoint)


def test_an_unknown_weight_is_refused(checkpoint, model):
    weights = fairseq_weights(model) | {"decoder.generator.layers.1.extra.weight": lazy(np.zeros((2, 2), np.float32))}
    write_torch(checkpoint, {"model": weights, "cfg": {"model": options_of(model.config)}})
    with pytest.raises(InputError, match="unknown generator.layers.1.extra.weight"):
        open_model(checkpoint)
