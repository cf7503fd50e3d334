"""Sandwich blocks, with a LayerNorm behind each half too, and a relaxed LayerNorm (multilingual GLM, CogView)."""

import paddle
from paddle import Tensor

from glm.modules.block import Block, BlockOptions
from glm.modules.layers import LayerNorm

RELAXATION = 8  # THUDM/Multilingual-GLM, SwissArmyTransformer's LayerNorm


class RelaxedLayerNorm(LayerNorm):
    """LayerNorm of x / (max|x| / 8), the maximum over all of x and without gradient (`pb_relax`).

    LayerNorm takes no notice of scale, so this changes what epsilon is: results depend on who shares the batch. It
    exists to reproduce the numbers of models trained with it.
    """

    def forward(self, states: Tensor) -> Tensor:
        """[..., H] -> [..., H]"""
        with paddle.no_grad():
            scale = states.abs().max().astype(states.dtype) / RELAXATION
        return super().forward(states / scale)


class SandwichBlock(Block):
    """x + LN3(attention(LN1(x))), then x + LN4(MLP(LN2(x))) (Ding et al. 2021, CogView, section 2.4)."""

    def __init__(self, options: BlockOptions):
        super().__init__(options)
        self.third_layernorm = options.norm(options.hidden_size, epsilon=options.epsilon)
        self.fourth_layernorm = options.norm(options.hidden_size, epsilon=options.epsilon)

    def after_attention(self, states: Tensor, context: Tensor) -> Tensor:
        """See `Block.after_attention`."""
        attended = self.attention.output_dropout(self.attention.output(context))
        states = states + self.third_layernorm(attended)
        return states + self.fourth_layernorm(self.mlp(self.mlp_norm(states)))
