"""Trains a few rows of a frozen embedding: those of tokens that a task adds to the vocabulary."""

from collections.abc import Mapping, Sequence

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from glm.modules.tensors import as_tensor


class TrainedRows(nn.Layer):
    """Rows of a table as parameters of their own, from which the table is updated.

    Args:
        table: [V, H], frozen.
        groups: the numbers of rows, by the name of the parameter that holds them.
    """

    def __init__(self, table: Tensor, groups: Mapping[str, Sequence[int]]):
        super().__init__()
        self.ids = np.concatenate([np.asarray(rows, np.int64) for rows in groups.values()])
        self.names = tuple(groups)
        places = np.full(table.shape[0], -1, np.int64)
        places[self.ids] = np.arange(len(self.ids))
        self._places = as_tensor(places)
        for name, rows in groups.items():
            weight = self.create_parameter([len(rows), table.shape[1]], dtype=table.dtype)
            weight.set_value(table.gather(as_tensor(np.asarray(rows, np.int64))))
            self.add_parameter(name, weight)

    def joined(self) -> Tensor:
        """All rows, [rows, H], in the order of `ids`."""
        return paddle.concat([self._parameters[name] for name in self.names])

    @paddle.no_grad()
    def write(self, table: Tensor) -> None:
        """Writes the rows into their table."""
        paddle.scatter_(table, as_tensor(self.ids), self.joined())

    def look_up(self, ids: Tensor, table: Tensor) -> Tensor:
        """Looks ids up, [...] int64 -> [..., H], with a gradient of these rows only."""
        self.write(table)
        places = self._places.gather(ids.flatten())  # [n]
        own = F.embedding(places.clip(0), self.joined())  # [n, H]
        states = paddle.where((places >= 0).unsqueeze(-1), own, F.embedding(ids.flatten(), table))
        return states.reshape([*ids.shape, -1])
