"""The layers that are split over tensor-parallel ranks: fleet's, or ordinary ones where there is one rank.

A block's first linear of each pair is split over its outputs, the second over its inputs, so that only the second's
outputs have to be added up; the word embedding, which is the head too, is split over the vocabulary
(Shoeybi et al. 2019). Which weight is split how is the family's plan.
"""

import contextlib
from contextlib import AbstractContextManager

import numpy as np
from paddle import Tensor, nn
from paddle.distributed import fleet
from paddle.distributed.communication.group import Group
from paddle.distributed.fleet.layers.mpu import mp_ops
from paddle.distributed.fleet.meta_parallel import (
    ColumnParallelLinear,
    RowParallelLinear,
    VocabParallelEmbedding,
    get_rng_state_tracker,
)

from glm.modules.layers import Linear, TiedEmbedding
from glm.parallel.plan import Plan, part_of_weight, planned


def column_parallel_linear(inputs: int, outputs: int, *, degree: int) -> nn.Layer:
    """A linear layer that `degree` ranks split over its outputs; sizes are those of the whole layer."""
    if degree == 1:
        return Linear(inputs, outputs)
    return ColumnParallelLinear(inputs, outputs, has_bias=True, gather_output=False)


def row_parallel_linear(inputs: int, outputs: int, *, degree: int) -> nn.Layer:
    """A linear layer that `degree` ranks split over its inputs; sizes are those of the whole layer."""
    if degree == 1:
        return Linear(inputs, outputs)
    return RowParallelLinear(inputs, outputs, has_bias=True, input_is_parallel=True)


def split_embedding(rows: int, size: int, *, degree: int) -> nn.Layer:
    """The word embedding, split over its rows; sizes are those of the whole table."""
    return TiedEmbedding(rows, size) if degree == 1 else VocabParallelEmbedding(rows, size)


def draw(
    weight: Tensor, name: str, plan: Plan, numbers: np.random.Generator, std: float, *, degree: int, rank: int
) -> None:
    """Gives a weight random numbers of N(0, std): this rank's part of a whole that every rank draws, so that a model
    does not depend on the number of ranks.

    Args:
        name: the weight's name in the model.
        plan: how the family's weights are split.
    """
    how = planned(plan, name)
    shape = [size * degree if how and axis == how[0] else size for axis, size in enumerate(weight.shape)]
    whole = numbers.standard_normal(shape, dtype=np.float32) * np.float32(std)
    weight.set_value(part_of_weight(plan, name, whole, degree=degree, rank=rank))


def tensor_parallel_group(degree: int) -> Group | None:
    """The processes over which a model is split; None if it is not."""
    return None if degree == 1 else fleet.get_hybrid_communicate_group().get_model_parallel_group()


def enter(states: Tensor, group: Group | None) -> Tensor:
    """States [..., H], equal on all ranks, on their way to a split weight; gradients are added up over the ranks."""
    return states if group is None else mp_ops._c_identity(states, group=group)


def side_by_side(parts: Tensor, group: Group | None) -> Tensor:
    """The ranks' columns [..., V / ranks] -> [..., V] on every rank."""
    return parts if group is None else mp_ops._c_concat(parts, group=group)


def randomness_of_rank(group: Group | None) -> AbstractContextManager:
    """Where activations are split, each rank draws numbers of its own; elsewhere all have to draw the same.

    The generator is the one PaddleNLP's `set_seed` makes for this.
    """
    if group is None:
        return contextlib.nullcontext()
    return get_rng_state_tracker().rng_state("local_seed")
