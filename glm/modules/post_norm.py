"""A post-LN transformer block: what BERT and its like are made of."""

from paddle import Tensor

from glm.modules.block import Block


class PostNormBlock(Block):
    """One post-LN layer: a = LN(x + attention(x)), then LN(a + MLP(a)) (Vaswani et al. 2017, section 5.4).

    The stack of such blocks needs no LayerNorm of its own behind the last. Compiled decoding takes over this exact
    class with the exact GELU (`glm.modules.arranged_post_norm`).
    """

    def before_attention(self, states: Tensor) -> Tensor:
        """[..., H] -> [..., 3H], queries, keys and values."""
        return self.attention.projection(states)

    def after_attention(self, states: Tensor, context: Tensor) -> Tensor:
        """Maps the block's input and its attention's output ([..., H] each) to its result [..., H]."""
        summed = self.attention_norm(states + self.attention.output_dropout(self.attention.output(context)))
        return self.mlp_norm(summed + self.mlp(summed))
