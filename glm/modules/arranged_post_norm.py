"""Compiled decoding steps of post-LN blocks on a CPU, with or without cross-attention. Loads Numba."""

from collections.abc import Sequence

import numpy as np
import paddle
from paddle import Tensor, nn

from glm.cpu.arrays import empty, view
from glm.cpu.blocks import (
    blocks_of_rows,
    finish_post_norm_block,
    finish_post_norm_block_and_project,
    takes_rows,
    turn_to_source,
)
from glm.cpu.loops import use_own_threads
from glm.modules.cross_attention import CrossBlock, CrossStack
from glm.modules.layers import ExactGELU, LayerNorm
from glm.modules.post_norm import PostNormBlock
from glm.modules.stack import Stack


def compiled_post_norm(stack: Stack, arranged: tuple[type, ...]) -> "CompiledPostNormBlocks | None":
    """Returns the compiled steps of a stack; None unless its blocks are exactly `PostNormBlock`, or in a `CrossStack`
    exactly `CrossBlock`, not split and of suitable sizes.

    Args:
        arranged: the kinds of linear layers that are ready for few rows.
    """
    block, compiled = (
        (CrossBlock, CompiledCrossBlocks) if isinstance(stack, CrossStack) else (PostNormBlock, CompiledPostNormBlocks)
    )
    fits = stack.final_norm is None and all(
        type(layer) is block
        and all(type(part) in arranged for part in _linears(layer))
        and all(type(norm) is LayerNorm for norm in _norms(layer))
        and type(layer.mlp.activation) is ExactGELU
        for layer in stack.layers
    )
    return compiled(stack) if fits else None


def _linears(layer: PostNormBlock) -> list[nn.Layer]:
    """Returns the linear layers from one self-attention to the next."""
    cross = [layer.cross_attn.q_proj, layer.cross_attn.out_proj] if isinstance(layer, CrossBlock) else []
    return [layer.attention.output, *cross, layer.mlp.up, layer.mlp.down, layer.attention.projection]


def _norms(layer: PostNormBlock) -> list[LayerNorm]:
    cross = [layer.cross_attn_layer_norm] if isinstance(layer, CrossBlock) else []
    return [layer.attention_norm, *cross, layer.mlp_norm]


def _arrays(parts: Sequence[nn.Layer]) -> list[tuple]:
    """Returns weights and biases of linear layers, and of LayerNorms epsilon too."""
    return [
        (view(part.weight), view(part.bias), np.float32(part._epsilon)) if type(part) is LayerNorm else part.arrays
        for part in parts
    ]


class CompiledPostNormBlocks:
    """Computes a post-LN block from its last attention to the next block in one compiled function."""

    def __init__(self, stack: Stack):
        # The last three linears in front of the projection, the last two LayerNorms.
        self.ends = [_arrays([*_linears(layer)[-4:-1], *_norms(layer)[-2:]]) for layer in stack.layers]
        self.projections = [layer.attention.projection.arrays for layer in stack.layers[1:]]

    def takes(self, states: Tensor, routes: Sequence = ()) -> bool:
        """Whether this is faster for the rows [n, H] than layer by layer; no adapters are made for these blocks."""
        return not routes and takes_rows(states.shape[0], self.ends[0][0][0])

    def __call__(self, index: int, states: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Maps the attention's input and output ([n, H] each) to the block's result [n, H] and the next block's [n,
        3H]; behind the last block, the result twice."""
        n, H = states.shape
        is_last = index == len(self.projections)
        left = empty([n, H])
        projected = left if is_last else empty([n, 3 * H])
        tables = view(states.contiguous()), view(context.contiguous()), view(left), view(projected)
        use_own_threads()
        for entering, attended, own_left, own_projected in blocks_of_rows(n, *tables):
            arrays = entering, attended, *self.ends[index]
            if is_last:
                finish_post_norm_block(*arrays, own_left)
            else:
                finish_post_norm_block_and_project(*arrays, self.projections[index], own_left, own_projected)
        return left, projected


class CompiledCrossBlocks(CompiledPostNormBlocks):
    """As `CompiledPostNormBlocks` for a `CrossStack`, also between its blocks' two attentions."""

    def __init__(self, stack: CrossStack):
        super().__init__(stack)
        self.turns = [
            _arrays([layer.attention.output, layer.attention_norm, layer.cross_attn.q_proj]) for layer in stack.layers
        ]

    def turn(self, index: int, states: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Maps a block's input and its self-attention's output to the residual stream and the cross-attention's
        queries."""
        left, queries = paddle.empty_like(states), paddle.empty_like(states)
        use_own_threads()
        turn_to_source(view(states), view(context), *self.turns[index], view(left), view(queries))
        return left, queries

    finish = CompiledPostNormBlocks.__call__
