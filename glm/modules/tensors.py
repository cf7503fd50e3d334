"""Arrays as tensors, for what runs without end; and numbers as wide as sums need them."""

from collections.abc import Mapping

import numpy as np
import paddle
from paddle import Tensor, nn


def as_tensor(array: np.ndarray) -> Tensor:
    """An array's values as a tensor of its own, on the present device, without gradient.

    As `paddle.to_tensor`, which in Paddle 3.3.1 keeps 104 bytes at each call for good: a server that decodes day and
    night would grow by gigabytes.
    """
    tensor = paddle.empty(array.shape, array.dtype.name)
    tensor.get_tensor().set(array, paddle.framework._current_expected_place())
    return tensor


def float32_at_least(tensor: Tensor) -> Tensor:
    """A tensor in float32, or as it is if it is of float64."""
    return tensor if tensor.dtype == paddle.float64 else tensor.astype("float32")


@paddle.no_grad()
def loss_of(model: nn.Layer, batch: Mapping[str, np.ndarray]) -> float:
    """The loss of a batch, see `glm.models.protocol`, without a gradient."""
    return float(model(**{name: as_tensor(table) for name, table in batch.items()}))
