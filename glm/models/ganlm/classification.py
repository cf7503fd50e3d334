"""Classification of text pairs, as in XNLI: how a pair is laid out, and the head on the decoder's first position.

encoder   <s> premise </s> </s> hypothesis </s>
decoder   </s> <s> premise </s> </s> hypothesis      the same, its last token moved to the front
"""

import paddle
from paddle import Tensor, nn

from glm.modules.layers import Dropout, Linear


class ClassificationHead(nn.Layer):
    """Classification head: dropout, a linear with tanh, dropout, and a linear to the classes.

    Args:
        hidden_size: H.
        classes: how many.
        dropout: rate of both.
    """

    def __init__(self, hidden_size: int, classes: int, dropout: float):
        super().__init__()
        self.dropout = Dropout(dropout)
        self.dense = Linear(hidden_size, hidden_size)
        self.out_proj = Linear(hidden_size, classes)

    def forward(self, states: Tensor) -> Tensor:
        """[B, H] -> [B, classes]"""
        return self.out_proj(self.dropout(paddle.tanh(self.dense(self.dropout(states)))))
