"""Arrays as tensors, for what runs without end."""

import numpy as np
import paddle
from paddle import Tensor


def as_tensor(array: np.ndarray) -> Tensor:
    """An array's values as a tensor of its own, on the present device, without gradient.

    As `paddle.to_tensor`, which in Paddle 3.3.1 keeps 104 bytes at each call for good: a server that decodes day and
    night would grow by gigabytes.
    """
    tensor = paddle.empty(array.shape, array.dtype.name)
    tensor.get_tensor().set(array, paddle.framework._current_expected_place())
    return tensor
