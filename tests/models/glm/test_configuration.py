"""The configuration: PaddleNLP's names and defaults, presets, and its one check."""

import json

import pytest
from paddlenlp.transformers.glm.configuration import GLM_PRETRAINED_INIT_CONFIGURATION
from paddlenlp.transformers.glm.configuration import GLMConfig as TheirConfig

import glm.models.presets
from glm.errors import InputError
from glm.models.glm import FAMILY as GLM
from glm.models.glm.configuration import GLMConfig
from glm.models.presets import published_presets

SHARED = [
    "num_layers",
    "num_hidden_layers",
    "vocab_size",
    "hidden_size",
    "num_attention_heads",
    "embedding_dropout_prob",
    "attention_dropout_prob",
    "output_dropout_prob",
    "max_sequence_length",
    "block_position_encoding",
    "attention_scale",
    "initializer_range",
    "layernorm_epsilon",
]


@pytest.mark.parametrize("option", SHARED)
def test_defaults_are_paddlenlps(option):
    assert getattr(GLMConfig(), option) == getattr(TheirConfig(), option)


def test_scaled_initialisation_is_on_and_no_id_is_bad():
    assert GLMConfig().use_scaled_init_for_output_weights is True
    assert GLMConfig().bad_words_id == [] and GLMConfig(bad_words_id=None).bad_words_id == []


def test_num_hidden_layers_may_be_given_for_num_layers():
    assert GLMConfig(num_hidden_layers=7).num_layers == 7


def test_num_hidden_layers_is_num_layers():
    config = GLMConfig(num_layers=3)
    assert config.num_hidden_layers == 3
    config.num_hidden_layers = 5
    assert config.num_layers == 5 and "num_hidden_layers" not in config.to_dict()


@pytest.mark.parametrize("block, rows", [(True, 101), (False, 100)])
def test_position_rows(tiny_config, tiny_model, block, rows):
    assert tiny_config(max_sequence_length=100, block_position_encoding=block).position_rows == rows
    tables = [
        list(value.shape)
        for name, value in tiny_model(max_sequence_length=100, block_position_encoding=block).state_dict().items()
        if "position" in name
    ]
    assert tables == [[rows, 24]] * (2 if block else 1)


def test_heads_must_divide_the_hidden_size():
    with pytest.raises(InputError, match="hidden_size 24 is no multiple of num_attention_heads 5"):
        GLMConfig(hidden_size=24, num_attention_heads=5)


def test_saved_and_loaded_is_equal(tiny_config, tmp_path):
    config = tiny_config(
        num_layers=5,
        attention_scale=8.0,
        block_position_encoding=False,
        output_dropout_prob=0.25,
        layernorm_epsilon=1e-4,
        initializer_range=0.5,
        use_scaled_init_for_output_weights=False,
        bad_words_id=[39, 38],
    )
    config.save_pretrained(str(tmp_path))
    loaded = GLMConfig.from_pretrained(str(tmp_path))
    assert loaded.to_dict() == config.to_dict()
    assert loaded.bad_words_id == [39, 38] and loaded.attention_scale == 8.0 and loaded.num_layers == 5


def test_paddlenlps_file_loads(tmp_path):
    theirs = TheirConfig(num_layers=4, vocab_size=50048, attention_scale=8.0, max_sequence_length=1024)
    theirs.save_pretrained(str(tmp_path))
    ours = GLMConfig.from_pretrained(str(tmp_path))
    for option in SHARED:
        assert getattr(ours, option) == getattr(theirs, option), option


def test_presets_are_the_files_of_the_folder(tmp_path, monkeypatch):
    (tmp_path / "glm-some.json").write_text(json.dumps({"num_layers": 3, "hidden_size": 32}), encoding="utf-8")
    monkeypatch.setattr(glm.models.presets, "PRESET_FOLDER", tmp_path)
    assert published_presets(["THUDM/glm-some"]) == {"THUDM/glm-some": {"num_layers": 3, "hidden_size": 32}}


def test_every_published_model_has_its_file():
    files = {f"THUDM/{file.stem}" for file in glm.models.presets.PRESET_FOLDER.glob("glm-*.json")}
    assert files == set(GLM.published)


@pytest.mark.parametrize("name", sorted(published_presets(GLM.published)))
def test_published_presets_equal_paddlenlps(name):
    ours, theirs = (
        GLMConfig(**published_presets(GLM.published)[name]),
        TheirConfig(**GLM_PRETRAINED_INIT_CONFIGURATION[name]),
    )
    for option in SHARED:
        assert getattr(ours, option) == getattr(theirs, option), option
    assert ours.bad_words_id == ([50009] if name == "THUDM/glm-10b-chinese" else [])
