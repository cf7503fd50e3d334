"""Agreement between the processes of a run; with one process nothing has to be exchanged."""

from collections.abc import Callable
from typing import TypeVar

import paddle
from paddle import distributed

from glm.errors import InputError

Result = TypeVar("Result")


def on_main(function: Callable[[], Result]) -> Result:
    """Calls a function in the main process only; the others wait and get its result, or its InputError."""
    if distributed.get_world_size() == 1:
        return function()
    outcome = [None, None]
    if distributed.get_rank() == 0:
        try:
            outcome[0] = function()
        except Exception as error:  # otherwise the others would wait forever
            outcome[1] = error if isinstance(error, InputError) else InputError(f"the main process failed: {error}")
    distributed.broadcast_object_list(outcome, src=0)
    result, error = outcome
    if error is not None:
        raise error
    return result


def anywhere(value: int) -> int:
    """Returns the largest value of all processes."""
    if distributed.get_world_size() == 1:
        return value
    largest = paddle.to_tensor([value], dtype="int64")
    distributed.all_reduce(largest, op=distributed.ReduceOp.MAX)
    return int(largest)
