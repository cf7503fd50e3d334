"""A model's folder, each file of which is changed by its structure, not by bytes alone: an error, or a model.

The small version runs in any test run, 200 changes of each file as a sweep.
"""

import json
import os
import random
import shutil
from pathlib import Path

import pytest

from glm.adapters.files import lora_config
from glm.checkpoint.loading import find_family, load_config, load_model
from glm.checkpoint.tokenizers import load_tokenizer
from glm.errors import InputError
from glm.models import registry
from glm.models.glm import FAMILY as GLM
from glm.options.run_config import trained_with
from tools.adapter_files import save_adapter
from tools.changed_files import corrupted, mutated_json, mutated_safetensors
from tools.kinds_of_runs import MODELS, ROOT, TOKENIZERS


@pytest.fixture(scope="module")
def folders(tmp_path_factory, tiny_model, tokenizer) -> dict[str, Path]:
    """A model, and an adapter of it."""
    root = tmp_path_factory.mktemp("folders")
    model = tiny_model(vocab_size=384)
    model.save_pretrained(str(root / "model"), safe_serialization=True)
    tokenizer.save_pretrained(str(root / "model"))
    settings = {"template": "{answer}{context}[gMASK]", "src_length": 40, "tgt_length": 20, "num_beams": 2}
    (root / "model" / "finetune_config.json").write_text(json.dumps(settings))
    from glm.adapters.files import add_adapter

    config = lora_config(str(root / "model"), targets="dense", rank=2, alpha=4, dropout=0.0)
    add_adapter(model, config)
    shutil.copytree(root / "model", root / "adapter", ignore=shutil.ignore_patterns("*.safetensors"))
    save_adapter(model, config, root / "adapter")
    for name in MODELS:
        save_family(name, root / name)
    return {name: root / name for name in ("model", "adapter", *MODELS)}


def save_family(name: str, folder: Path) -> None:
    """A small model of another family, with its tokenizer."""
    family = registry.find(name)
    tokenizer = family.open_tokenizer(TOKENIZERS.get(name, ROOT / "data" / "tokenizer" / "spm.model"))
    settings = folder.with_suffix(".json")
    settings.write_text(json.dumps({"model_type": name, **MODELS[name]}), encoding="utf-8")
    model = load_model(family, str(settings), load_config(family, str(settings), tokenizer))
    model.save_pretrained(str(folder), safe_serialization=True)
    family.save_tokenizer(tokenizer, folder)


def opened(folder: Path) -> str:
    """What comes of a folder in a process of its own, so that a crash or a hang is seen: `model`, or the error."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.close(read)
        try:
            import resource

            resource.setrlimit(resource.RLIMIT_CPU, (20, 21))
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            try:
                trained_with(str(folder))
                family = find_family(str(folder))
                tokenizer = load_tokenizer(family, str(folder))
                load_model(family, str(folder), load_config(family, str(folder), tokenizer))
                said = "model"
            except InputError as error:
                said = f"error: {error}"
            except BaseException as error:
                said = f"UNEXPECTED {type(error).__name__}: {error}"
            os.write(write, said.encode("utf-8", "backslashreplace")[:60_000])
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        said = pipe.read().decode()
    os.waitpid(child, 0)
    return said or "CRASH OR HANG"


def fuzz(folder: Path, copy: Path, *, seed: int, rounds: int) -> dict[str, int]:
    kinds = {".json": mutated_json, ".safetensors": mutated_safetensors}
    counts = {"model": 0, "error": 0}
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        for number in range(rounds):
            draw = random.Random(f"{seed} {path.name} {number}")
            changed = kinds.get(path.suffix, corrupted)(draw, data)
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(folder, copy)
            (copy / path.name).write_bytes(changed)
            said = opened(copy)
            assert said == "model" or said.startswith("error: "), f"{path.name}: {said}\n{changed[:500]!r}"
            assert len(said) < 6000, f"{path.name}: {said[:500]}"
            assert all(line.isprintable() for line in said.split("\n")), f"{path.name}: {said!r}"
            counts[said.partition(":")[0]] += 1
    return counts


@pytest.mark.parametrize("kind", ["model", "adapter"])
def test_each_file_is_changed(folders, tmp_path, kind):
    assert opened(folders[kind]) == "model"
    counts = fuzz(folders[kind], tmp_path / "copy", seed=1, rounds=4)
    assert counts["error"] > 5


@pytest.mark.parametrize("kind", MODELS)
def test_each_file_of_another_family_is_changed(folders, tmp_path, kind):
    assert opened(folders[kind]) == "model"
    counts = fuzz(folders[kind], tmp_path / "copy", seed=1, rounds=2)
    assert counts["error"] > 2


@pytest.mark.sweep
@pytest.mark.parametrize("kind", ["model", "adapter", *MODELS])
def test_each_file_is_changed_two_hundred_times(folders, tmp_path, kind):
    counts = fuzz(folders[kind], tmp_path / "copy", seed=2, rounds=200)
    print(counts)
    assert counts["error"] > 100


# -- configurations for random weights

TINY = {"num_layers": 2, "hidden_size": 32, "num_attention_heads": 2, "max_sequence_length": 64}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_layers": 10**9}, "num_layers 1000000000: 1 to 1000 is expected"),
        ({"num_layers": 0}, "num_layers 0: 1 to 1000 is expected"),
        ({"num_layers": "2"}, "num_layers '2': a whole number is expected"),
        ({"hidden_size": 10**30}, "hidden_size 1000000000000000000000000000000: 1 to"),
        ({"num_attention_heads": -2}, "num_attention_heads -2: 1 to 4096 is expected"),
        ({"attention_dropout_prob": 1.5}, "attention_dropout_prob 1.5: 0 to 0.999 is expected"),
        ({"attention_dropout_prob": True}, "attention_dropout_prob True: a number is expected"),
        ({"layernorm_epsilon": 0}, "layernorm_epsilon 0: 1e-30 to 1 is expected"),
        ({"initializer_range": 1e308}, "initializer_range 1e+308: 0 to 100 is expected"),
        ({"bad_words_id": [1] * 2000}, "bad_words_id: has a length of 2000"),
        ({"bad_words_id": ["a"]}, "bad_words_id ['a']: a list of token ids is expected"),
        ({"block_position_encoding": 1}, "block_position_encoding 1: true or false is expected"),
        ({"hiden_size": 32}, "unknown entry hiden_size; did you mean hidden_size?"),
        ({"\x1b[2J": 1}, "unknown entry \\x1b[2J"),
        ({"hidden_size": 1 << 17, "num_layers": 1000}, "a model of this configuration has weights of"),
        ({"hidden_size": 33}, "hidden_size 33 is no multiple of num_attention_heads 2"),
    ],
)
def test_a_configuration_that_cannot_be_built(tmp_path, tokenizer, change, message):
    path = tmp_path / "model.json"
    path.write_text(json.dumps(TINY | change))
    with pytest.raises(InputError) as error:
        load_model(GLM, str(path), load_config(GLM, str(path), tokenizer))
    assert message in str(error.value)


def test_what_is_the_frameworks_own_means_nothing(tmp_path, tokenizer):
    """As in a config.json that PaddleNLP has written."""
    path = tmp_path / "model.json"
    framework = {"dtype": "x", "tensor_parallel_degree": 7, "use_cache": [], "architectures": 3}
    path.write_text(json.dumps(TINY | framework))
    config = load_config(GLM, str(path), tokenizer)
    assert config.tensor_parallel_degree < 2 and config.architectures != 3
