"""Stops a run that can learn nothing any more, before it corrupts weights or costs hours."""

import math
from collections.abc import Callable

from paddle import Tensor, nn
from paddlenlp.trainer import TrainerCallback

from glm.adapters.bottleneck import task_of_weight
from glm.cpu.arrays import squared_norms
from glm.errors import InputError
from glm.training.parameters import gradient, reached, trained

# fp16's loss scale halves at each overflow: after so many in a row from 32768 on, it can no longer be the cause.
MOST_OVERFLOWS = 20


class Guard(TrainerCallback):
    """Checks loss and gradients before each optimizer step, and after the first one whether weights changed.

    Args:
        records_of: the records that an optimizer step (counted from 0) learns from, for messages.
    """

    def __init__(self, records_of: Callable[[int], str]):
        self.records_of = records_of
        self.overflows = 0  # steps in a row that fp16's gradient scaler has skipped
        self.has_moved = False  # whether an optimizer step has changed weights
        self.before: list[tuple[Tensor, int, float]] = []

    def check_loss(self, loss: float, step: int) -> None:
        """Raises InputError if the loss of a step is not finite."""
        if not math.isfinite(loss):
            raise self._stop(step, f"the loss is {loss}")

    def on_optimizer_begin(self, args, state, control, scaler=None, model=None, optimizer=None, **kwargs):
        if args.sharding:  # each rank has only some of the gradients
            return
        step = state.global_step
        if not self.has_moved:
            self._check_gradients_exist(model, step)
        if scaler is None:
            self._check_gradients_are_finite(model, step)
        if not self.has_moved and optimizer.get_lr() > 0:
            self.before = [_most_driven_entry(weight) for _, weight in reached(model)]

    def on_optimizer_end(self, args, state, control, scaler=None, **kwargs):
        if scaler is not None:
            self.overflows = self.overflows + 1 if scaler._cache_found_inf else 0
            if self.overflows >= MOST_OVERFLOWS:
                raise self._stop(state.global_step, f"{self.overflows} steps in a row overflowed float16")
        if self.before and not self.overflows:
            if all(float(weight.flatten()[place]) == value for weight, place, value in self.before):
                raise self._stop(state.global_step, "the optimizer moved no weight")
            self.has_moved, self.before = True, []

    def _check_gradients_exist(self, model: nn.Layer, step: int) -> None:
        """Checks that gradients exist, because Paddle would go on without them. A model may leave parts out of an
        update (`idle`)."""
        idle = getattr(model, "idle", ())
        without = [name for name, weight in trained(model) if gradient(weight) is None and not name.startswith(idle)]
        absent = _absent_tasks(model)
        without = [name for name in without if task_of_weight(name) not in absent]
        if without:
            raise self._stop(step, f"no gradient reaches {_some(without)}")
        if not any(bool(gradient(weight).any()) for _, weight in reached(model)):
            raise self._stop(step, "all gradients are zero")

    def _check_gradients_are_finite(self, model: nn.Layer, step: int) -> None:
        names, weights = zip(*reached(model), strict=True)
        squares = squared_norms([gradient(weight) for weight in weights])
        wrong = [name for name, square in zip(names, squares, strict=True) if not math.isfinite(square)]
        if wrong:
            raise self._stop(step, f"the gradient of {_some(wrong)} is not finite")

    def _stop(self, step: int, reason: str) -> InputError:
        return InputError(
            f"step {step + 1}: {reason}; training stops here. Records of this step: {self.records_of(step)}"
        )


def _most_driven_entry(weight: Tensor) -> tuple[Tensor, int, float]:
    """Returns the weight and the index (flattened) with the largest gradient, and its value."""
    place = int(gradient(weight).abs().argmax())
    return weight, place, float(weight.flatten()[place])


def _some(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def _absent_tasks(model: nn.Layer) -> set[str]:
    """Returns the tasks without an example in this update, by their adapters; empty if no task has one."""
    tasks = {task for name, _ in trained(model) if (task := task_of_weight(name)) is not None}
    present = {task_of_weight(name) for name, _ in reached(model)}
    return tasks - present if tasks & present else set()
