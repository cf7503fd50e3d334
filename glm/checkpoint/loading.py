"""Loads models and tokenizers from a folder, a published name, or a configuration file, with errors for whatever is
wrong."""

import contextlib
import difflib
import inspect
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paddle
import psutil
from paddle import nn

from glm.adapters.bottleneck import BottleneckConfig, check_base, digest_of, digests_of, settle_rows
from glm.adapters.files import (
    AdapterConfig,
    add_adapter,
    fold_prefix,
    load_adapter,
    merge_lora,
    read_adapter_config,
)
from glm.adapters.schema import LoRASettings
from glm.checkpoint.configuration import declared_config
from glm.checkpoint.formats import Source, fairseq_file, open_checkpoint, open_file
from glm.checkpoint.names import checked_weights
from glm.checkpoint.published import fetch_weights
from glm.checkpoint.ranks import split_weights
from glm.checkpoint.tensors import LazyTensor, with_rows
from glm.checkpoint.tokenizers import is_path, not_found
from glm.checkpoint.whole import WholeModel, open_model, whole_model
from glm.errors import InputError, shown
from glm.models import registry
from glm.models.configuration import ModelConfig
from glm.models.presets import preset_file
from glm.models.protocol import NO_TASK, Family, Tokenizer, WeightNames
from glm.modules.pending import fill_model, leave_pending
from glm.runtime.settings_file import read_object


def find_family(name_or_path: str) -> Family:
    """Finds the family of a model: a folder, a published name, a configuration, or the model that an adapter belongs
    to.

    Raises:
        InputError: its configuration names a family that is not known, or it fits two.
    """
    adapter = read_adapter_config(Path(name_or_path))
    if adapter is None and (file := fairseq_file(Path(name_or_path))) is not None:
        return open_checkpoint(file).family
    if adapter is None:
        return registry.of_model(name_or_path, names=lambda: open_checkpoint(Path(name_or_path)).ranks[0])
    with _adapters_model(Path(name_or_path)):
        return find_family(adapter.base_model_name_or_path)


def load_config(
    family: Family,
    name_or_path: str,
    tokenizer: Tokenizer,
    *,
    settings: dict[str, Any] | None = None,
    start: str | None = None,
) -> ModelConfig:
    """Reads the configuration of a model, without its weights.

    Args:
        family: the model's.
        name_or_path: a folder with a checkpoint of any format (see `glm.checkpoint.formats`), a published name, or for
            a model from nothing a .json file or the name of one in `configs/model`; the vocabulary is then the
            tokenizer's, rounded up as the family does.
        settings: entries that replace the model's own (dropout rates, tensor parallelism).
        start: the parts that a model starts from (`--start`); None for all there are.

    Raises:
        InputError: there is no such model, it is no configuration, or its vocabulary is smaller than the tokenizer's.
    """
    path, config_class = Path(name_or_path), family.config_class()
    try:
        if name_or_path.endswith(".json"):
            multiple = family.vocabulary_multiple
            rows = -(-tokenizer.vocab_size // multiple) * multiple
            found = {**_read_preset(family, config_class, path), "vocab_size": rows}
            found = family.weights.started(found, start) if start else found
            return config_class(**{**found, **(settings or {})})
        if (adapter := read_adapter_config(path)) is not None:
            with _adapters_model(path):
                return load_config(family, adapter.base_model_name_or_path, tokenizer, settings=settings)
        if path.is_dir() or fairseq_file(path):
            found = open_model(path).config
            found = family.weights.started(found, start) if start else found
            config = config_class(**{**found, **(settings or {})})
        elif is_path(name_or_path):
            raise InputError(f"model_name_or_path {name_or_path}: no such folder")
        else:
            config = config_class.from_pretrained(name_or_path, **(settings or {}))
    except InputError:
        raise
    except Exception as error:
        if path.exists():
            raise InputError(f"{path}: not a model configuration ({error})") from error
        raise not_found("model", name_or_path, error, family.published) from error
    if config.vocab_size == tokenizer.vocab_size - getattr(tokenizer, "num_added", 0):
        config.vocab_size = tokenizer.vocab_size
    _check_rows(family, path, config.vocab_size, tokenizer.vocab_size)
    return config


def _check_rows(family: Family, path: Path, rows: int, words: int) -> None:
    """Raises InputError if the word embedding does not fit the tokenizer."""
    if rows < words:
        raise InputError(f"model {path}: {rows} words, but the tokenizer has {words}")
    if family.has_exact_vocabulary and rows - words >= family.vocabulary_multiple:
        raise InputError(
            f"model {path}: {rows} words, but the tokenizer has {words}, and no more than "
            f"{family.vocabulary_multiple - 1} rows can be filler; the dictionary is another one"
        )


def task_number(family: Family, name_or_path: str, task: str | None) -> int:
    """Returns the number of the records' task, which selects adapter and tags in a model.

    Args:
        name_or_path: the model's.
        task: the name of the task; None for a template of the user's own.

    Raises:
        InputError: the model is a folder of adapters, and none is for the task.
    """
    if task in family.tasks:
        return family.tasks.index(task)
    adapter = read_adapter_config(Path(name_or_path))
    if not isinstance(adapter, BottleneckConfig):
        return NO_TASK
    if len(adapter.tasks) == 1 and not family.tasks:
        return 0
    return adapter.number_of(str(task), family.tasks)


def load_model(
    family: Family,
    name_or_path: str,
    config: ModelConfig,
    *,
    start: str | None = None,
    quiet: bool = False,
    leaves_pending: bool = False,
) -> nn.Layer:
    """Loads the model of a folder or a published name in float32; a configuration file gives random weights.

    An adapter's folder stands for its model with LoRA merged in, the prefix in front, or residual adapters in it. The
    format that was found is said on standard error, unless it is to be `quiet`.

    Args:
        start: the parts that a model starts from (`--start`); None for all there are.
        leaves_pending: weights of a model without an adapter are read later, by `prepare_decoding`.

    Raises:
        InputError: the weights are missing, do not fit the configuration, or cannot be fetched.
    """
    if name_or_path.endswith(".json"):
        _check_memory(family, config)
        return family.model_class()(config)
    adapter = read_adapter_config(Path(name_or_path))
    if adapter is not None:
        return _load_adapted(family, name_or_path, adapter, config, quiet=quiet)
    found = whole_model(_opened(family, name_or_path, config))
    if name_or_path in family.published:  # its configuration was fetched before its weights
        for part in family.weights.optional:
            setattr(config, part, found.config[part])
    if not quiet:
        found.print_notes()
        print(f"model {name_or_path}: {found.summary}", file=sys.stderr)
    model = _with_weights(family, found, config, start)
    if not leaves_pending:
        fill_model(model)
    return model


def _opened(family: Family, name_or_path: str, config: ModelConfig) -> Source:
    """Opens a model folder, or the file that is fetched for a published name."""
    if Path(name_or_path).is_dir() or fairseq_file(Path(name_or_path)):
        return open_checkpoint(Path(name_or_path))
    try:
        file = fetch_weights(family.model_class(), name_or_path)
    except Exception as error:  # whatever stops the download, the advice is the same
        raise not_found("model", name_or_path, error, family.published) from error
    return open_file(file, config.to_dict())


def _with_weights(family: Family, found: WholeModel, config: ModelConfig, start: str | None) -> nn.Layer:
    """Builds a model with this rank's part of the weights, which are still to be read."""
    weights = split_weights(
        family.weights.plan,
        checked_weights(family.weights, fitted_weights(family.weights, found, config, start), config.to_dict()),
        rank=config.tensor_parallel_rank,
        degree=config.tensor_parallel_degree,
    )
    model_class = family.model_class()
    with model_class.without_drawing(), paddle.LazyGuard():
        model = model_class(config)
    leave_pending(model, weights)
    return model


def base_digests(family: Family, name_or_path: str, config: ModelConfig, model: nn.Layer) -> dict[str, str]:
    """A digest of each whole weight of a loaded model, by name: of one split over processes it reads them again."""
    return file_digests(family, name_or_path, config) if config.tensor_parallel_degree > 1 else digests_of(model)


def file_digests(family: Family, name_or_path: str, config: ModelConfig) -> dict[str, str]:
    """A digest of each weight of a checkpoint as a model would have it, by name.

    Raises:
        InputError: the checkpoint cannot be read, or is an adapter.
    """
    if read_adapter_config(Path(name_or_path)) is not None:
        raise InputError(f"model_name_or_path {name_or_path}: is an adapter; give a model that others can share")
    found = whole_model(_opened(family, name_or_path, config))
    weights = checked_weights(family.weights, fitted_weights(family.weights, found, config, None), config.to_dict())
    return {name: digest_of(weight.float32()) for name, weight in weights.items()}


def fitted_weights(
    names: WeightNames, found: WholeModel, config: ModelConfig, start: str | None
) -> dict[str, LazyTensor]:
    """Returns the weights for a model of this configuration, with as many position rows."""
    named = {names.at_start(name, found.config, start) if start else name: w for name, w in found.weights.items()}
    named.pop(None, None)
    shapes = names.shapes(config.to_dict())
    return {
        name: with_rows(tensor, shapes[name][0], names.new_rows_std)
        if name.endswith(names.resizable) and name in shapes
        else tensor
        for name, tensor in named.items()
    }


def _load_adapted(
    family: Family, folder: str, adapter: AdapterConfig, config: ModelConfig, *, quiet: bool
) -> nn.Layer:
    """Loads the model of an adapter together with it: LoRA is merged, a prefix's projection is applied."""
    with _adapters_model(Path(folder)):
        model = load_model(family, adapter.base_model_name_or_path, config, quiet=quiet)
    if isinstance(adapter, LoRASettings):
        merge_lora(model, adapter, Path(folder))
        return model
    if isinstance(adapter, BottleneckConfig):
        base = adapter.base_model_name_or_path
        check_base(adapter.base_tensors, base_digests(family, base, config, model), origin=folder)
    add_adapter(model, adapter)
    load_adapter(model, Path(folder))
    if isinstance(adapter, BottleneckConfig):
        settle_rows(model)
    else:
        fold_prefix(model)
    return model


@contextlib.contextmanager
def _adapters_model(folder: Path) -> Iterator[None]:
    """Adds the adapter's name to errors about its model."""
    try:
        yield
    except InputError as error:
        raise InputError(
            f"adapter {folder}: its model (base_model_name_or_path) is gone or has changed: {error}"
        ) from error


def _read_preset(family: Family, config_class: type, path: Path) -> dict[str, Any]:
    """Reads a configuration file, or the file of that name in `configs/model`; keeps the family's entries."""
    path = preset_file(path)
    settings = read_object(path)
    known = {*inspect.signature(config_class).parameters, *config_class().to_dict(), "num_hidden_layers"}
    for name in settings:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            name = shown(name)
            raise InputError(f"{path}: unknown entry {name}" + (f"; did you mean {close[0]}?" if close else ""))
    return declared_config(family, settings, path)


def _check_memory(family: Family, config: ModelConfig) -> None:
    """Raises InputError if this machine has too little memory for the weights of a configuration, before creating
    any."""
    sizes = family.weights.shapes(config.to_dict()).values()
    needed = 4 * sum(map(math.prod, sizes)) // max(config.tensor_parallel_degree, 1)
    there = psutil.virtual_memory().total
    if needed > there:
        raise InputError(
            f"a model of this configuration has weights of {needed / 2**30:.1f} GiB, and this machine has "
            f"{there / 2**30:.1f} GiB of memory; use smaller sizes"
        )
