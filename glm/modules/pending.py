"""Loads weights lazily, so that loading a model takes no more memory than keeping it."""

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from paddle import Tensor, nn


class Stored(Protocol):
    """A weight in a file."""

    def float32(self) -> np.ndarray:
        """Returns its numbers."""


def leave_pending(model: nn.Layer, weights: Mapping[str, Stored]) -> None:
    """Notes where to read the weights of a model that was built without memory for them (`paddle.LazyGuard`).

    Args:
        weights: by the names of the model's parameters.
    """
    for name, parameter in model.named_parameters():
        parameter.stored = weights[name]


def pending(parameter: Tensor) -> Stored | None:
    """Returns where a parameter is still to be read from; None if it has been read."""
    return None if parameter._is_initialized() else getattr(parameter, "stored", None)


def fill(parameter: Tensor) -> None:
    """Reads a parameter that is pending."""
    if (stored := pending(parameter)) is not None:
        parameter.set_value(stored.float32())


def fill_model(model: nn.Layer) -> None:
    """Reads all parameters that are pending."""
    for parameter in model.parameters():
        fill(parameter)
