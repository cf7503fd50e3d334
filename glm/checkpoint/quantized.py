"""Model folders in int8, written by `python -m glm quantize`, with a scale for each output of a linear layer.

A weight NAME is int8 in the model's own layout, and NAME.scales beside it float32 with an axis of 1 for the inputs, so
that weight = integers * scales. `config.json` says so under `quantization`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from glm.checkpoint.tensors import LazyTensor
from glm.errors import InputError, shown
from glm.runtime.settings_file import read_object

KEY = "quantization"  # in config.json
STATED = {"dtype": "int8", "version": 1}  # what this version writes there, and accepts
SCALES = ".scales"


@dataclass(frozen=True)
class QuantizedTensor(LazyTensor):
    """A float32 weight stored in int8.

    Attributes:
        integers: int8 [shape].
        scales: float32, one for each output, with an axis of 1 for the inputs.
    """

    integers: LazyTensor | None = None
    scales: np.ndarray | None = None


def is_quantized(config: Mapping[str, Any]) -> bool:
    """Whether a `config.json` belongs to such a folder."""
    return KEY in config


def refuse_quantized(name_or_path: str, purpose: str) -> None:
    """Raises InputError if a folder is quantized, because it can only be used for prediction."""
    path = Path(name_or_path, "config.json")
    if path.is_file() and is_quantized(read_object(path)):
        raise InputError(
            f"model_name_or_path {name_or_path}: is quantized to int8, which is for prediction; {purpose} needs the "
            "folder that it was made from"
        )


def with_scales(tensors: Mapping[str, LazyTensor], config: Mapping[str, Any], folder: Path) -> dict[str, LazyTensor]:
    """Returns the weights of a quantized folder from the tensors of its files.

    Raises:
        InputError: it is of another version, or scales are missing, damaged or of another shape.
    """
    if config[KEY] != STATED:
        raise InputError(
            f"{folder / 'config.json'}: {KEY} is {shown(str(config[KEY]))}, and this version reads {STATED}; "
            "make the folder anew: python -m glm quantize"
        )
    scales = {name.removesuffix(SCALES): tensor for name, tensor in tensors.items() if name.endswith(SCALES)}
    weights = {name: tensor for name, tensor in tensors.items() if not name.endswith(SCALES)}
    integers = {name for name, tensor in weights.items() if tensor.dtype == "int8"}
    if wrong := sorted(integers ^ scales.keys()):
        problem = "has no scales" if wrong[0] in integers else "has scales, and is not there in int8"
        raise InputError(f"{folder}: {shown(wrong[0])} {problem}; make the folder anew: python -m glm quantize")
    return {
        name: _quantized(tensor, scales[name], f"{folder}: {shown(name)}") if name in integers else tensor
        for name, tensor in weights.items()
    }


def _quantized(integers: LazyTensor, stored: LazyTensor, origin: str) -> QuantizedTensor:
    rows_or_columns = [(*integers.shape[:1], 1), (1, *integers.shape[1:])]
    if len(integers.shape) != 2 or stored.shape not in rows_or_columns or stored.dtype != "float32":
        raise InputError(f"{origin}: scales of {stored.dtype} {list(stored.shape)} beside {list(integers.shape)}")
    scales = np.array(stored.load())
    if not np.isfinite(scales).all() or (scales < 0).any():
        raise InputError(f"{origin}: a scale is negative, infinite or NaN: the file is damaged")

    def load() -> np.ndarray:
        return integers.load().astype(np.float32) * scales

    return QuantizedTensor(integers.shape, "float32", load, integers.place, integers, scales)
