"""Residual adapters of tasks (`glm.modules.bottleneck`): their settings, and how they are put into a frozen model.

A folder holds the adapters of one task or of several, the rows of the word table that belong to them, and
`bottleneck_config.json`, which names their model and has a digest of each of its weights: with others an adapter means
nothing.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from paddle import nn
from pydantic import Field

from glm.adapters.schema import Name, Size
from glm.errors import InputError, shown
from glm.models.protocol import TASK_NAME
from glm.modules.bottleneck import ADAPTERS, add_adapters, remove_adapters
from glm.modules.low_rank import remove_low_rank
from glm.modules.trained_rows import TrainedRows
from glm.runtime.settings_file import Settings

BOTTLENECK_CONFIG_NAME = "bottleneck_config.json"
DIGITS = 16  # of a digest in hexadecimal
MOST_TASKS, MOST_ROWS = 1024, 1 << 16
PAD_ROWS = "pad"  # name of the rows that several tasks train together

TaskName = Annotated[str, Field(min_length=1, max_length=200, pattern=TASK_NAME)]
Digest = Annotated[str, Field(pattern=f"^[0-9a-f]{{{DIGITS}}}$")]
Row = Annotated[int, Field(ge=0, lt=1 << 24)]


class TaskSettings(Settings):
    """One task: the width of its adapters, and how its records are read and its texts written."""

    bottleneck: Size
    settings: dict[str, Any] = {}


class BottleneckSettings(Settings):
    """`bottleneck_config.json`."""

    base_model_name_or_path: Name | None = None
    base_tensors: Annotated[dict[str, Digest], Field(max_length=1 << 16)]
    tasks: Annotated[dict[TaskName, TaskSettings], Field(min_length=1, max_length=MOST_TASKS)]
    rows: Annotated[
        dict[TaskName, Annotated[list[Row], Field(max_length=MOST_ROWS)]], Field(max_length=MOST_TASKS)
    ] = {}


@dataclass
class BottleneckConfig:
    """Settings of the adapters in a folder, or in a model.

    Args:
        base_model_name_or_path: the folder or published name of the model.
        base_tensors: a digest of each of its weights, by name.
        tasks: by name, the `bottleneck` of each, and its `settings` (`glm.options.run_config.TrainedWith`).
        rows: the rows of the word table that are trained, by what they belong to.
        up_std: standard deviation for a new adapter, see `glm.modules.bottleneck.Bottleneck`; not saved.
    """

    base_model_name_or_path: str | None
    base_tensors: dict[str, str]
    tasks: dict[str, dict[str, Any]]
    rows: dict[str, list[int]] = field(default_factory=dict)
    up_std: float = 0.0

    def save(self, folder: Path) -> None:
        """Writes the settings into a folder."""
        content = {name: value for name, value in asdict(self).items() if name != "up_std"}
        text = json.dumps(content, ensure_ascii=False, indent=2)
        (folder / BOTTLENECK_CONFIG_NAME).write_text(text + "\n", encoding="utf-8")

    def number_of(self, name: str, order: Sequence[str] = ()) -> int:
        """Returns the number of a task, in the order of the family's own tasks if it has any.

        Raises:
            InputError: there is no adapter of this name.
        """
        if name not in self.tasks:
            raise InputError(f"task_name {name}: the adapters are of {', '.join(self.tasks)}; use one of these")
        return list(order or self.tasks).index(name)


def new_bottlenecks(
    base: str,
    digests: dict[str, str],
    *,
    tasks: Sequence[str],
    width: int,
    rows: Mapping[str, list[int]],
    up_std: float,
) -> BottleneckConfig:
    """Makes settings of new adapters of one width.

    Args:
        base: what the files are to call the model.
        digests: of the model's weights, by name.
    """
    of_tasks = {name: {"bottleneck": width, "settings": {}} for name in tasks}
    return BottleneckConfig(base, digests, of_tasks, dict(rows), up_std)


def digests_of(model: nn.Layer) -> dict[str, str]:
    """A digest of each weight of a model, by name."""
    return {name: digest_of(weight.numpy()) for name, weight in model.named_parameters()}


def digest_of(weight: np.ndarray) -> str:
    """Of one weight in float32."""
    return hashlib.sha256(weight.tobytes()).hexdigest()[:DIGITS]


def check_base(before: Mapping[str, str], now: Mapping[str, str], *, origin: object) -> None:
    """Raises InputError, naming the first weight that differs, if adapters belong to another model.

    Args:
        before: digests of the weights that they were trained with.
        origin: where the adapters are from.
    """
    for name in {**before, **now}:
        if before.get(name) != now.get(name):
            raise InputError(f"adapter {origin}: was trained with another model ({shown(name)} differs); use that one")


def put_bottlenecks(model: nn.Layer, config: BottleneckConfig) -> None:
    """Freezes a model and adds new adapters to it.

    Raises:
        InputError: the model has an adapter of such a name already, or the family has no such task.
    """
    for weight in model.parameters():
        weight.stop_gradient = True
    place_tasks(model, list(config.tasks))
    add_bottlenecks(model, config)
    (stack,) = model.stacks
    for adapter in (block.adapters[name] for name in config.tasks for block in stack.layers):
        adapter.draw()


def place_tasks(model: nn.Layer, names: Sequence[str]) -> None:
    """Gives tasks their numbers in a model: those of the family's own tasks, or the next ones.

    Raises:
        InputError: the model has such a task already, or the family has no such one.
    """
    (stack,) = model.stacks
    own = tuple(getattr(model, "task_names", ()))
    present = list(stack.adapter_names) or [""] * len(own)
    for name in names:
        if own and name not in own:
            raise InputError(f"adapter {name}: the model's tasks are {', '.join(own)}; use one of these")
        if own and present[own.index(name)] or not own and name in present:
            raise InputError(f"adapter {name}: the model has one for this task already; take one of them out")
        place = own.index(name) if own else len(present)
        present[place : place + 1] = [name]
    stack.adapter_names = tuple(present)


def add_bottlenecks(model: nn.Layer, config: BottleneckConfig) -> None:
    """Gives the blocks of a model adapters of tasks that have their numbers.

    Raises:
        InputError: a row is to be trained that the word table does not have.
    """
    (stack,) = model.stacks
    for name, settings in config.tasks.items():
        add_adapters(stack, name, settings["bottleneck"], up_std=config.up_std)
    if config.rows:
        embedding = model.head.embedding
        if (last := max(map(max, config.rows.values()))) >= embedding.weight.shape[0]:
            raise InputError(f"rows: the word table has {embedding.weight.shape[0]}, and row {last} is to be trained")
        embedding.rows = TrainedRows(embedding.weight, config.rows)


def remove_task(model: nn.Layer, name: str) -> None:
    """Takes a task out of a model; its number is no other's, so that what still has it meets no other adapter."""
    (stack,) = model.stacks
    remove_adapters(stack, name)
    remove_low_rank(stack, name)
    stack.adapter_names = tuple("" if other == name else other for other in stack.adapter_names)


def is_of_bottleneck(name: str) -> bool:
    """Whether a weight of this name belongs to an adapter, or is a row trained beside it."""
    return f".{ADAPTERS}." in name or "_embeddings.rows." in name


def task_of_weight(name: str) -> str | None:
    """Returns the task that a weight of this name belongs to; None if it is no adapter's."""
    _, mark, rest = name.partition(f".{ADAPTERS}.")
    return rest.partition(".")[0] if mark else None


def settle_rows(model: nn.Layer) -> None:
    """Writes trained rows into the word table, for a model that is not trained any further."""
    embedding = model.head.embedding
    if getattr(embedding, "rows", None) is not None:
        embedding.rows.write(embedding.weight)
        embedding.rows = None
