"""The head of a language model, tied to its word embedding."""

import paddle
from paddle import Tensor, nn
from paddle.distributed.communication.group import Group

from glm.modules.layers import TiedEmbedding
from glm.modules.loss import Smoothing, smoothed_cross_entropy
from glm.modules.split_layers import copy_to_ranks, gather_columns


class TiedHead:
    """Maps states to logits, or to a loss, with the table of the word embedding. It has no weights of its own.

    Args:
        embedding: the word embedding, [V, H]; with a group this rank's rows of it.
        group: the tensor-parallel ranks that the table is split over.
        bias: [V], a parameter of the model's, added to the logits; not with a group.

    Attributes:
        arranged: a layer that computes [n, H] -> [n, V] faster, once the model can only decode.
    """

    def __init__(self, embedding: nn.Layer, group: Group | None, bias: Tensor | None = None):
        self.embedding = embedding
        self.group = group
        self.bias = bias
        self.arranged: nn.Layer | None = None

    @property
    def weight(self) -> Tensor:
        """[V, H], or this rank's rows."""
        return self.embedding.weight

    def logits(self, states: Tensor) -> Tensor:
        """[..., H] -> [..., V]"""
        if self.arranged is not None:
            return self.arranged(states.flatten(0, -2)).reshape([*states.shape[:-1], -1])
        parts = paddle.matmul(copy_to_ranks(states, self.group), self.weight, transpose_y=True)
        return gather_columns(parts if self.bias is None else parts + self.bias, self.group)

    def loss(
        self, states: Tensor, labels: Tensor, *, label_smoothing: float | Smoothing, num_items: float | None
    ) -> Tensor:
        """Computes the loss of labelled tokens, see `glm.modules.loss`: states [n, H], labels [n] int64 -> []."""
        return smoothed_cross_entropy(
            copy_to_ranks(states, self.group),
            self.weight,
            labels,
            bias=self.bias,
            rows=self.embedding.rows if isinstance(self.embedding, TiedEmbedding) else None,
            label_smoothing=label_smoothing,
            num_items=num_items,
            group=self.group,
            in_bfloat16=self.embedding.training and getattr(self.embedding, "trains_in_bfloat16", False),
        )
