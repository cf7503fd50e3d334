"""The geometry of autoregressive blank infilling: ids, 2D positions, labels, and who sees whom. NumPy only.

A text with blanks is Part A. Each blank (a mask token) has a span, and the spans, one after the other, are Part B:

    Part A            Part B, the span of the blank at place 4
    CLS a b c M eos | sop t1  t2       input ids
     0  1 2 3 4  5  |  4  4   4        positions, row 0: place in Part A; a span repeats its blank's place
     0  0 0 0 0  0  |  1  2   3        positions, row 1: block position, 1, 2, 3, ... in a span
     -  - - - -  -  | t1  t2  eop      labels

Part A sees all of Part A; Part B sees Part A and its own past, earlier spans included. Source: Du et al. 2022,
"GLM: General Language Model Pretraining with Autoregressive Blank Infilling", section 2.1, figure 2.

Training, prediction and each decoding step ask here; nobody else computes a position.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

IGNORE_INDEX = -100  # the label of a position without loss


@dataclass(frozen=True)
class Example:
    """One encoded item: Part A, and Part B with its labels."""

    source_ids: np.ndarray  # [S]
    target_ids: np.ndarray  # [T]
    target_position_ids: np.ndarray  # [2, T]
    labels: np.ndarray  # [T]

    def __len__(self) -> int:
        return len(self.source_ids) + len(self.target_ids)


@dataclass(frozen=True)
class BlankInfilling:
    """The geometry for one set of command tokens.

    Args:
        mask_token_ids: ids that stand for a blank: `[MASK]`, `[sMASK]`, `[gMASK]`.
        sop_token_id: opens a span in the input.
        eop_token_id: closes a span in the labels.
        block_position: False writes 1 at every block position of Part B (THUDM/GLM's `--no-block-position`).
    """

    mask_token_ids: tuple[int, ...]
    sop_token_id: int
    eop_token_id: int
    block_position: bool = True

    def blank_places(self, source_ids: Sequence[int]) -> list[int]:
        """Places of the blanks in Part A, left to right."""
        return [place for place, token in enumerate(source_ids) if token in self.mask_token_ids]

    def source_positions(self, length: int) -> np.ndarray:
        """Both position rows of Part A: [2, length]."""
        return np.stack([np.arange(length), np.zeros(length, dtype=np.int64)])

    def span_positions(self, place: int, start: int, length: int) -> np.ndarray:
        """Both position rows of the tokens `start`, ..., `start + length - 1` of a span (0 is its `sop`).

        Args:
            place: the place of the span's blank in Part A.

        Returns:
            [2, length]
        """
        block = np.arange(start + 1, start + length + 1) if self.block_position else np.ones(length, dtype=np.int64)
        return np.stack([np.full(length, place), block])

    def example(self, source_ids: Sequence[int], spans: Sequence[Sequence[int]], *, tgt_length: int) -> Example:
        """Lays out a training example.

        Args:
            source_ids: Part A with its special tokens.
            spans: the tokens of each blank's span, left to right, without `sop` and `eop`.
            tgt_length: most tokens of Part B; what is beyond is cut, and with it the `eop` label.

        Raises:
            ValueError: the number of spans is not the number of blanks, or there are none.
        """
        places = self.blank_places(source_ids)
        if not places or len(places) != len(spans):
            raise ValueError(f"{len(spans)} spans for {len(places)} blanks in the source")
        inputs = [[self.sop_token_id, *span] for span in spans]
        labels = [[*span, self.eop_token_id] for span in spans]
        positions = [self.span_positions(place, 0, len(ids)) for place, ids in zip(places, inputs, strict=True)]
        return Example(
            source_ids=np.asarray(source_ids, dtype=np.int64),
            target_ids=np.concatenate(inputs)[:tgt_length],
            target_position_ids=np.concatenate(positions, axis=1)[:, :tgt_length],
            labels=np.concatenate(labels)[:tgt_length],
        )

    def prompt(
        self, source_ids: Sequence[int], *, filled: Sequence[Sequence[int]] = (), opening: Sequence[int] = ()
    ) -> "Prompt":
        """What generation of a blank starts from.

        Args:
            source_ids: Part A with its special tokens.
            filled: the tokens of the blanks before it, left to right.
            opening: the tokens its own span starts with.

        Raises:
            ValueError: the source has no blank left.
        """
        places = self.blank_places(source_ids)
        if len(filled) >= len(places):
            raise ValueError(f"{len(filled)} blanks are filled and the source has {len(places)}")
        spans = [[self.sop_token_id, *span] for span in (*filled, opening)]
        places = places[: len(spans)]
        positions = [self.span_positions(place, 0, len(ids)) for place, ids in zip(places, spans, strict=True)]
        return Prompt(
            geometry=self,
            source_ids=np.asarray(source_ids, dtype=np.int64),
            opening_ids=np.concatenate(spans),
            opening_position_ids=np.concatenate(positions, axis=1),
            place=places[-1],
            given=len(opening),
        )


def attention_mask(source_lengths: Sequence[int], S: int, T: int) -> np.ndarray:
    """Who sees whom in a padded batch of Part A (width S) and Part B (width T).

    Args:
        source_lengths: [B], tokens of each Part A without its padding, which nobody sees.

    Returns:
        [B, 1, L, L] bool, True = row may attend to column. Every row sees some column, so no softmax is empty.
    """
    rows, columns = np.arange(S + T)[:, None], np.arange(S + T)[None, :]
    own_past = (columns >= S) & (columns <= rows)  # [L, L]
    source = np.arange(S + T)[None, :] < np.asarray(source_lengths)[:, None]  # [B, L]
    return (source[:, None, :] | own_past[None])[:, None]  # [B, 1, L, L]


def prefix_mask(source_lengths: Sequence[int], L: int) -> np.ndarray:
    """Who sees whom in rows that hold Part A, right behind it Part B, and padding behind both.

    Args:
        source_lengths: [B], tokens of each Part A.

    Returns:
        [B, L, L] bool, True = row may attend to column. Padding is seen by padding alone.
    """
    rows, columns = np.arange(L)[:, None], np.arange(L)[None, :]
    return (columns < np.asarray(source_lengths)[:, None, None]) | (columns <= rows)


@dataclass(frozen=True)
class Prompt:
    """What the generation of one span starts from: Part A, and Part B as far as it is given.

    Args:
        geometry: how positions are numbered.
        source_ids: [S].
        opening_ids: [P], the spans of earlier blanks, then `sop` and the tokens that this span starts with.
        opening_position_ids: [2, P].
        place: the place of the blank to fill.
        given: how many tokens of this span are given, `sop` not counted.
    """

    geometry: BlankInfilling
    source_ids: np.ndarray
    opening_ids: np.ndarray
    opening_position_ids: np.ndarray
    place: int
    given: int

    def __len__(self) -> int:
        return len(self.source_ids) + len(self.opening_ids)

    @property
    def input_ids(self) -> np.ndarray:
        """[S + P]"""
        return np.concatenate([self.source_ids, self.opening_ids])

    @property
    def position_ids(self) -> np.ndarray:
        """[2, S + P]"""
        source = self.geometry.source_positions(len(self.source_ids))
        return np.concatenate([source, self.opening_position_ids], axis=1)

    def step_position_ids(self, number: int) -> np.ndarray:
        """Positions of the `number`-th generated token (from 0): [2, 1]."""
        return self.geometry.span_positions(self.place, 1 + self.given + number, 1)
