"""Models and tokenizers from a folder, a published name, or a configuration file; all that can be wrong is said."""

import difflib
import inspect
import json
from pathlib import Path
from typing import Any

from paddlenlp.peft import LoRAConfig
from paddlenlp.transformers import PretrainedConfig

from glm.checkpoint.adapters import ADAPTER_WEIGHTS_NAME, add_lora, load_lora, merge_lora, read_lora_config
from glm.configuration import PRESET_FOLDER, GLMConfig
from glm.errors import InputError
from glm.modeling import GLMForConditionalGeneration
from glm.tokenization import PUBLISHED, GLMTokenizer

VOCABULARY_MULTIPLE = 128
WEIGHTS_NAME = "model.safetensors"  # what this program saves
WEIGHT_FILES = (
    WEIGHTS_NAME,
    "model.safetensors.index.json",
    "model_state.pdparams",
    "model_state.pdparams.index.json",
    ADAPTER_WEIGHTS_NAME,
)


def load_tokenizer(name_or_path: str) -> GLMTokenizer:
    """The tokenizer of a folder, a SentencePiece file or a published name.

    Raises:
        InputError: there is none, or it cannot be fetched.
    """
    path = Path(name_or_path)
    model_file = GLMTokenizer.resource_files_names["model_file"]
    if path.suffix == ".json":
        raise InputError(f"model {name_or_path}: a configuration has no tokenizer; set tokenizer_name_or_path")
    if path.is_file():
        return GLMTokenizer(str(path))
    if path.is_dir():
        if not (path / model_file).is_file():
            raise InputError(f"tokenizer {path}: the folder has no {model_file}; set tokenizer_name_or_path")
        try:
            return GLMTokenizer.from_pretrained(str(path))
        except (ValueError, OSError) as error:
            raise InputError(f"tokenizer {path}: cannot be loaded ({error})") from error
    if _is_path(name_or_path):
        raise InputError(f"tokenizer_name_or_path {name_or_path}: no such file or folder")
    try:
        tokenizer = GLMTokenizer.from_pretrained(name_or_path)
    except Exception as error:  # whatever stops the download, the advice is the same
        raise _not_found("tokenizer", name_or_path, error) from error
    if tokenizer is None:
        raise _not_found("tokenizer", name_or_path, "no published tokenizer has this name")
    return tokenizer


def load_config(name_or_path: str, tokenizer: GLMTokenizer, *, settings: dict[str, Any] | None = None) -> GLMConfig:
    """The configuration of a model, without its weights.

    Args:
        name_or_path: a folder, a published name, or for a model from nothing a .json file or the name of one in
            `configs/model`; the vocabulary is then the tokenizer's, rounded up to a multiple of 128.
        settings: entries that replace the model's own (dropout rates, tensor parallelism).

    Raises:
        InputError: there is no such model, it is no configuration, or its vocabulary is smaller than the tokenizer's.
    """
    path = Path(name_or_path)
    try:
        if name_or_path.endswith(".json"):
            rows = -(-tokenizer.vocab_size // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE
            return GLMConfig(**{**_read_preset(path), "vocab_size": rows, **(settings or {})})
        if path.is_dir():
            _check_folder(path)
        elif _is_path(name_or_path):
            raise InputError(f"model_name_or_path {name_or_path}: no such folder")
        config = GLMConfig.from_pretrained(name_or_path, **(settings or {}))
    except InputError:
        raise
    except Exception as error:
        if path.exists():
            raise InputError(f"{path}: not a model configuration ({error})") from error
        raise _not_found("model", name_or_path, error) from error
    if config.vocab_size < tokenizer.vocab_size:
        raise InputError(f"model {path}: {config.vocab_size} words, but the tokenizer has {tokenizer.vocab_size}")
    return config


def load_model(name_or_path: str, config: GLMConfig) -> GLMForConditionalGeneration:
    """The model of a folder or a published name; random weights for a configuration file. An adapter's folder stands
    for its model with the adapter merged in.

    Raises:
        InputError: the weights are missing, do not fit the configuration, or cannot be fetched.
    """
    if name_or_path.endswith(".json"):
        return GLMForConditionalGeneration(config)
    adapter = read_lora_config(Path(name_or_path))
    if adapter is not None:
        return _load_adapted(name_or_path, adapter, config)
    try:
        return GLMForConditionalGeneration.from_pretrained(name_or_path, config=config)
    except InputError as error:
        raise InputError(f"model {name_or_path}: {error}") from error
    except Exception as error:
        if Path(name_or_path).is_dir():
            raise InputError(f"model {name_or_path}: the weights do not fit or cannot be read: {error}") from error
        raise _not_found("model", name_or_path, error) from error


def _load_adapted(folder: str, adapter: LoRAConfig, config: GLMConfig) -> GLMForConditionalGeneration:
    """The model that an adapter belongs to, with the adapter merged in."""
    try:
        model = load_model(adapter.base_model_name_or_path, config)
    except InputError as error:
        raise InputError(
            f"adapter {folder}: its model (base_model_name_or_path) is gone or has changed: {error}"
        ) from error
    add_lora(model, adapter)
    load_lora(model, Path(folder))
    merge_lora(model)
    return model


def _read_preset(path: Path) -> dict[str, Any]:
    """A configuration file, or the one of that name in `configs/model`."""
    path = path if path.is_file() else PRESET_FOLDER / path.name
    if not path.is_file():
        names = ", ".join(sorted(preset.name for preset in PRESET_FOLDER.glob("*.json")))
        raise InputError(f"model_name_or_path {path.name}: no such file, nor a preset ({names})")
    settings = json.loads(path.read_text(encoding="utf-8"))
    known = {*inspect.signature(GLMConfig).parameters, *PretrainedConfig().to_dict(), "num_hidden_layers"}
    for name in settings:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            raise InputError(f"{path}: unknown entry {name}" + (f"; did you mean {close[0]}?" if close else ""))
    return settings


def _is_path(name: str) -> bool:
    """Whether a name can only be that of a file or folder here."""
    return name.startswith((".", "/", "~"))


def _check_folder(path: Path) -> None:
    if not (path / "config.json").is_file():
        raise InputError(f"model {path}: the folder has no config.json")
    if not any((path / name).is_file() for name in WEIGHT_FILES):
        raise InputError(f"model {path}: the folder has no weights ({' or '.join(WEIGHT_FILES[::2])})")


def _not_found(kind: str, name: str, reason: object) -> InputError:
    published = ", ".join(PUBLISHED if kind == "tokenizer" else GLMConfig.pretrained_init_configuration)
    return InputError(
        f"{kind} {name}: neither a folder here, nor could it be fetched ({reason}); published names: {published}"
    )
