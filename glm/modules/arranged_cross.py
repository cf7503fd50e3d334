"""A decoder's blocks for few rows on a CPU, in compiled loops. Loads Numba."""

import numpy as np
import paddle
from paddle import Tensor, nn

from glm.cpu.arrays import view
from glm.cpu.cross_blocks import finish_cross_block, finish_cross_block_and_project, turn_to_source
from glm.cpu.loops import use_own_threads
from glm.cpu.products import FEW
from glm.modules.cross_attention import CrossBlock, CrossStack
from glm.modules.layers import ExactGELU, LayerNorm


def can_be_compiled(stack: nn.Layer, arranged: tuple[type, ...]) -> bool:
    """Whether `CompiledCrossBlocks` computes what a stack does: its blocks are exactly `CrossBlock`, of even sizes.

    Args:
        arranged: the kinds of linear layers that are ready for few rows.
    """
    if not isinstance(stack, CrossStack) or any(type(layer) is not CrossBlock for layer in stack.layers):
        return False
    return all(
        all(type(part) in arranged for part in (*_linears(layer), layer.attention.projection, layer.cross_attn.q_proj))
        and all(type(norm) is LayerNorm for norm in (layer.attention_norm, *_norms(layer)))
        and type(layer.mlp.activation) is ExactGELU
        for layer in stack.layers
    )


def _linears(layer: CrossBlock) -> tuple[nn.Layer, ...]:
    return layer.cross_attn.out_proj, layer.mlp.up, layer.mlp.down, layer.attention.output


def _norms(layer: CrossBlock) -> tuple[LayerNorm, LayerNorm]:
    return layer.cross_attn_layer_norm, layer.mlp_norm


def _arrays(norm: LayerNorm) -> tuple[np.ndarray, np.ndarray, np.float32]:
    return view(norm.weight), view(norm.bias), np.float32(norm._epsilon)


class CompiledCrossBlocks:
    """What stands between the attentions of a `CrossStack`, for few rows, in two compiled functions a block."""

    def __init__(self, stack: CrossStack):
        self.turns = [
            (layer.attention.output.arrays, _arrays(layer.attention_norm), layer.cross_attn.q_proj.arrays)
            for layer in stack.layers
        ]
        self.ends = [
            (*(part.arrays for part in _linears(layer)[:3]), *(_arrays(norm) for norm in _norms(layer)))
            for layer in stack.layers
        ]
        self.projections = [layer.attention.projection.arrays for layer in stack.layers[1:]]

    def takes(self, states: Tensor) -> bool:
        """Whether there are so few rows [n, H] that this is faster than layer by layer."""
        return states.shape[0] <= FEW

    def turn(self, index: int, states: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """A block's input and what attention to itself made of it -> what goes on, and queries of the source."""
        left, queries = paddle.empty_like(states), paddle.empty_like(states)
        use_own_threads()
        turn_to_source(view(states), view(context), *self.turns[index], view(left), view(queries))
        return left, queries

    def finish(self, index: int, states: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """What `turn` gave and what attention to the source made of it -> the block's result, and [n, 3H] for the next
        block; behind the last the result twice."""
        n, H = states.shape
        left = paddle.empty([n, H])
        arrays = view(states), view(context), *self.ends[index]
        use_own_threads()
        if index == len(self.projections):
            finish_cross_block(*arrays, view(left))
            return left, left
        projected = paddle.empty([n, 3 * H])
        finish_cross_block_and_project(*arrays, self.projections[index], view(left), view(projected))
        return left, projected
