"""UniLM's pretraining: rows of four language models in one mixture, and the order of sentences.

A document is cut into pieces at its punctuation, and pieces are put together until they fill a row. Of such a passage
each draw makes two parts at a random boundary, and of them a row of one of the four language models, a share of whose
tokens is to be found again; of both directions also whether the parts stand in the document's order. All of it is a
function of the passage and of `random`; the passage stays what it is.

Source: Dong et al. 2019, section 2.4; sizes and shares as the pretraining script of the Chinese UniLM
(`train_local.py`).
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from glm.errors import InputError
from glm.models.protocol import IGNORE_INDEX, Corpus, GeometryOptions, Objectives, Sample
from glm.models.unilm.geometry import (
    BIDIRECTIONAL,
    LEFT_TO_RIGHT,
    RIGHT_TO_LEFT,
    SEQ2SEQ,
    TASK_SEGMENTS,
    Example,
    TokenMasker,
    UniLMGeometry,
    chosen_count,
    cut_lengths,
    pair_in_task,
)
from glm.models.unilm.tokenization import WordPieceTokenizer

# A piece of a document, with the punctuation mark that ends it.
PIECE = re.compile(r"[^。？！!?，]*[。？！!?，]|[^。？！!?，]+")
# By task number.
NAMES = ("bidirectional", "left_to_right", "right_to_left", "seq2seq")
SHARES = {BIDIRECTIONAL: 1 / 3, LEFT_TO_RIGHT: 1 / 6, RIGHT_TO_LEFT: 1 / 6, SEQ2SEQ: 1 / 3}

Passage = list[list[int]]  # the pieces of a part of a document, as ids


@dataclass(frozen=True)
class Mixture:
    """UniLM's pretraining objective: a mixture of four language models.

    Args:
        tokenizer: encodes documents, and brings BERT's own tokens.
        seq_length: most tokens of a row, special ones included.
        mask_prob, max_pred: the share of a row's text that is predicted, and its most tokens.

    Raises:
        InputError: an option is out of its range.
    """

    tokenizer: WordPieceTokenizer
    seq_length: int = 128
    mask_prob: float = 0.15
    max_pred: int = 48

    def __post_init__(self):
        if self.seq_length < 8:
            raise InputError(f"seq_length {self.seq_length}: use 8 or more")
        if not 0 < self.mask_prob <= 1:
            raise InputError(f"mask_prob {self.mask_prob}: use a number above 0, at most 1")
        if self.max_pred < 1:
            raise InputError(f"max_pred {self.max_pred}: use 1 or more")

    def passages(self, document: str) -> Iterator[Passage]:
        """Puts the pieces of a document together to passages of at least two pieces, as a pair needs."""
        pieces = self.parts(document)
        yield from self.units(self.tokenizer.encode_text(pieces) if pieces else [])

    def parts(self, document: str) -> list[str]:
        """Splits a document into pieces; pieces of a single character are dropped."""
        return [piece for piece in PIECE.findall(document.strip()) if len(piece.strip()) > 1]

    def units(self, parts: Sequence[Sequence[int]]) -> Iterator[Passage]:
        """Makes passages of a document whose pieces are given as ids."""
        passage: Passage = []
        for ids in filter(None, parts):
            passage.append(ids)
            if sum(map(len, passage)) >= self.seq_length:
                if len(passage) > 1:
                    yield passage
                passage = []
        if len(passage) > 1:
            yield passage

    def example(self, passage: Passage, random: np.random.Generator, task: int | None = None) -> Example:
        """Draws a row of at most `seq_length` tokens from a passage; `task` fixes the language model."""
        boundary = int(random.integers(1, len(passage)))
        a, b = ([number for piece in part for number in piece] for part in (passage[:boundary], passage[boundary:]))
        drawn = int(random.choice(list(SHARES), p=list(SHARES.values())))
        task = drawn if task is None else task
        order = IGNORE_INDEX
        if task == BIDIRECTIONAL:
            order = int(random.random() < 0.5)
            a, b = (a, b) if order else (b, a)
        special = 2 if task in TASK_SEGMENTS else 3
        kept = cut_lengths(len(a), len(b), self.seq_length - special)
        a, b = (_cut(part, int(length), random) for part, length in zip((a, b), kept, strict=True))
        return self._masked(pair_in_task(self.tokenizer, task, a, b, order=order), len(a), len(b), random)

    def _masked(self, example: Example, a: int, b: int, random: np.random.Generator) -> Example:
        """Adds labels at chosen tokens of the text and the last [SEP]; for source to target, of the target only."""
        L = len(example)
        candidates = np.arange(1, L)
        if example.task == SEQ2SEQ:
            candidates = np.arange(example.parts[0], L)
        elif example.task == BIDIRECTIONAL:
            candidates = np.delete(candidates, a)  # the inner [SEP] is at place 1 + a
        count = int(chosen_count(b if example.task == SEQ2SEQ else a + b, self.mask_prob, self.max_pred))
        places = np.sort(random.choice(candidates, count, replace=False))
        if example.task == RIGHT_TO_LEFT:
            places = L - 1 - places
        ids, labels = example.input_ids.copy(), example.labels
        labels[places] = ids[places]
        ids[places] = self.masker.draw(ids[places], random)
        return Example(
            ids, example.position_ids, example.segment_ids, labels, example.parts, example.task, example.order
        )

    # -- see `glm.models.protocol.Pretraining`

    @property
    def described(self) -> dict[str, Any]:
        """Everything beside the tokenizer that samples depend on."""
        return {"seq_length": self.seq_length, "mask_prob": self.mask_prob, "max_pred": self.max_pred}

    @property
    def described_units(self) -> dict[str, Any]:
        """Everything beside the tokenizer that passages depend on."""
        return {"seq_length": self.seq_length}

    @cached_property
    def masker(self) -> TokenMasker:
        """Replaces chosen tokens."""
        return TokenMasker(self.tokenizer)

    @cached_property
    def geometry(self) -> UniLMGeometry:
        """Writes rows."""
        return UniLMGeometry(self.tokenizer, GeometryOptions(blank=""))

    @property
    def planned(self) -> tuple[int, int]:
        """Tokens and labels of a full row."""
        return self.seq_length, int(chosen_count(self.seq_length, self.mask_prob, self.max_pred))

    def check(self, config: Any) -> None:
        """Raises InputError if a model of this configuration has no positions for a row."""
        if self.seq_length > (room := self.geometry.room(config, 0)):
            raise InputError(f"seq_length {self.seq_length}: the model has {room} positions; use at most so many")

    def samples(self, corpus: Corpus) -> int:
        """One sample per passage."""
        return len(corpus)

    def draw(self, corpus: Corpus, number: int, random: np.random.Generator, objective: str | None = None) -> Sample:
        """Draws a row of a passage."""
        passage = [part.tolist() for part in corpus.unit(number)]
        example = self.example(passage, random, None if objective is None else NAMES.index(objective))
        return Sample(NAMES[example.task], (example,))


def _cut(part: Sequence[int], length: int, random: np.random.Generator) -> Sequence[int]:
    """Cuts a part to so many tokens, each time dropping the first or the last one at random."""
    lost = len(part) - length
    start = int(random.binomial(lost, 0.5)) if lost else 0
    return part[start : start + length]


OBJECTIVES = Objectives(NAMES, ("seq_length", "mask_prob", "max_pred"), Mixture)
