"""Translates weight names of files to the family's and back, and checks that weights fit a configuration."""

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from glm.checkpoint.tensors import WEIGHT_DTYPES, LazyTensor
from glm.errors import InputError, shown
from glm.models.protocol import WeightNames

LISTED = 1000  # names in a message; a GLM has fewer than 600
LAYER_OF_NAME = re.compile(r"\.(\d{1,6})\.")

Weights = dict[str, LazyTensor]


def canonical_names(names: WeightNames, tensors: Mapping[str, LazyTensor], *, linears_out_in: bool) -> Weights:
    """Renames tensors to the family's names and joins parts of one weight; an unknown name is kept.

    Args:
        linears_out_in: whether linear weights are [out, in]: outputs are what stands side by side.

    Raises:
        InputError: a weight occurs under two names, or not with all its parts.
    """
    parts: dict[str, dict[int, LazyTensor]] = {}
    wanted: dict[str, int] = {}
    for foreign, tensor in tensors.items():
        name, part, count = names.ours(foreign)
        if part in parts.setdefault(name, {}):
            raise InputError(f"{shown(foreign)}: occurs twice, under two names ({shown(name)})")
        parts[name][part] = tensor
        wanted[name] = count
    for name, found in parts.items():
        if len(found) < wanted[name]:
            raise InputError(f"{shown(name)}: is made of {wanted[name]} weights, and {len(found)} of them are there")
    axis = 0 if linears_out_in else -1
    return {name: _side_by_side(name, [found[part] for part in sorted(found)], axis) for name, found in parts.items()}


def _side_by_side(name: str, parts: list[LazyTensor], axis: int) -> LazyTensor:
    """Joins parts of a weight, which have equal shapes, on an axis."""
    if len(parts) == 1:
        return parts[0]
    shape = list(parts[0].shape)
    if not shape or any((list(part.shape), part.dtype) != (shape, parts[0].dtype) for part in parts):
        raise InputError(f"{shown(name)}: its parts do not fit together ({[list(part.shape) for part in parts]})")
    shape[axis] *= len(parts)
    return LazyTensor(tuple(shape), parts[0].dtype, lambda: np.concatenate([part.load() for part in parts], axis))


def foreign_names(
    names: WeightNames, weights: Mapping[str, LazyTensor], format: str, *, linears_out_in: bool = True
) -> Weights:
    """Renames weights to the names of a format: the inverse of `canonical_names`.

    Args:
        linears_out_in: whether linear weights are [out, in].
    """
    found: Weights = {}
    for name, tensor in weights.items():
        parts = names.made_of(name, format)
        axis = 0 if linears_out_in else len(tensor.shape) - 1
        for number, foreign in enumerate(parts):
            found[foreign] = tensor if len(parts) == 1 else _part(tensor, number, len(parts), axis)
    return found


def _part(tensor: LazyTensor, number: int, parts: int, axis: int) -> LazyTensor:
    """Returns one of equal parts on an axis."""
    size = tensor.shape[axis] // parts
    shape = (*tensor.shape[:axis], size, *tensor.shape[axis + 1 :])
    places = (*[slice(None)] * axis, slice(number * size, (number + 1) * size))
    return LazyTensor(shape, tensor.dtype, lambda: np.ascontiguousarray(tensor.load()[places]))


def are_linears_out_in(names: WeightNames, tensors: Mapping[str, LazyTensor]) -> bool:
    """Whether linear weights are [out, in]: decided by their biases [out] if a weight is not square, else by their
    names.

    True if nothing tells; False for a family whose linears PyTorch keeps as Paddle does.
    """
    if not names.linears:
        return False
    for name, tensor in tensors.items():
        if name.endswith(names.biased_linears):
            bias = tensors.get(name.removesuffix("weight") + "bias")
            if bias is not None and len(tensor.shape) == 2 and tensor.shape[0] != tensor.shape[1]:
                return tensor.shape[:1] == bias.shape
    told = names.linears_out_in(tensors)
    return True if told is None else told


def transposed_linears(names: WeightNames, tensors: Mapping[str, LazyTensor]) -> Weights:
    """Transposes the weights of linear layers: from PyTorch's [out, in] to Paddle's [in, out], or back."""
    return {
        name: tensor.transposed() if name.endswith(names.linears) and len(tensor.shape) == 2 else tensor
        for name, tensor in tensors.items()
    }


def infer_sizes(names: WeightNames, tensors: Mapping[str, LazyTensor], *, title: str) -> dict[str, Any]:
    """Derives the configuration from whole weights with linears as [in, out]; they do not show the number of heads.

    Args:
        title: title of the family, for messages.

    Raises:
        InputError: what shows them is missing (the text lists all that is missing or unknown), or is no table.
    """
    sizes = names.sizes_of({name: tensor.shape for name, tensor in tensors.items()})
    if any(name not in tensors for name in names.required):
        _refuse(f"not the weights of a {title}", _name_problems(tensors, names.shapes(sizes)))
    return sizes


def checked_weights(names: WeightNames, tensors: Mapping[str, LazyTensor], config: Mapping[str, Any]) -> Weights:
    """Returns the weights in the model's order.

    Raises:
        InputError: weights are unknown, missing, or of a wrong shape or dtype; the text lists them all.
    """
    expected = names.shapes(config)
    wrong = [
        f"{name}: {list(tensors[name].shape)} instead of {list(shape)}"
        for name, shape in expected.items()
        if name in tensors and tensors[name].shape != shape
    ]
    integers = [
        f"{name}: {tensors[name].dtype}"
        for name in expected
        if name in tensors and tensors[name].dtype not in WEIGHT_DTYPES
    ]
    lines = [
        *_name_problems(tensors, expected),
        *_listed("wrong shape", wrong, str),
        *_listed("no floating-point numbers", integers, str),
    ]
    _refuse("the weights do not fit the configuration", lines)
    return {name: tensors[name] for name in expected}


def _refuse(summary: str, problems: list[str]) -> None:
    if problems:
        raise InputError("\n".join([summary, *problems]))


def _name_problems(tensors: Mapping[str, LazyTensor], expected: Mapping[str, Any]) -> list[str]:
    unknown = [name for name in tensors if name not in expected]
    missing = [name for name in expected if name not in tensors]
    return [
        *_listed("unknown", unknown, lambda name: shown(name) + _nearest(name, missing or expected)),
        *_listed("missing", missing, str),
    ]


def _listed(label: str, names: list[str], line: Callable[[str], str]) -> list[str]:
    lines = [f"  {label} {line(name)}" for name in names[:LISTED]]
    return lines + ([f"  {label}: {len(names) - LISTED} more"] if len(names) > LISTED else [])


def _nearest(name: str, known: Iterable[str]) -> str:
    """Returns the known name most similar to a wrong one, preferring the same layer, so that few are compared."""
    known = list(known)
    layer = LAYER_OF_NAME.search(name)
    same_layer = [other for other in known if layer and f".{int(layer[1])}." in other]
    others = [other for other in known if not (found := LAYER_OF_NAME.search(other)) or found[1] == "0"]
    close = difflib.get_close_matches(name[:200], same_layer or others, n=1, cutoff=0.4)
    return f" (nearest: {close[0]})" if close else ""
