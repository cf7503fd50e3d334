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
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from glm.errors import InputError
from glm.models.glm.tokenization import GLMSentencePieceTokenizer
from glm.models.protocol import IGNORE_INDEX, NO_TASK, GeometryOptions, TokenTable, pad_rows


@dataclass(frozen=True)
class Example:
    """A training example: Part A, and Part B with its labels."""

    source_ids: np.ndarray  # [S]
    target_ids: np.ndarray  # [T]
    target_position_ids: np.ndarray  # [2, T]
    labels: np.ndarray  # [T]
    task: int = NO_TASK  # number of its task, if the task has an adapter

    def __len__(self) -> int:
        return len(self.source_ids) + len(self.target_ids)

    @property
    def num_labels(self) -> int:
        """T; every position of Part B has a label."""
        return len(self.target_ids)


@dataclass(frozen=True)
class BlankInfilling:
    """Computes positions and labels of texts with any number of blanks, for one set of command tokens.

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
        """Returns the places of the blanks in Part A, left to right."""
        return [place for place, token in enumerate(source_ids) if token in self.mask_token_ids]

    def source_positions(self, length: int) -> np.ndarray:
        """Returns both position rows of Part A: [2, length]."""
        return np.stack([np.arange(length), np.zeros(length, dtype=np.int64)])

    def span_positions(self, place: int, start: int, length: int) -> np.ndarray:
        """Returns both position rows of a span's tokens `start`, ..., `start + length - 1` (0 is its `sop`).

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
        """Returns what generation of a blank starts from.

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
    """Returns who sees whom in a batch with Part A padded to width S and Part B to width T.

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
    """Returns who sees whom in rows of Part A, directly followed by Part B and then padding.

    Args:
        source_lengths: [B], tokens of each Part A.

    Returns:
        [B, L, L] bool, True = row may attend to column. Padding is seen by padding alone.
    """
    rows, columns = np.arange(L)[:, None], np.arange(L)[None, :]
    return (columns < np.asarray(source_lengths)[:, None, None]) | (columns <= rows)


@dataclass(frozen=True)
class Prompt:
    """What generation of one span starts from: Part A, and the given tokens of Part B.

    Args:
        geometry: how positions are numbered.
        source_ids: [S].
        opening_ids: [P], the spans of earlier blanks, then `sop` and the tokens that this span starts with.
        opening_position_ids: [2, P].
        place: the place of the blank to fill.
        given: how many tokens of this span are given, `sop` not counted.
        task: the number of its task, if that has an adapter.
    """

    geometry: BlankInfilling
    source_ids: np.ndarray
    opening_ids: np.ndarray
    opening_position_ids: np.ndarray
    place: int
    given: int
    task: int = NO_TASK

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
        """Returns the positions of the `number`-th generated token (from 0): [2, 1]."""
        return self.geometry.span_positions(self.place, 1 + self.given + number, 1)

    def span_position_ids(self, length: int) -> np.ndarray:
        """Returns the positions of the first `length` generated tokens: [2, length]."""
        return self.geometry.span_positions(self.place, 1 + self.given, length)


class GLMGeometry:
    """Lays out records as `[CLS] source [gMASK] <|endoftext|>` and `sop opening target eop`; options may leave out
    `<|endoftext|>`.

    Args:
        tokenizer: brings the command tokens.
        options: which blank the template has, and how block positions are numbered.
    """

    def __init__(self, tokenizer: GLMSentencePieceTokenizer, options: GeometryOptions):
        self.tokenizer = tokenizer
        self.task = options.task
        self.closed = options.closed
        self.special_tokens = 3 if self.closed else 2  # of a source: [CLS], the blank, <|endoftext|>
        self.blank_id = tokenizer.special_ids[options.blank]
        self.infilling = BlankInfilling(
            tokenizer.mask_token_ids, tokenizer.sop_token_id, tokenizer.eop_token_id, options.block_position
        )

    def lay_out(self, before: Sequence[int], after: Sequence[int]) -> list[int]:
        """Returns Part A: the text before and after the blank."""
        ids = [self.tokenizer.cls_token_id, *before, self.blank_id, *after]
        return [*ids, self.tokenizer.eos_token_id] if self.closed else ids

    def lay_out_blanks(self, parts: Sequence[Sequence[int] | str]) -> list[int]:
        """Returns Part A of alternating texts and blanks; nothing follows a final `[gMASK]` (THUDM/GLM,
        generate_samples.py)."""
        ids = [self.tokenizer.cls_token_id]
        for part in parts:
            ids += [self.tokenizer.special_ids[part]] if isinstance(part, str) else part
        if parts[-1] != "[gMASK]":
            ids.append(self.tokenizer.eos_token_id)
        return ids

    def example(
        self,
        source_ids: Sequence[int],
        span: Sequence[int],
        *,
        tgt_length: int,
        random: np.random.Generator | None = None,
    ) -> Example:
        """See `BlankInfilling.example`; nothing in it is random."""
        return replace(self.infilling.example(source_ids, [span], tgt_length=tgt_length), task=self.task)

    def prompt(
        self, source_ids: Sequence[int], *, opening: Sequence[int] = (), filled: Sequence[Sequence[int]] = ()
    ) -> Prompt:
        """See `BlankInfilling.prompt`."""
        return replace(self.infilling.prompt(source_ids, opening=opening, filled=filled), task=self.task)

    def pair(self, first: Sequence[int], second: Sequence[int], pool: str) -> tuple[Example, int]:
        """Lays out `[CLS] first [SEP] second <|endoftext|>`, followed by another <|endoftext|> that sees all of it, at
        positions 0, 0 (THUDM/GLM, tasks/data_utils.py)."""
        tokenizer = self.tokenizer
        between = [tokenizer.special_ids["[SEP]"], *second] if len(second) else []
        source = np.array([tokenizer.cls_token_id, *first, *between, tokenizer.eos_token_id], dtype=np.int64)
        behind = np.array([tokenizer.eos_token_id], dtype=np.int64)
        example = Example(source, behind, np.zeros((2, 1), dtype=np.int64), np.zeros(1, dtype=np.int64))
        return example, {"cls": 0, "pad": len(source) - 1, "start": len(source)}[pool]

    def pair_lengths(self, src_length: int, pool: str) -> tuple[int, int]:
        """Returns how many tokens of a row are not text, and how many are read behind the row."""
        second = [self.tokenizer.eos_token_id]
        return len(self.pair([], second, pool)[0]) - len(second), 0

    def sizes(self, sources: np.ndarray, spans: np.ndarray, *, tgt_length: int) -> tuple[np.ndarray, np.ndarray]:
        """Counts tokens and labels of examples, [n] each; `sop` is a token, `eop` a label."""
        targets = np.minimum(spans + 1, tgt_length)
        return sources + targets, targets

    def collate(self, rows: Sequence[Sequence[Example]], width: int, pad: int) -> dict[str, np.ndarray]:
        """Collates rows of examples: Part A, directly followed by Part B, the next example, and padding at the end.

        Returns:
            input_ids [B, L], position_ids [B, 2, L], labels [B, L] with -100 where there is no loss, all int64; and
            segments [B, E, 2], tokens of Part A and of Part B of each row's examples from left to right, 0 where a
            row has fewer; and where adapters are for some of them tasks [B, E], the numbers of these, -1 for none.
        """
        positions = np.zeros((len(rows), 2, width), dtype=np.int64)
        segments = np.zeros((len(rows), max(map(len, rows)), 2), dtype=np.int64)
        for number, row in enumerate(rows):
            joined = np.concatenate([self._position_ids(example) for example in row], axis=1)
            positions[number, :, : joined.shape[1]] = joined
            segments[number, : len(row)] = [(len(example.source_ids), len(example.target_ids)) for example in row]
        tasks = pad_rows([[example.task for example in row] for row in rows], segments.shape[1], NO_TASK)
        return {
            "input_ids": pad_rows([_input_ids(row) for row in rows], width, pad),
            "position_ids": positions,
            "labels": pad_rows([_labels(row) for row in rows], width, IGNORE_INDEX),
            "segments": segments,
            **({} if (tasks == NO_TASK).all() else {"tasks": tasks}),
        }

    def _position_ids(self, example: Example) -> np.ndarray:
        """[2, tokens of the example]"""
        source = self.infilling.source_positions(len(example.source_ids))
        return np.concatenate([source, example.target_position_ids], axis=1)

    def token_table(self, example: Example | None, prompt: Prompt) -> TokenTable:
        """See `Geometry.token_table`; asserts that training and prediction agree."""
        if example is not None:
            check_alike(example, prompt)
        S = len(prompt.source_ids)
        training = None
        if example is not None:
            training = np.concatenate(
                [_input_ids([example])[None], self._position_ids(example), _labels([example])[None]]
            )
        return TokenTable(
            source_length=S,
            training=training,
            prediction=np.concatenate([prompt.input_ids[None], prompt.position_ids]),
            rows=("position", "block"),
            sees=attention_mask([S], S, len(example.target_ids if example else prompt.opening_ids))[0, 0],
        )

    def room(self, config: Any, src_length: int) -> int:
        """Longest Part B beside `src_length` tokens of Part A: both share the positions."""
        return config.max_sequence_length - src_length

    def check_lengths(self, config: Any, src_length: int, tgt_length: int) -> None:
        """Raises InputError if Part A and Part B together are longer than the model's positions."""
        length = src_length + tgt_length
        if length > config.max_sequence_length:
            raise InputError(
                f"src_length {src_length} + tgt_length {tgt_length} = {length}: the model has "
                f"{config.max_sequence_length} positions (max_sequence_length); shorten one of them"
            )


def _input_ids(row: Sequence[Example]) -> np.ndarray:
    return np.concatenate([ids for example in row for ids in (example.source_ids, example.target_ids)])


def _labels(row: Sequence[Example]) -> np.ndarray:
    parts = [(np.full(len(example.source_ids), IGNORE_INDEX), example.labels) for example in row]
    return np.concatenate([labels for pair in parts for labels in pair])


def check_alike(example: Example, prompt: Prompt) -> None:
    """Asserts that generation starts from and continues with the ids and positions of training.

    The tokens generated are those of the target: each is read at its training position, and sees what it saw then.
    """
    S, P, T = len(example.source_ids), len(prompt.opening_ids), len(example.target_ids)
    given = min(P, T)  # a target that was cut may end within the opening
    assert (prompt.source_ids == example.source_ids).all(), "the sources differ"
    assert (prompt.opening_ids[:given] == example.target_ids[:given]).all(), "the openings differ"
    positions = [prompt.opening_position_ids, *(prompt.step_position_ids(step) for step in range(T - P))]
    positions = np.concatenate(positions, axis=1)[:, :T]
    assert (positions == example.target_position_ids).all(), "the positions of the target differ"
    assert (attention_mask([S], S, T)[0, 0] == prefix_mask([S], S + T)[0]).all(), "who sees whom differs"
