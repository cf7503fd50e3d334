"""Splits weights over tensor-parallel ranks and merges them again, as a family's plan says. NumPy only.

Column-parallel weights are split over their outputs, row-parallel ones over their inputs, a word embedding over the
vocabulary; weights that a plan does not name are whole on every rank. An axis may consist of blocks, such as Q, K and
V of a fused weight; then a rank takes its part of each block.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from glm.errors import InputError

# Ending of a weight's name -> the axis it is split over, and the number of blocks that this axis consists of.
Plan = Mapping[str, tuple[int, int]]
# LoRA's matrices -> the axis of their layer's weight that they meet, by which they are split if it is: x A B + x W.
LORA_AXES = {".lora_A": 0, ".lora_B": 1}


def check_degree(degree: int, config: Mapping[str, Any], divided: Sequence[str]) -> None:
    """Raises InputError, with the possible numbers, if a model cannot be split over this number of ranks.

    Args:
        divided: sizes of the configuration that the number of ranks has to divide.
    """
    misfits = [f"{name} {config[name]}" for name in divided if degree < 1 or config[name] % degree]
    if misfits:
        most = math.gcd(*(config[name] for name in divided))
        fitting = [str(number) for number in range(1, most + 1) if most % number == 0]
        raise InputError(
            f"tensor_parallel_degree {degree}: does not divide {' and '.join(misfits)}; possible are "
            + ", ".join(fitting)
        )


def planned(plan: Plan, name: str) -> tuple[int, int] | None:
    """Returns the axis a weight is split over and its number of blocks; None if every rank holds all of it."""
    for matrix, axis in LORA_AXES.items():
        if name.endswith(matrix):
            of_layer = planned(plan, f"{name.removesuffix(matrix)}.weight")
            return of_layer if of_layer and of_layer[0] == axis else None
    return next((how for ending, how in plan.items() if name.endswith(ending)), None)


def part_shape(plan: Plan, name: str, shape: Sequence[int], *, degree: int) -> tuple[int, ...]:
    """Returns the shape of one rank's part of a weight.

    Raises:
        InputError: the weight cannot be divided by `degree`.
    """
    how = planned(plan, name)
    if how is None:
        return tuple(shape)
    axis, blocks = how
    if shape[axis] % (blocks * degree):
        raise InputError(f"tensor_parallel_degree {degree}: does not divide {name} {list(shape)}")
    return tuple(size // degree if place == axis else size for place, size in enumerate(shape))


def part_of_weight(plan: Plan, name: str, weight: np.ndarray, *, degree: int, rank: int) -> np.ndarray:
    """Returns one rank's part of a weight.

    Raises:
        InputError: the weight cannot be divided by `degree`.
    """
    part_shape(plan, name, weight.shape, degree=degree)
    how = planned(plan, name)
    if how is None:
        return weight
    axis, blocks = how
    parts = [np.split(block, degree, axis=axis)[rank] for block in np.split(weight, blocks, axis=axis)]
    return np.concatenate(parts, axis=axis)


def split_weight(plan: Plan, name: str, weight: np.ndarray, *, degree: int) -> list[np.ndarray]:
    """Returns the parts of ranks 0, ..., degree - 1 of a weight.

    Raises:
        InputError: the weight cannot be divided by `degree`.
    """
    return [part_of_weight(plan, name, weight, degree=degree, rank=rank) for rank in range(degree)]


def merge_weight(plan: Plan, name: str, parts: Sequence[np.ndarray]) -> np.ndarray:
    """Merges the parts of all ranks to the whole weight: the inverse of `split_weight`."""
    how = planned(plan, name)
    if how is None:
        return parts[0]
    axis, blocks = how
    by_block = zip(*(np.split(part, blocks, axis=axis) for part in parts), strict=True)
    return np.concatenate([np.concatenate(of_block, axis=axis) for of_block in by_block], axis=axis)
