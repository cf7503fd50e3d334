"""Packs the examples of a batch without padding, and divides their attention scores into jobs for threads."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import paddle
from paddle import Tensor

from glm.modules.tensors import as_tensor

SCORES = 1 << 19  # scores of one job at a time; they stay in the cache of a core

Block = tuple[slice, slice, bool]  # queries, the keys they see, and whether later keys are masked (causal)
Job = tuple[int, slice, list[Block]]  # number, heads, and blocks of one example


@dataclass(frozen=True)
class Packing:
    """A batch's examples one after the other, without padding: where each starts and ends.

    Args:
        places: [n] int64, the place of each token in the flattened batch [B * L].
        examples: tokens of Part A and of Part B of each.
        virtual: number of virtual tokens at the start of each Part A, which are keys and values only, see
            `with_prefix`.
        twins: tokens of Part C of each, if any has some; they come after Part A and Part B. Token i of Part C is the
            twin of token i of Part B: it sees Part A, the tokens before its twin, and itself; no other token sees it.
    """

    places: np.ndarray
    examples: list[tuple[int, int]]
    virtual: int = 0
    twins: tuple[int, ...] = ()

    @classmethod
    def of(cls, segments: np.ndarray, L: int) -> "Packing":
        """Packs a batch of rows of L tokens.

        Args:
            segments: [B, E, 2], the tokens of Part A and of Part B of each example of a row; or [B, E, 3] with those
                of Part C, which follows the example's Part B.

        Raises:
            ValueError: the examples of a row have more tokens than the row, or one more twins than Part B has tokens.
        """
        lengths = segments.sum(axis=(1, 2))  # [B]
        if (segments < 0).any() or (lengths > L).any() or (segments[..., 2:] > segments[..., 1:2]).any():
            raise ValueError(f"segments {segments.tolist()} do not fit into rows of {L} tokens")
        if not segments[..., 2:].any():
            places = [row * L + np.arange(length) for row, length in enumerate(lengths)]
            examples = [(int(a), int(b)) for a, b in segments[..., :2].reshape(-1, 2) if a + b]
            return cls(np.concatenate(places), examples)
        ends = np.arange(len(segments))[:, None] * L + np.cumsum(segments.sum(axis=2), axis=1)  # [B, E]
        parts = [
            (end - c - b - a + np.arange(a + b), end - c + np.arange(c), (int(a), int(b)))
            for (a, b, c), end in zip(segments.reshape(-1, 3), ends.flatten(), strict=True)
            if a + b
        ]
        places = [clean for clean, _, _ in parts] + [twins for _, twins, _ in parts]
        return cls(np.concatenate(places), [part[2] for part in parts], twins=tuple(len(part[1]) for part in parts))

    @cached_property
    def clean(self) -> "Packing":
        """The same examples without their twins (Part C)."""
        return Packing(self.places[: len(self.places) - sum(self.twins)], self.examples, self.virtual)

    def with_prefix(self, virtual: int) -> "Packing":
        """Puts virtual tokens at the start of each Part A, seen by the whole example.

        The new `places` index a table of the virtual tokens followed by the tokens packed here.
        """
        places = [
            part
            for start, _, end in self.spans()
            for part in (np.arange(virtual), np.arange(virtual + start, virtual + end))
        ]
        return Packing(np.concatenate(places), [(virtual + a, b) for a, b in self.examples], virtual)

    def put_before(self, prefix: Tensor, projected: Tensor) -> Tensor:
        """Puts a prefix [virtual, 3H] in front of each example.

        Args:
            projected: [tokens without virtual ones, 3H].

        Returns:
            [n, 3H]
        """
        return paddle.concat([prefix.astype(projected.dtype), projected]).gather(as_tensor(self.places))

    def without_prefix(self, context: Tensor) -> Tensor:
        """Drops the rows of virtual tokens: [n, H] -> [tokens without virtual ones, H]."""
        return context.gather(as_tensor(np.flatnonzero(self.places >= self.virtual))) if self.virtual else context

    def spans(self) -> Iterator[tuple[int, int, int]]:
        """Yields the start of Part A, the start of Part B and the end of each example."""
        start = 0
        for a, b in self.examples:
            yield start, start + a, start + a + b
            start += a + b

    def blocks(self) -> Iterator[list[Block]]:
        """Yields each example's queries in blocks of at most SCORES scores (at least one query), without virtual
        tokens.

        The keys of a block of Part B end with its last query: later keys are seen by none of its queries.
        """
        for start, middle, end in self.spans():
            blocks = []
            for first, behind, own_past in ((start + self.virtual, middle, False), (middle, end, True)):
                size = max(1, SCORES // (end - start))
                for row in range(first, behind, size):
                    rows = slice(row, min(row + size, behind))
                    blocks.append((rows, slice(start, rows.stop if own_past else behind), own_past))
            yield blocks

    def jobs(self, num_heads: int) -> list[Job]:
        """Returns jobs for threads: one head of a long example, or several heads of a short one."""
        jobs = []
        for blocks, (a, b) in zip(self.blocks(), self.examples, strict=True):
            size = max(1, SCORES // (a + b) ** 2)
            heads = [slice(head, head + size) for head in range(0, num_heads, size)]
            jobs += [(len(jobs) + place, part, blocks) for place, part in enumerate(heads)]
        return jobs

    @cached_property
    def flashmask(self) -> Tensor:
        """FlashMask's indices, [1, 1, n, 2] int32: key j is seen by queries from [j, 1] up to [j, 0]."""
        bounds = np.empty((len(self.places), 2), np.int32)
        for start, middle, end in self.spans():
            bounds[start:end, 0] = end
            bounds[start:middle, 1] = start
            bounds[middle:end, 1] = np.arange(middle, end)
        return as_tensor(bounds[None, None])
