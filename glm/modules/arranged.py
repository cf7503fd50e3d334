"""A model's weights arranged for decoding on a CPU, and its blocks in compiled loops. Loads Numba."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import paddle
from paddle import Tensor, nn

from glm.cpu.arrays import by_rows, view
from glm.cpu.blocks import adapt, enter_block, finish_block, finish_block_and_project
from glm.cpu.integers import multiply_integers, quantize_weight
from glm.cpu.loops import use_own_threads
from glm.cpu.panels import panels_of
from glm.cpu.products import FEW, multiply, multiply_bfloat16
from glm.cpu.rows import normalize
from glm.cpu.vectors import LANES
from glm.errors import InputError
from glm.modules.arranged_post_norm import compiled_post_norm
from glm.modules.block import Block
from glm.modules.bottleneck import ADAPTERS, AdapterLinear, Bottleneck, Routes, adapter_of
from glm.modules.layers import GELU, LayerNorm, Linear
from glm.modules.stack import Stack

Norm = tuple[np.ndarray, np.ndarray, np.float32]  # weight, bias, epsilon


class DecodingLinear(nn.Layer):
    """x W + b that can only decode.

    Args:
        weight: [outputs, inputs], float32; inputs a multiple of LANES.
        bias: [outputs]; None for none.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None):
        super().__init__()
        self.weight = weight
        self.arrays = view(weight), _bias(weight, bias)  # as `multiply` has them

    def forward(self, states: Tensor) -> Tensor:
        """[n, inputs] -> [n, outputs]"""
        if states.shape[0] > FEW:
            output = paddle.matmul(states, self.weight, transpose_y=True)
            by_rows(lambda block: np.add(block, self.arrays[1], out=block), view(output))
            return output
        output = paddle.empty([states.shape[0], len(self.arrays[1])])
        use_own_threads()
        multiply(view(states.contiguous()), *self.arrays, view(output))
        return output


class PanelDecodingLinear(nn.Layer):
    """x W + b with its weight in panels and sums of 32 bits, that can only decode. A subclass says in which type.

    Args:
        weight: [outputs, inputs].
        bias: [outputs]; None for none.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None):
        super().__init__()
        self.arrays = self.arrange(weight, bias)  # as `multiply` has them

    def forward(self, states: Tensor) -> Tensor:
        """[n, inputs] -> [n, outputs]"""
        output = paddle.empty([states.shape[0], self.arrays[1].shape[-1]])
        use_own_threads()
        self.multiply(view(states.contiguous()), *self.arrays, view(output))
        return output


class BFloat16DecodingLinear(PanelDecodingLinear):
    """In bfloat16, with sums in float32."""

    multiply = staticmethod(multiply_bfloat16)

    @staticmethod
    def arrange(weight: Tensor, bias: Tensor | None) -> tuple[np.ndarray, np.ndarray]:
        """Panels, and [outputs]."""
        return panels_of(weight.astype("bfloat16").numpy()), _bias(weight, bias)


class IntegerDecodingLinear(PanelDecodingLinear):
    """In int8 with a scale per output and per row of states, and sums in int32.

    Raises:
        ValueError: a weight is infinite or NaN.
    """

    multiply = staticmethod(multiply_integers)

    @staticmethod
    def arrange(weight: Tensor, bias: Tensor | None) -> tuple[np.ndarray, np.ndarray]:
        """Panels, and [2, outputs], scales and biases."""
        integers, scales = quantize_weight(view(weight.contiguous()))
        return panels_of(integers), np.stack([scales, _bias(weight, bias)])


def _bias(weight: Tensor, bias: Tensor | None) -> np.ndarray:
    """[outputs], 0 for none."""
    return np.zeros(len(weight), np.float32) if bias is None else view(bias)


ARRANGED = {"float32": DecodingLinear, "bfloat16": BFloat16DecodingLinear, "int8": IntegerDecodingLinear}


def arrange_weights(model: nn.Layer, dtype: str) -> None:
    """Replaces the linear layers of a model, and its head, by such that can only decode; compiles its blocks' steps.

    One weight after the other is arranged and given up; in float32 the head shares that of the word embeddings, and
    layers of odd sizes stay as they are.

    Args:
        model: has `stacks` and a `head` (`glm.modules.head.TiedHead`).
        dtype: `float32`, or what the processor has of `bfloat16` and `int8`.

    Raises:
        InputError: int8, and a weight is infinite or NaN.
    """
    arranged = ARRANGED[dtype]
    unit = LANES if arranged is DecodingLinear else 1
    for place, layer in model.named_sublayers(include_self=True):
        for name, part in layer.named_children():
            if type(part) is Linear and len(part.weight) % unit == 0:
                with _naming(f"{place}.{name}.weight"):
                    setattr(layer, name, by_outputs(part, arranged))
    if model.head.group is None and model.head.weight.shape[1] % unit == 0:
        with _naming("the head's weight"):
            model.head.arranged = arranged(model.head.weight, model.head.bias)
    for stack in model.stacks:
        if can_be_compiled(stack):
            stack.compiled_blocks = CompiledBlocks(stack)
            arrange_adapters(stack)
        else:
            stack.compiled_blocks = compiled_post_norm(stack, tuple(ARRANGED.values()))


@contextmanager
def _naming(weight: str) -> Iterator[None]:
    """Says which weight cannot be arranged."""
    try:
        yield
    except ValueError as error:
        raise InputError(f"decode_dtype int8: {weight}: {error}; use float32") from None


def by_outputs(layer: Linear, arranged: Callable[[Tensor, Tensor], nn.Layer]) -> nn.Layer:
    """A linear layer, whose weight is given up, as one that can only decode."""
    weight = layer.weight.T.contiguous()
    layer.weight._clear_data()
    return arranged(weight, layer.bias)


def can_be_compiled(stack: Stack) -> bool:
    """Whether `CompiledBlocks` computes what the stack does: its blocks are exactly `Block`, whole and of even sizes,
    with a LayerNorm behind the last. A block that does more or otherwise keeps its own, slower steps."""
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
    """`Stack.after_attention` for few rows, in one compiled function for each block."""

    def __init__(self, stack: Stack):
        following = [*(layer.attention_norm for layer in stack.layers[1:]), stack.final_norm]
        self.layers = stack.layers
        self.norms = [_norm(norm) for norm in following]
        self.projections = [layer.attention.projection.arrays for layer in stack.layers[1:]]
        self.blocks = [
            (*(part.arrays for part in _linears(layer)), _norm(layer.mlp_norm), _norm(norm))
            for layer, norm in zip(stack.layers, following, strict=True)
        ]

    def takes(self, states: Tensor) -> bool:
        """Whether there are so few rows [n, H] that this is faster than layer by layer."""
        return states.shape[0] <= FEW

    def __call__(self, index: int, states: Tensor, context: Tensor, routes: Routes = ()) -> tuple[Tensor, Tensor]:
        """See `Stack.after_attention`."""
        n, H = states.shape
        is_last = index + 1 == len(self.blocks)
        left, next_ = paddle.empty([n, H]), paddle.empty([n, H if is_last else 3 * H])
        arrays = view(states.contiguous()), view(context.contiguous()), *self.blocks[index]
        use_own_threads()
        if routes:
            self._through_adapters(index, arrays, view(left), view(next_), routes)
        elif is_last:
            finish_block(*arrays, view(left), view(next_))
        else:
            finish_block_and_project(*arrays, self.projections[index], view(left), view(next_))
        return left, next_

    def _through_adapters(
        self, index: int, arrays: tuple, left: np.ndarray, next_: np.ndarray, routes: Routes
    ) -> None:
        """As `finish_block` or `finish_block_and_project`, with what adapters add between the two LayerNorms."""
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
