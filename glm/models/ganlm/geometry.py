"""Lays out records for an encoder-decoder: ids, positions, labels, and who sees whom. NumPy only.

    source            what the decoder reads
    w1 w2 w3 </s>  |  </s>  t1  t2        input ids
     2  3  4   5   |    2    3   4        rows of the position tables
     -  -  -   -   |   t1   t2 </s>       labels

The source sees all of itself; a token of the decoder sees the source and its own past. Decoding starts with `</s>`.
Rows 0 and 1 of a table of positions are of no text (fairseq counts from the id of the padding on).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from glm.errors import InputError
from glm.models.ganlm.tokenization import BOS, EOS, GanLMTokenizer
from glm.models.protocol import IGNORE_INDEX, GeometryOptions, TokenTable

FIRST_POSITION = 2  # row of a text's first token
XNLI_CLASSES = ("contradiction", "entailment", "neutral")  # The classes of the original's classifier, by number.


@dataclass(frozen=True)
class Example:
    """A training example: the source, what the decoder reads, and what it has to write.

    Attributes:
        source_ids: [S].
        target_ids, labels: [T] each.
    """

    source_ids: np.ndarray
    target_ids: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.source_ids) + len(self.target_ids)

    @property
    def num_labels(self) -> int:
        """T; every decoder position has a label."""
        return len(self.labels)


@dataclass(frozen=True)
class Prompt:
    """What generation starts from: a source, and the tokens that the decoder has read already.

    Attributes:
        source_ids: [S].
        opening_ids: [P], `</s>` and the tokens that are given.
    """

    source_ids: np.ndarray
    opening_ids: np.ndarray

    def __len__(self) -> int:
        return len(self.source_ids) + len(self.opening_ids)

    @property
    def given(self) -> int:
        """Number of tokens of the target that are given."""
        return len(self.opening_ids) - 1


def lay_out_pair(premise: Sequence[int], hypothesis: Sequence[int]) -> list[int]:
    """Lays out a text pair for the encoder: `<s> premise </s> </s> hypothesis </s>`. The decoder reads the same with
    the last token moved to the front."""
    return [BOS, *premise, EOS, EOS, *hypothesis, EOS]


def position_rows(length: int, start: int = 0) -> np.ndarray:
    """Returns the position-table rows of tokens `start`, ..., `start + length - 1` of a text: [length]."""
    return FIRST_POSITION + start + np.arange(length)


class GanLMGeometry:
    """Lays out records as `source </s>` and `</s> target`.

    Args:
        tokenizer: brings the special tokens.
        options: without effect; the target stands behind its source, and there is one row of positions.
    """

    special_tokens = 1  # of a source: </s>

    def __init__(self, tokenizer: GanLMTokenizer, options: GeometryOptions):
        self.tokenizer = tokenizer

    def lay_out(self, before: Sequence[int], after: Sequence[int]) -> list[int]:
        """Returns the ids of a source."""
        return [*before, *after, EOS]

    def example(
        self,
        source_ids: Sequence[int],
        span: Sequence[int],
        *,
        tgt_length: int,
        random: np.random.Generator | None = None,
    ) -> Example:
        """Lays out a training example; a target is cut to `tgt_length` tokens.

        Args:
            random: without effect; nothing of an example is random.
        """
        return Example(
            np.asarray(source_ids, dtype=np.int64),
            np.asarray([EOS, *span], dtype=np.int64)[:tgt_length],
            np.asarray([*span, EOS], dtype=np.int64)[:tgt_length],
        )

    def pair(self, first: Sequence[int], second: Sequence[int], pool: str) -> tuple[Example, int]:
        """Lays out a text pair for classification, and the position whose state is classified: the decoder's first.

        Raises:
            InputError: `pool` is another place than `start`.
        """
        if pool != "start":
            raise InputError(f"classification_head {pool}: GanLM classifies by the decoder's first place; use start")
        ids = np.asarray(lay_out_pair(first, second), dtype=np.int64)
        return Example(ids, np.roll(ids, 1), np.full(len(ids), IGNORE_INDEX)), len(ids)

    def pair_lengths(self, src_length: int, pool: str) -> tuple[int, int]:
        """Returns how many tokens a row has beside its texts, and how many of them the decoder reads: the same
        number."""
        return len(self.pair([], [], pool)[0].source_ids), src_length

    def prompt(
        self, source_ids: Sequence[int], *, opening: Sequence[int] = (), filled: Sequence[Sequence[int]] = ()
    ) -> Prompt:
        """Returns the prompt for a target that starts with `opening`; this family has no blanks to fill."""
        if filled:
            raise ValueError("a source of this family has no blanks")
        return Prompt(np.asarray(source_ids, dtype=np.int64), np.asarray([EOS, *opening], dtype=np.int64))

    def sizes(self, sources: np.ndarray, spans: np.ndarray, *, tgt_length: int) -> tuple[np.ndarray, np.ndarray]:
        """Counts tokens and labels of examples: [n] each."""
        targets = np.minimum(spans + 1, tgt_length)
        return sources + targets, targets

    def collate(self, rows: Sequence[Sequence[Example]], width: int, pad: int) -> dict[str, np.ndarray]:
        """Collates one example per row: the source, what the decoder reads, then padding.

        Returns:
            input_ids [B, L], labels [B, L] with -100 where there is no loss; segments [B, 1, 2], tokens of source and
            target of each row; text_ids [1], the number of ids that stand for text or end it, which are the first ones
            (what is drawn beyond them is no replaced token). All int64.
        """
        ids, labels = np.full((len(rows), width), pad, np.int64), np.full((len(rows), width), IGNORE_INDEX, np.int64)
        segments = np.zeros((len(rows), 1, 2), dtype=np.int64)
        for number, (example,) in enumerate(rows):
            S, L = len(example.source_ids), len(example)
            ids[number, :S], ids[number, S:L] = example.source_ids, example.target_ids
            labels[number, S:L] = example.labels
            segments[number, 0] = S, L - S
        text_ids = np.array([self.tokenizer.mask_token_id], dtype=np.int64)
        return {"input_ids": ids, "labels": labels, "segments": segments, "text_ids": text_ids}

    def token_table(self, example: Example | None, prompt: Prompt) -> TokenTable:
        """See `Geometry.token_table`; asserts that training and prediction agree."""
        if example is not None:
            given = min(len(prompt.opening_ids), len(example.target_ids))
            assert (prompt.source_ids == example.source_ids).all(), "the sources differ"
            assert (prompt.opening_ids[:given] == example.target_ids[:given]).all(), "the openings differ"
        S, T = len(prompt.source_ids), len(example.target_ids if example else prompt.opening_ids)
        training = None
        if example is not None:
            labels = np.concatenate([np.full(S, IGNORE_INDEX), example.labels])
            training = np.stack([*_rows(example.source_ids, example.target_ids), labels])
        return TokenTable(S, training, _rows(prompt.source_ids, prompt.opening_ids), ("position",), _sees(S, T))

    def room(self, config: Any, src_length: int) -> int:
        """Longest target, which does not depend on the source: the decoder has positions of its own."""
        return config.max_target_positions

    def check_lengths(self, config: Any, src_length: int, tgt_length: int) -> None:
        """Raises InputError if source or target are longer than the model's positions."""
        for name, length, most in (
            ("src_length", src_length, config.max_source_positions),
            ("tgt_length", tgt_length, config.max_target_positions),
        ):
            if length > most:
                kind = name.removesuffix("_length").replace("src", "source").replace("tgt", "target")
                raise InputError(
                    f"{name} {length}: the model has {most} positions (max_{kind}_positions); use at most so many, or "
                    f"have more of them learnt: --max_{kind}_positions {length}"
                )


def _rows(source_ids: np.ndarray, target_ids: np.ndarray) -> np.ndarray:
    """Returns ids and position rows: [2, S + T]."""
    positions = [position_rows(len(source_ids)), position_rows(len(target_ids))]
    return np.stack([np.concatenate([source_ids, target_ids]), np.concatenate(positions)])


def _sees(S: int, T: int) -> np.ndarray:
    """Returns [S + T, S + T] bool, True = row may attend to column; the decoder sees the source through
    cross-attention."""
    rows, columns = np.arange(S + T)[:, None], np.arange(S + T)[None, :]
    return (columns < S) | ((rows >= S) & (columns <= rows))
