"""Stores tensors of a run under the names of the weights, because Paddle's own names differ between processes."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import paddle
from paddle import Tensor, nn
from paddle.base.framework import default_main_program

from glm.checkpoint.safetensors_files import write_safetensors
from glm.checkpoint.tensors import LazyTensor
from glm.errors import InputError

MASTER = "master_weight"  # the float32 copy of a weight that is trained in half precision


def named_state(model: nn.Layer, optimizer: paddle.optimizer.Optimizer) -> dict[str, Tensor]:
    """Returns the optimizer's tensors, named `<weight>/<kind of state>`.

    Paddle puts `<weight>_<what it is>_<number>` in its state, with a name for the weight that counts the layers made
    so far in the process.
    """
    names = {weight.name: name for name, weight in model.named_parameters()}
    state = dict(optimizer.state_dict())
    state.pop("LR_Scheduler", None)
    masters = state.pop("master_weights", {})
    named = {}
    for key, tensor in state.items():
        weight = key.rpartition("_")[0]
        while weight not in names:
            weight = weight.rpartition("_")[0]
        named[f"{names[weight]}/{key[len(weight) + 1 :]}"] = tensor
    return named | {f"{names[weight]}/{MASTER}": tensor for weight, tensor in masters.items()}


def load_named_state(
    model: nn.Layer,
    optimizer: paddle.optimizer.Optimizer,
    tensors: Mapping[str, LazyTensor],
    scheduler: dict,
    *,
    sharding_rank: int = 0,
) -> None:
    """Loads a state from `named_state` into an optimizer that has made no step.

    Args:
        scheduler: the state of its learning rate.
        sharding_rank: rank whose weights' state is taken, if the optimizer is sharded; that of others would stay in
            memory.

    Raises:
        InputError: a name belongs to no weight.
    """
    weights = dict(model.named_parameters())
    owners = getattr(optimizer, "_param2rank", {})  # of fleet's optimizers of stage 1 and stage 2
    state: dict = {"LR_Scheduler": scheduler}
    restored: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        weight, _, what = name.rpartition("/")
        if weight not in weights:
            raise InputError(f"the checkpoint's optimizer has {name}, and the model no {weight or name}")
        if owners.get(weights[weight].name, sharding_rank) != sharding_rank:
            continue
        if what == MASTER:
            state.setdefault("master_weights", {})[weights[weight].name] = paddle.to_tensor(tensor.load())
        else:
            state[f"{weights[weight].name}_{what}"] = paddle.to_tensor(tensor.load())
        restored[weight] = weights[weight]
    optimizer.set_state_dict(state)
    _take_over(optimizer, [*restored.values()])


def _take_over(optimizer: paddle.optimizer.Optimizer, weights: list[Tensor]) -> None:
    """Makes the optimizer's own tensors of what was loaded, for these weights.

    Paddle keeps what was loaded aside until a weight's first step. Until all weights have had theirs, it refuses a
    weight without a state (its task had no example before the checkpoint), and it leaves what is still aside out of
    the next checkpoint.
    """
    while inner := vars(optimizer).get("_inner_opt") or vars(optimizer).get("_optim"):  # fleet's wrappers
        optimizer = inner
    optimizer._create_accumulators(default_main_program().global_block(), weights)


def lazy_tensors(tensors: Mapping[str, Tensor]) -> dict[str, LazyTensor]:
    """Returns tensors that are copied to the CPU's memory only when they are loaded."""
    return {
        name: LazyTensor(tuple(tensor.shape), str(tensor.dtype).removeprefix("paddle."), tensor.numpy)
        for name, tensor in tensors.items()
    }


def write_tensors(path: Path, tensors: Mapping[str, LazyTensor]) -> None:
    """Writes a safetensors file, loading one tensor at a time.

    Raises:
        InputError: a number is not finite.
    """
    write_safetensors(path, {name: _checked(name, tensor) for name, tensor in tensors.items()}, framework="np")


def check_finite(tensors: Mapping[str, LazyTensor]) -> None:
    """Raises InputError if a number is not finite."""
    for name, tensor in tensors.items():
        _checked(name, tensor).load()


def _checked(name: str, tensor: LazyTensor) -> LazyTensor:
    def load() -> np.ndarray:
        numbers = tensor.load()
        if not _is_finite(numbers, tensor.dtype):
            raise InputError(f"{name} is not finite; nothing of this step is saved")
        return numbers

    return LazyTensor(tensor.shape, tensor.dtype, load)


def _is_finite(numbers: np.ndarray, dtype: str) -> bool:
    """Whether all numbers are finite; NumPy holds bfloat16 as its bits."""
    if dtype == "bfloat16":
        return bool(((numbers & 0x7F80) != 0x7F80).all())
    if numbers.dtype.kind != "f":
        return True
    with np.errstate(over="ignore", invalid="ignore"):
        # The sum needs one pass and no copy.
        return bool(np.isfinite(numbers.sum())) or bool(np.isfinite(numbers).all())
