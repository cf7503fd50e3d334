"""Models and tokenizers from a folder, a published name, or a configuration file; all that can be wrong is said."""

import contextlib
import difflib
import inspect
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from paddlenlp.peft import LoRAConfig
from paddlenlp.transformers import PretrainedConfig
from paddlenlp.transformers.model_utils import no_init_weights

from glm.adapters.files import (
    AdapterConfig,
    add_adapter,
    fold_prefix,
    load_adapter,
    merge_lora,
    read_adapter_config,
)
from glm.checkpoint.configuration import VOCABULARY_MULTIPLE
from glm.checkpoint.formats import Source, open_checkpoint, open_file
from glm.checkpoint.names import checked_weights, split_weights
from glm.checkpoint.whole import WholeModel, open_model, whole_model
from glm.errors import InputError
from glm.models.glm.configuration import GLMConfig
from glm.models.glm.modeling import GLMForConditionalGeneration
from glm.models.glm.paddlenlp_tokenizer import PUBLISHED, GLMTokenizer
from glm.models.presets import preset_file


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
        # The file says all; what stands beside it may be another library's.
        return GLMTokenizer(str(path / model_file))
    if _is_path(name_or_path):
        raise InputError(f"model_name_or_path or tokenizer_name_or_path {name_or_path}: no such file or folder")
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
        name_or_path: a folder with a checkpoint of any format (see `glm.checkpoint.formats`), a published name, or for
            a model from nothing a .json file or the name of one in `configs/model`; the vocabulary is then the
            tokenizer's, rounded up to a multiple of 128.
        settings: entries that replace the model's own (dropout rates, tensor parallelism).

    Raises:
        InputError: there is no such model, it is no configuration, or its vocabulary is smaller than the tokenizer's.
    """
    path = Path(name_or_path)
    try:
        if name_or_path.endswith(".json"):
            rows = -(-tokenizer.vocab_size // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE
            return GLMConfig(**{**_read_preset(path), "vocab_size": rows, **(settings or {})})
        if (adapter := read_adapter_config(path)) is not None:
            with _adapters_model(path):
                return load_config(adapter.base_model_name_or_path, tokenizer, settings=settings)
        if path.is_dir():
            config = GLMConfig(**{**open_model(path).config, **(settings or {})})
        elif _is_path(name_or_path):
            raise InputError(f"model_name_or_path {name_or_path}: no such folder")
        else:
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
    """The model of a folder or a published name, in float32; random weights for a configuration file.

    An adapter's folder stands for its model with LoRA merged in, or with the prefix in front. The format that was
    found is said on standard error.

    Raises:
        InputError: the weights are missing, do not fit the configuration, or cannot be fetched.
    """
    if name_or_path.endswith(".json"):
        return GLMForConditionalGeneration(config)
    adapter = read_adapter_config(Path(name_or_path))
    if adapter is not None:
        return _load_adapted(name_or_path, adapter, config)
    found = whole_model(_opened(name_or_path, config))
    print(f"model {name_or_path}: {found.summary}", file=sys.stderr)
    return _filled(found, config)


def _opened(name_or_path: str, config: GLMConfig) -> Source:
    """The checkpoint of a folder, or of the file that is fetched for a published name."""
    if Path(name_or_path).is_dir():
        return open_checkpoint(Path(name_or_path))
    try:
        file, *_ = GLMForConditionalGeneration._resolve_model_file_path(name_or_path, config=config)
    except Exception as error:  # whatever stops the download, the advice is the same
        raise _not_found("model", name_or_path, error) from error
    return open_file(Path(file), config.to_dict())


def _filled(found: WholeModel, config: GLMConfig) -> GLMForConditionalGeneration:
    """A model with this rank's part of a checkpoint; weights pass through memory one by one."""
    weights = split_weights(
        checked_weights(found.weights, config.to_dict()),
        rank=config.tensor_parallel_rank,
        degree=config.tensor_parallel_degree,
    )
    with no_init_weights():
        model = GLMForConditionalGeneration(config)
    for name, parameter in model.named_parameters():
        parameter.set_value(weights[name].float32())
    return model


def _load_adapted(folder: str, adapter: AdapterConfig, config: GLMConfig) -> GLMForConditionalGeneration:
    """The model that an adapter belongs to, with the adapter: LoRA's is merged in, a prefix's projection made."""
    with _adapters_model(Path(folder)):
        model = load_model(adapter.base_model_name_or_path, config)
    add_adapter(model, adapter)
    load_adapter(model, Path(folder))
    if isinstance(adapter, LoRAConfig):
        merge_lora(model)
    else:
        fold_prefix(model)
    return model


@contextlib.contextmanager
def _adapters_model(folder: Path) -> Iterator[None]:
    """Errors about the model of an adapter name the adapter too."""
    try:
        yield
    except InputError as error:
        raise InputError(
            f"adapter {folder}: its model (base_model_name_or_path) is gone or has changed: {error}"
        ) from error


def _read_preset(path: Path) -> dict[str, Any]:
    """A configuration file, or the one of that name in `configs/model`."""
    path = preset_file(path)
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


def _not_found(kind: str, name: str, reason: object) -> InputError:
    published = ", ".join(PUBLISHED if kind == "tokenizer" else GLMConfig.pretrained_init_configuration)
    return InputError(
        f"{kind} {name}: neither a folder here, nor could it be fetched ({reason}); published names: {published}"
    )
