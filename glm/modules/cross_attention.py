"""Decoders with cross-attention: post-LN blocks with a second attention, to the encoder's states of a source.

In decoding, a source's keys and values are computed once per example and kept beside the tree of generated tokens.
"""

from collections.abc import Sequence

import numpy as np
from paddle import Tensor, nn

from glm.modules.block import BlockOptions
from glm.modules.cache import KVCache
from glm.modules.layers import Dropout, LayerNorm, Linear
from glm.modules.packing import Packing
from glm.modules.paired import Pairs, paired_attention
from glm.modules.post_norm import PostNormBlock
from glm.modules.stack import Stack
from glm.modules.tensors import as_tensor


class CrossAttention(nn.Layer):
    """Attention of a decoder's queries to an encoder's keys and values, whose projection is fused: [all K | all V]."""

    def __init__(self, options: BlockOptions):
        super().__init__()
        H = options.hidden_size
        self.num_heads = options.num_heads
        self.q_proj, self.kv_proj, self.out_proj = Linear(H, H), Linear(H, 2 * H), Linear(H, H)
        self.attention_dropout = Dropout(options.attention_dropout)
        self.output_dropout = Dropout(options.output_dropout)

    def forward(self, states: Tensor, memory: Tensor, seen: Pairs) -> Tensor:
        """The decoder's states [n, H] and the encoder's [m, H] -> [n, H]."""
        dropout = self.attention_dropout.p if self.training else 0.0
        return paired_attention(self.q_proj(states), self.kv_proj(memory), seen, self.num_heads, dropout=dropout)


class CrossBlock(PostNormBlock):
    """One layer of a decoder: a = LN(x + attention(x)), b = LN(a + attention(a, source)), LN(b + MLP(b))."""

    def __init__(self, options: BlockOptions):
        super().__init__(options)
        self.cross_attn = CrossAttention(options)
        self.cross_attn_layer_norm = LayerNorm(options.hidden_size, epsilon=options.epsilon)

    def between(self, states: Tensor, context: Tensor) -> Tensor:
        """Maps the block's input and its self-attention's output to the states that cross-attention starts from."""
        return self.attention_norm(states + self.attention.output_dropout(self.attention.output(context)))

    def after_attention(self, states: Tensor, context: Tensor) -> Tensor:
        """Maps the result of `between` and the cross-attention's output ([..., H] each) to the block's result."""
        cross = self.cross_attn
        states = self.cross_attn_layer_norm(states + cross.output_dropout(cross.out_proj(context)))
        return self.mlp_norm(states + self.mlp(states))

    def forward(self, states: Tensor, packing: Packing, memory: Tensor, seen: Pairs) -> Tensor:
        """[n, H] -> [n, H]"""
        states = self.between(states, self.attention(self.before_attention(states), packing))
        return self.after_attention(states, self.cross_attn(states, memory, seen))


class CrossStack(Stack):
    """Blocks of a decoder. A family's own class sets `layers` and adds its embeddings."""

    def forward(
        self, states: Tensor, packing: Packing, memory: Tensor, seen: Pairs, *, most: int | None = None
    ) -> Tensor:
        """Runs the decoder on packed tokens.

        Args:
            states: [n, H], embedded tokens.
            memory: [m, H], the encoder's states.
            seen: which of the encoder's states an example's tokens see.
            most: number of layers to run, from the first on; all if None.

        Returns:
            [n, H]
        """
        for index, layer in enumerate(self.layers[: len(self.layers) if most is None else most]):
            states = self.run(index, layer, states, packing, memory, seen)
        return states

    def prefill(
        self,
        states: Tensor,
        memory: Tensor,
        lengths: tuple[Sequence[int], Sequence[int]],
        prompts: Sequence,
    ) -> tuple[Tensor, "CrossCache"]:
        """Reads the tokens that the decoder is given, concatenated over the batch.

        Args:
            states: [n, H], embedded tokens.
            memory: [m, H], the encoder's states.
            lengths: for each prompt, the tokens of its source and those that the decoder is given.
            prompts: prompts of the examples, for the cache.

        Returns:
            [B, H], the states after each prompt's last token, and the cache.
        """
        sources, given = (np.array(part) for part in lengths)
        ends = np.cumsum(given)
        packing = Packing(np.arange(ends[-1]), [(0, int(length)) for length in given])
        seen = Pairs(tuple(given.tolist()), tuple(sources.tolist()))
        own, cross = [], []
        for layer in self.layers:
            projected = layer.before_attention(states)  # [n, 3H]
            own.append(self.layer_cache.of_prompts(projected, given.tolist(), self.num_heads))
            states = layer.between(states, layer.attention(projected, packing))
            pairs = layer.cross_attn.kv_proj(memory)  # [m, 2H]
            cross.append(self.layer_cache.of_pairs(pairs, sources.tolist(), self.num_heads))
            context = paired_attention(layer.cross_attn.q_proj(states), pairs, seen, self.num_heads)
            states = layer.after_attention(states, context)
        cache = CrossCache(own, given, prompts, KVCache(cross, sources, prompts))
        return states.gather(as_tensor(ends - 1)), cache

    def step(self, states: Tensor, cache: "CrossCache") -> Tensor:
        """Reads one embedded token per live row: [B, R, H] -> [B, R, H]."""
        B, R, H = states.shape
        sees = cache.open_step(R)
        seen_by, heads, sources = self.layer_cache.seen_by, self.num_heads, cache.sources
        seen = seen_by(cache.lengths, cache.width, sees, cache.capacity, heads)
        of_sources = seen_by(sources.lengths, sources.width, np.zeros((B, R, 0), dtype=bool), 0, heads)
        states = states.reshape([B * R, H])
        blocks = (
            self.compiled_blocks if self.compiled_blocks is not None and self.compiled_blocks.takes(states) else self
        )
        projected = self.layers[0].before_attention(states)  # [B * R, 3H]
        for index, layer in enumerate(self.layers):
            own, cross = cache.layers[index], sources.layers[index]
            context = own.attend(layer.attention, projected.reshape([B, R, -1]), seen, cache.start)
            states, queries = blocks.turn(index, states, context)  # [B * R, H] each
            context = cross.look(layer.attention, queries.reshape([B, R, H]), of_sources)
            states, projected = blocks.finish(index, states, context)
        return states.reshape([B, R, H])

    def turn(self, index: int, states: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Maps a block's input and its self-attention's output to the residual stream and the cross-attention's
        queries.
        """
        states = self.layers[index].between(states, context)
        return states, self.layers[index].cross_attn.q_proj(states)

    def finish(self, index: int, states: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Maps the result of `turn` and the cross-attention's output to the block's result and the next block's [n,
        3H].

        After the last block the result is returned twice.
        """
        states = self.layers[index].after_attention(states, context)
        following = self.layers[index + 1].before_attention(states) if index + 1 < len(self.layers) else states
        return states, following


class CrossCache(KVCache):
    """The cache of a decoder with cross-attention.

    Args:
        layers, lengths, prompts: as of `KVCache`, for what the decoder has read.
        sources: keys and values of the sources; it has no slots.
    """

    def __init__(self, layers: list, lengths: np.ndarray, prompts: Sequence, sources: KVCache):
        super().__init__(layers, lengths, prompts)
        self.sources = sources

    def keep(self, examples: np.ndarray) -> None:
        super().keep(examples)
        self.sources.keep(examples)

    def replace(self, places: Sequence[int], other: "CrossCache") -> None:
        super().replace(places, other)
        self.sources.replace(places, other.sources)

    def append(self, other: "CrossCache") -> None:
        super().append(other)
        self.sources.append(other.sources)
