"""Lays out pairs for mT5: the source followed by `</s>`, and the target between `<pad>` and `</s>`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from glm.models.mt5.tokenization import END, PAD, MT5Tokenizer
from glm.models.protocol import IGNORE_INDEX, GeometryOptions, TokenTable

LONGEST = 1 << 15  # tokens of a text; positions are relative, so the model itself has no limit


@dataclass(frozen=True)
class Example:
    """A training example: source [S], what the decoder reads [T], and the tokens to write [T]."""

    source_ids: np.ndarray
    target_ids: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.source_ids) + len(self.target_ids)

    @property
    def num_labels(self) -> int:
        """T"""
        return len(self.labels)


@dataclass(frozen=True)
class Prompt:
    """A source [S] to generate a target for."""

    source_ids: np.ndarray
    given: int = 0

    def __len__(self) -> int:
        return len(self.source_ids)


class MT5Geometry:
    """See `glm.models.protocol.Geometry`.

    Args:
        tokenizer: brings the vocabulary.
        options: not looked at: a family without blanks writes behind its source.
    """

    special_tokens = 1  # of a source: </s>

    def __init__(self, tokenizer: MT5Tokenizer, options: GeometryOptions):
        self.tokenizer = tokenizer

    def lay_out(self, before: Sequence[int], after: Sequence[int]) -> list[int]:
        """Returns the source; this family can write only behind it."""
        return [*before, *after, END]

    def example(
        self,
        source_ids: Sequence[int],
        span: Sequence[int],
        *,
        tgt_length: int,
        random: np.random.Generator | None = None,
    ) -> Example:
        """Makes the training example of a pair; nothing in it is random."""
        inputs, labels = [PAD, *span][:tgt_length], [*span, END][:tgt_length]
        return Example(*(np.asarray(ids, np.int64) for ids in (source_ids, inputs, labels)))

    def prompt(
        self, source_ids: Sequence[int], *, opening: Sequence[int] = (), filled: Sequence[Sequence[int]] = ()
    ) -> Prompt:
        """Returns what generation starts from; the target's beginning cannot be given."""
        assert not len(opening) and not len(filled), "mT5's search writes whole texts"
        return Prompt(np.asarray(source_ids, np.int64))

    def sizes(self, sources: np.ndarray, spans: np.ndarray, *, tgt_length: int) -> tuple[np.ndarray, np.ndarray]:
        """Counts tokens and labels of examples, [n] each."""
        targets = np.minimum(spans + 1, tgt_length)
        return sources + targets, targets

    def collate(self, rows: Sequence[Sequence[Example]], width: int, pad: int) -> dict[str, np.ndarray]:
        """Returns input_ids [B, S], attention_mask [B, S], decoder_input_ids [B, T] and labels [B, T], int64."""
        examples = [example for row in rows for example in row]
        return {
            "input_ids": _table([example.source_ids for example in examples], pad),
            "attention_mask": _table([np.ones_like(example.source_ids) for example in examples], 0),
            "decoder_input_ids": _table([example.target_ids for example in examples], pad),
            "labels": _table([example.labels for example in examples], IGNORE_INDEX),
        }

    def token_table(self, example: Example | None, prompt: Prompt) -> TokenTable:
        """See `Geometry.token_table`."""
        S, training, T = len(prompt.source_ids), None, 0
        if example is not None:
            assert (example.source_ids == prompt.source_ids).all(), "the sources differ"
            T = len(example.target_ids)
            labels = np.concatenate([np.full(S, IGNORE_INDEX), example.labels])
            training = np.stack([np.concatenate([example.source_ids, example.target_ids]), labels])
        rows, columns = np.arange(S + T)[:, None], np.arange(S + T)[None, :]
        sees = (columns < S) | ((columns <= rows) & (rows >= S))
        return TokenTable(S, training, prompt.source_ids[None], (), sees)

    def room(self, config: Any, src_length: int) -> int:
        """Longest target."""
        return LONGEST

    def check_lengths(self, config: Any, src_length: int, tgt_length: int) -> None:
        """Accepts any length: positions are relative."""


def _table(rows: Sequence[np.ndarray], fill: int) -> np.ndarray:
    """Pads rows on the right to [B, longest]."""
    table = np.full((len(rows), max(map(len, rows))), fill, np.int64)
    for line, row in zip(table, rows, strict=True):
        line[: len(row)] = row
    return table
