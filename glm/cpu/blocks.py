"""What blocks do between two attentions, for the few rows of a decoding step on a CPU, in one compiled function.

Layer by layer it takes a dozen calls, each of which costs more than its arithmetic: reading the weights drives out of
the cache what calls are made of.
"""

from collections.abc import Callable

import numpy as np
import paddle
from numba import njit
from numba.extending import overload
from paddle import Tensor, nn

from glm.cpu.arrays import view
from glm.cpu.loops import OPTIONS, use_own_threads
from glm.cpu.products import FEW, HostLinear, TileLinear, arrange_weights, multiply, multiply_tiles
from glm.cpu.rows import gelu_in_place, normalize
from glm.models.glm.modeling import GLMForConditionalGeneration, GLMStack

Norm = tuple[np.ndarray, np.ndarray, np.float32]  # weight, bias, epsilon


def prepare_blocks(model: GLMForConditionalGeneration, dtype: str) -> None:
    """Arranges the weights of a model, which can only decode then, and has its blocks take few rows at once.

    Args:
        dtype: `float32`, or `bfloat16` where the processor `has_tiles`.
    """
    arrange_weights(model, dtype)
    stack = model.glm.transformer
    linears = [part for layer in stack.layers for part in (*_linears(layer), layer.attention.query_key_value)]
    if all(isinstance(part, HostLinear | TileLinear) for part in linears):  # nor split, nor of odd sizes
        stack.leave = _leave_of(stack)


def _linears(block: nn.Layer) -> tuple[nn.Layer, nn.Layer, nn.Layer]:
    return block.attention.dense, block.mlp.dense_h_to_4h, block.mlp.dense_4h_to_h


def _norm(layer: nn.Layer) -> Norm:
    return view(layer.weight), view(layer.bias), np.float32(layer._epsilon)


def _leave_of(stack: GLMStack) -> Callable[[int, Tensor, Tensor], tuple[Tensor, Tensor]]:
    """`GLMStack.leave` for few rows; more go through the layers one by one."""
    following = [*(layer.input_layernorm for layer in stack.layers[1:]), stack.final_layernorm]
    entering = [layer.attention.query_key_value.arrays for layer in stack.layers[1:]]
    blocks = [
        (*(part.arrays for part in _linears(layer)), _norm(layer.post_attention_layernorm), _norm(norm))
        for layer, norm in zip(stack.layers, following, strict=True)
    ]
    by_layers = stack.leave

    def leave_few(index: int, states: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        n, H = states.shape
        if n > FEW:
            return by_layers(index, states, context)
        is_last = index + 1 == len(blocks)
        left, next_ = paddle.empty([n, H]), paddle.empty([n, H if is_last else 3 * H])
        arrays = view(states.contiguous()), view(context.contiguous()), *blocks[index]
        use_own_threads()
        if is_last:
            _leave(*arrays, view(left), view(next_))
        else:
            _leave_and_enter(*arrays, entering[index], view(left), view(next_))
        return left, next_

    return leave_few


def _product(states, weight, bias, output):
    """x W + b to the output, of a weight as either kind of layer has it; for compiled functions only."""


@overload(_product)
def _product_of(states, weight, bias, output):
    if weight.ndim == 3:  # panels
        return lambda states, weight, bias, output: multiply_tiles(states, weight, bias, output)
    return lambda states, weight, bias, output: multiply(states, weight, bias, output)


@njit(**OPTIONS)
def _leave(states, context, dense, up, down, own_norm, next_norm, left, normal):
    """states, context: [n, H]; to write to: left, the result, and normal, that behind the next LayerNorm."""
    n = len(states)
    _product(context, *dense, left)
    left += states
    normalize(left, *own_norm, normal)
    wide = np.empty((n, len(up[1])), np.float32)
    _product(normal, *up, wide)
    gelu_in_place(wide)
    _product(wide, *down, normal)
    left += normal
    normalize(left, *next_norm, normal)


@njit(**OPTIONS)
def _leave_and_enter(states, context, dense, up, down, own_norm, next_norm, entering, left, projected):
    """As `_leave`; projected: [n, 3H], queries, keys and values of the next block."""
    normal = np.empty_like(states)
    _leave(states, context, dense, up, down, own_norm, next_norm, left, normal)
    _product(normal, *entering, projected)
