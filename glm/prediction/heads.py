"""The classification head of a model: a file of its own beside the model's weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from glm.checkpoint.safetensors_files import read_safetensors
from glm.checkpoint.tensors import LazyTensor
from glm.data.pairs import PairEncoder
from glm.errors import InputError
from glm.modules.classifier import HEAD_PREFIX, ClassificationHead

HEAD_NAME = "classification_head.safetensors"


def add_head(model: Any, encoder: PairEncoder, folder: str, *, is_trained: bool) -> None:
    """Gives a model a classification head: that in its folder, or a random one to be trained.

    Args:
        folder: where the model is from.
        is_trained: a head has to be there.

    Raises:
        InputError: there is none, or it is for another number of labels.
    """
    config = model.config
    model.classification_head = ClassificationHead(
        config.hidden_size, encoder.labels, dropout=config.output_dropout_prob, std=config.initializer_range
    )
    path = Path(folder) / HEAD_NAME
    if path.is_file():
        saved = read_safetensors(path)
        for name, weight in model.classification_head.named_parameters():
            found = saved.get(f"{HEAD_PREFIX}{name}")
            if found is None or list(found.shape) != weight.shape:
                shape = "no" if found is None else f"{list(found.shape)}"
                message = f"{shape} {name} where {weight.shape} is expected ({encoder.labels} labels)"
                raise InputError(f"{path}: {message}; it is of another task")
            weight.set_value(found.load())
    elif is_trained:
        raise InputError(
            f"classification_head {encoder.pool}: {folder} has no {HEAD_NAME}; train one, or leave the option out to "
            "have candidates scored in the blank"
        )


def of_head(weights: Mapping[str, LazyTensor]) -> dict[str, LazyTensor]:
    """Those of a model's weights that are its classification head's."""
    return {name: weight for name, weight in weights.items() if name.startswith(HEAD_PREFIX)}
