"""What a checkpoint is taken for: the published tables fit, wrong names and sizes are listed, settings agree."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from paddlenlp.transformers.conversion_utils import naive_merged_qkv_to_tensor_parallel_qkv
from safetensors.numpy import save_file

from glm.checkpoint.configuration import guess_preset
from glm.checkpoint.formats import Source, open_checkpoint
from glm.checkpoint.names import are_linears_out_in, transposed_linears
from glm.checkpoint.ranks import block_by_block, head_by_head, split_weights
from glm.checkpoint.tensors import LazyTensor
from glm.checkpoint.whole import open_model, whole_model
from glm.errors import InputError
from glm.models import registry
from glm.models.glm import FAMILY as GLM
from glm.models.glm.configuration import GLMConfig
from glm.models.presets import published_presets
from tools.checkpoint_tools import TINY, as_torch, write_config, write_glm
from tools.checkpoint_tools import tiny_weights as weights_of

NAMES = GLM.weights
TABLES = Path(__file__).resolve().parent / "published"
# By hand: V H + 2 (positions + 1) H + layers (12 H^2 + 13 H) + 2 H
PARAMETERS = {"glm-large-chinese": 355_659_776, "glm-10b-chinese": 9_879_633_920}


def lazy(array: np.ndarray, dtype: str = "float16") -> LazyTensor:
    return LazyTensor(array.shape, dtype, lambda: array)


def published(name: str) -> dict[str, LazyTensor]:
    """The tensors of a published file, whose numbers nobody may ask for."""

    def unread():
        raise AssertionError("weights were read")

    rows = [line.split("\t") for line in (TABLES / f"{name}.tsv").read_text().splitlines()]
    return {name: LazyTensor(tuple(map(int, shape.split("x"))), "float16", unread) for name, shape in rows}


@pytest.mark.parametrize("name", ["glm-large-chinese", "glm-10b-chinese"])
@pytest.mark.parametrize("form", ["huggingface-bin", "megatron"])
def test_the_published_files_fit(name, form):
    tensors = published(name)
    assert sum(math.prod(tensor.shape) for tensor in tensors.values()) == PARAMETERS[name]
    model = whole_model(Source(Path("x"), GLM, form, [], [tensors]))
    assert model.preset == f"THUDM/{name}"
    assert model.config == published_presets(GLM.published)[f"THUDM/{name}"]
    first = "glm.transformer.layers.0."
    H = model.config["hidden_size"]
    assert model.weights[first + "attention.query_key_value.weight"].shape == (H, 3 * H)
    assert model.weights[first + "mlp.dense_4h_to_h.weight"].shape == (4 * H, H)
    assert len(model.weights) == len(tensors)


def test_the_fields_are_those_of_the_configuration():
    assert set(GLM.weights.fields) == set(
        GLMConfig.__init__.__code__.co_varnames[1 : GLMConfig.__init__.__code__.co_argcount]
    )


@pytest.mark.parametrize("layers", [1, 2, 11])
@pytest.mark.parametrize("block", [True, False])
def test_sizes_are_seen_in_the_weights(tmp_path, layers, block):
    weights = weights_of(num_layers=layers, block_position_encoding=block)
    folder = write_glm(tmp_path / "m", weights, num_layers=layers, block_position_encoding=block)
    (folder / "config.json").write_text('{"num_attention_heads": 4}')
    assert open_model(folder).config == {
        **TINY,
        "num_layers": layers,
        "block_position_encoding": block,
        "num_attention_heads": 4,
    }


def test_a_configuration_of_another_model(tmp_path):
    folder = write_glm(tmp_path / "m", weights_of())
    write_config(folder, hidden_size=32, vocab_size=128, num_attention_heads=5)
    with pytest.raises(InputError) as caught:
        open_model(folder)
    assert str(caught.value) == (
        f"{folder}: the configuration is contradictory\n"
        "  vocab_size: 48 in the weights, 128 in config.json\n"
        "  hidden_size: 24 in the weights, 32 in config.json"
    )


def test_a_preset_that_does_not_fit(tmp_path):
    folder = write_glm(tmp_path / "m", weights_of())
    with pytest.raises(
        InputError, match="num_layers: 2 in the weights, 2 in config.json, 24 in the preset THUDM/glm-l"
    ):
        open_model(folder, "glm-large-chinese")
    preset = tmp_path / "mine.json"
    preset.write_text(json.dumps({**TINY, "num_attention_heads": 6}))
    with pytest.raises(InputError, match=f"heads: 12 in config.json, 6 in the preset {preset}"):
        open_model(folder, str(preset))
    with pytest.raises(InputError, match="nothing.json: no such file, nor a preset"):
        open_model(folder, "nothing")


def test_a_preset_gives_what_is_not_in_the_weights(tmp_path):
    folder = write_glm(tmp_path / "m", weights_of())
    (folder / "config.json").unlink()
    with pytest.raises(InputError, match="the number of attention heads is not to be seen .* --preset"):
        open_model(folder)
    preset = tmp_path / "mine.json"
    preset.write_text(json.dumps({**TINY, "num_attention_heads": 6, "output_dropout_prob": 0.2}))
    assert open_model(folder, str(preset)).config == {**TINY, "num_attention_heads": 6, "output_dropout_prob": 0.2}


def test_rows_that_pad_the_vocabulary_stay(tmp_path):
    preset = tmp_path / "mine.json"
    preset.write_text(json.dumps(TINY))
    for rows, fits in ((64, True), (48, True), (47, False)):
        folder = write_glm(tmp_path / f"m{rows}", weights_of(vocab_size=rows), vocab_size=rows)
        if fits:
            assert open_model(folder, str(preset)).config["vocab_size"] == rows
        else:
            with pytest.raises(InputError, match="vocab_size: 47 in the weights, 47 in config.json, 48 in the preset"):
                open_model(folder, str(preset))


@pytest.mark.parametrize("heads", [0, -1, 5, "12", 2.5])
def test_heads_that_do_not_divide(tmp_path, heads):
    folder = write_glm(tmp_path / "m", weights_of(), num_attention_heads=heads)
    with pytest.raises(InputError, match="num_attention_heads"):
        open_model(folder)


def test_every_wrong_name_and_shape_is_listed(tmp_path):
    weights = weights_of()
    layer = "glm.transformer.layers.{}."
    weights[layer.format(0) + "attention.qkv.weight"] = weights.pop(
        layer.format(0) + "attention.query_key_value.weight"
    )
    weights[layer.format(1) + "mlp.dense_h_to_4.bias"] = weights.pop(layer.format(1) + "mlp.dense_h_to_4h.bias")
    weights["glm.lm_head.weight"] = weights["glm.word_embeddings.weight"]
    weights[layer.format(1) + "input_layernorm.bias"] = np.zeros(25, "<f2")
    folder = write_glm(tmp_path / "m", weights)
    with pytest.raises(InputError) as caught:
        open_model(folder)
    assert str(caught.value).splitlines() == [
        f"{folder}: the weights do not fit the configuration",
        "  unknown glm.lm_head.weight",
        f"  unknown {layer.format(0)}attention.qkv.weight"
        f" (nearest: {layer.format(0)}attention.query_key_value.weight)",
        f"  unknown {layer.format(1)}mlp.dense_h_to_4.bias (nearest: {layer.format(1)}mlp.dense_h_to_4h.bias)",
        f"  missing {layer.format(0)}attention.query_key_value.weight",
        f"  missing {layer.format(1)}mlp.dense_h_to_4h.bias",
        f"  wrong shape {layer.format(1)}input_layernorm.bias: [25] instead of [24]",
    ]


def test_weights_that_are_no_floating_point_numbers(tmp_path):
    tensors = {name: lazy(array, "int16") for name, array in weights_of().items()}
    with pytest.raises(InputError, match=r"no floating-point numbers glm.word_embeddings.weight: int16"):
        whole_model(Source(tmp_path, GLM, "glm", [], [tensors], dict(TINY)))


def test_a_name_with_and_without_prefix(tmp_path):
    weights = weights_of()
    weights["word_embeddings.weight"] = weights["glm.word_embeddings.weight"]
    folder = write_glm(tmp_path / "m", weights)
    with pytest.raises(InputError, match="word_embeddings.weight: occurs twice, under two names"):
        open_model(folder)


def test_no_embeddings(tmp_path):
    """All names are listed all the same, each with the nearest."""
    weights = weights_of()
    weights["model.word_embeddings.weight"] = weights.pop("glm.word_embeddings.weight")
    weights["glm.transformer.layers.1.mlp.gate.bias"] = weights.pop("glm.transformer.layers.1.mlp.dense_h_to_4h.bias")
    folder = write_glm(tmp_path / "m", weights)
    with pytest.raises(InputError) as caught:
        open_model(folder)
    assert str(caught.value).splitlines() == [
        f"{folder}: not the weights of a GLM",
        "  unknown glm.transformer.layers.1.mlp.gate.bias (nearest: glm.transformer.layers.1.mlp.dense_h_to_4h.bias)",
        "  unknown model.word_embeddings.weight (nearest: glm.word_embeddings.weight)",
        "  missing glm.word_embeddings.weight",
        "  missing glm.transformer.layers.1.mlp.dense_h_to_4h.bias",
    ]


def test_a_layer_that_is_missing(tmp_path):
    """The others are not renumbered: its weights are missing, nothing else is unknown."""
    weights = {name: array for name, array in weights_of(num_layers=3).items() if ".layers.1." not in name}
    folder = write_glm(tmp_path / "m", weights, num_layers=3)
    with pytest.raises(InputError) as caught:
        open_model(folder)
    _, *lines = str(caught.value).splitlines()
    assert len(lines) == 12 and all(line.startswith("  missing glm.transformer.layers.1.") for line in lines)


def test_a_name_that_claims_a_million_layers(tmp_path):
    weights = weights_of()
    weights["glm.transformer.layers.999999.mlp.dense_h_to_4h.bias"] = np.zeros(96, "<f2")
    folder = write_glm(tmp_path / "m", weights)
    with pytest.raises(InputError, match="num_layers: 30 in the weights, 2 in config.json"):
        open_model(folder)


@pytest.mark.parametrize("model_type", ["llama", "chatglm", 7])
def test_a_folder_of_another_model(tmp_path, model_type):
    folder = write_glm(tmp_path / "m", {"wte.weight": np.zeros((5, 4), "<f2"), "lm_head.weight": np.zeros(3, "<f2")})
    (folder / "config.json").write_text(json.dumps({"model_type": model_type, "n_layer": 2}))
    with pytest.raises(InputError) as caught:
        open_model(folder)
    known = ", ".join(registry.FAMILIES)
    assert str(caught.value) == f"{folder}: config.json says model_type {model_type!r}, which is none of {known}"


def test_a_folder_that_says_nothing_and_is_of_no_known_model(tmp_path):
    folder = write_glm(tmp_path / "m", {"vector.weight": np.zeros((5, 4), "<f2"), "z.weight": np.zeros(3, "<f2")})
    (folder / "config.json").write_text(json.dumps({"n_layer": 2}))
    with pytest.raises(InputError) as caught:
        open_model(folder)
    first, second, third, *missing = str(caught.value).splitlines()
    assert first == f"{folder}: not the weights of a GLM"
    assert second.startswith("  unknown vector.weight") and third.startswith("  unknown z.weight")
    assert missing[0] == "  missing glm.word_embeddings.weight" and len(missing) == 16


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"layernorm_epsilon": "small"}, "layernorm_epsilon 'small': a number is expected"),
        ({"num_attention_heads": True}, "num_attention_heads True: a whole number is expected"),
        ({"hidden_size": 24.0}, "hidden_size 24.0: a whole number is expected"),
        ({"block_position_encoding": 1}, "block_position_encoding 1: true or false is expected"),
        ({"bad_words_id": "40"}, "bad_words_id '40': a list of token ids is expected"),
        ({"bad_words_id": [[40]]}, r"bad_words_id \[\[40\]\]: a list of token ids is expected"),
        ({"bad_words_id": [48]}, "bad_words_id 48: is not in the vocabulary of 48"),
        ({"bad_words_id": -1}, "bad_words_id -1: is not in the vocabulary of 48"),
    ],
)
def test_values_of_another_type(tmp_path, changes, reason):
    folder = write_glm(tmp_path / "m", weights_of(), **changes)
    with pytest.raises(InputError, match=f"{folder}: .*{reason}"):
        open_model(folder)


@pytest.mark.parametrize(
    ("rows", "preset"),
    [
        (50048, "THUDM/glm-10b-chinese"),
        (50176, "THUDM/glm-10b-chinese"),  # padded for two, four or eight ranks
        (50304, "THUDM/glm-10b"),
        (51200, None),  # both, padded for sixteen
        (50049, None),
    ],
)
def test_a_published_model_with_a_padded_vocabulary(rows, preset):
    sizes = {"num_layers": 48, "hidden_size": 4096, "max_sequence_length": 1024, "block_position_encoding": True}
    assert guess_preset(GLM, {**sizes, "vocab_size": rows}) == preset


# -- the row of gMASK


def gmask_source(form: str, extras: dict | None = None) -> Source:
    tensors = {name: lazy(array) for name, array in as_torch(weights_of()).items()}
    return Source(Path("x"), GLM, form, [], [tensors], dict(TINY), extras or {})


@pytest.fixture
def gmask_preset(tmp_path) -> str:
    """One with a banned token, as glm-10b-chinese has."""
    path = tmp_path / "gmask.json"
    path.write_text(json.dumps({**TINY, "bad_words_id": [40]}))
    return str(path)


def test_gmask_gets_its_own_row_from_thudms_files(gmask_preset):
    words = weights_of()["glm.word_embeddings.weight"]
    model = whole_model(gmask_source("megatron"), gmask_preset)
    found = model.weights["glm.word_embeddings.weight"].load()
    assert (found[40] == words[38]).all() and (np.delete(found, 40, 0) == np.delete(words, 40, 0)).all()
    assert model.config["bad_words_id"] == [40]


def test_other_banned_tokens_keep_their_rows():
    """What a config.json bans is not for that a gMASK that shares eop's row."""
    source = replace(gmask_source("megatron"), config={**TINY, "bad_words_id": [7, 40]})
    found = whole_model(source).weights["glm.word_embeddings.weight"].load()
    assert (found == weights_of()["glm.word_embeddings.weight"]).all()


def test_gmask_without_eop_before_it(tmp_path):
    (tmp_path / "low.json").write_text(json.dumps({**TINY, "bad_words_id": [1]}))
    with pytest.raises(InputError, match="bad_words_id 1: cannot be gMASK"):
        whole_model(gmask_source("megatron"), str(tmp_path / "low.json"))


@pytest.mark.parametrize(
    ("form", "extras"), [("huggingface-bin", {}), ("huggingface", {}), ("megatron", {"own_gmask_row": True})]
)
def test_where_gmask_has_a_row_it_stays(form, extras, gmask_preset):
    found = whole_model(gmask_source(form, extras), gmask_preset).weights["glm.word_embeddings.weight"].load()
    assert (found == weights_of()["glm.word_embeddings.weight"]).all()


def test_gmask_of_10b_chinese_is_row_50009_from_50007():
    tensors = published("glm-10b-chinese")
    words = np.broadcast_to(np.arange(50048, dtype="<f4")[:, None], (50048, 4096))
    tensors["word_embeddings.weight"] = LazyTensor(words.shape, "float32", lambda: words[:, :2])
    model = whole_model(Source(Path("x"), GLM, "megatron", [], [tensors]))
    found = model.weights["glm.word_embeddings.weight"].load()[:, 0]
    assert found[50009] == 50007 and found[50007] == 50007 and found[50008] == 50008 and found[50010] == 50010
    assert model.config["bad_words_id"] == [50009]


# -- layouts


@pytest.mark.parametrize("degree", [1, 2, 3, 4, 6, 12])
def test_which_way_round_linear_weights_are(degree):
    """At three and at four ranks one of the weights is a square."""
    whole = {name: lazy(array) for name, array in weights_of().items()}
    part = split_weights(NAMES.plan, whole, rank=0, degree=degree)
    assert not are_linears_out_in(NAMES, part) and are_linears_out_in(NAMES, transposed_linears(NAMES, part))


@pytest.mark.parametrize("heads", [1, 2, 12])
def test_head_by_head_is_paddlenlps_order(heads):
    weights = {name: lazy(array) for name, array in weights_of().items()}
    found = head_by_head(NAMES, weights, heads=heads)
    for name, tensor in weights.items():
        expected = tensor.load()
        if ".query_key_value." in name:
            expected = naive_merged_qkv_to_tensor_parallel_qkv(expected, heads)
        assert (found[name].load() == expected).all(), name
    back = block_by_block(NAMES, found, heads=heads)
    assert all((back[name].load() == tensor.load()).all() for name, tensor in weights.items())


def test_nothing_is_read_to_open(tmp_path, monkeypatch):
    folder = write_glm(tmp_path / "m", weights_of())
    monkeypatch.setattr(np, "memmap", None)
    assert len(open_model(folder).weights) == len(open_checkpoint(folder).ranks[0]) == 29


@pytest.mark.parametrize("name", ["lm_head.weight", "output_layer.weight"])
def test_a_copy_of_the_word_embedding_as_output_layer(tmp_path, tiny_model, capsys, name):
    """Tools that do not tie weights write one twice: equal bits are left out and said, other ones are refused."""
    model = tiny_model()
    weights = {key: np.asarray(value) for key, value in model.state_dict().items()}
    model.config.save_pretrained(str(tmp_path))
    for change, refused in ((0.0, False), (1e-3, True)):
        copy = weights["glm.word_embeddings.weight"].copy()
        copy[3, 5] += change
        save_file(weights | {name: copy}, tmp_path / "model.safetensors", metadata={"format": "np"})
        if refused:
            with pytest.raises(InputError, match=f"{name}: is an output layer of its own"):
                open_model(tmp_path)
        else:
            found = open_model(tmp_path)
            assert set(found.weights) == set(weights) and capsys.readouterr().err == ""
            found.print_notes()
            assert capsys.readouterr().err == f"{name}: is glm.word_embeddings.weight once more, and left out\n"
