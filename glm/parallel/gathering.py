"""Whole tensors from the parts that processes hold, and a process's part of whole tensors: checkpoints know no ranks.

Tensors are weights by their names, or what an optimizer keeps of a weight, named `WEIGHT/KIND`: it is split as the
weight is, but for single numbers.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import paddle
from paddle import Tensor
from paddle import distributed as dist

from glm.parallel.plan import merge_weight, part_of_weight, planned


def gather_whole(tensors: Mapping[str, Tensor], *, degree: int, rank: int) -> dict[str, Tensor]:
    """Whole tensors for the first process of a run; all have to call this.

    Of processes that hold the same part the first one sends it. A process may lack tensors that others have, as it
    does of an optimizer's state that is sharded.

    Args:
        degree, rank: over how many processes a weight is split, and whose part this one has.

    Returns:
        By name, in the memory of the CPU; nothing in other processes.
    """
    if dist.get_world_size() == 1:
        return dict(tensors)
    held: list[dict[str, tuple[int, Sequence[int], str]]] = []
    facts = {name: (rank, tensor.shape, str(tensor.dtype).removeprefix("paddle.")) for name, tensor in tensors.items()}
    dist.all_gather_object(held, facts)
    whole = {}
    for name in dict.fromkeys(name for facts in held for name in facts):
        parts = []
        for part in range(degree if _is_split(name, next(facts[name][1] for facts in held if name in facts)) else 1):
            source, (_, shape, dtype) = next(
                (process, facts[name])
                for process, facts in enumerate(held)
                if name in facts and (degree == 1 or facts[name][0] == part)
            )
            parts.append(_bring_to_first(tensors.get(name), source, shape, dtype))
        if dist.get_rank() == 0:
            whole[name] = parts[0] if len(parts) == 1 else _merged(name, parts)
    return whole


def take_part(tensors: Mapping[str, np.ndarray], *, degree: int, rank: int) -> dict[str, np.ndarray]:
    """What one of `degree` ranks holds of whole tensors."""
    return {
        name: part_of_weight(_weight_of(name), whole, degree=degree, rank=rank)
        if _is_split(name, whole.shape)
        else whole
        for name, whole in tensors.items()
    }


def _weight_of(name: str) -> str:
    return name.partition("/")[0]


def _is_split(name: str, shape: Sequence[int]) -> bool:
    """Whether ranks hold parts of a tensor: not of the single numbers that an optimizer keeps of a weight."""
    return planned(_weight_of(name)) is not None and math.prod(shape) > 1


def _bring_to_first(tensor: Tensor | None, source: int, shape: Sequence[int], dtype: str) -> Tensor | None:
    """A tensor of the process `source`, in the first process; None elsewhere.

    All of them get it for a moment: gloo's send and receive lose each other among more than two processes.
    """
    rank = dist.get_rank()
    passed = tensor.detach().clone() if rank == source else paddle.empty(shape, dtype)
    if source:
        dist.broadcast(passed, src=source)
    return passed.cpu() if rank == 0 else None


def _merged(name: str, parts: list[Tensor]) -> Tensor:
    whole = merge_weight(_weight_of(name), [part.numpy() for part in parts])  # bfloat16 as uint16
    merged = paddle.to_tensor(whole, place=paddle.CPUPlace())
    return merged.view("bfloat16") if parts[0].dtype == paddle.bfloat16 else merged
