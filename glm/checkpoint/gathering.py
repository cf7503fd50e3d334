"""Gathers whole tensors from the shards of processes, and takes a process's shard, because saved tensors are whole.

Tensors are weights, by name, or an optimizer's state of a weight, named `WEIGHT/KIND`, which is split like the weight
unless it is a scalar.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import paddle
from paddle import Tensor
from paddle import distributed as dist

from glm.checkpoint.ranks import split_tensor
from glm.checkpoint.tensors import LazyTensor
from glm.parallel.plan import Plan, merge_weight, planned


def gather_whole(plan: Plan, tensors: Mapping[str, Tensor], *, degree: int, rank: int) -> dict[str, Tensor]:
    """Gathers whole tensors in the first process of a run; all processes have to call this.

    Of processes with the same shard the first one sends it. A process may lack tensors that others have, as with a
    sharded optimizer state.

    Args:
        plan: how the family's weights are split.
        degree, rank: number of processes that a weight is split over, and which shard this process has.

    Returns:
        The tensors by name, on the CPU; empty in other processes.
    """
    if dist.get_world_size() == 1:
        return dict(tensors)
    held: list[dict[str, _Held]] = []
    dist.all_gather_object(held, {name: _Held.of(tensor, rank) for name, tensor in tensors.items()})
    whole = {}
    for name in dict.fromkeys(name for of_process in held for name in of_process):
        holders = {process: of_process[name] for process, of_process in enumerate(held) if name in of_process}
        parts = [
            _bring_to_first(tensors.get(name), source, holders[source])
            for source in _sources(plan, name, holders, degree)
        ]
        if dist.get_rank() == 0:
            whole[name] = parts[0] if len(parts) == 1 else _merged(plan, name, parts)
    return whole


@dataclass(frozen=True)
class _Held:
    """What a process announces of a tensor that it has, or of its shard."""

    rank: int
    shape: tuple[int, ...]
    dtype: str

    @classmethod
    def of(cls, tensor: Tensor, rank: int) -> "_Held":
        return cls(rank, tuple(tensor.shape), str(tensor.dtype).removeprefix("paddle."))


def _sources(plan: Plan, name: str, holders: Mapping[int, _Held], degree: int) -> list[int]:
    """Returns the processes that send the shards of a tensor, in order."""
    first = next(iter(holders))
    if degree == 1 or not _is_split(plan, name, holders[first].shape):
        return [first]
    return [next(process for process, held in holders.items() if held.rank == part) for part in range(degree)]


def take_part(plan: Plan, tensors: Mapping[str, LazyTensor], *, degree: int, rank: int) -> dict[str, LazyTensor]:
    """Returns the shards that one of `degree` ranks holds of whole tensors."""
    return {
        name: split_tensor(plan, _weight_of(name), whole, degree=degree, rank=rank)
        if _is_split(plan, name, whole.shape)
        else whole
        for name, whole in tensors.items()
    }


def _weight_of(name: str) -> str:
    return name.partition("/")[0]


def _is_split(plan: Plan, name: str, shape: Sequence[int]) -> bool:
    """Whether a tensor is split over ranks; an optimizer's scalars are not."""
    return planned(plan, _weight_of(name)) is not None and math.prod(shape) > 1


def _bring_to_first(tensor: Tensor | None, source: int, held: _Held) -> Tensor | None:
    """Brings a tensor of the process `source` to the first process; returns None elsewhere.

    It is broadcast to all, because gloo's send and receive fail among more than two processes.
    """
    rank = dist.get_rank()
    passed = tensor.detach().clone() if rank == source else paddle.empty(held.shape, held.dtype)
    if source:
        dist.broadcast(passed, src=source)
    return passed.cpu() if rank == 0 else None


def _merged(plan: Plan, name: str, parts: list[Tensor]) -> Tensor:
    whole = merge_weight(plan, _weight_of(name), [part.numpy() for part in parts])  # bfloat16 as uint16
    merged = paddle.to_tensor(whole, place=paddle.CPUPlace())
    return merged.view("bfloat16") if parts[0].dtype == paddle.bfloat16 else merged
