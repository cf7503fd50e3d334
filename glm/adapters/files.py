"""Adapters, which are trained instead of a model and saved without it, in PaddleNLP's file format.

LoRA (Hu et al. 2021) adds x A B alpha / rank to the x W of chosen linear layers; only A and B are trained. Merged into
the model it is gone. Prefix tuning (Li and Liang 2021) gives each layer keys and values of virtual tokens that every
token sees; only they are trained, or with a projection the network of one hidden layer that makes them, and they stay
apart from the model. An adapter's folder holds its weights and `lora_config.json` or `prefix_config.json`, which names
the model they belong to; the model stays where it is.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle import Tensor, nn
from paddle.distributed.fleet.meta_parallel import ColumnParallelLinear, RowParallelLinear
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from glm.adapters.bottleneck import (
    BOTTLENECK_CONFIG_NAME,
    BottleneckConfig,
    BottleneckSettings,
    is_of_bottleneck,
    put_bottlenecks,
)
from glm.adapters.schema import LoRASettings, PrefixSettings, matching
from glm.errors import InputError, shown
from glm.modules.low_rank import Pair, add_low_rank, draw_first, multiply_split, new_numbers
from glm.runtime.paths import found_path, path_from
from glm.runtime.settings_file import read_settings

LORA_CONFIG_NAME, PREFIX_CONFIG_NAME = "lora_config.json", "prefix_config.json"
ADAPTER_WEIGHTS_NAME = "peft_model.safetensors"
ADAPTER_INDEX_NAME = f"{ADAPTER_WEIGHTS_NAME}.index.json"
LORA_MATRICES = (".lora_A", ".lora_B")
PREFIX_ENCODER = "prefix_encoder."  # in names here; PaddleNLP's files have only what follows it

AdapterConfig = LoRASettings | PrefixSettings | BottleneckConfig
SCHEMAS: dict[str, type[Any]] = {
    LORA_CONFIG_NAME: LoRASettings,
    PREFIX_CONFIG_NAME: PrefixSettings,
    BOTTLENECK_CONFIG_NAME: BottleneckSettings,
}
LORAS = "loras"  # in a folder of joined adapters: LoRA has a folder for each task
ADAPTER_FILES = (*SCHEMAS, ADAPTER_WEIGHTS_NAME, ADAPTER_INDEX_NAME)


def lora_config(
    base: str, *, run: str | None = None, targets: str, rank: int, alpha: int, dropout: float
) -> LoRASettings:
    """Makes the settings of a new LoRA adapter.

    Args:
        base: the folder or published name of the model.
        run: the folder that the adapter will be in.
        targets: names of linear layers of a block, joined by `|`.
    """
    return LoRASettings(
        base_model_name_or_path=name_of_base(base, run),
        target_modules=[rf".*\.({'|'.join(dict.fromkeys(targets.split('|')))})"],
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        tensor_parallel_degree=1,
        dtype=paddle.get_default_dtype(),
    )


def prefix_config(
    base: str, model: nn.Layer, *, run: str | None = None, tokens: int, projection: bool
) -> PrefixSettings:
    """Makes the settings of a new prefix.

    Args:
        base: the folder or published name of the model.
        run: the folder that the prefix will be in.
        tokens: virtual tokens.
        projection: whether a network of one hidden layer, as wide as the model, makes keys and values of an embedding.
    """
    sizes = model.config
    return PrefixSettings(
        base_model_name_or_path=name_of_base(base, run),
        num_prefix_tokens=tokens,
        num_attention_heads=sizes.num_attention_heads,
        num_hidden_layers=sizes.num_layers,
        hidden_size=sizes.hidden_size,
        prefix_projection=projection,
        prefix_projection_hidden_size=sizes.hidden_size if projection else None,
        tensor_parallel_degree=sizes.tensor_parallel_degree,
        dtype=paddle.get_default_dtype(),
    )


def name_of_base(base: str, run: str | None) -> str:
    """Returns a model's folder relative to that of the run, or its absolute path."""
    return path_from(base, run) if Path(base).exists() else base


def read_adapter_config(folder: Path) -> AdapterConfig | None:
    """Reads the settings of the adapter in a folder; None if there is none.

    Raises:
        InputError: they cannot be read, or do not say which model the adapter belongs to.
    """
    name = next((name for name in SCHEMAS if (folder / name).is_file()), None)
    if name is None:
        return None
    path = folder / name
    config = read_settings(path, SCHEMAS[name])
    if isinstance(config, BottleneckSettings):
        config = BottleneckConfig(**config.model_dump())
    if not config.base_model_name_or_path:
        raise InputError(f"{path}: does not name the adapter's model; set base_model_name_or_path")
    # Relative to the adapter's folder, or to the run's if the folder is a checkpoint; or to that of joined ones.
    outer = folder.parent.parent if folder.parent.name == LORAS else folder.parent
    config.base_model_name_or_path = found_path(config.base_model_name_or_path, folder, outer)
    return config


def add_adapter(model: nn.Layer, config: AdapterConfig) -> None:
    """Freezes a model and adds a new adapter to it.

    LoRA's layers are PaddleNLP's, split over processes like the linear layers that they replace, and do nothing yet; a
    residual one does nothing or little; a prefix is drawn as PaddleNLP draws it, uniformly (Glorot and Bengio 2010).

    Raises:
        InputError: a residual one is for a task that the model does not take, a prefix is of a model of other sizes or
            that is split over processes, LoRA's linear layers are not in the model.
    """
    if isinstance(config, BottleneckConfig):  # every rank has all of them: states between blocks are whole
        put_bottlenecks(model, config)
        return
    if isinstance(config, LoRASettings):
        _put_lora_layers(model, config)
        return
    _check_is_whole(model)
    _check_prefix(model, config)
    (stack,) = model.stacks
    for weight in model.parameters():
        weight.stop_gradient = True
    stack.prefix_encoder = _prefix_encoder(config)


def _put_lora_layers(model: nn.Layer, config: LoRASettings) -> None:
    from paddlenlp.peft import LoRAConfig, LoRAModel

    numbers = new_numbers()  # before the layers draw from the generator, which those that are split do otherwise
    layers = _target_layers(model, config)
    # Lists each layer as a regular expression of exactly its name, because PaddleNLP evaluates them.
    targets = [re.escape(name) for name in layers]
    settings = config.model_dump(exclude={"scaling", "target_modules"})
    settings["tensor_parallel_degree"] = model.config.tensor_parallel_degree
    LoRAModel(model, LoRAConfig(**settings, target_modules=targets))
    ranks = {"degree": model.config.tensor_parallel_degree, "rank": model.config.tensor_parallel_rank}
    replaced = dict(model.named_sublayers())
    for name in layers:
        draw_first(replaced[name], numbers, **ranks)
        if isinstance(replaced[name], ColumnParallelLinear):
            replaced[name].forward = partial(multiply_split, replaced[name])


def _check_is_whole(model: nn.Layer) -> None:
    if (degree := model.config.tensor_parallel_degree) > 1:
        raise InputError(
            f"tensor_parallel_degree {degree}: not beside an adapter, which is not split over processes; leave it out "
            "(LoRA can be merged: python -m glm merge)"
        )


def _target_layers(model: nn.Layer, config: LoRASettings) -> dict[str, nn.Layer]:
    """Returns the linear layers that get matrices, by name; they may be split."""
    kinds = (nn.Linear, ColumnParallelLinear, RowParallelLinear)
    linears = {name: layer for name, layer in model.named_sublayers() if isinstance(layer, kinds)}
    return {name: linears[name] for name in target_names(config, list(linears))}


def target_names(config: LoRASettings, linears: Sequence[str]) -> list[str]:
    """Of the names of linear layers those that have matrices. Raises InputError if there are none."""
    found = matching(linears, config.target_modules)
    if not found:
        raise InputError(f"target_modules {shown(str(config.target_modules))}: the model has no such linear layer")
    return found


def _prefix_encoder(config: PrefixSettings) -> nn.Sequential:
    """Makes PaddleNLP's prefix encoder: [P] indices of virtual tokens -> [P, 2 * layers * H], see `Stack`."""
    width, dropout = 2 * config.num_hidden_layers * config.hidden_size, nn.Dropout(config.prefix_dropout)
    if not config.prefix_projection:
        return nn.Sequential(nn.Embedding(config.num_prefix_tokens, width), dropout)
    hidden = config.prefix_projection_hidden_size
    return nn.Sequential(
        nn.Embedding(config.num_prefix_tokens, config.hidden_size),
        nn.Linear(config.hidden_size, hidden),
        nn.Tanh(),
        nn.Linear(hidden, width),
        dropout,
    )


def _check_prefix(model: nn.Layer, config: PrefixSettings) -> None:
    sizes = model.config
    if type(config.num_prefix_tokens) is not int or config.num_prefix_tokens < 1:
        raise InputError(f"{PREFIX_CONFIG_NAME}: num_prefix_tokens {config.num_prefix_tokens}; 1 or more is expected")
    hidden = config.prefix_projection_hidden_size
    if config.prefix_projection and (type(hidden) is not int or hidden < 1):
        raise InputError(f"{PREFIX_CONFIG_NAME}: prefix_projection_hidden_size {hidden}; 1 or more is expected")
    if config.multi_query_group_num is not None:
        raise InputError(
            f"{PREFIX_CONFIG_NAME}: multi_query_group_num {config.multi_query_group_num}; null is expected, as the "
            "model has keys and values of every head"
        )
    names = {
        "num_hidden_layers": "num_layers",
        "num_attention_heads": "num_attention_heads",
        "hidden_size": "hidden_size",
    }
    for name, own in names.items():
        if getattr(config, name) != getattr(sizes, own):
            raise InputError(
                f"{PREFIX_CONFIG_NAME}: {name} {getattr(config, name)}, but its model has {getattr(sizes, own)}"
            )


def adapter_weights(model: nn.Layer) -> dict[str, Tensor]:
    """Returns the weights of a model's adapter, by name."""
    return {
        name: weight
        for name, weight in model.named_parameters()
        if name.endswith(LORA_MATRICES)
        or f".{PREFIX_ENCODER}" in name
        or (is_of_bottleneck(name) and not weight.stop_gradient)  # a model may have weights of such names itself
    }


def _weights_in_file(model: nn.Layer) -> dict[str, Tensor]:
    """Returns `adapter_weights` under the names that PaddleNLP's files use."""
    return {_in_file(name): weight for name, weight in adapter_weights(model).items()}


def _in_file(name: str) -> str:
    return name.rpartition(PREFIX_ENCODER)[2]


def write_adapter(weights: Mapping[str, np.ndarray], config: AdapterConfig, folder: Path) -> None:
    """Writes `adapter_weights`, whole, with the index file that PaddleNLP's `from_pretrained` looks for first.

    Without it, PaddleNLP reads a prefix from `prefix_model_state.pdparams`, which is a pickle.
    """
    weights = {_in_file(name): weight for name, weight in weights.items()}
    save_file(weights, folder / ADAPTER_WEIGHTS_NAME, metadata={"format": "np"})
    index = {
        "metadata": {"total_size": sum(weight.nbytes for weight in weights.values())},
        "weight_map": dict.fromkeys(weights, ADAPTER_WEIGHTS_NAME),
    }
    (folder / ADAPTER_INDEX_NAME).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    if isinstance(config, BottleneckConfig):
        config.save(folder)
        return
    settings = config.model_dump()
    if isinstance(config, LoRASettings):
        settings["scaling"] = _scaling(config)
    name = next(name for name, schema in SCHEMAS.items() if isinstance(config, schema))
    (folder / name).write_text(json.dumps(settings, indent=2, sort_keys=True), encoding="utf-8")


def _scaling(config: LoRASettings) -> float:
    """Returns the factor of A B: alpha / rank, or alpha / sqrt(rank) (Kalajdzievski 2023)."""
    return config.lora_alpha / (math.sqrt(config.r) if config.rslora else config.r)


def load_adapter(model: nn.Layer, folder: Path) -> None:
    """Loads an adapter's weights into a model that has such an adapter.

    Raises:
        InputError: the file is missing, cannot be read, or is of another adapter.
    """
    fill_adapter(model, read_adapter_weights(folder), folder)


def read_adapter_weights(folder: Path) -> dict[str, np.ndarray]:
    """Reads the weights in an adapter's folder, by name.

    Raises:
        InputError: the file is missing or cannot be read.
    """
    path = folder / ADAPTER_WEIGHTS_NAME
    if not path.is_file():
        raise InputError(f"adapter {folder}: there is no {ADAPTER_WEIGHTS_NAME} in it")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise InputError(f"{path}: cannot be read ({error})") from error


def fill_adapter(model: nn.Layer, saved: Mapping[str, np.ndarray], origin: Path) -> None:
    """Sets the weights of a model's adapter.

    Raises:
        InputError: they are of another adapter.
    """
    weights = _weights_in_file(model)
    _check_weights(saved, {name: weight.shape for name, weight in weights.items()}, origin)
    for name, weight in weights.items():
        weight.set_value(saved[name])


def _check_weights(saved: Mapping[str, np.ndarray], shapes: Mapping[str, list[int]], origin: Path) -> None:
    """Raises InputError if an adapter's weights have other names or shapes than expected."""
    found = {name: list(weight.shape) for name, weight in saved.items()}
    if found != shapes:
        names = sorted(name for name in {*found, *shapes} if found.get(name) != shapes.get(name))
        raise InputError(f"{origin / ADAPTER_WEIGHTS_NAME}: is of another adapter or model ({names[0]} differs)")


def fold_prefix(model: nn.Layer) -> None:
    """Replaces a prefix's projection by its output, which decodes at no extra cost but cannot be trained further."""
    (stack,) = model.stacks
    stack.prefix_encoder.eval()
    with paddle.no_grad():
        numbers = stack.prefix_encoder(paddle.arange(stack.num_virtual))
    table = nn.Embedding(*numbers.shape)
    table.weight.set_value(numbers)
    stack.prefix_encoder = nn.Sequential(table)


def merge_lora(model: nn.Layer, config: LoRASettings, folder: Path) -> None:
    """Merges the LoRA adapter in a folder into a model's weights.

    Raises:
        InputError: the adapter is of another model, or the model is split over processes.
    """
    _check_is_whole(model)
    layers = _target_layers(model, config)
    sizes = {name: layer.weight.shape for name, layer in layers.items()}
    for name, (first, second) in lora_pairs(config, sizes, folder).items():
        added = paddle.to_tensor(first) @ paddle.to_tensor(second)
        layers[name].weight.set_value(layers[name].weight + added)


def lora_pairs(config: LoRASettings, sizes: Mapping[str, Sequence[int]], folder: Path) -> dict[str, Pair]:
    """The matrices in LoRA's folder by the names of linear layers.

    Args:
        sizes: inputs and outputs of the layers that have some, by name.

    Raises:
        InputError: the file is missing, cannot be read, or is of another adapter.
    """
    shapes: dict[str, list[int]] = {}
    for name, (inputs, outputs) in sizes.items():
        shapes |= {f"{name}.lora_A": [inputs, config.r], f"{name}.lora_B": [config.r, outputs]}
    weights = read_adapter_weights(folder)
    _check_weights(weights, shapes, folder)
    scale = np.float32(_scaling(config))
    return {name: (weights[f"{name}.lora_A"], weights[f"{name}.lora_B"] * scale) for name in sizes}


def put_lora(model: nn.Layer, task: str, pairs: Mapping[str, Pair]) -> None:
    """Puts a task's LoRA beside the layers of a model that is ready to decode; see `glm.modules.low_rank`."""
    (stack,) = model.stacks
    add_low_rank(model, stack, task, pairs)
