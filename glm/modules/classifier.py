"""A classification head: maps one pooled state of a text to a score for each label."""

from collections.abc import Mapping

import numpy as np
import paddle
from paddle import Tensor, nn

from glm.modules.layers import Dropout, Linear
from glm.modules.tensors import as_tensor

HEAD_PREFIX = "classification_head."  # prefix of its weights' names in a model


class ClassificationHead(nn.Layer):
    """W2 tanh(W1 h + b1) + b2, with dropout between (THUDM/GLM, model/downstream.py, whose names the weights have).

    Args:
        hidden_size: H.
        labels: K; 1 where each candidate has a row of its own.
        dropout: in front of each linear.
        std: standard deviation of the random weights.
    """

    def __init__(self, hidden_size: int, labels: int, *, dropout: float = 0.1, std: float = 0.02):
        super().__init__()
        weights = paddle.ParamAttr(initializer=nn.initializer.Normal(0.0, std))
        self.dropout = Dropout(dropout)
        self.pool_layer = Linear(hidden_size, hidden_size, weight_attr=weights)
        self.multichoice_head = Linear(hidden_size, labels, weight_attr=weights)

    def forward(self, states: Tensor) -> Tensor:
        """[n, H] -> [n, K]"""
        pooled = paddle.tanh(self.pool_layer(self.dropout(states)))
        return self.multichoice_head(self.dropout(pooled))


@paddle.no_grad()
def head_scores(model: nn.Layer, batch: Mapping[str, np.ndarray]) -> np.ndarray:
    """Returns the scores [rows, K] of a batch's labelled positions, one per row, from the model's
    `classification_head`."""
    model.eval()
    states = model.labelled_states(**{name: as_tensor(table) for name, table in batch.items()})
    return model.classification_head(states).numpy()
