"""Layers that are split over tensor-parallel ranks: fleet's, or ordinary ones on one rank.

Of each pair of linears in a block the first is split over its outputs and the second over its inputs, so that only the
outputs of the second have to be summed over ranks. The word embedding, which is also the head, is split over the
vocabulary (Shoeybi et al. 2019). The family's plan says which weight is split how.
"""

import contextlib
from contextlib import AbstractContextManager

import numpy as np
import paddle
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
    """Makes a linear layer split over its outputs by `degree` ranks; sizes are those of the whole layer."""
    if degree == 1:
        return Linear(inputs, outputs)
    return ColumnParallelLinear(inputs, outputs, has_bias=True, gather_output=False)


def row_parallel_linear(inputs: int, outputs: int, *, degree: int) -> nn.Layer:
    """Makes a linear layer split over its inputs by `degree` ranks; sizes are those of the whole layer."""
    if degree == 1:
        return Linear(inputs, outputs)
    return RowParallelLinear(inputs, outputs, has_bias=True, input_is_parallel=True)


def split_embedding(rows: int, size: int, *, degree: int) -> nn.Layer:
    """Makes the word embedding, split over its rows; sizes are those of the whole table."""
    return TiedEmbedding(rows, size) if degree == 1 else VocabParallelEmbedding(rows, size)


def draw(
    weight: Tensor, name: str, plan: Plan, numbers: np.random.Generator, std: float, *, degree: int, rank: int
) -> None:
    """Initialises a weight from N(0, std).

    Every rank draws the whole weight and keeps its own part, so that a model does not depend on the number of ranks.

    Args:
        name: the weight's name in the model.
        plan: how the family's weights are split.
    """
    how = planned(plan, name)
    shape = [size * degree if how and axis == how[0] else size for axis, size in enumerate(weight.shape)]
    whole = numbers.standard_normal(shape, dtype=np.float32) * np.float32(std)
    part = part_of_weight(plan, name, whole, degree=degree, rank=rank)
    weight.set_value(paddle.to_tensor(part, dtype=weight.dtype))


def tensor_parallel_group(degree: int) -> Group | None:
    """Returns the group of processes that a model is split over; None if it is not split."""
    return None if degree == 1 else fleet.get_hybrid_communicate_group().get_model_parallel_group()


def copy_to_ranks(states: Tensor, group: Group | None) -> Tensor:
    """Passes states [..., H], equal on all ranks, to a split weight; in backward it sums gradients over the ranks."""
    return states if group is None else mp_ops._c_identity(states, group=group)


def gather_columns(parts: Tensor, group: Group | None) -> Tensor:
    """Gathers the ranks' columns [..., V / ranks] to [..., V] on every rank."""
    return parts if group is None else mp_ops._c_concat(parts, group=group)


def randomness_of_rank(group: Group | None) -> AbstractContextManager:
    """Makes each rank draw its own random numbers, where activations are split; elsewhere all ranks draw the same.

    It uses the generator that PaddleNLP's `set_seed` makes for this.
    """
    if group is None:
        return contextlib.nullcontext()
    return get_rng_state_tracker().rng_state("local_seed")
