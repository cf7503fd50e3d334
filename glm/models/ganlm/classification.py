"""Classes of pairs of texts, as XNLI has them: the layout of a pair, and the head on the decoder's first position.

encoder   <s> premise </s> </s> hypothesis </s>
decoder   </s> <s> premise </s> </s> hypothesis      the same, its last token moved to the front
"""

from collections.abc import Sequence

import paddle
from paddle import Tensor, nn

from glm.models.ganlm.tokenization import BOS, EOS
from glm.modules.layers import Dropout, Linear

XNLI_CLASSES = ("contradiction", "entailment", "neutral")  # by number


def lay_out_pair(premise: Sequence[int], hypothesis: Sequence[int]) -> list[int]:
    """What the encoder reads of a pair's ids."""
    return [BOS, *premise, EOS, EOS, *hypothesis, EOS]


def rolled(ids: Sequence[int]) -> list[int]:
    """What the decoder reads: the same, with the last token first."""
    return [ids[-1], *ids[:-1]]


class ClassificationHead(nn.Layer):
    """Dropout, a layer with tanh, dropout, and a layer to the classes.

    Args:
        hidden_size: H.
        classes: how many.
        dropout: of both.
    """

    def __init__(self, hidden_size: int, classes: int, dropout: float):
        super().__init__()
        self.dropout = Dropout(dropout)
        self.dense = Linear(hidden_size, hidden_size)
        self.out_proj = Linear(hidden_size, classes)

    def forward(self, states: Tensor) -> Tensor:
        """[B, H] -> [B, classes]"""
        return self.out_proj(self.dropout(paddle.tanh(self.dense(self.dropout(states)))))
