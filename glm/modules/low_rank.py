"""LoRA beside linear layers that stay as they are: a row of a batch passes through the matrices of its own task.

Merged into a layer, LoRA (Hu et al. 2021) is a model of its own; apart from it, many share one, and a batch.
"""

import math
from collections.abc import Mapping

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn
from paddle.distributed import all_reduce
from paddle.distributed.fleet.layers.mpu.mp_ops import _c_identity
from paddle.distributed.fleet.meta_parallel import RowParallelLinear

from glm.cpu.arrays import draw_seed
from glm.modules.bottleneck import Routes
from glm.modules.tensors import as_tensor

Pair = tuple[np.ndarray, np.ndarray]  # A [inputs, rank] and B [rank, outputs], which is scaled


class Routing:
    """Which rows go where, in the pass that a stack is in.

    Attributes:
        routes: of the pass.
        tasks: that have matrices.
    """

    def __init__(self):
        self.routes: Routes = ()
        self.tasks: set[str] = set()

    @property
    def is_needed(self) -> bool:
        """Whether rows of the pass meet matrices."""
        return any(name in self.tasks for name, _ in self.routes)


class LowRankLinear(nn.Layer):
    """A linear layer, and of each task what it adds: x W + b + x A B. It can only decode.

    Args:
        linear: [n, inputs] -> [n, outputs]; of inputs that are split over ranks the products are summed.
        routing: of the stack that it is in.
    """

    def __init__(self, linear: nn.Layer, routing: Routing):
        super().__init__()
        self.linear = linear
        self.routing = routing
        self.group = linear.model_parallel_group if isinstance(linear, RowParallelLinear) else None
        self.matrices: dict[str, tuple[Tensor, Tensor]] = {}

    def forward(self, states: Tensor) -> Tensor:
        """[n, inputs] -> [n, outputs]"""
        output = self.linear(states)
        for name, rows in self.routing.routes:
            if name not in self.matrices:
                continue
            first, second = self.matrices[name]
            narrow = paddle.matmul(states if rows is None else states.gather(rows), first)  # [m, rank]
            if self.group is not None:
                all_reduce(narrow, group=self.group)
            added = paddle.matmul(narrow, second)
            if rows is None:
                output = output + added
            else:
                output = paddle.scatter(output, rows, output.gather(rows) + added)
        return output


def new_numbers() -> np.random.Generator:
    """Random numbers for new matrices, the same on all ranks."""
    return np.random.default_rng(draw_seed())


def draw_first(layer: nn.Layer, numbers: np.random.Generator, *, degree: int, rank: int) -> None:
    """Draws the matrix A of a linear layer of PaddleNLP's with LoRA, distributed as PaddleNLP's are.

    Every rank draws the whole of it and keeps its own part, if the layer's inputs are split.
    """
    first = layer.lora_A
    parts = degree if isinstance(layer, RowParallelLinear) else 1
    inputs, width = first.shape[0] * parts, first.shape[1]
    whole = numbers.uniform(-1, 1, (inputs, width)) / math.sqrt(inputs)
    first.set_value(paddle.to_tensor(np.split(whole, parts)[rank % parts], dtype=first.dtype))


def multiply_split(layer: nn.Layer, states: Tensor) -> Tensor:
    """Computes a linear layer of PaddleNLP's with LoRA whose outputs are split, in training: [..., H] -> [..., O].

    PaddleNLP's own forward gives the states to `_c_identity`, which returns the very tensor, and takes them again
    behind it: LoRA's share of their gradient is summed over the ranks twice. Here it gets a copy.
    """
    group = layer.model_parallel_group
    output = F.linear(_c_identity(states.clone(), group=group), layer.weight, layer.bias)
    narrow = layer.lora_dropout(states) @ layer.lora_A
    return output + (_c_identity(narrow, group=group) @ layer.lora_B) * layer.scaling


def add_low_rank(model: nn.Layer, stack: nn.Layer, task: str, pairs: Mapping[str, Pair]) -> None:
    """Puts a task's matrices beside linear layers of a model that is ready to decode.

    Args:
        stack: whose routing says which rows are the task's.
        pairs: by the names of the layers, or this rank's parts of them.
    """
    left = dict(pairs)
    for place, layer in model.named_sublayers(include_self=True):
        for name, part in layer.named_children():
            if (pair := left.pop(f"{place}.{name}", None)) is None:
                continue
            if not isinstance(part, LowRankLinear):
                part = LowRankLinear(part, stack.routing)
                setattr(layer, name, part)
            dtype = part.linear.weight.dtype if hasattr(part.linear, "weight") else paddle.float32
            part.matrices[task] = tuple(as_tensor(matrix).astype(dtype) for matrix in pair)
    if left:
        raise ValueError(f"{next(iter(left))} is no layer of the model")
    stack.routing.tasks.add(task)


def remove_low_rank(stack: nn.Layer, task: str) -> None:
    """Takes a task's matrices out of a stack."""
    stack.routing.tasks.discard(task)
    for layer in stack.sublayers():
        if isinstance(layer, LowRankLinear):
            layer.matrices.pop(task, None)
