"""Keys and values of a decoding run: the source once per example, generated tokens as a tree.

Beams of one example share their source and the start of their text. So the source's keys and values are stored once
per example, and every token generated since has one slot; which slots a beam sees, its ancestors, is a mask. To
continue another beam is to copy a row of the mask: no key or value ever moves.
"""

import numpy as np
import paddle
from paddle import Tensor

MASKED = -1e9  # added to the score of a key that may not be seen; finite, so that no row can turn into NaN


class LayerCache:
    """Keys and values of one layer: `source` as written by prefill, `slots` [B, N, C, D] as steps fill them."""

    def __init__(self):
        self.source: tuple[Tensor, Tensor] | None = None
        self.slots: tuple[Tensor, Tensor] | None = None

    def extend(self, keys: Tensor, values: Tensor, *, start: int, capacity: int) -> list[tuple[Tensor, Tensor]]:
        """Adds the keys and values of new tokens and returns all there are, in parts to attend to.

        Args:
            keys, values: [B, N, S, D] at prefill, [B, N, R, D] in a step.
            start: slots filled before this step.
            capacity: slots there shall be, at least `start + R`.
        """
        if self.source is None:
            self.source = (keys, values)
            return [self.source]
        B, N, R, D = keys.shape
        if self.slots is None:
            self.slots = tuple(paddle.zeros([B, N, capacity, D], dtype=keys.dtype) for _ in range(2))
        elif self.slots[0].shape[2] < capacity:
            room = paddle.zeros([B, N, capacity - self.slots[0].shape[2], D], dtype=keys.dtype)
            self.slots = tuple(paddle.concat([part, room], axis=2) for part in self.slots)
        for slots, new in zip(self.slots, (keys, values), strict=True):
            slots[:, :, start : start + R] = new
        return [self.source, self.slots]

    def keep(self, examples: Tensor) -> None:
        """Keeps these examples ([B'] int64) only."""
        self.source = tuple(paddle.index_select(part, examples, axis=0) for part in self.source)
        if self.slots is not None:
            self.slots = tuple(paddle.index_select(part, examples, axis=0) for part in self.slots)


class KVCache:
    """Key/value cache of a batch.

    Args:
        num_layers: layers of the model.
        source_mask: [B, S] bool, False at padding.
    """

    FIRST_CAPACITY = 64

    def __init__(self, num_layers: int, source_mask: np.ndarray):
        self.layers = [LayerCache() for _ in range(num_layers)]
        self.source_mask = source_mask
        self.start = 0  # slots filled by earlier steps
        self.capacity = 0
        self.ancestors = np.zeros((len(source_mask), 1, 0), dtype=bool)  # [B, R, slots]: what each row sees

    def open_step(self, rows: int, *, causal: bool = False) -> np.ndarray:
        """Makes room for R new tokens per example and says what they see.

        Args:
            rows: R; as many as live rows (`reorder` sets how many), or any number of tokens that follow the one row.
            causal: the new tokens follow one another, each seeing those before; otherwise each sees itself only.

        Returns:
            [B, R, S + C] bool, True = may attend.
        """
        B, S = self.source_mask.shape
        self.start = self.ancestors.shape[2]
        while self.capacity < self.start + rows:
            self.capacity = max(self.FIRST_CAPACITY, 2 * self.capacity, rows)
        own = np.tri(rows, dtype=bool) if causal else np.eye(rows, dtype=bool)
        self.ancestors = np.concatenate(
            [np.broadcast_to(self.ancestors, (B, rows, self.start)), np.broadcast_to(own, (B, rows, rows))], axis=2
        )
        unused = np.zeros((B, rows, self.capacity - self.ancestors.shape[2]), dtype=bool)
        source = np.broadcast_to(self.source_mask[:, None], (B, rows, S))
        return np.concatenate([source, self.ancestors, unused], axis=2)

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Stores a layer's new keys and values ([B, N, R, D] each) and returns the parts to attend to."""
        return self.layers[layer].extend(keys, values, start=self.start, capacity=self.capacity)

    def reorder(self, beam_idx: np.ndarray) -> None:
        """Lets row k of the next step continue row `beam_idx[:, k]` of the last one.

        Args:
            beam_idx: [B, K] int; K becomes the number of live rows.
        """
        self.ancestors = np.take_along_axis(self.ancestors, beam_idx[:, :, None], axis=1)

    def keep(self, examples: np.ndarray) -> None:
        """Lets only some examples of the batch go on.

        Args:
            examples: [B'] int, their places in the batch.
        """
        self.source_mask = self.source_mask[examples]
        self.ancestors = self.ancestors[examples]
        kept = paddle.to_tensor(examples)
        for layer in self.layers:
            layer.keep(kept)
