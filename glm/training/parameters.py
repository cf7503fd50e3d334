"""Selects by name which weights of a model are trained, and how fast: freezing and layer-wise learning rates."""

import math
import re
from collections.abc import Iterator

import paddle
from paddle import Tensor, distributed, nn
from paddle.distributed.communication.group import Group

from glm.adapters.bottleneck import task_of_weight
from glm.cpu.arrays import squared_norms
from glm.errors import UsageError, shown
from glm.models.protocol import WeightNames

LAYER_RANGE = re.compile(r"layers\.([0-9]{1,6})(?:-([0-9]{1,6}))?")
MOST_PARTS = 256  # in one `--freeze`


def trained(model: nn.Layer) -> Iterator[tuple[str, Tensor]]:
    """Returns names and weights that are not frozen."""
    return ((name, weight) for name, weight in model.named_parameters() if not weight.stop_gradient)


def reached(model: nn.Layer) -> Iterator[tuple[str, Tensor]]:
    """Returns names and weights that are not frozen and have a gradient."""
    return ((name, weight) for name, weight in trained(model) if gradient(weight) is not None)


def gradient(weight: Tensor) -> Tensor | None:
    """Returns a weight's gradient; with --amp_master_grad it is a float32 one beside the usual one."""
    return getattr(weight, "main_grad", None) if weight.grad is None else weight.grad


def has_idle_parts(model: nn.Layer) -> bool:
    """Whether an update may leave weights out: those of a task without an example, or what the model says (`idle`)."""
    return hasattr(model, "idle") or len({task_of_weight(name) for name, _ in trained(model)} - {None}) > 1


def gradient_norm(model: nn.Layer, group: Group | None = None) -> float:
    """Returns the 2-norm of all gradients together, which `--max_grad_norm` limits.

    Args:
        group: the processes that the model is split over.
    """
    weights = [weight for _, weight in reached(model)]
    squares = squared_norms([gradient(weight) for weight in weights])
    split, whole = (
        sum(square for weight, square in zip(weights, squares, strict=True) if bool(weight.is_distributed) == is_split)
        for is_split in (True, False)
    )
    if group is not None:
        of_ranks = paddle.to_tensor(float(split))
        distributed.all_reduce(of_ranks, group=group)
        split = float(of_ranks)
    return math.sqrt(split + whole)


def freeze(names: WeightNames, model: nn.Layer, parts: str, *, num_layers: int) -> None:
    """Freezes weights (`--freeze`).

    Args:
        names: the family's names of weights.
        parts: `layers.3`, `layers.0-11` (both ends included), and what the family names beside layers, such as
            `embeddings` (words and positions), joined by `|`.
        num_layers: of the model; 0 where its layers have no numbers, but those of several stacks.

    Raises:
        UsageError: a part is none of these or not in the model, or nothing is left to train.
    """
    if parts.count("|") >= MOST_PARTS:
        raise UsageError(f"freeze {shown(parts)}: has more than {MOST_PARTS} parts; name layers as a range")
    for name, weight in model.named_parameters():
        if is_frozen(names, name, parts, num_layers=num_layers):
            weight.stop_gradient = True
    if not any(True for _ in trained(model)):
        raise UsageError(f"freeze {parts}: leaves nothing to train")


def is_frozen(names: WeightNames, name: str, parts: str, *, num_layers: int) -> bool:
    """Whether `freeze` freezes a weight of this name."""
    of_parts = [(part, _layers(names, part, parts, num_layers)) for part in parts.split("|")]
    own = names.part_of(name)
    return any(own in layers if layers else own == part for part, layers in of_parts)


def _layers(names: WeightNames, part: str, parts: str, num_layers: int) -> range | None:
    """Returns the layers that a part of `--freeze` names; None if it names something else."""
    if part in names.parts:
        return None
    found = LAYER_RANGE.fullmatch(part) if num_layers else None
    if not found:
        *known, last_known = [*(["layers.N", "layers.N-M"] if num_layers else []), *names.parts]
        raise UsageError(
            f"freeze {shown(parts)}: {shown(part) or 'an empty part'} is unknown; join {', '.join(known)} and "
            f"{last_known} by |"
        )
    first, last = int(found[1]), int(found[2] or found[1])
    if not first <= last < num_layers:
        raise UsageError(f"freeze {parts}: {part} is no range of layers of the model, which has 0 to {num_layers - 1}")
    return range(first, last + 1)


def set_layerwise_rates(names: WeightNames, model: nn.Layer, decay: float, *, num_layers: int) -> None:
    """Makes each layer learn `decay` times as fast as the one above it (`--layerwise_lr_decay`; Howard and Ruder
    2018).

    The last layer and the last LayerNorm learn at the full rate, the embeddings once more below the first layer.
    Optimizers multiply their rate by what is noted here at each weight.
    """
    for name, weight in model.named_parameters():
        part = names.part_of(name)
        if isinstance(part, int):
            steps_down = num_layers - 1 - part
        else:
            steps_down = num_layers if part == "embeddings" else 0
        weight.optimize_attr["learning_rate"] = decay**steps_down
