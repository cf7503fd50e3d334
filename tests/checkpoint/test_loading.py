"""Models and tokenizers by folder, file and name: what was saved comes back, and what is wrong is said."""

import json
import shutil
from pathlib import Path

import numpy as np
import paddle
import pytest
from safetensors.numpy import load_file, save_file

from glm.checkpoint.loading import load_config, load_model
from glm.checkpoint.tokenizers import load_tokenizer
from glm.errors import InputError
from glm.models.glm import FAMILY as GLM
from glm.models.glm.configuration import GLMConfig
from glm.models.glm.modeling import GLMForConditionalGeneration
from glm.models.glm.paddlenlp_tokenizer import GLMTokenizer

PRESETS = Path(__file__).resolve().parents[2] / "configs" / "model"
WEIGHTS = "model.safetensors"
PUBLISHED = "THUDM/glm-10b-chinese, THUDM/glm-10b, THUDM/glm-2b, THUDM/glm-515m, THUDM/glm-large-chinese"


@pytest.fixture(scope="module")
def saved(tmp_path_factory, tiny_model, tokenizer) -> Path:
    """A folder with a model and its tokenizer; not to be written to."""
    folder = tmp_path_factory.mktemp("saved")
    tiny_model(vocab_size=384).save_pretrained(str(folder), safe_serialization=True)
    tokenizer.save_pretrained(str(folder))
    return folder


@pytest.fixture
def folder(saved, tmp_path) -> Path:
    """A copy of `saved` to spoil."""
    return Path(shutil.copytree(saved, tmp_path / "model"))


@pytest.fixture
def no_network(monkeypatch):
    """Whatever PaddleNLP would fetch fails at once."""

    def fail(*args, **kwargs):
        raise ConnectionError("no route to host")

    for module in ("configuration_utils", "model_utils", "tokenizer_utils_base"):
        monkeypatch.setattr(f"paddlenlp.transformers.{module}.resolve_file_path", fail)


def rewrite_config(folder: Path, **changes) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def rewrite_weights(folder: Path, change) -> None:
    weights = load_file(folder / WEIGHTS)
    change(weights)
    save_file(weights, folder / WEIGHTS, metadata={"format": "np"})


def load(folder: Path | str, tokenizer: GLMTokenizer) -> GLMForConditionalGeneration:
    return load_model(GLM, str(folder), load_config(GLM, str(folder), tokenizer))


def message_of(call) -> str:
    with pytest.raises(InputError) as caught:
        call()
    return str(caught.value)


# -- a saved folder


def test_saved_model_comes_back_bit_for_bit(saved, tiny_model, tokenizer):
    first, second = tiny_model(vocab_size=384).state_dict(), load(saved, tokenizer).state_dict()
    assert list(first) == list(second)
    for name, weight in first.items():
        assert (weight.numpy() == second[name].numpy()).all(), name


def test_saved_model_computes_the_same(saved, tiny_model, tokenizer):
    model = load(saved, tokenizer)
    model.eval()
    inputs = {
        "input_ids": paddle.to_tensor([[342, 7, 349, 340, 346, 8]]),
        "position_ids": paddle.to_tensor([[[0, 1, 2, 3, 2, 2], [0, 0, 0, 0, 1, 2]]]),
        "segments": paddle.to_tensor([[[4, 2]]]),
    }
    expected = tiny_model(vocab_size=384)(**inputs, labels=None)
    assert (model(**inputs, labels=None).numpy() == expected.numpy()).all()


def test_saved_and_saved_again(saved, tmp_path, tokenizer):
    load(saved, tokenizer).save_pretrained(str(tmp_path), safe_serialization=True)
    first, second = load_file(saved / WEIGHTS), load_file(tmp_path / WEIGHTS)
    assert list(first) == list(second) and all((first[name] == second[name]).all() for name in first)


def test_settings_replace_the_models_own(saved, tokenizer):
    config = load_config(
        GLM, str(saved), tokenizer, settings={"output_dropout_prob": 0.3, "tensor_parallel_degree": 3}
    )
    assert (config.output_dropout_prob, config.tensor_parallel_degree) == (0.3, 3)
    assert (config.attention_dropout_prob, config.hidden_size, config.vocab_size) == (0.0, 24, 384)
    assert load_config(GLM, str(saved), tokenizer).output_dropout_prob == 0.0


def test_dropout_reaches_the_layers(saved, tokenizer):
    rates = {"attention_dropout_prob": 0.2, "embedding_dropout_prob": 0.3, "output_dropout_prob": 0.4}
    model = load_model(GLM, str(saved), load_config(GLM, str(saved), tokenizer, settings=rates))
    found = {layer.p for layer in model.sublayers() if isinstance(layer, paddle.nn.Dropout)}
    assert found == {0.2, 0.3, 0.4}


# -- folders with faults


def test_folder_without_configuration(folder, tokenizer):
    (folder / "config.json").unlink()
    message = message_of(lambda: load(folder, tokenizer))
    assert message.startswith(f"{folder}: the number of attention heads is not to be seen in the weights")


def test_folder_without_weights(folder, tokenizer):
    (folder / WEIGHTS).unlink()
    message = message_of(lambda: load(folder, tokenizer))
    assert message.startswith(f"{folder}: the folder has no weights (model.safetensors, model_state.pdparams, ")


def test_configuration_that_does_not_parse(folder, tokenizer):
    (folder / "config.json").write_text("{")
    message = message_of(lambda: load(folder, tokenizer))
    assert message.startswith(f"{folder / 'config.json'}: cannot be read as JSON (Expecting property name")


def test_missing_folder(tokenizer):
    for name in ("./nowhere", "/nowhere/at/all", "~/nowhere"):
        assert message_of(lambda name=name: load(name, tokenizer)) == f"model_name_or_path {name}: no such folder"


@pytest.mark.parametrize(
    ("setting", "there", "here"),
    [("hidden_size", 48, 24), ("max_sequence_length", 200, 100), ("num_layers", 3, 2), ("num_layers", 1, 2)],
)
def test_weights_of_another_size(folder, tokenizer, setting, there, here):
    rewrite_config(folder, **{setting: there})
    assert message_of(lambda: load(folder, tokenizer)) == (
        f"{folder}: the configuration is contradictory\n  {setting}: {here} in the weights, {there} in config.json"
    )


def test_missing_weight(folder, tokenizer):
    name = "glm.transformer.layers.1.mlp.dense_h_to_4h.bias"
    rewrite_weights(folder, lambda weights: weights.pop(name))
    assert message_of(lambda: load(folder, tokenizer)) == (
        f"{folder}: the weights do not fit the configuration\n  missing {name}"
    )


def test_misnamed_weight(folder, tokenizer):
    name = "glm.transformer.final_layernorm.bias"

    def rename(weights):
        weights["glm.transformer.norm.bias"] = weights.pop(name)

    rewrite_weights(folder, rename)
    assert message_of(lambda: load(folder, tokenizer)) == (
        f"{folder}: the weights do not fit the configuration\n"
        f"  unknown glm.transformer.norm.bias (nearest: {name})\n  missing {name}"
    )


def test_weights_cut_short(folder, tokenizer):
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[: len(content) // 2])
    message = message_of(lambda: load(folder, tokenizer))
    assert message.startswith(f"{folder / WEIGHTS}: not a readable safetensors file (")


def test_tokenizer_larger_than_the_vocabulary(tmp_path, tiny_model, tokenizer):
    tiny_model(vocab_size=349).save_pretrained(str(tmp_path / "small"), safe_serialization=True)
    message = message_of(lambda: load_config(GLM, str(tmp_path / "small"), tokenizer))
    assert message == f"model {tmp_path / 'small'}: 349 words, but the tokenizer has 350"
    tiny_model(vocab_size=350).save_pretrained(str(tmp_path / "enough"), safe_serialization=True)
    assert load_config(GLM, str(tmp_path / "enough"), tokenizer).vocab_size == 350


def test_pickles_are_not_handed_to_paddlenlp(folder):
    (folder / WEIGHTS).rename(folder / "model_state.pdparams")
    message = message_of(lambda: GLMForConditionalGeneration.from_pretrained(str(folder)))
    assert message.startswith(f"{folder}: no folder with model.safetensors; use load_model")


# -- a model from nothing


@pytest.mark.parametrize("name", ["tiny.json", str(PRESETS / "tiny.json")])
def test_preset_by_name_and_by_path(name, tokenizer):
    config = load_config(GLM, name, tokenizer, settings={"output_dropout_prob": 0.0})
    preset = json.loads((PRESETS / "tiny.json").read_text())
    for option in ("num_layers", "hidden_size", "num_attention_heads", "max_sequence_length"):
        assert getattr(config, option) == preset[option]
    assert (config.max_sequence_length, config.output_dropout_prob, config.attention_dropout_prob) == (256, 0.0, 0.1)
    assert config.vocab_size == 384  # 350 rounded up to a multiple of 128


def test_a_file_here_wins_over_a_preset(tmp_path, monkeypatch, tokenizer):
    monkeypatch.chdir(tmp_path)
    Path("tiny.json").write_text('{"num_layers": 1, "hidden_size": 8, "num_attention_heads": 2}')
    assert load_config(GLM, "tiny.json", tokenizer).num_layers == 1


@pytest.mark.parametrize(("words", "rows"), [(1, 128), (127, 128), (128, 128), (129, 256), (50010, 50048)])
def test_vocabulary_follows_the_tokenizer(words, rows):
    class Words:
        vocab_size = words

    assert load_config(GLM, "tiny.json", Words()).vocab_size == rows


def test_vocabulary_of_a_preset_follows_the_tokenizer(tokenizer):
    assert load_config(GLM, "glm-large-chinese.json", tokenizer).vocab_size == 384


def test_a_copy_that_is_left_out_is_said_once(saved, tokenizer, capsys):
    rewrite_weights(saved, lambda weights: weights.update({"lm_head.weight": weights["glm.word_embeddings.weight"]}))
    load(saved, tokenizer)
    assert capsys.readouterr().err.count("lm_head.weight: is glm.word_embeddings.weight once more, and left out") == 1


def test_random_weights(tmp_path, tokenizer):
    path = tmp_path / "m.json"
    path.write_text('{"num_layers": 1, "hidden_size": 64, "num_attention_heads": 2, "max_sequence_length": 50}')
    config = load_config(GLM, str(path), tokenizer)
    paddle.seed(1)
    first = load_model(GLM, str(path), config)
    paddle.seed(1)
    second = load_model(GLM, str(path), config)
    third = load_model(GLM, str(path), config)
    name = "glm.word_embeddings.weight"
    tables = [model.state_dict()[name].numpy() for model in (first, second, third)]
    assert tables[0].shape == (384, 64) and abs(tables[0].std() - 0.02) < 0.001
    assert (tables[0] == tables[1]).all() and not np.allclose(tables[0], tables[2])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read as JSON (Expecting property name"),
        ("[]", "m.json: a JSON object is expected"),
        ('{"hidden_size": 10, "num_attention_heads": 3}', "hidden_size 10 is no multiple of num_attention_heads 3"),
        ('{"hidden_size": "10"}', "hidden_size '10': a whole number is expected"),
    ],
)
def test_bad_configuration_file(tmp_path, tokenizer, text, message):
    path = tmp_path / "m.json"
    path.write_text(text)
    assert message in message_of(lambda: load_config(GLM, str(path), tokenizer))


def test_misspelt_key_in_a_configuration_file(tmp_path, tokenizer):
    path = tmp_path / "m.json"
    path.write_text('{"num_layers": 1, "hiden_size": 64}')
    message = message_of(lambda: load_config(GLM, str(path), tokenizer))
    assert message == f"{path}: unknown entry hiden_size; did you mean hidden_size?"
    path.write_text('{"num_hidden_layers": 1, "hidden_size": 64, "dtype": "float32"}')
    assert load_config(GLM, str(path), tokenizer).num_layers == 1


def test_unknown_preset(tokenizer):
    message = message_of(lambda: load_config(GLM, "nowhere/tinny.json", tokenizer))
    assert message.startswith("model_name_or_path tinny.json: no such file, nor a preset (")
    assert "tiny.json" in message and "glm-large-chinese.json" in message


# -- published names


def test_unknown_name_without_network(tokenizer, no_network):
    assert message_of(lambda: load_config(GLM, "THUDM/glm-tiny", tokenizer)) == (
        "model THUDM/glm-tiny: neither a folder here, nor could it be fetched (no route to host); "
        f"published names: {PUBLISHED}"
    )
    assert message_of(lambda: load_tokenizer(GLM, "THUDM/glm-tiny")) == (
        "tokenizer THUDM/glm-tiny: neither a folder here, nor could it be fetched (no route to host); "
        "published names: THUDM/glm-large-chinese, THUDM/glm-10b-chinese"
    )


def test_weights_without_network(tiny_config, no_network):
    message = message_of(lambda: load_model(GLM, "THUDM/glm-large-chinese", tiny_config()))
    assert message.startswith(
        "model THUDM/glm-large-chinese: neither a folder here, nor could it be fetched (no route to host); "
    )


def test_configuration_of_a_published_name_needs_no_network(tokenizer, no_network):
    config = load_config(GLM, "THUDM/glm-large-chinese", tokenizer)
    assert (config.num_layers, config.hidden_size, config.vocab_size) == (24, 1024, 50048)


def test_a_published_name_that_has_no_tokenizer(monkeypatch):
    monkeypatch.setattr(GLMTokenizer, "from_pretrained", classmethod(lambda cls, name: None))
    message = message_of(lambda: load_tokenizer(GLM, "THUDM/glm-2b"))
    assert "tokenizer THUDM/glm-2b: neither" in message and "no published tokenizer has this name" in message


# -- tokenizers


def test_tokenizer_of_a_folder_and_of_a_file(saved, tokenizer, sentencepiece_file):
    text = "答案：青石镇，上下文：李明远"
    for name in (str(saved), str(sentencepiece_file)):
        loaded = load_tokenizer(GLM, name)
        assert loaded.vocab_size == 350 and loaded.encode_text(text) == tokenizer.encode_text(text)


def test_folder_without_a_tokenizer(folder):
    (folder / "cog-pretrain.model").unlink()
    assert message_of(lambda: load_tokenizer(GLM, str(folder))) == (
        f"tokenizer {folder}: the folder has no cog-pretrain.model; set tokenizer_name_or_path"
    )


@pytest.mark.parametrize("content", [b"", b"no model", b"\x00" * 100])
def test_broken_sentencepiece_file(tmp_path, folder, content):
    path = tmp_path / "broken.model"
    path.write_bytes(content)
    assert message_of(lambda: load_tokenizer(GLM, str(path))).startswith(f"{path}: not a SentencePiece model (")
    (folder / "cog-pretrain.model").write_bytes(content)
    message = message_of(lambda: load_tokenizer(GLM, str(folder)))
    assert str(folder / "cog-pretrain.model") in message and "not a SentencePiece model (" in message


def test_configuration_has_no_tokenizer():
    message = "model tiny.json: a configuration has no tokenizer; set tokenizer_name_or_path"
    assert message_of(lambda: load_tokenizer(GLM, "tiny.json")) == message


def test_configuration_file_has_no_tokenizer():
    message = message_of(lambda: load_tokenizer(GLM, str(PRESETS / "tiny.json")))
    assert message.endswith("a configuration has no tokenizer; set tokenizer_name_or_path")


def test_configuration_is_one_of_glm(saved, tokenizer):
    config = load_config(GLM, str(saved), tokenizer)
    assert type(config) is GLMConfig and config.model_type == "glm"
