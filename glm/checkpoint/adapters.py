"""LoRA adapters: added to a model, saved without it, and merged into it (Hu et al. 2021). PaddleNLP's, in its files.

An adapter adds x A B alpha / rank to the x W of chosen linear layers; only A and B are trained. Its folder holds them
and `lora_config.json`, which names the model they belong to; the model stays where it is.
"""

import json
from pathlib import Path

from paddle import Tensor, nn
from paddlenlp.peft import LoRAConfig, LoRAModel
from paddlenlp.peft.lora import LoRALinear
from paddlenlp.utils.env import LORA_CONFIG_NAME, SAFE_PEFT_WEIGHTS_INDEX_NAME, SAFE_PEFT_WEIGHTS_NAME
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from glm.cpu import Linear
from glm.errors import InputError

ADAPTER_WEIGHTS_NAME = SAFE_PEFT_WEIGHTS_NAME


def lora_config(base: str, *, targets: str, rank: int, alpha: int, dropout: float) -> LoRAConfig:
    """A new adapter's settings.

    Args:
        base: the folder or published name of the model.
        targets: names of linear layers of a block, joined by `|`.
    """
    return LoRAConfig(
        base_model_name_or_path=str(Path(base).resolve()) if Path(base).exists() else base,
        target_modules=[rf".*\.({targets})"],
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        tensor_parallel_degree=1,
    )


def read_lora_config(folder: Path) -> LoRAConfig | None:
    """The settings of the adapter in a folder; None if it has none.

    Raises:
        InputError: they cannot be read, or do not say which model the adapter belongs to.
    """
    path = folder / LORA_CONFIG_NAME
    if not path.is_file():
        return None
    try:
        config = LoRAConfig.from_pretrained(str(folder))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: cannot be read as settings of an adapter ({error})") from error
    if not config.base_model_name_or_path:
        raise InputError(f"{path}: does not name the adapter's model; set base_model_name_or_path")
    return config


def add_lora(model: nn.Layer, config: LoRAConfig) -> None:
    """Puts an adapter that does nothing yet into a model, whose own weights are frozen."""
    LoRAModel(model, config)


def lora_weights(model: nn.Layer) -> dict[str, Tensor]:
    """The weights of the adapter in a model, by name."""
    return {
        name: weight for name, weight in model.named_parameters() if name.rpartition(".")[2] in ("lora_A", "lora_B")
    }


def save_lora(model: nn.Layer, config: LoRAConfig, folder: Path) -> None:
    """Writes the adapter in a model, with the index that PaddleNLP's LoRAModel.from_pretrained looks for."""
    weights = {name: weight.numpy() for name, weight in lora_weights(model).items()}
    save_file(weights, folder / ADAPTER_WEIGHTS_NAME, metadata={"format": "np"})
    index = {
        "metadata": {"total_size": sum(weight.nbytes for weight in weights.values())},
        "weight_map": dict.fromkeys(weights, ADAPTER_WEIGHTS_NAME),
    }
    (folder / SAFE_PEFT_WEIGHTS_INDEX_NAME).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    config.save_pretrained(str(folder))


def load_lora(model: nn.Layer, folder: Path) -> None:
    """Reads an adapter's weights into that of a model.

    Raises:
        InputError: the file is missing, cannot be read, or is of another adapter.
    """
    path = folder / ADAPTER_WEIGHTS_NAME
    if not path.is_file():
        raise InputError(f"adapter {folder}: there is no {ADAPTER_WEIGHTS_NAME} in it")
    try:
        saved = load_file(path)
    except SafetensorError as error:
        raise InputError(f"{path}: cannot be read ({error})") from error
    weights = lora_weights(model)
    shapes = [{name: list(weight.shape) for name, weight in tensors.items()} for tensors in (weights, saved)]
    if shapes[0] != shapes[1]:
        names = sorted(name for name in {*weights, *saved} if shapes[0].get(name) != shapes[1].get(name))
        raise InputError(f"{path}: is of another adapter or model ({names[0]} differs)")
    for name, weight in weights.items():
        weight.set_value(saved[name])


def merge_lora(model: nn.Layer) -> None:
    """Adds a model's adapter to its weights; then it has none any more, and all of it can be trained."""
    layers = dict(model.named_sublayers())
    for name, layer in layers.items():
        if isinstance(layer, LoRALinear):
            layer.merge()
            plain = Linear(*layer.weight.shape)
            plain.weight, plain.bias = layer.weight, layer.bias
            parent, _, attribute = name.rpartition(".")
            setattr(layers[parent], attribute, plain)
    for weight in model.parameters():
        weight.stop_gradient = False
