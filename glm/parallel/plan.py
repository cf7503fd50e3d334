"""What is split how over tensor-parallel ranks: a plan over names of weights. NumPy only.

Column-parallel weights are split over their outputs, row-parallel ones over their inputs, the word embedding over the
vocabulary; everything else is whole on every rank. The fused query_key_value is laid out [all Q | all K | all V], and
a rank takes its heads of each of the three. Source: THUDM/GLM, change_mp.py (there transposed: linear weights are
[out, in]).
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from glm.errors import InputError

# Ending of a weight's name -> the axis it is split over, and of how many blocks side by side that axis consists.
PLAN = {
    "word_embeddings.weight": (0, 1),
    "attention.query_key_value.weight": (1, 3),
    "attention.query_key_value.bias": (0, 3),
    "attention.dense.weight": (0, 1),
    "mlp.dense_h_to_4h.weight": (1, 1),
    "mlp.dense_h_to_4h.bias": (0, 1),
    "mlp.dense_4h_to_h.weight": (0, 1),
}


# What a number of ranks has to divide. The heads divide the hidden size, so that what divides them divides it too.
DIVIDED = ("num_attention_heads", "vocab_size")


def check_degree(degree: int, config: Mapping[str, Any]) -> None:
    """Raises InputError if a model cannot be split over so many ranks; the text names the numbers that can be.

    Args:
        config: has the sizes `DIVIDED`.
    """
    misfits = [f"{name} {config[name]}" for name in DIVIDED if degree < 1 or config[name] % degree]
    if misfits:
        most = math.gcd(*(config[name] for name in DIVIDED))
        fitting = [str(number) for number in range(1, most + 1) if most % number == 0]
        raise InputError(
            f"tensor_parallel_degree {degree}: does not divide {' and '.join(misfits)}; possible are "
            + ", ".join(fitting)
        )


def planned(name: str) -> tuple[int, int] | None:
    """How a weight is split: over which axis, of how many blocks; None if every rank holds all of it."""
    return next((how for ending, how in PLAN.items() if name.endswith(ending)), None)


def part_shape(name: str, shape: Sequence[int], *, degree: int) -> tuple[int, ...]:
    """The shape of what one rank holds of a weight [shape].

    Raises:
        InputError: the weight cannot be divided by `degree`.
    """
    how = planned(name)
    if how is None:
        return tuple(shape)
    axis, blocks = how
    if shape[axis] % (blocks * degree):
        raise InputError(f"tensor_parallel_degree {degree}: does not divide {name} {list(shape)}")
    return tuple(size // degree if place == axis else size for place, size in enumerate(shape))


def part_of_weight(name: str, weight: np.ndarray, *, degree: int, rank: int) -> np.ndarray:
    """What one rank holds of a weight.

    Raises:
        InputError: the weight cannot be divided by `degree`.
    """
    part_shape(name, weight.shape, degree=degree)
    how = planned(name)
    if how is None:
        return weight
    axis, blocks = how
    parts = [np.split(block, degree, axis=axis)[rank] for block in np.split(weight, blocks, axis=axis)]
    return np.concatenate(parts, axis=axis)


def split_weight(name: str, weight: np.ndarray, *, degree: int) -> list[np.ndarray]:
    """The parts of a weight that ranks 0, ..., degree - 1 hold.

    Raises:
        InputError: the weight cannot be divided by `degree`.
    """
    return [part_of_weight(name, weight, degree=degree, rank=rank) for rank in range(degree)]


def merge_weight(name: str, parts: Sequence[np.ndarray]) -> np.ndarray:
    """The whole weight of the parts of all ranks: the inverse of `split_weight`."""
    how = planned(name)
    if how is None:
        return parts[0]
    axis, blocks = how
    by_block = zip(*(np.split(part, blocks, axis=axis) for part in parts), strict=True)
    return np.concatenate([np.concatenate(of_block, axis=axis) for of_block in by_block], axis=axis)
