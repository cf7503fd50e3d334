"""Prepares a model for fast decoding on a CPU: rearranges its weights and compiles its blocks. Loads Numba."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import paddle
from paddle import Tensor, nn

from glm.cpu.arrays import by_rows, empty, view
from glm.cpu.blocks import adapt, blocks_of_rows, enter_block, finish_block, finish_block_and_project, takes_rows
from glm.cpu.integers import multiply_integers, panels_of_integers, quantize_weight
from glm.cpu.loops import use_own_threads
from glm.cpu.panels import panels_of
from glm.cpu.products import MOST_COMPILED_ROWS, multiply, multiply_bfloat16
from glm.cpu.rows import normalize
from glm.cpu.vectors import LANES
from glm.errors import InputError
from glm.modules.arranged_post_norm import compiled_post_norm
from glm.modules.block import Block
from glm.modules.bottleneck import ADAPTERS, AdapterLinear, Bottleneck, Routes, adapter_of
from glm.modules.layers import GELU, LayerNorm, Linear
from glm.modules.pending import fill, fill_model, pending
from glm.modules.stack import Stack

Norm = tuple[np.ndarray, np.ndarray, np.float32]  # weight, bias, epsilon


class Quantized(NamedTuple):
    """A weight in int8 [outputs, inputs], and its scales, float32 [outputs]."""

    integers: np.ndarray
    scales: np.ndarray


class DecodingLinear(nn.Layer):
    """Linear layer that can only decode.

    Args:
        weight: [outputs, inputs], float32; inputs a multiple of LANES.
        bias: [outputs]; None for none.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None):
        super().__init__()
        self.weight = weight
        self.arrays = view(weight), _bias(weight, bias)  # arguments for `multiply`

    def forward(self, states: Tensor) -> Tensor:
        """[n, inputs] -> [n, outputs]"""
        output = empty([states.shape[0], len(self.arrays[1])])
        if states.shape[0] > MOST_COMPILED_ROWS:
            paddle.matmul(states, self.weight, transpose_y=True, out=output)
            by_rows(lambda block: np.add(block, self.arrays[1], out=block), view(output))
        else:
            use_own_threads()
            multiply(view(states.contiguous()), *self.arrays, view(output))
        return output


class PanelDecodingLinear(nn.Layer):
    """Linear layer that can only decode, with its weight in panels; sums have 32 bits, subclasses choose the type of
    products.

    Args:
        weight: [outputs, inputs], a tensor or `Quantized` as the subclass says.
        bias: [outputs]; None for none.
    """

    def __init__(self, weight: Any, bias: Tensor | None):
        super().__init__()
        self.arrays = self.arrange(weight, bias)  # arguments for the subclass's product

    def forward(self, states: Tensor) -> Tensor:
        """[n, inputs] -> [n, outputs]"""
        output = empty([states.shape[0], self.arrays[1].shape[-1]])
        use_own_threads()
        self.multiply(view(states.contiguous()), *self.arrays, view(output))
        return output


class BFloat16DecodingLinear(PanelDecodingLinear):
    """Multiplies in bfloat16, with sums in float32."""

    multiply = staticmethod(multiply_bfloat16)

    @staticmethod
    def arrange(weight: Tensor, bias: Tensor | None) -> tuple[np.ndarray, np.ndarray]:
        """Returns panels, and the bias [outputs]."""
        return panels_of(weight.astype("bfloat16").numpy()), _bias(weight, bias)


class IntegerDecodingLinear(PanelDecodingLinear):
    """Multiplies in int8 with a scale per output and per row of states, and sums in int32."""

    multiply = staticmethod(multiply_integers)

    @staticmethod
    def arrange(weight: Quantized, bias: Tensor | None) -> tuple[np.ndarray, np.ndarray]:
        """Returns panels, and scales and biases [2, outputs]."""
        return panels_of_integers(weight.integers), np.stack([weight.scales, _bias(weight.scales, bias)])


def _bias(weight: Tensor | np.ndarray, bias: Tensor | None) -> np.ndarray:
    """Returns the bias [outputs]; zeros if there is none."""
    return np.zeros(len(weight), np.float32) if bias is None else view(bias)


ARRANGED = {"float32": DecodingLinear, "bfloat16": BFloat16DecodingLinear, "int8": IntegerDecodingLinear}


def arrange_weights(model: nn.Layer, dtype: str) -> None:
    """Replaces a model's linear layers and head by ones that can only decode, and compiles its blocks' decoding steps.

    Weights are read, arranged and freed one by one. In float32 the head shares the word embedding's; in int8 the
    embedding is rounded to the head's integers, so that a quantized folder needs no other. Layers of odd sizes stay as
    they are.

    Args:
        model: has `stacks` and a `head` (`glm.modules.head.TiedHead`).
        dtype: `float32`, or what the processor has of `bfloat16` and `int8`.

    Raises:
        InputError: int8, and a weight is infinite or NaN.
    """
    arranged = ARRANGED[dtype]
    unit = LANES if arranged is DecodingLinear else 1
    # The largest weight comes first: what it takes on the way is there for the others.
    if model.head.group is None and model.head.weight.shape[1] % unit == 0:
        arrange_head(model, arranged)
    for layer, name, place in linears_of(model, unit):
        part = getattr(layer, name)
        if part.bias is not None:
            fill(part.bias)
        with _naming(f"{place}.weight"):
            setattr(layer, name, by_outputs(part, arranged))
    fill_model(model)
    for stack in model.stacks:
        if can_be_compiled(stack):
            stack.compiled_blocks = CompiledBlocks(stack)
            arrange_adapters(stack)
        else:
            stack.compiled_blocks = compiled_post_norm(stack, tuple(ARRANGED.values()))


def arrange_head(model: nn.Layer, arranged: type[nn.Layer]) -> None:
    """Gives a model's head a layer that can only decode, made of the word embedding's weight as it is now.

    Raises:
        InputError: int8, and a weight is infinite or NaN.
    """
    head = model.head
    with _naming("the head's weight"):
        weight = quantized(head.weight) if arranged is IntegerDecodingLinear else None
    fill(head.weight)
    if head.bias is not None:
        fill(head.bias)
    if weight is not None:
        _set_rows(view(head.weight), weight)
    head.arranged = arranged(head.weight if weight is None else weight, head.bias)


def linears_of(model: nn.Layer, unit: int = 1) -> list[tuple[nn.Layer, str, str]]:
    """Finds the linear layers whose inputs are a multiple of a unit: for each its parent, its name there, and its name
    in the model."""
    return [
        (layer, name, f"{place}.{name}" if place else name)
        for place, layer in model.named_sublayers(include_self=True)
        for name, part in layer.named_children()
        if type(part) is Linear and part.weight.shape[0] % unit == 0
    ]


def quantized(weight: Tensor, *, by_inputs: bool = False) -> Quantized:
    """Returns a parameter in int8: as its file has it, or quantized now.

    Args:
        by_inputs: it is [inputs, outputs], not [outputs, inputs].

    Raises:
        ValueError: a number is infinite or NaN.
    """
    stored = pending(weight)
    integers, scales = getattr(stored, "integers", None), getattr(stored, "scales", None)
    if integers is not None:
        numbers = integers.load()
        return Quantized(np.ascontiguousarray(numbers.T if by_inputs else numbers), scales.reshape(-1))
    numbers = view(weight) if stored is None else stored.float32()
    return Quantized(*quantize_weight(np.ascontiguousarray(numbers.T) if by_inputs else numbers))


def _set_rows(table: np.ndarray, weight: Quantized) -> None:
    """Sets a float32 table [V, H] to integers times scales."""
    for row, (integers, scale) in enumerate(zip(*weight, strict=True)):
        np.multiply(integers, scale, out=table[row])


@contextmanager
def _naming(weight: str) -> Iterator[None]:
    """Adds to an error which weight cannot be arranged."""
    try:
        yield
    except ValueError as error:
        raise InputError(f"decode_dtype int8: {weight}: {error}; use float32") from None


def by_outputs(layer: Linear, arranged: Callable[[Any, Tensor], nn.Layer]) -> nn.Layer:
    """Converts a linear layer, whose weight is freed, to one that can only decode."""
    if arranged is IntegerDecodingLinear:
        weight = quantized(layer.weight, by_inputs=True)
    else:
        fill(layer.weight)
        weight = layer.weight.T.contiguous()
    if pending(layer.weight) is None:
        layer.weight._clear_data()
    return arranged(weight, layer.bias)


def can_be_compiled(stack: Stack) -> bool:
    """Whether `CompiledBlocks` computes what the stack computes: its blocks are exactly `Block`, not split, of
    suitable sizes, with a LayerNorm behind the last. Any other block keeps its own, slower steps."""
    if any(type(layer) is not Block for layer in stack.layers):
        return False
    norms = [norm for layer in stack.layers for norm in (layer.attention_norm, layer.mlp_norm)]
    linears = [part for layer in stack.layers for part in (*_linears(layer), layer.attention.projection)]
    return (
        all(type(norm) is LayerNorm for norm in (*norms, stack.final_norm))
        and all(type(layer.mlp.activation) is GELU for layer in stack.layers)
        and all(type(part) in ARRANGED.values() for part in linears)
    )


def _linears(block: Block) -> tuple[nn.Layer, nn.Layer, nn.Layer]:
    return block.attention.output, block.mlp.up, block.mlp.down


def _norm(layer: nn.Layer) -> Norm:
    return view(layer.weight), view(layer.bias), np.float32(layer._epsilon)


class CompiledBlocks:
    """Computes `Stack.after_attention` in one compiled function per block."""

    def __init__(self, stack: Stack):
        following = [*(layer.attention_norm for layer in stack.layers[1:]), stack.final_norm]
        self.layers = stack.layers
        self.norms = [_norm(norm) for norm in following]
        self.projections = [layer.attention.projection.arrays for layer in stack.layers[1:]]
        self.blocks = [
            (*(part.arrays for part in _linears(layer)), _norm(layer.mlp_norm), _norm(norm))
            for layer, norm in zip(stack.layers, following, strict=True)
        ]

    def takes(self, states: Tensor, routes: Routes = ()) -> bool:
        """Whether this is faster for the rows [n, H] than layer by layer; adapters are for few rows."""
        n = states.shape[0]
        return takes_rows(n, self.blocks[0][0][0]) and (n <= MOST_COMPILED_ROWS or not routes)

    def __call__(self, index: int, states: Tensor, context: Tensor, routes: Routes = ()) -> tuple[Tensor, Tensor]:
        """See `Stack.after_attention`."""
        n, H = states.shape
        left, next_ = empty([n, H]), empty([n, H if index + 1 == len(self.blocks) else 3 * H])
        tables = view(states.contiguous()), view(context.contiguous()), view(left), view(next_)
        use_own_threads()
        for entering, attended, *written in blocks_of_rows(n, *tables):
            arrays = entering, attended, *self.blocks[index]
            if routes:
                self._through_adapters(index, arrays, *written, routes)
            elif index + 1 == len(self.blocks):
                finish_block(*arrays, *written)
            else:
                finish_block_and_project(*arrays, self.projections[index], *written)
        return left, next_

    def _through_adapters(
        self, index: int, arrays: tuple, left: np.ndarray, next_: np.ndarray, routes: Routes
    ) -> None:
        """As `finish_block` or `finish_block_and_project`, with the adapters between the two LayerNorms."""
        finish_block(*arrays, left, np.empty_like(left))
        for name, rows in routes:
            adapter = adapter_of(self.layers[index], name)
            own = np.arange(len(left)) if rows is None else rows.numpy()
            adapt(left, own, *adapter.arrays)
        if index + 1 == len(self.blocks):
            normalize(left, *self.norms[index], next_)
        else:
            enter_block(left, self.norms[index], self.projections[index], next_)


def arrange_adapters(stack: Stack) -> None:
    """Arranges the adapters of tasks in a stack that is arranged; what a task has is there once, as its model is."""
    for layer in stack.layers:
        for adapter in getattr(layer, ADAPTERS, {}).values():
            if adapter.arrays is None:
                _arrange_adapter(adapter)


def _arrange_adapter(adapter: Bottleneck) -> None:
    """Its width is rounded up, with weights of 0."""
    width = -(-adapter.project_down.weight.shape[1] // LANES) * LANES
    adapter.project_down = _padded(adapter.project_down, outputs=width)
    adapter.project_up = _padded(adapter.project_up, inputs=width)
    adapter.arrays = _norm(adapter.layer_norm), adapter.project_down.arrays, adapter.project_up.arrays


def _padded(layer: AdapterLinear, *, outputs: int = 0, inputs: int = 0) -> DecodingLinear:
    """A linear layer, whose weight is given up, with zeros up to these sizes."""
    weight, bias = layer.weight.numpy().T, layer.bias.numpy()
    more = max(outputs - len(bias), 0), max(inputs - weight.shape[1], 0)
    padded = paddle.to_tensor(np.pad(weight, ((0, more[0]), (0, more[1]))))
    layer.weight._clear_data()
    return DecodingLinear(padded, paddle.to_tensor(np.pad(bias, (0, more[0]))))
