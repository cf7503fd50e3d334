"""Splits whole weights over tensor-parallel ranks and merges them again, one tensor at a time."""

from collections.abc import Callable, Mapping

import numpy as np

from glm.checkpoint.names import LISTED, Weights
from glm.checkpoint.tensors import LazyTensor, shown
from glm.errors import InputError
from glm.models.protocol import WeightNames
from glm.parallel.plan import Plan, merge_weight, part_of_weight, part_shape, planned


def split_weights(plan: Plan, weights: Mapping[str, LazyTensor], *, rank: int, degree: int) -> Weights:
    """Returns one rank's shards of whole weights, with linears as [in, out].

    Raises:
        InputError: `degree` does not divide a weight.
    """
    return {name: split_tensor(plan, name, tensor, rank=rank, degree=degree) for name, tensor in weights.items()}


def split_tensor(plan: Plan, name: str, tensor: LazyTensor, *, rank: int, degree: int) -> LazyTensor:
    """Returns one rank's shard of a tensor that is split like the weight `name`.

    Raises:
        InputError: `degree` does not divide it.
    """
    if degree == 1:
        return tensor
    shape = part_shape(plan, name, tensor.shape, degree=degree)
    return LazyTensor(shape, tensor.dtype, lambda: part_of_weight(plan, name, tensor.load(), degree=degree, rank=rank))


def merge_weights(plan: Plan, ranks: list[Weights], *, origin: object) -> Weights:
    """Merges the ranks' shards to whole weights, with linears as [in, out].

    Args:
        origin: their file, for the message if weights that should be equal are not.

    Raises:
        InputError: names, shapes or dtypes of the ranks differ.
    """
    first = ranks[0]
    for rank, weights in enumerate(ranks):
        other = sorted(set(weights) ^ set(first))
        if other:
            raise InputError(f"rank {rank} holds other weights than rank 0: {', '.join(map(shown, other[:LISTED]))}")
    return {name: _merge(plan, name, [weights[name] for weights in ranks], origin) for name in first}


def _merge(plan: Plan, name: str, parts: list[LazyTensor], origin: object) -> LazyTensor:
    if len(parts) == 1:
        return parts[0]
    shape, dtype = parts[0].shape, parts[0].dtype
    for rank, part in enumerate(parts):
        if (part.shape, part.dtype) != (shape, dtype):
            raise InputError(
                f"{name}: {list(part.shape)} {part.dtype} on rank {rank}, {list(shape)} {dtype} on rank 0"
            )
    how = planned(plan, name)
    if how is None or len(shape) <= how[0]:
        return LazyTensor(shape, dtype, lambda: _same_on_all(name, parts, origin))
    whole = tuple(size * len(parts) if axis == how[0] else size for axis, size in enumerate(shape))
    return LazyTensor(whole, dtype, lambda: merge_weight(plan, name, [part.load() for part in parts]))


def _same_on_all(name: str, parts: list[LazyTensor], origin: object) -> np.ndarray:
    """Returns the values of a weight that every rank holds whole."""
    first = parts[0].load()
    for rank, part in enumerate(parts[1:], start=1):
        if first.tobytes() != part.load().tobytes():
            raise InputError(
                f"{origin}: {name} has other numbers on rank {rank} than on rank 0; are the files of one step?"
            )
    return first


def head_by_head(names: WeightNames, weights: Mapping[str, LazyTensor], *, heads: int) -> Weights:
    """Reorders a rank's fused weights as PaddleNLP stores them: q, k, v of one head after the other."""
    return _fused(names, weights, heads, lambda numbers: _axes_swapped(numbers, 3, heads))


def block_by_block(names: WeightNames, weights: Mapping[str, LazyTensor], *, heads: int) -> Weights:
    """The inverse of `head_by_head`: [its Q | its K | its V]."""
    return _fused(names, weights, heads, lambda numbers: _axes_swapped(numbers, heads, 3))


def _fused(
    names: WeightNames, weights: Mapping[str, LazyTensor], heads: int, order: Callable[[np.ndarray], np.ndarray]
) -> Weights:
    def ordered(name: str, tensor: LazyTensor) -> LazyTensor:
        if not any(part in name for part in names.fused) or not tensor.shape:
            return tensor
        if tensor.shape[-1] % (3 * heads):
            raise InputError(f"{name}: {list(tensor.shape)} cannot be divided among {heads} heads")
        return LazyTensor(tensor.shape, tensor.dtype, lambda: order(tensor.load()))

    return {name: ordered(name, tensor) for name, tensor in weights.items()}


def _axes_swapped(numbers: np.ndarray, outer: int, inner: int) -> np.ndarray:
    """Reorders the last axis from `outer` groups of `inner` blocks to `inner` groups of `outer` blocks."""
    *lead, width = numbers.shape
    blocks = numbers.reshape(*lead, outer, inner, width // (outer * inner))
    return blocks.swapaxes(-3, -2).reshape(*lead, width)
