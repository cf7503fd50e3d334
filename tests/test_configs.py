"""Every file under configs/: recipes by the parser of their script, presets as configurations of a GLM."""

import json
import os
import shlex
import subprocess
from pathlib import Path

import pytest

from glm.models import registry
from glm.models.glm import FAMILY as GLM
from glm.models.glm.configuration import GLMConfig
from glm.models.presets import published_presets
from glm.options.finetune import parse_finetune_arguments
from glm.options.predict import parse_predict_arguments
from glm.options.pretrain import parse_pretrain_arguments

ROOT = Path(__file__).resolve().parents[1]
PRESETS = sorted((ROOT / "configs" / "model").glob("*.json"))
RECIPES = sorted(set((ROOT / "configs").rglob("*.json")) - set(PRESETS))
POSITIONS = ("max_sequence_length", "max_position_embeddings")  # of families whose source and target share them
PRETRAIN = "-m glm pretrain"
PARSERS = {
    "finetune_generation.py": parse_finetune_arguments,
    "predict.py": parse_predict_arguments,
    PRETRAIN: parse_pretrain_arguments,
}

# Fact sheet, section 1: layers, hidden size, heads, positions, rows of the vocabulary. GLMConfig names the models as
# PaddleNLP does.
PUBLISHED = {
    "THUDM/glm-515m": (30, 1152, 18, 512, 30592),
    "THUDM/glm-2b": (36, 2048, 32, 1024, 50304),
    "THUDM/glm-10b": (48, 4096, 64, 1024, 50304),
    "THUDM/glm-large-chinese": (24, 1024, 16, 1024, 50048),
    "THUDM/glm-10b-chinese": (48, 4096, 64, 1024, 50048),
}


def names(paths) -> list[str]:
    return [path.stem for path in paths]


def command_of(recipe: Path) -> tuple[str, list[str]]:
    """The script that the header of a recipe runs, and its arguments; of `make ...`, what make would run."""
    command = shlex.split(json.loads(recipe.read_text(encoding="utf-8"))["_run"])
    if command[0] == "make":
        environment = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS")}
        command.insert(1, "-n")
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
        lines = done.stdout.replace("\\\n", " ").splitlines()
        (line,) = [line for line in lines if recipe.relative_to(ROOT).as_posix() in line]
        command = shlex.split(line)
    assert Path(command[0]).name == "python"
    if command[1:4] == PRETRAIN.split():
        return PRETRAIN, command[4:]
    return command[1], command[2:]


def test_nothing_is_passed_over():
    assert RECIPES and PRESETS
    others = {path for path in (ROOT / "configs").rglob("*") if path.is_file()} - {*RECIPES, *PRESETS}
    assert others == set()


@pytest.mark.parametrize("recipe", RECIPES, ids=names(RECIPES))
def test_recipe_is_run_by_its_header(recipe, monkeypatch):
    """The header's command, from the project's folder, parses with the parser of the script it names."""
    monkeypatch.chdir(ROOT)
    script, argv = command_of(recipe)
    assert (script == PRETRAIN or (ROOT / script).is_file()) and argv[0] == recipe.relative_to(ROOT).as_posix()
    PARSERS[script](argv)


@pytest.mark.parametrize("recipe", RECIPES, ids=names(RECIPES))
def test_recipe_says_what_it_is(recipe):
    settings = json.loads(recipe.read_text(encoding="utf-8"))
    assert list(settings)[:2] == ["_about", "_run"] and settings["_about"]


@pytest.mark.parametrize("recipe", RECIPES, ids=names(RECIPES))
def test_recipe_fits_its_model(recipe, monkeypatch):
    """Files it names are there; source and target fit into the positions of the model; the task is known."""
    monkeypatch.chdir(ROOT)
    script, argv = command_of(recipe)
    if script == "predict.py":
        pytest.skip("a recipe of prediction")
    arguments = PARSERS[script](argv)
    if script != PRETRAIN:
        arguments.data.find_template()
    settings = json.loads(recipe.read_text(encoding="utf-8"))
    for option in ("train_file", "dev_file", "test_file", "train_data", "dev_data", "tokenizer_name_or_path"):
        name = settings.get(option)
        assert name is None or (ROOT / name).exists() or name.startswith("THUDM/"), name
    model = arguments.model.model_name_or_path
    if model in {preset.stem for preset in PRESETS}:  # published, but not to be fetched by a name
        model = f"configs/model/{model}.json"
    if model.startswith("runs/"):  # what a demo before it has trained
        model = json.loads((ROOT / "configs" / "demo.json").read_text(encoding="utf-8"))["model_name_or_path"]
    family = registry.of_model(model)
    published = published_presets(family.published)
    preset = json.loads((ROOT / model).read_text()) if model.endswith(".json") else published[model]
    config = family.config_class()(**preset)
    positions = {getattr(config, name) for name in POSITIONS if hasattr(config, name)}
    if script == PRETRAIN:
        arguments.objective.of_family(family)
        assert all(arguments.objective.seq_length <= most for most in positions)
        return
    source, target = arguments.data.src_length, arguments.generation.tgt_length
    if hasattr(config, "max_source_positions"):  # each has a table of its own
        assert source <= config.max_source_positions and target <= config.max_target_positions
    else:
        assert all(source + target <= most for most in positions)


@pytest.mark.parametrize("preset", PRESETS, ids=names(PRESETS))
def test_preset_is_a_configuration(preset):
    settings = json.loads(preset.read_text(encoding="utf-8"))
    config_class = registry.of_model(str(preset)).config_class()
    config = config_class(**settings)
    for name, value in settings.items():
        assert getattr(config, name) == value
    known = config_class().to_dict().keys()
    assert set(settings) <= {*known, *config_class.attribute_map}  # the class itself takes any name


def test_published_presets():
    found = {
        name: (
            config["num_layers"],
            config["hidden_size"],
            config["num_attention_heads"],
            config["max_sequence_length"],
            config["vocab_size"],
        )
        for name, config in published_presets(GLM.published).items()
    }
    assert found == PUBLISHED
    assert GLMConfig.pretrained_init_configuration == published_presets(GLM.published)


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_what_published_presets_share(name):
    config = GLMConfig(**published_presets(GLM.published)[name])
    assert config.block_position_encoding is True
    dropout = (config.embedding_dropout_prob, config.attention_dropout_prob, config.output_dropout_prob)
    assert dropout == (0.1, 0.1, 0.1)
    assert config.layernorm_epsilon == 1e-5 and config.initializer_range == 0.02 and config.attention_scale == 1.0
    assert config.vocab_size % 128 == 0
    assert config.position_rows == config.max_sequence_length + 1
    # 50009 has the embedding of eop in glm-10b-chinese (fact sheet, section 2)
    assert config.bad_words_id == ([50009] if name == "THUDM/glm-10b-chinese" else [])
