"""Residual adapters behind blocks: small networks of tasks that share one frozen model (Lin, Madotto and Fung 2020).

An adapter works on each token by itself, so tasks may share a batch: rows of one task are gathered."""

from collections.abc import Iterable, Sequence

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from glm.cpu.arrays import draw_seed
from glm.errors import InputError
from glm.modules.layers import LayerNorm, Linear
from glm.modules.split_layers import draw
from glm.modules.tensors import as_tensor

NO_TASK = -1  # as `glm.models.protocol` has it
ADAPTERS = "adapters"  # name of a block's adapters
Route = tuple[str, Tensor | None]  # an adapter's name, and the rows [m] that pass through it; None for all
Routes = Sequence[Route]


class AdapterLinear(Linear):
    """Linear layer of an adapter; decoding arranges it differently from a model's."""


class Bottleneck(nn.Layer):
    """x + Up(ReLU(Down(LN(x)))).

    Args:
        size: H.
        width: b.
        up_std: standard deviation of Up; with 0 the adapter does nothing yet.

    Attributes:
        arrays: its LayerNorm and weights as compiled decoding has them, once it can only decode.
    """

    def __init__(self, size: int, width: int, *, epsilon: float, up_std: float = 0.0, std: float = 0.02):
        super().__init__()
        self.arrays = None
        self.layer_norm = LayerNorm(size, epsilon=epsilon)
        self.std, self.up_std = std, up_std
        self.project_down = AdapterLinear(size, width, nn.initializer.Constant(0.0))
        self.project_up = AdapterLinear(width, size, nn.initializer.Constant(0.0))

    def draw(self) -> None:
        """Draws its matrices: the same on all ranks of a split model, each of which has all of them."""
        numbers = np.random.default_rng(draw_seed())
        for layer, spread in ((self.project_down, self.std), (self.project_up, self.up_std)):
            draw(layer.weight, "", {}, numbers, spread, degree=1, rank=0)

    def forward(self, states: Tensor) -> Tensor:
        """[n, H] -> [n, H]"""
        return states + self.project_up(F.relu(self.project_down(self.layer_norm(states))))


def routes_of_tokens(names: Sequence[str], tasks: np.ndarray | None, lengths: Iterable[int]) -> Routes:
    """Returns which tokens pass through which adapters.

    Args:
        names: names of the adapters by task number; empty where a task has none.
        tasks: [examples] int, the number of each one's task, NO_TASK for none.
        lengths: tokens of each example.

    Raises:
        InputError: a number is no task's, or its task has no adapter.
    """
    if not any(names) or tasks is None or (tasks == NO_TASK).all():
        return ()
    for number in np.unique(tasks):
        if number != NO_TASK and not (0 <= number < len(names) and names[number]):
            known = ", ".join(f"{place} ({name})" for place, name in enumerate(names) if name)
            raise InputError(f"task {number}: the model has no adapter for it; it has those of {known}")
    of_tokens = np.repeat(tasks, list(lengths))
    present = np.unique(of_tokens[of_tokens != NO_TASK])
    if len(present) == 1 and (of_tokens == present[0]).all():
        return ((names[present[0]], None),)
    return tuple((names[number], as_tensor(np.flatnonzero(of_tokens == number))) for number in present)


def adapter_of(block: nn.Layer, name: str) -> "Bottleneck | None":
    """A block's adapter of a task; None where the task has none (but LoRA)."""
    adapters = getattr(block, ADAPTERS, ())
    return adapters[name] if name in adapters else None


def adapted(block: nn.Layer, states: Tensor, routes: Routes) -> Tensor:
    """Passes rows through a block's adapters: [n, H] -> [n, H]."""
    for name, rows in routes:
        adapter = adapter_of(block, name)
        if adapter is None:
            continue
        if rows is None:
            return adapter(states)
        states = paddle.scatter(states, rows, adapter(states.gather(rows)))
    return states


def remove_adapters(stack: nn.Layer, name: str) -> None:
    """Takes a task's adapters out of the blocks of a stack."""
    for block in stack.layers:
        if adapter_of(block, name) is not None:
            block.adapters.pop(name)


def add_adapters(stack: nn.Layer, name: str, width: int, **options: float) -> None:
    """Adds an adapter of this name to each block of a stack; the stack's `adapter_names` say for which task it is.

    Args:
        width: b.
        options: options of `Bottleneck`.

    Raises:
        InputError: the width is below 1.
    """
    if width < 1:
        raise InputError(f"adapter_bottleneck {width}: use 1 or more")
    for block in stack.layers:
        norm = block.attention_norm
        if not hasattr(block, ADAPTERS):
            block.adapters = nn.LayerDict()
        block.adapters[name] = Bottleneck(norm.weight.shape[0], width, epsilon=norm._epsilon, **options)
