"""Replacements for operators that fleet's tensor parallelism needs and Paddle has for GPUs only, built on gloo.

They are active in CPU processes only (`install`); with a GPU nothing here is called. Everything else (fleet's layers
and optimizers, PaddleNLP's Trainer) runs as over NCCL. Written for Paddle 3.3.1: a newer version may have kernels of
its own, and the names replaced here are not public.

| replaced                                             | by                                                        |
|------------------------------------------------------|-----------------------------------------------------------|
| ProcessGroupGloo.all_reduce_on_calc_stream           | its all_reduce                                            |
| ProcessGroupGloo.reduce_scatter_tensor               | all_reduce, of which a rank keeps its part                |
| the operators c_identity, c_concat                   | nothing; all_gather with a backward pass of its own       |
| tensor_parallel.broadcast_input_data (asserts a GPU) | a broadcast of each tensor                                |
| sharding.group_sharded_parallel (asserts a GPU)      | the same two classes, told that they are on one           |
| collective._new_process_group_impl                   | the same, with a store of the group's own                 |

The last one is not a missing kernel but a race. All groups store the addresses of their ranks under the same keys of
one store, and a rank that reads before the others have written finds the addresses of the previous group ("Connection
refused", or a wait without end). With four processes every second start failed.
"""

import os
import socket
from functools import partialmethod
from typing import Any
from unittest import mock

import paddle
from paddle import Tensor, _C_ops, nn
from paddle import distributed as dist
from paddle.autograd import PyLayer
from paddle.base import core
from paddle.base.core import ProcessGroupGloo, TCPStore
from paddle.distributed import collective, sharding
from paddle.distributed.communication.group import Group
from paddle.distributed.fleet.meta_parallel import tensor_parallel
from paddle.distributed.fleet.meta_parallel.sharding.group_sharded_optimizer_stage2 import GroupShardedOptimizerStage2
from paddle.distributed.fleet.meta_parallel.sharding.group_sharded_stage2 import GroupShardedStage2
from paddle.distributed.fleet.meta_parallel.sharding.group_sharded_storage import ParamStorage
from paddle.optimizer import Optimizer

STORE_TIMEOUT = 900  # seconds a rank waits for the others when a group is made; Paddle's own default
_new_group = collective._new_process_group_impl
_stores: list[TCPStore] = []  # kept alive: the first rank of a group serves its store


def install() -> None:
    """Installs the replacements in this process, before groups are made (`fleet.init`); calling twice is safe."""
    collective._new_process_group_impl = _new_group_with_store
    ProcessGroupGloo.all_reduce_on_calc_stream = _all_reduce
    ProcessGroupGloo.reduce_scatter_tensor = _reduce_scatter
    _C_ops.c_identity = _same
    _C_ops.c_concat = _concat
    tensor_parallel.broadcast_input_data = _broadcast_inputs
    sharding.group_sharded_parallel = _shard_gradients


def _new_group_with_store(
    backend: str, store: TCPStore, rank: int, world_size: int, group_name: str, **options: Any
) -> ProcessGroupGloo:
    host = os.environ["PADDLE_CURRENT_ENDPOINT"].rpartition(":")[0]
    if rank == 0:
        with socket.socket() as visitor:
            visitor.bind((host, 0))
            port = visitor.getsockname()[1]
        own = TCPStore(host, port, True, 1, STORE_TIMEOUT)
        store.set(group_name, f"{host}:{port}")
    else:
        host, _, port = store.get(group_name).decode().rpartition(":")  # blocks until it is set
        own = TCPStore(host, int(port), False, 1, STORE_TIMEOUT)
    _stores.append(own)
    return _new_group(backend, own, rank, world_size, group_name, **options)


def _all_reduce(process_group: ProcessGroupGloo, tensor: Tensor, operation: Any) -> None:
    process_group.all_reduce(tensor, operation, False).wait()


class _Done:
    """The task object of a collective that has completed."""

    def wait(self) -> bool:
        return True


def _reduce_scatter(
    process_group: ProcessGroupGloo, output: Tensor, whole: Tensor, operation: Any, sync_op: bool
) -> _Done:
    """Sums [ranks * n, ...] over the ranks and writes this rank's part to `output`, [n, ...]."""
    total = whole.clone()
    _all_reduce(process_group, total, operation)
    n = output.shape[0]
    paddle.assign(total[process_group.rank() * n : (process_group.rank() + 1) * n], output)
    return _Done()


def _same(tensor: Tensor, ring_id: int, use_calc_stream: bool, use_model_parallel: bool) -> Tensor:
    return tensor


class _Concat(PyLayer):
    """Concatenates the ranks' tensors [..., n]. Without its own backward pass the gradient would be lost silently."""

    @staticmethod
    def forward(ctx, part: Tensor, rank: int, group: Group) -> Tensor:
        ctx.place = slice(rank * part.shape[-1], (rank + 1) * part.shape[-1])
        parts: list[Tensor] = []
        dist.all_gather(parts, part.contiguous(), group=group)
        return paddle.concat(parts, axis=-1)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        """[..., ranks * n], equal on all ranks -> [..., n]"""
        return grad[..., ctx.place].contiguous()


def _concat(part: Tensor, rank: int, ranks: int, ring_id: int, use_calc_stream: bool, use_model_parallel: bool):
    return _Concat.apply(part, rank, dist.get_group(ring_id))


def _broadcast_inputs(hcg: Any, *inputs: Any, **named_inputs: Any) -> tuple[tuple, dict]:
    """Broadcasts the first rank's tensors in the tensor-parallel group; other arguments are the same already."""
    group, first = hcg.get_model_parallel_group(), hcg.get_model_parallel_group_src_rank()
    for value in (*inputs, *named_inputs.values()):
        if isinstance(value, Tensor):
            dist.broadcast(value, src=first, group=group)
    return inputs, named_inputs


def _shard_gradients(
    model: nn.Layer, optimizer: Optimizer, level: str, *, group: Group, dp_group: Group, **options: Any
) -> tuple[GroupShardedStage2, GroupShardedOptimizerStage2, None]:
    """Applies sharding stage 2: each process owns the gradients and optimizer state of its share of the weights."""
    common = {"group": group, "dp_group": dp_group, "device": "cpu"}
    with (
        mock.patch.object(core, "is_compiled_with_cuda", lambda: True),
        mock.patch.object(paddle, "get_device", lambda: "cpu:0"),
        mock.patch.object(
            ParamStorage, "add_rank_params", partialmethod(ParamStorage.add_rank_params, convert_gpu=False)
        ),
    ):
        sharded = GroupShardedOptimizerStage2(params=optimizer._parameter_list, optim=optimizer, **common)
        return GroupShardedStage2(model, sharded, **common), sharded, None
