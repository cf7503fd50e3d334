"""Stand-ins for what fleet's tensor parallelism needs and Paddle has no CPU version of, made of gloo's collectives.

Active in CPU processes only (`install`); with a GPU nothing here is ever called. Everything else, fleet's layers and
optimizers and PaddleNLP's Trainer, runs as it does over NCCL. Written for Paddle 3.3.1: a newer one may bring kernels
of its own, and the names that are replaced here are not public.

| replaced                                             | by                                                        |
|------------------------------------------------------|-----------------------------------------------------------|
| ProcessGroupGloo.all_reduce_on_calc_stream           | its all_reduce                                            |
| ProcessGroupGloo.reduce_scatter_tensor               | all_reduce, of which a rank keeps its part                |
| the operators c_identity, c_concat                   | a copy; all_gather with a backward pass of its own        |
| tensor_parallel.broadcast_input_data (asserts a GPU) | a broadcast of each tensor                                |
"""

from typing import Any

import paddle
from paddle import Tensor, _C_ops
from paddle import distributed as dist
from paddle.autograd import PyLayer
from paddle.base.core import ProcessGroupGloo
from paddle.distributed.fleet.meta_parallel import tensor_parallel


def install() -> None:
    """Puts the stand-ins into this process, which is to run on the CPU. A second call changes nothing."""
    ProcessGroupGloo.all_reduce_on_calc_stream = _all_reduce
    ProcessGroupGloo.reduce_scatter_tensor = _reduce_scatter
    _C_ops.c_identity = _copy
    _C_ops.c_concat = _concat
    tensor_parallel.broadcast_input_data = _broadcast_inputs


def _all_reduce(process_group: ProcessGroupGloo, tensor: Tensor, operation: Any) -> None:
    process_group.all_reduce(tensor, operation, False).wait()


class _Done:
    """The task of a collective that has ended."""

    def wait(self) -> bool:
        return True


def _reduce_scatter(
    process_group: ProcessGroupGloo, output: Tensor, whole: Tensor, operation: Any, sync_op: bool
) -> _Done:
    """[ranks * n, ...] summed over the ranks; `output` [n, ...] becomes this rank's part."""
    total = whole.clone()
    _all_reduce(process_group, total, operation)
    n = output.shape[0]
    paddle.assign(total[process_group.rank() * n : (process_group.rank() + 1) * n], output)
    return _Done()


def _copy(tensor: Tensor, ring_id: int, use_calc_stream: bool, use_model_parallel: bool) -> Tensor:
    return paddle.assign(tensor)


class _Concat(PyLayer):
    """The ranks' tensors [..., n] side by side. Without a backward pass the gradient would be lost without a word."""

    @staticmethod
    def forward(ctx, part: Tensor, rank: int, group: dist.communication.group.Group) -> Tensor:
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
    """Gives all ranks of the tensor-parallel group the tensors of the first; other arguments are the same already."""
    group, first = hcg.get_model_parallel_group(), hcg.get_model_parallel_group_src_rank()
    for value in (*inputs, *named_inputs.values()):
        if isinstance(value, Tensor):
            dist.broadcast(value, src=first, group=group)
    return inputs, named_inputs
