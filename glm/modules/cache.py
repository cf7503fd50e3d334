"""The key/value cache of decoding: the prompt once per example, generated tokens as a tree.

The beams of an example share its prompt (source and opening) and the start of their texts. So the prompt's keys and
values are stored once per example, and each generated token has one slot. A mask says which slots a beam sees: its
ancestors. To continue another beam, a row of the mask is copied; no key or value moves. When the slots are full, those
that no beam sees any more are reused.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from glm.modules.tensors import as_tensor

MASKED = -1e9  # added to the score of a masked key; finite, so that no row can become NaN
KeysValues = tuple[Tensor, Tensor]  # [B, N, length, D] each
Prompt = Any  # a family's own type, see glm.models.protocol; opaque here


class LayerCache:
    """Keys and values of one layer: `prompt` [B, N, L, D], written by prefill, and `slots` [B, N, C, D], by steps."""

    def __init__(self, prompt: KeysValues):
        self.prompt = prompt
        self.slots: KeysValues | None = None

    @classmethod
    def of_prompts(cls, projected: Tensor, lengths: Sequence[int], num_heads: int) -> "LayerCache":
        """Makes the cache from queries, keys and values [n, 3H] of concatenated prompts."""
        _, keys, values = projected.reshape([len(projected), 3, num_heads, -1]).unbind(1)  # [n, N, D] each
        return cls(tuple(_side_by_side(part.split(list(lengths))) for part in (keys, values)))

    @classmethod
    def of_pairs(cls, pairs: Tensor, lengths: Sequence[int], num_heads: int) -> "LayerCache":
        """Makes a cache without slots from keys and values [m, 2H] of concatenated sources."""
        keys, values = pairs.reshape([len(pairs), 2, num_heads, -1]).unbind(1)  # [m, N, D] each
        return cls(tuple(_side_by_side(part.split(list(lengths))) for part in (keys, values)))

    @staticmethod
    def seen_by(lengths: np.ndarray, width: int, ancestors: np.ndarray, capacity: int, num_heads: int) -> Tensor:
        """Returns the mask that `attend` needs; arguments as of `visible`.

        Returns:
            [B, N, R, L + C], to be added to scores. It is expanded over heads once per step: broadcasting it in each
            layer costs far more on a CPU.
        """
        seen = visible(lengths, width, ancestors, capacity)
        hidden = as_tensor(np.where(seen, np.float32(0), np.float32(MASKED)))
        return hidden.unsqueeze(1).expand([-1, num_heads, -1, -1])

    def attend(self, attention: nn.Layer, projected: Tensor, seen: Tensor, start: int) -> Tensor:
        """Stores the keys and values of new tokens in the slots from `start` on, and attends to what each row sees.

        Args:
            attention: the layer's, `glm.modules.block.Attention`.
            projected: [B, R, 3H], queries, keys and values.
            seen: the result of `seen_by` for this step.

        Returns:
            [B * R, H]
        """
        query, keys, values = attention.split(projected)
        return attention.attend(query, self.extend(keys, values, start), seen).flatten(0, 1)

    def look(self, attention: nn.Layer, queries: Tensor, seen: Tensor) -> Tensor:
        """Attends to the prompts alone: queries [B, R, H] -> [B * R, H]; otherwise as `attend`."""
        B, R, _ = queries.shape
        heads = queries.reshape([B, R, attention.num_heads, -1]).transpose([0, 2, 1, 3])  # [B, N, R, D]
        return attention.attend(heads / math.sqrt(heads.shape[-1]), [self.prompt], seen).flatten(0, 1)

    def extend(self, keys: Tensor, values: Tensor, start: int) -> list[KeysValues]:
        """Writes the keys and values of new tokens ([B, N, R, D] each) to the slots from `start` on.

        Returns:
            The parts to attend to.
        """
        for slots, new in zip(self.slots, (keys, values), strict=True):
            slots[:, :, start : start + new.shape[2]] = new
        return [self.prompt, self.slots]

    def keep_slots(self, used: np.ndarray, capacity: int) -> None:
        """Resizes to `capacity` slots and moves the slots `used` ([B, n] int) to the front."""
        B, N, _, D = self.prompt[0].shape
        roomy = [paddle.zeros([B, N, capacity, D], dtype=part.dtype) for part in self.prompt]
        if used.shape[1]:
            rows = np.arange(B * N).reshape([B, N, 1]) * self.slots[0].shape[2] + used[:, None]  # [B, N, n]
            rows = as_tensor(rows.flatten())
            for new, old in zip(roomy, self.slots, strict=True):
                new[:, :, : used.shape[1]] = old.reshape([-1, D]).gather(rows).reshape([B, N, -1, D])
        self.slots = tuple(roomy)

    def keep(self, examples: Tensor, width: int) -> None:
        """Keeps only these examples ([B'] int64) and the first `width` places of the prompts."""
        self.prompt = tuple(paddle.index_select(part[:, :, :width], examples) for part in self.prompt)
        if self.slots is not None:
            self.slots = tuple(paddle.index_select(part, examples) for part in self.slots)

    def widen(self, width: int) -> None:
        """Pads the prompts to a width."""
        self.prompt = tuple(_wide(part, width) for part in self.prompt)

    def replace(self, places: Sequence[int], other: "LayerCache") -> None:
        """Replaces the examples at these places of the batch by those of `other`, whose prompts are not longer."""
        for mine, theirs in zip(self.prompt, other.prompt, strict=True):
            for place, prompt in zip(places, theirs, strict=True):
                mine[place, :, : prompt.shape[1]] = prompt

    def append(self, other: "LayerCache", width: int) -> None:
        """Appends the examples of `other` to the batch and pads all prompts to `width`."""
        self.prompt = tuple(
            paddle.concat([_wide(mine, width), _wide(theirs, width)])
            for mine, theirs in zip(self.prompt, other.prompt, strict=True)
        )
        if self.slots is not None:
            n = other.prompt[0].shape[0]
            self.slots = tuple(
                paddle.concat([part, paddle.zeros([n, *part.shape[1:]], dtype=part.dtype)]) for part in self.slots
            )


def _wide(part: Tensor, width: int) -> Tensor:
    """Pads [B, N, length, D] with zeros to [B, N, width, D]."""
    return F.pad(part, [0, 0, 0, 0, 0, width - part.shape[2], 0, 0], pad_from_left_axis=True)


def _side_by_side(parts: Sequence[Tensor]) -> Tensor:
    """Stacks parts [length, N, D] to [B, N, longest, D], padded with zeros."""
    longest = max(len(part) for part in parts)
    padded = [F.pad(part, [0, longest - len(part), 0, 0, 0, 0], pad_from_left_axis=True) for part in parts]
    return paddle.stack(padded).transpose([0, 2, 1, 3])


def visible(lengths: np.ndarray, width: int, ancestors: np.ndarray, capacity: int) -> np.ndarray:
    """Returns which places of a cache each row may attend to.

    Args:
        lengths: [B], tokens of each prompt without padding.
        width: L, the padded length of prompts.
        ancestors: [B, R, slots] bool, which of the filled slots each row sees.
        capacity: C, the number of slots.

    Returns:
        [B, R, L + C] bool, True = may attend.
    """
    B, R, filled = ancestors.shape
    prompt = np.arange(width) < lengths[:, None, None]  # [B, 1, L]
    unused = np.zeros((B, R, capacity - filled), dtype=bool)
    return np.concatenate([np.broadcast_to(prompt, (B, R, width)), ancestors, unused], axis=2)


class KVCache:
    """Key/value cache of a batch.

    Args:
        layers: one for each layer of the model, as prefill made them.
        lengths: [B], tokens of each prompt without padding.
        prompts: prompts of the examples, in order; the model asks them for positions.
    """

    ROOM = 64  # free slots to have at least after unused ones were reclaimed
    MOST_NEEDED = 0.75  # prompts are narrowed once at most this share of their width is needed

    def __init__(self, layers: list[LayerCache], lengths: np.ndarray, prompts: Sequence[Prompt]):
        self.layers = layers
        self.lengths = np.asarray(lengths)
        self.prompts = list(prompts)
        self.width = int(self.lengths.max())
        self.capacity = 0  # slots per example
        self.start = 0  # slots filled by earlier steps
        self.ancestors = np.zeros((len(self.lengths), 1, 0), dtype=bool)  # [B, R, slots]: what each row sees

    def open_step(self, rows: int, *, looks: int = 0, sees: np.ndarray | None = None) -> np.ndarray:
        """Reserves a slot for each new token of a step, one per live row, and for tokens that only look.

        Args:
            rows: tokens read in this step: R, R + `looks`, or `looks` alone.
            looks: R or 0, the last of the tokens read. Each sees what its row sees (the row's new token included) and
                itself. No later token sees it, so its slot is reused.
            sees: [B, R, R] bool, which new tokens each row sees; only its own if not given.

        Returns:
            [B, rows, slots] bool, which slots each of the tokens sees.
        """
        B, R, _ = self.ancestors.shape
        if self.ancestors.shape[2] + rows > self.capacity:
            self._collect(rows)
        self.start = self.ancestors.shape[2]
        own = np.broadcast_to(np.eye(R, dtype=bool), (B, R, R)) if sees is None else sees
        if rows > looks:
            self.ancestors = np.concatenate([self.ancestors, own], axis=2)
        if not looks:
            return self.ancestors
        seen = [np.concatenate([self.ancestors, own], axis=2)]
        if rows > looks:
            seen.insert(0, np.concatenate([self.ancestors, np.zeros_like(own)], axis=2))
        return np.concatenate(seen, axis=1)

    def _collect(self, rows: int) -> None:
        """Reclaims the slots that no row sees, and leaves room for half as many new ones as are still in use."""
        seen = self.ancestors.any(axis=1)  # [B, slots]
        most = int(seen.sum(axis=1).max(initial=0))
        used = np.argsort(~seen, axis=1, kind="stable")[:, :most]  # [B, n], those seen first, in their order
        self.ancestors = np.take_along_axis(self.ancestors, used[:, None], axis=2)
        self.capacity = most + max(self.ROOM, most // 2, rows)
        for layer in self.layers:
            layer.keep_slots(used, self.capacity)

    def reorder(self, beam_idx: np.ndarray) -> None:
        """Lets row k of the next step continue row `beam_idx[:, k]` of the last one.

        Args:
            beam_idx: [B, K] int; K becomes the number of live rows.
        """
        self.ancestors = np.take_along_axis(self.ancestors, beam_idx[:, :, None], axis=1)

    def begin_anew(self, rows: int) -> None:
        """Restarts each example from its prompt with so many rows; everything read behind it is forgotten."""
        self.ancestors = np.zeros((len(self.lengths), rows, 0), dtype=bool)

    def keep(self, examples: np.ndarray) -> None:
        """Keeps only some examples of the batch.

        Args:
            examples: [B'] int, their places in the batch.
        """
        self.lengths = self.lengths[examples]
        self.prompts = [self.prompts[example] for example in examples]
        self.ancestors = self.ancestors[examples]
        self._select(examples)

    def replace(self, places: Sequence[int], other: "KVCache") -> None:
        """Replaces finished examples by new ones.

        Args:
            places: [n] int.
            other: the cache of n prompts.
        """
        if other.width > self.width:
            self.width = other.width
            for layer in self.layers:
                layer.widen(self.width)
        self.lengths[places] = other.lengths
        for place, prompt in zip(places, other.prompts, strict=True):
            self.prompts[place] = prompt
        self.ancestors[places] = False
        for mine, theirs in zip(self.layers, other.layers, strict=True):
            mine.replace(places, theirs)
        if self.lengths.max() <= self.MOST_NEEDED * self.width:
            self._select(np.arange(len(self.lengths)))

    def append(self, other: "KVCache") -> None:
        """Appends the examples of another cache, fresh from prefill."""
        self.lengths = np.concatenate([self.lengths, other.lengths])
        self.prompts += other.prompts
        self.width = max(self.width, other.width)
        nothing = np.zeros((len(other.lengths), *self.ancestors.shape[1:]), dtype=bool)
        self.ancestors = np.concatenate([self.ancestors, nothing])
        for mine, theirs in zip(self.layers, other.layers, strict=True):
            mine.append(theirs, self.width)

    def _select(self, examples: np.ndarray) -> None:
        self.width = int(self.lengths.max())
        examples = as_tensor(examples)
        for layer in self.layers:
            layer.keep(examples, self.width)
