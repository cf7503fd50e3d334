"""A pre-LN transformer block with one fused linear for queries, keys and values, on any device."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from glm.cpu.arrays import is_compiled_for
from glm.modules.attention import TwoPartAttention, flashmask_attention, has_flashmask
from glm.modules.bottleneck import Routes, adapted
from glm.modules.cache import MASKED, KeysValues
from glm.modules.layers import ACTIVATIONS, Dropout, LayerNorm
from glm.modules.packing import Packing
from glm.modules.split_layers import (
    column_parallel_linear,
    randomness_of_rank,
    row_parallel_linear,
    tensor_parallel_group,
)
from glm.modules.tensors import as_tensor, float32_at_least


@dataclass(frozen=True)
class BlockNames:
    """A family's names for the parts of its blocks, from which the names of its weights are made.

    Args:
        attention, mlp: the two halves.
        attention_norm, mlp_norm: the LayerNorm of each: in front of it, or behind its sum in a post-LN block.
        projection, output: the linears of attention, H -> 3H and H -> H.
        up, down: those of the MLP, H -> F and F -> H.
    """

    attention: str
    mlp: str
    attention_norm: str
    mlp_norm: str
    projection: str
    output: str
    up: str
    down: str


@dataclass(frozen=True)
class BlockOptions:
    """The settings of a block.

    Args:
        hidden_size: H.
        num_heads: N, over all ranks.
        names: the family's names of its parts.
        epsilon: epsilon of its LayerNorms.
        attention_dropout, output_dropout: on attention probabilities, and on the output of attention and MLP.
        attention_scale: scores are divided by it before the product and multiplied after, against fp16 overflow.
        degree: tensor-parallel ranks.
        norm: the class of its LayerNorms.
        mlp_size: F, of the MLP between its linears; None for 4H.
        activation: activation of the MLP, a key of `glm.modules.layers.ACTIVATIONS`.
    """

    hidden_size: int
    num_heads: int
    names: BlockNames
    epsilon: float = 1e-5
    attention_dropout: float = 0.0
    output_dropout: float = 0.0
    attention_scale: float = 1.0
    degree: int = 1
    norm: type[LayerNorm] = LayerNorm
    mlp_size: int | None = None
    activation: str = "gelu_tanh"


class Attention(nn.Layer):
    """Multi-head attention with one fused linear for queries, keys and values, laid out [all Q | all K | all V].

    A tensor-parallel rank has heads of its own: between the two linears N and H are those of the rank.
    """

    def __init__(self, options: BlockOptions):
        super().__init__()
        self.names = options.names
        self.num_heads = options.num_heads // options.degree  # heads of this rank
        self.head_size = options.hidden_size // options.num_heads
        self.scale = options.attention_scale
        self.group = tensor_parallel_group(options.degree)
        H = options.hidden_size
        self.add_sublayer(self.names.projection, column_parallel_linear(H, 3 * H, degree=options.degree))
        self.add_sublayer(self.names.output, row_parallel_linear(H, H, degree=options.degree))
        self.attention_dropout = Dropout(options.attention_dropout)
        self.output_dropout = Dropout(options.output_dropout)

    @property
    def projection(self) -> nn.Layer:
        """The linear [..., H] -> [..., 3H]."""
        return self._sub_layers[self.names.projection]

    @property
    def output(self) -> nn.Layer:
        """The linear [..., H] -> [..., H]."""
        return self._sub_layers[self.names.output]

    def split(self, projected: Tensor) -> Tensor:
        """Splits [B, L, 3H] into queries (scaled), keys and values: [3, B, N, L, D]."""
        B, L, _ = projected.shape
        heads = projected.reshape([B, L, 3, self.num_heads, self.head_size]).transpose([2, 0, 3, 1, 4])
        query, keys, values = heads.unbind(0)  # [B, N, L, D] each
        return query / (math.sqrt(self.head_size) * self.scale), keys, values

    def attend(self, query: Tensor, parts: list[KeysValues], bias: Tensor | None) -> Tensor:
        """Attends to the keys and values of all `parts` together.

        Args:
            query: [B, N, R, D], scaled.
            parts: keys and values [B, N, length, D] each.
            bias: [B, N, R, keys of all parts], added to the scores; None hides nothing.

        Returns:
            [B, R, H]
        """
        scores = [float32_at_least(paddle.matmul(query, keys, transpose_y=True)) for keys, _ in parts]
        scores = paddle.concat(scores, axis=-1) if len(scores) > 1 else scores[0]
        if self.scale != 1.0:
            scores = scores * self.scale
        if bias is not None:
            scores = scores + (bias if bias.dtype == scores.dtype else bias.astype(scores.dtype))
        probabilities = F.softmax(scores, axis=-1)
        probabilities = self.attention_dropout(probabilities).astype(query.dtype)
        lengths = [keys.shape[2] for keys, _ in parts]
        shares = probabilities.split(lengths, axis=-1) if len(parts) > 1 else [probabilities]
        context = paddle.matmul(shares[0], parts[0][1])
        for share, (_, values) in zip(shares[1:], parts[1:], strict=True):
            context = context + paddle.matmul(share, values)
        B, N, R, D = context.shape
        return context.transpose([0, 2, 1, 3]).reshape([B, R, N * D])

    def forward(self, projected: Tensor, packing: Packing) -> Tensor:
        """Computes attention within each example, [n, 3H] -> [n, H]; virtual tokens have no rows in the result."""
        if not packing.twins:
            return packing.without_prefix(self.attend_by_example(projected, packing))
        clean = len(packing.clean.places)
        context = self.attend_by_example(projected[:clean], packing.clean)
        return paddle.concat([context, self.attend_twins(projected[:clean], projected[clean:], packing)])

    def attend_by_example(self, projected: Tensor, packing: Packing) -> Tensor:
        """As `forward`, but with rows for virtual tokens, which are undefined."""
        dropout = self.attention_dropout.p if self.training else 0.0
        with randomness_of_rank(self.group if dropout else None):
            if projected.place.is_cpu_place():
                return cpu_attention(projected, packing, self.num_heads, dropout)
            if has_flashmask(projected, self.head_size):
                return flashmask_attention(projected, packing, self.num_heads, dropout)
            return self.attend_by_part(projected, packing)

    def attend_by_part(self, projected: Tensor, packing: Packing) -> Tensor:
        """As `attend_by_example`, with Paddle's operators on any device."""
        contexts = []
        for start, middle, end in packing.spans():
            S, T = middle - start, end - middle
            query, keys, values = self.split(projected[start:end].unsqueeze(0))  # [1, N, S + T, D]
            if S:
                contexts.append(self.attend(query[:, :, :S], [(keys[:, :, :S], values[:, :, :S])], None)[0])
            if T:
                bias = as_tensor(_hidden(S, T)).expand([1, self.num_heads, -1, -1])
                contexts.append(self.attend(query[:, :, S:], [(keys, values)], bias)[0])
        return paddle.concat(contexts)

    def attend_twins(self, clean: Tensor, twins: Tensor, packing: Packing) -> Tensor:
        """Computes attention of Part C with Paddle's operators on any device: examples are batched and padded to the
        longest.

        Args:
            clean, twins: [tokens of Part A and Part B, 3H] and [of Part C, 3H].

        Returns:
            [of Part C, H]
        """
        lengths, counts = [a + b for a, b in packing.examples], list(packing.twins)
        _, keys, values = self.split(_side_by_side(clean, lengths))  # [B, N, L, D]
        query, own_keys, own_values = self.split(_side_by_side(twins, counts))  # [B, N, C, D]
        bias = as_tensor(_hidden_from_twins(packing, max(lengths), max(counts))).expand([-1, self.num_heads, -1, -1])
        context = self.attend(query, [(keys, values), (own_keys, own_values)], bias)  # [B, C, H]
        places = np.flatnonzero(np.arange(max(counts)) < np.array(counts)[:, None])
        return context.flatten(0, 1).gather(as_tensor(places))


def _side_by_side(rows: Tensor, lengths: Sequence[int]) -> Tensor:
    """Batches packed examples: [n, 3H] -> [B, longest, 3H]; each example's last row is repeated as padding."""
    lengths, longest = np.array(lengths), max(lengths)
    starts = np.cumsum(lengths) - lengths
    places = starts[:, None] + np.minimum(np.arange(longest), np.maximum(lengths - 1, 0)[:, None])  # [B, longest]
    places = np.minimum(places, len(rows) - 1)  # the last example may have no twins
    return rows.gather(as_tensor(places.flatten())).reshape([len(lengths), longest, -1])


def _hidden_from_twins(packing: Packing, L: int, C: int) -> np.ndarray:
    """Returns the mask added to the scores of each example's C twins, over its L tokens and then the twins: [B, 1, C,
    L + C]."""
    firsts = np.array([a for a, _ in packing.examples])[:, None, None]  # of Part B
    rows, columns = np.arange(C)[:, None], np.arange(L + C)[None, :]
    sees = (columns < np.minimum(firsts + rows, L)) | (columns == L + rows)  # [B, C, L + C]
    return np.where(sees, 0.0, MASKED).astype(np.float32)[:, None]


def _hidden(S: int, T: int) -> np.ndarray:
    """Returns the mask added to the scores of T tokens behind S, which see the S and their own past: [T, S + T]."""
    rows, columns = np.arange(S, S + T)[:, None], np.arange(S + T)[None, :]
    return np.where((columns < S) | (columns <= rows), 0.0, MASKED).astype(np.float32)


def cpu_attention(projected: Tensor, packing: Packing, num_heads: int, dropout: float) -> Tensor:
    """Computes attention on a CPU, [n, 3H] -> [n, H]: compiled if heads of this size are."""
    if is_compiled_for(projected.shape[1] // (3 * num_heads)) and projected.dtype == paddle.float32:
        from glm.cpu.two_part import CompiledTwoPartAttention  # imported here because it loads Numba

        spans = np.array(list(packing.spans()), np.int64)
        return CompiledTwoPartAttention.apply(projected, spans, packing.virtual, num_heads, dropout)
    return TwoPartAttention.apply(projected, packing, num_heads, dropout)


class MLP(nn.Layer):
    """H -> F -> H with an activation between; F is 4H by default."""

    def __init__(self, options: BlockOptions):
        super().__init__()
        H, self.names = options.hidden_size, options.names
        size = options.mlp_size or 4 * H
        self.add_sublayer(self.names.up, column_parallel_linear(H, size, degree=options.degree))
        self.activation = ACTIVATIONS[options.activation]()
        self.add_sublayer(self.names.down, row_parallel_linear(size, H, degree=options.degree))
        self.dropout = Dropout(options.output_dropout)

    @property
    def up(self) -> nn.Layer:
        """The linear [..., H] -> [..., F]."""
        return self._sub_layers[self.names.up]

    @property
    def down(self) -> nn.Layer:
        """The linear [..., F] -> [..., H]."""
        return self._sub_layers[self.names.down]

    def forward(self, states: Tensor) -> Tensor:
        """[..., H] -> [..., H]"""
        return self.dropout(self.down(self.activation(self.up(states))))


class Block(nn.Layer):
    """One pre-LN layer: x + attention(LN(x)), then x + MLP(LN(x)).

    What comes before attention and after it works on each token by itself. A family whose block is another one derives
    from this class and overrides `before_attention` and `after_attention`; compiled decoding takes over this exact
    class only.
    """

    def __init__(self, options: BlockOptions):
        super().__init__()
        self.names = names = options.names
        self.add_sublayer(names.attention_norm, options.norm(options.hidden_size, epsilon=options.epsilon))
        self.add_sublayer(names.attention, Attention(options))
        self.add_sublayer(names.mlp_norm, options.norm(options.hidden_size, epsilon=options.epsilon))
        self.add_sublayer(names.mlp, MLP(options))

    @property
    def attention_norm(self) -> LayerNorm:
        """The LayerNorm in front of attention."""
        return self._sub_layers[self.names.attention_norm]

    @property
    def attention(self) -> Attention:
        """The block's attention."""
        return self._sub_layers[self.names.attention]

    @property
    def mlp_norm(self) -> LayerNorm:
        """The LayerNorm in front of the MLP."""
        return self._sub_layers[self.names.mlp_norm]

    @property
    def mlp(self) -> MLP:
        """The block's MLP."""
        return self._sub_layers[self.names.mlp]

    def before_attention(self, states: Tensor) -> Tensor:
        """[..., H] -> [..., 3H], queries, keys and values."""
        return self.attention.projection(self.attention_norm(states))

    def after_attention(self, states: Tensor, context: Tensor) -> Tensor:
        """Maps the block's input and its attention's output ([..., H] each) to its result [..., H]."""
        states = states + self.attention.output_dropout(self.attention.output(context))
        return states + self.mlp(self.mlp_norm(states))

    def forward(self, states: Tensor, packing: Packing, prefix: Tensor | None = None, routes: Routes = ()) -> Tensor:
        """[n, H] -> [n, H]. With a prefix [P, 3H], `packing` comes from `Packing.with_prefix`; `routes` are the
        adapters that rows pass through at the end."""
        projected = self.before_attention(states)
        if prefix is not None:
            projected = packing.put_before(prefix, projected)
        return adapted(self, self.after_attention(states, self.attention(projected, packing)), routes)
