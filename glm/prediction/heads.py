"""A model's classification head, stored in a file beside the model's weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from glm.checkpoint.safetensors_files import read_safetensors
from glm.checkpoint.tensors import LazyTensor
from glm.data.pairs import PairEncoder
from glm.errors import InputError
from glm.modules.classifier import HEAD_PREFIX, ClassificationHead
from glm.modules.layers import TiedEmbedding

HEAD_NAME = "classification_head.safetensors"


def add_head(model: Any, encoder: PairEncoder, folder: str, *, is_trained: bool) -> None:
    """Adds a classification head: the one in the model's folder, the model's own, or a random one for training.

    Args:
        folder: where the model is from.
        is_trained: a head has to be there.

    Raises:
        InputError: there is none, it is for other labels, or the model's decoder is one that sees too little.
    """
    config, own = model.config, getattr(model, "classification_head", None)
    if not getattr(config, "classifier_sees_all", True):
        raise InputError(
            f"classification_head {encoder.pool}: the decoder that this model has sees nothing but its first token "
            "there; classify with --start discriminator"
        )
    model.classification_head = ClassificationHead(
        config.hidden_size,
        encoder.labels,
        dropout=config.output_dropout_prob,
        std=getattr(config, "initializer_range", 0.02),
    )
    for layer in model.sublayers():
        if isinstance(layer, TiedEmbedding):
            layer.learns_as_head = False
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
    elif own is not None:
        _take_over(model, own, encoder)
    elif is_trained:
        raise InputError(
            f"classification_head {encoder.pool}: {folder} has no {HEAD_NAME}; train one, or leave the option out to "
            "have candidates scored in the blank"
        )


def of_head(weights: Mapping[str, LazyTensor]) -> dict[str, LazyTensor]:
    """Returns those of a model's weights that belong to its classification head."""
    return {name: weight for name, weight in weights.items() if name.startswith(HEAD_PREFIX)}


def _take_over(model: Any, own: Any, encoder: PairEncoder) -> None:
    """Uses the classifier that a model brought as its head, with its classes in the task's order."""
    labels, classes = list(encoder.pattern.labels), encoder.family.classes
    if sorted(labels) != sorted(classes):
        raise InputError(
            f"classification_head {encoder.pool}: the model's own is for {', '.join(classes)}, "
            f"and {encoder.task.name} has {', '.join(labels) or 'candidates of its own'}"
        )
    order, head = [classes.index(label) for label in labels], model.classification_head
    head.pool_layer.weight.set_value(own.dense.weight)
    head.pool_layer.bias.set_value(own.dense.bias)
    head.multichoice_head.weight.set_value(own.out_proj.weight.numpy()[:, order])
    head.multichoice_head.bias.set_value(own.out_proj.bias.numpy()[order])
    model.config.classes = 0  # its weights belong to no other head now
