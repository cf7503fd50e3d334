"""Base of every family's model: its configuration, random weights, saving to and loading from a folder.

The files are those of PaddleNLP's `PretrainedModel`, which reads them; PaddleNLP itself is not needed.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from paddle import nn
from safetensors.numpy import load_file, save_file

from glm.errors import InputError

WEIGHTS_NAME = "model.safetensors"  # the file that the toolkit saves
MOST_NAMED = 5  # weights named in a message

_draws_weights = True


class DrawnWhenBuilt(type(nn.Layer)):
    """Makes a model draw its random weights when all its parts exist, whichever subclass adds the last one."""

    def __call__(cls, *args, **kwargs):
        model = super().__call__(*args, **kwargs)
        if _draws_weights:
            model.draw_weights()
        return model


class SafePretrainedModel(nn.Layer, metaclass=DrawnWhenBuilt):
    """A model with a configuration that loads no pickle, and no weights that do not fit.

    Attributes:
        config_class: class of its configuration.
        base_model_prefix: what the names of weights of the model without a head have in front of them in one that has
            a head; empty if the family has no such model.
        pretrained_resource_files_map: where PaddleNLP fetches the weights of published names, by kind of file.
    """

    config_class: ClassVar[type]
    base_model_prefix = ""
    pretrained_resource_files_map: ClassVar[dict[str, dict[str, str]]] = {}

    def __init__(self, config: Any):
        super().__init__()
        self.config = config

    def draw_weights(self) -> None:
        """Draws those random weights that differ from Paddle's. Models inside this one have drawn theirs."""

    @classmethod
    @contextmanager
    def without_drawing(cls) -> Iterator[None]:
        """Skips drawing for models built inside, because their weights will be loaded."""
        global _draws_weights
        before, _draws_weights = _draws_weights, False
        try:
            yield
        finally:
            _draws_weights = before

    def save_pretrained(self, save_directory: str | Path, **kwargs) -> None:
        """Writes `config.json` and `model.safetensors` into a folder, which is created if needed.

        Args:
            kwargs: options of PaddleNLP's method about other formats, which are not written.
        """
        self.config.architectures = [type(self).__name__]
        self.config.save_pretrained(str(save_directory))
        weights = {name: weight.numpy() for name, weight in self.state_dict().items()}
        save_file(weights, str(Path(save_directory) / WEIGHTS_NAME), metadata={"format": "np"})

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **kwargs) -> Self:
        """Loads a model in float32 from a folder with safetensors.

        `glm.checkpoint.loading.load_model` reads every format, and published names.

        Args:
            kwargs: fields of the configuration that replace those of the file.

        Raises:
            InputError: the folder has no model.safetensors, or the weights do not fit.
        """
        folder = Path(pretrained_model_name_or_path)
        check_has_weights(folder)
        config = cls.config_class.from_pretrained(str(folder), **kwargs)
        with cls.without_drawing():
            model = cls(config)
        model._take(load_file(str(folder / WEIGHTS_NAME)))
        return model

    def _take(self, saved: Mapping[str, np.ndarray]) -> None:
        """Takes over the weights of a file."""
        own, prefix = self.state_dict(), f"{self.base_model_prefix}."
        # This model has no head, and the file may be of one with a head.
        if not any(name.startswith(prefix) for name in own):
            inner = {name.removeprefix(prefix): value for name, value in saved.items() if name.startswith(prefix)}
            saved = inner or saved
        check_fit(own.keys() - saved.keys(), saved.keys() - own.keys())
        for name, weight in own.items():
            if list(saved[name].shape) != weight.shape:
                raise InputError(f"{name} has the shape {list(saved[name].shape)}; {weight.shape} is expected")
            weight.set_value(saved[name].astype("float32"))


def check_has_weights(folder: Path) -> None:
    """Raises InputError if a folder has no safetensors, because loading a pickle could run code from the file."""
    if not (folder / WEIGHTS_NAME).is_file():
        raise InputError(
            f"{folder}: no folder with {WEIGHTS_NAME}; use load_model of "
            "glm.checkpoint.loading, or import it: python -m glm checkpoint import"
        )


def check_fit(missing: Iterable[str], unknown: Iterable[str]) -> None:
    """Raises InputError if a file lacks weights, or has weights that do not belong to this configuration."""
    found = {"missing": sorted(missing), "unknown": sorted(unknown)}
    if parts := [
        f"{label} {', '.join(names[:MOST_NAMED])}{' ...' if len(names) > MOST_NAMED else ''}"
        for label, names in found.items()
        if names
    ]:
        raise InputError("the weights do not fit the configuration: " + "; ".join(parts))
