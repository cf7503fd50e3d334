"""Weights that are read when they are needed: a model takes no more memory while it is loaded than it keeps."""

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from paddle import Tensor, nn


class Stored(Protocol):
    """A weight in a file."""

    def float32(self) -> np.ndarray:
        """Its numbers."""


def leave_pending(model: nn.Layer, weights: Mapping[str, Stored]) -> None:
    """Says where the weights of a model that was built without memory for them (`paddle.LazyGuard`) are read.

    Args:
        weights: by the names of the model's parameters.
    """
    for name, parameter in model.named_parameters():
        parameter.stored = weights[name]


def pending(parameter: Tensor) -> Stored | None:
    """Where a parameter is still to be read; None if it has been."""
    return None if parameter._is_initialized() else getattr(parameter, "stored", None)


def fill(parameter: Tensor) -> None:
    """Reads a parameter that is pending."""
    if (stored := pending(parameter)) is not None:
        parameter.set_value(stored.float32())


def fill_model(model: nn.Layer) -> None:
    """Reads all parameters that are pending."""
    for parameter in model.parameters():
        fill(parameter)
