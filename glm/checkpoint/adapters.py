"""Residual adapters from several folders for one model: opened together, loaded into it, or joined in one folder."""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from paddle import nn
from safetensors.numpy import save_file

from glm.adapters.bottleneck import BottleneckConfig, check_base, digests_of, put_bottlenecks, settle_rows
from glm.adapters.files import (
    ADAPTER_WEIGHTS_NAME,
    fill_adapter,
    name_of_base,
    read_adapter_config,
    read_adapter_weights,
)
from glm.checkpoint.loading import load_model
from glm.errors import InputError
from glm.models.configuration import ModelConfig
from glm.models.protocol import Family
from glm.runtime.atomic import new_folder

TOGETHER = ("adapters.", "rows.")  # prefixes of a task's weights, before the task's name


@dataclass(frozen=True)
class OpenedAdapters:
    """Adapters of several tasks, by the names chosen here.

    Args:
        config: settings of all of them together.
        sources: for each task its folder, and its name there.
    """

    config: BottleneckConfig
    sources: dict[str, tuple[Path, str]]

    def weights(self) -> dict[str, np.ndarray]:
        """Returns all weights by name. Raises InputError if a file cannot be read."""
        found = {}
        for name, (folder, own) in self.sources.items():
            for weight, numbers in read_adapter_weights(folder).items():
                if (renamed := _renamed(weight, own, name)) is not None:
                    found[renamed] = numbers
        return found


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
    """Opens the folders of `NAME=FOLDER` or `FOLDER`, each with adapters of one task or more.

    Raises:
        InputError: a folder has none, two are of different models, or a task is there twice.
    """
    sources: dict[str, tuple[Path, str]] = {}
    config: BottleneckConfig | None = None
    for name, folder in named_folders(values):
        found = read_adapter_config(folder)
        if not isinstance(found, BottleneckConfig):
            raise InputError(f"adapters {folder}: the folder has no adapters (bottleneck_config.json)")
        if config is not None:
            check_base(config.base_tensors, found.base_tensors, origin=folder)
        if name and len(found.tasks) > 1:
            raise InputError(f"adapters {name}={folder}: holds {', '.join(found.tasks)}; leave out the name")
        config = config or replace(found, tasks={}, rows={})
        for own, settings in found.tasks.items():
            here = name or own
            if here in sources:
                raise InputError(
                    f"adapters {folder}: the task {here} is in {sources[here][0]} too; take one of them out"
                )
            sources[here] = folder, own
            config.tasks[here] = settings
            if own in found.rows:
                config.rows[here] = found.rows[own]
    if config is None:
        raise InputError("adapters: write NAME=FOLDER, several with commas between them")
    return OpenedAdapters(config, sources)


def load_with_adapters(family: Family, name_or_path: str, config: ModelConfig, adapters: OpenedAdapters) -> nn.Layer:
    """Loads a model with adapters of several tasks.

    Raises:
        InputError: as `load_model`; or the adapters are of another model, or do not fit it.
    """
    model = load_model(family, name_or_path, config)
    origin = next(iter(adapters.sources.values()))[0]
    check_base(adapters.config.base_tensors, digests_of(model), origin=origin)
    put_bottlenecks(model, adapters.config)
    fill_adapter(model, adapters.weights(), origin)
    settle_rows(model)
    return model


def join_adapters(values: Sequence[str], output: Path) -> OpenedAdapters:
    """Writes the adapters of several folders into a new one, with the tokenizer and settings of the first.

    Raises:
        InputError: as `open_adapters`; or the folder holds something.
    """
    opened = open_adapters(values)
    first = next(iter(opened.sources.values()))[0]
    base = name_of_base(opened.config.base_model_name_or_path, str(output))
    with new_folder(output) as folder:
        for path in first.iterdir():
            if path.is_file() and path.suffix in (".json", ".txt", ".model") and "index" not in path.name:
                shutil.copyfile(path, folder / path.name)
        save_file(opened.weights(), str(folder / ADAPTER_WEIGHTS_NAME), metadata={"format": "np"})
        replace(opened.config, base_model_name_or_path=base).save(folder)
    return opened
