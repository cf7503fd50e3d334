"""Adapters of several folders for one model: opened together, put into it, or joined in one folder."""

import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from paddle import nn
from safetensors.numpy import save_file

from glm.adapters.bottleneck import (
    BOTTLENECK_CONFIG_NAME,
    BottleneckConfig,
    add_bottlenecks,
    check_base,
    place_tasks,
    remove_task,
    settle_rows,
)
from glm.adapters.files import (
    ADAPTER_FILES,
    ADAPTER_WEIGHTS_NAME,
    LORA_CONFIG_NAME,
    LORAS,
    Pair,
    fill_adapter,
    lora_pairs,
    name_of_base,
    put_lora,
    read_adapter_config,
    read_adapter_weights,
    target_names,
    write_adapter,
)
from glm.adapters.schema import LoRASettings
from glm.errors import InputError, shown
from glm.models.protocol import TASK_NAME, WeightNames
from glm.options.run_config import TrainedWith, trained_with
from glm.parallel.plan import LORA_AXES, Plan, part_of_weight
from glm.runtime.atomic import new_folder
from glm.runtime.settings_file import checked

TOGETHER = ("adapters.", "rows.")  # prefixes of a task's weights, before the task's name
BASE = "base_model_name_or_path"


@dataclass(frozen=True)
class OpenedAdapters:
    """Adapters of several tasks, by the names chosen here.

    Args:
        config: of all residual ones together; None if there is none.
        loras: settings of the others, LoRA's.
        sources: of each task its folder, and what it is called there.
    """

    config: BottleneckConfig | None
    loras: dict[str, LoRASettings]
    sources: dict[str, tuple[Path, str]]

    @property
    def names(self) -> tuple[str, ...]:
        """Of the tasks, in the order of their numbers."""
        return tuple(self.sources)

    def settings(self, name: str) -> dict[str, Any]:
        """How records of a task are read and its texts written, where its run says it.

        Raises:
            InputError: it says what cannot be.
        """
        folder = self.sources[name][0]
        if name in self.loras:
            return trained_with(str(folder))
        return checked(self.config.tasks[name]["settings"], TrainedWith, folder).model_dump(exclude_unset=True)

    def weights(self) -> dict[str, np.ndarray]:
        """All weights of residual ones by name. Raises InputError if a file cannot be read."""
        found = {}
        for name, (folder, own) in self.sources.items():
            for weight, numbers in ({} if name in self.loras else read_adapter_weights(folder)).items():
                if (renamed := _renamed(weight, own, name)) is not None:
                    found[renamed] = numbers
        return found

    @property
    def first(self) -> Path:
        """The first folder of residual ones, for messages."""
        return next(folder for name, (folder, _) in self.sources.items() if name not in self.loras)

    def check_weights(self, digests: Callable[[], Mapping[str, str]]) -> None:
        """Raises InputError if residual ones are of another model.

        Args:
            digests: gives those of the model's weights; they take a while.
        """
        if self.config is not None:
            check_base(self.config.base_tensors, digests(), origin=self.first)

    def check_model(self, name_or_path: str) -> None:
        """Raises InputError if LoRA is of another model than this, which no digests tell."""
        for name, settings in self.loras.items():
            base = settings.base_model_name_or_path
            if base != name_or_path and Path(base).resolve() != Path(name_or_path).resolve():
                raise InputError(
                    f"adapter {self.sources[name][0]}: is of the model {base}, and this is {name_or_path}; use that "
                    f"one, or set base_model_name_or_path in its {LORA_CONFIG_NAME}"
                )


def _renamed(weight: str, own: str, name: str) -> str | None:
    """Returns the new name of a task's weight if the task is renamed; None for another task's weight."""
    for before in TOGETHER:
        head, mark, rest = weight.partition(f".{before}")
        if mark and (rest == own or rest.startswith(f"{own}.")):
            return f"{head}{mark}{name}{rest.removeprefix(own)}"
    return None


def named_folders(values: Sequence[str]) -> Iterator[tuple[str, Path]]:
    """Splits `NAME=FOLDER` into name and folder; the name of a bare `FOLDER` is empty."""
    for value in values:
        name, mark, folder = value.strip().partition("=")
        yield (name.strip(), Path(folder)) if mark else ("", Path(name))


def open_adapters(values: Sequence[str]) -> OpenedAdapters:
    """Opens the folders that `NAME=FOLDER` or `FOLDER` names: of one task or of several, residual ones or LoRA.

    Raises:
        InputError: a folder has none, two are of different models, or a task is there twice.
    """
    opened = OpenedAdapters(None, {}, {})
    for name, folder in named_folders(values):
        found, joined = read_adapter_config(folder), sorted((folder / LORAS).glob(f"*/{LORA_CONFIG_NAME}"))
        if isinstance(found, BottleneckConfig):
            opened = _with_bottlenecks(opened, found, name, folder)
        elif isinstance(found, LoRASettings):
            _add_lora(opened, found, name, folder)
        elif not joined:
            raise InputError(
                f"adapters {folder}: the folder has no adapters ({BOTTLENECK_CONFIG_NAME} or {LORA_CONFIG_NAME})"
            )
        if name and joined:
            tasks = ", ".join([*(found.tasks if found else ()), *(path.parent.name for path in joined)])
            raise InputError(f"adapters {name}={folder}: holds {tasks}; leave out the name")
        for path in joined:
            _add_lora(opened, read_adapter_config(path.parent), "", path.parent)
    if not opened.sources:
        raise InputError("adapters: write NAME=FOLDER, several with commas between them")
    return opened


def _add_lora(opened: OpenedAdapters, found: LoRASettings, name: str, folder: Path) -> None:
    _add_source(opened.sources, name or folder.name, folder, own="")
    opened.loras[name or folder.name] = found


def _with_bottlenecks(opened: OpenedAdapters, found: BottleneckConfig, name: str, folder: Path) -> OpenedAdapters:
    """What was opened, and the residual adapters of another folder."""
    if opened.config is not None:
        check_base(opened.config.base_tensors, found.base_tensors, origin=folder)
    if name and len(found.tasks) > 1:
        raise InputError(f"adapters {name}={folder}: holds {', '.join(found.tasks)}; leave out the name")
    config = opened.config or replace(found, tasks={}, rows={})
    for own, settings in found.tasks.items():
        here = name or own
        _add_source(opened.sources, here, folder, own=own)
        config.tasks[here] = settings
        if own in found.rows:
            config.rows[here] = found.rows[own]
    return replace(opened, config=config)


def _add_source(sources: dict[str, tuple[Path, str]], name: str, folder: Path, *, own: str) -> None:
    if not re.fullmatch(TASK_NAME, name):
        raise InputError(
            f"adapters {shown(name)}={folder}: a name is of letters, digits, _, + and -; write NAME=FOLDER"
        )
    if name in sources:
        raise InputError(f"adapters {folder}: the task {name} is in {sources[name][0]} too; take one of them out")
    sources[name] = folder, own


def put_adapters(model: nn.Layer, adapters: OpenedAdapters) -> None:
    """Gives tasks their numbers in a model, and puts the residual adapters among them into it, with their weights.

    Raises:
        InputError: they do not fit the model, or it has one of the tasks already.
    """
    place_tasks(model, adapters.names)
    if adapters.config is None:
        return
    for weight in model.parameters():  # those of others are there to stay
        weight.stop_gradient = True
    try:
        add_bottlenecks(model, adapters.config)
        fill_adapter(model, adapters.weights(), adapters.first)
    except InputError:
        take_out(model, adapters.names)
        raise
    settle_rows(model)


def take_out(model: nn.Layer, names: Sequence[str]) -> None:
    """Takes tasks out of a model."""
    for name in names:
        remove_task(model, name)


def put_loras(names: WeightNames, model: nn.Layer, adapters: OpenedAdapters) -> None:
    """Puts LoRA of several tasks beside the layers of a model that is ready to decode.

    Args:
        names: of the family's weights.

    Raises:
        InputError: a file is missing, cannot be read, or is of another model.
    """
    shapes, config = names.shapes(model.config.to_dict()), model.config
    places = (name.removesuffix(".weight") for name in shapes if name.endswith(".weight"))
    linears = [place for place in places if place.rpartition(".")[2] in names.lora_targets]
    for name, settings in adapters.loras.items():
        sizes = {layer: shapes[f"{layer}.weight"] for layer in target_names(settings, linears)}
        pairs = lora_pairs(settings, sizes, adapters.sources[name][0])
        if config.tensor_parallel_degree > 1:
            ranks = {"degree": config.tensor_parallel_degree, "rank": config.tensor_parallel_rank}
            pairs = {layer: _part_of_pair(names.plan, layer, pair, **ranks) for layer, pair in pairs.items()}
        put_lora(model, name, pairs)


def _part_of_pair(plan: Plan, layer: str, pair: Pair, *, degree: int, rank: int) -> Pair:
    """A rank's part of LoRA's matrices: that is split which meets the axis over which the layer's weight is."""
    matrices = zip(LORA_AXES, pair, strict=True)
    return tuple(part_of_weight(plan, layer + name, whole, degree=degree, rank=rank) for name, whole in matrices)


def join_adapters(values: Sequence[str], output: Path) -> OpenedAdapters:
    """Writes the adapters of several folders into a new one: residual ones in one file, with tokenizer and settings of
    the first, and each LoRA in a folder of its own, as it is.

    Raises:
        InputError: as `open_adapters`; or the folder holds something, or LoRA is of another model than the others.
    """
    opened = open_adapters(values)
    bases = [opened.config.base_model_name_or_path] if opened.config else []
    for settings in opened.loras.values():
        bases.append(settings.base_model_name_or_path)
    opened.check_model(bases[0])
    base = name_of_base(bases[0], str(output))
    with new_folder(output) as folder:
        if opened.config is not None:
            _copy_settings(opened.first, folder)
            save_file(opened.weights(), str(folder / ADAPTER_WEIGHTS_NAME), metadata={"format": "np"})
            replace(opened.config, base_model_name_or_path=base).save(folder)
        for name, settings in opened.loras.items():
            source, own = opened.sources[name][0], folder / LORAS / name
            own.mkdir(parents=True)
            _copy_settings(source, own)
            write_adapter(read_adapter_weights(source), settings.model_copy(update={BASE: base}), own)
    return opened


def _copy_settings(source: Path, target: Path) -> None:
    """Copies what a run's folder has beside its adapter: tokenizer, settings."""
    for path in source.iterdir():
        if path.is_file() and path.suffix in (".json", ".txt", ".model") and path.name not in ADAPTER_FILES:
            shutil.copyfile(path, target / path.name)
