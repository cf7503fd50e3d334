"""Encodes questions for a classification head: `first [SEP] second` without a blank; one row, or one per candidate."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from glm.data.choices import EncodedChoice, shorten
from glm.data.collator import padded_width
from glm.data.problems import Kind, RecordError
from glm.data.task_records import DERIVED, TaskRecord
from glm.data.tasks import CHOOSE, Cut, Task
from glm.errors import InputError
from glm.models.protocol import IGNORE_INDEX, Example, Family, GeometryOptions, Tokenizer

POOLS = ("pad", "cls", "start")  # the token whose state is classified; the first is the default


@dataclass(frozen=True)
class EncodedPair(EncodedChoice):
    """A question, encoded: `before` and `after` are first and second of its longest row, `candidates` are empty.

    Args:
        rows: first and second of each row.
    """

    rows: tuple[tuple[list[int], list[int]], ...] = ()

    @property
    def target(self) -> list[int] | None:
        """Nothing is generated: an empty list, where the right label is known."""
        return [] if self.record.right else None


class PairEncoder:
    """Lays out questions for a classification head.

    Args:
        pool: the token whose state is classified: `cls` the first, `pad` the end, `start` the one behind the end.
        src_length: most tokens of a row, special ones included.

    Raises:
        InputError: the task is no choice.
    """

    kind = CHOOSE
    opening_ids: Sequence[int] = ()
    min_tgt_length = tgt_length = 0
    allow_cut_targets = False
    is_single = False

    def __init__(
        self, family: Family, tokenizer: Tokenizer, task: Task, *, pool: str, src_length: int, pattern_id: int | None
    ):
        if task.exact:
            raise InputError(f"classification_head {pool}: {task.name} has no candidates to classify; leave it out")
        self.family, self.tokenizer, self.task = family, tokenizer, task
        self.template = task
        self.pattern, self.pattern_id = task.pattern(pattern_id), pattern_id
        self.pool = pool
        self.src_length = src_length
        self.geometry = family.geometry(tokenizer, GeometryOptions("".join(family.blanks[:1])))
        self.notes: list[str] = []

    @property
    def labels(self) -> int:
        """Number of scores of a row: one for each label, or a single one where each candidate has a row."""
        return len(self.pattern.labels) or 1

    @property
    def described(self) -> list[str]:
        """Everything beside lengths and tokenizer that the ids of a question depend on."""
        return [*self.task.described(self.pattern_id), f"classification_head {self.pool}"]

    @property
    def special_tokens(self) -> int:
        """Number of tokens of a row beside its texts, including the one read behind its end."""
        return self.geometry.pair_lengths(self.src_length, self.pool)[0]

    def check_lengths(self, config: Any) -> None:
        """Raises InputError if a model of this configuration has no positions for rows of `src_length` tokens."""
        self.geometry.check_lengths(config, self.src_length, self.geometry.pair_lengths(self.src_length, self.pool)[1])

    @property
    def source_budget(self) -> int:
        """Most tokens of both texts."""
        return self.src_length - self.special_tokens

    @property
    def target_budget(self) -> int:
        """0: nothing is generated."""
        return 0

    constant_text = ""  # a row holds the record's texts only

    def uncut_length(self, encoded: EncodedPair) -> int:
        """Returns the number of tokens of the longest row without any cut."""
        return len(encoded.before) + len(encoded.after) + encoded.lost + self.special_tokens

    def overflow(self, encoded: EncodedPair) -> int:
        """Returns by how many tokens the texts were longer than `src_length`."""
        return encoded.lost

    def source_problem(self, encoded: EncodedPair) -> RecordError | None:
        """Says why a question cannot be used: a candidate is longer than a row, or is the only one."""
        if encoded.record.lone:
            message = "one candidate, which a classification head has nothing to compare with; give candidates"
            return RecordError(Kind.CANDIDATES, encoded.record.origin, message, field="candidates")
        if not encoded.too_long:
            return None
        message = f"a candidate does not fit into src_length {self.src_length}"
        return RecordError(Kind.SOURCE_LENGTH, encoded.record.origin, message, field="choices")

    def target_problem(self, encoded: EncodedPair) -> RecordError | None:
        """Returns nothing: nothing is generated."""

    def encode(self, records: Sequence[TaskRecord]) -> list[EncodedPair]:
        """Encodes questions."""
        return [self._encoded(record) for record in records]

    def _encoded(self, record: TaskRecord) -> EncodedPair:
        texts = [text for name, text in record.fields if not name.endswith(DERIVED)]
        if self.pattern.labels:
            pairs = [(texts[0], "\n".join(texts[1:]))]
            cuts = [Cut("", 0), Cut("", 1)]
        else:
            pairs = [("\n".join(texts), word.strip()) for word in record.words]
            cuts = [Cut("", 0), None]
        rows, lost, too_long = [], 0, 0
        for pair in pairs:
            ids, cut, over = shorten(self.tokenizer.encode_text(list(pair)), cuts, self.source_budget)
            rows.append((ids[0], ids[1]))
            lost, too_long = max(lost, cut), max(too_long, over)
        longest = max(rows, key=lambda row: len(row[0]) + len(row[1]))
        return EncodedPair(record, *longest, [], [], lost, too_long, tuple(rows))

    def rows(self, encoded: EncodedPair) -> list[tuple[Example, int]]:
        """Returns the rows that are read, and the position in each whose state is classified. Raises RecordError."""
        if error := self.source_problem(encoded):
            raise error
        return [self.geometry.pair(first, second, self.pool) for first, second in encoded.rows]


@dataclass(frozen=True)
class PairExample:
    """A question to classify: its rows, the position in each, and the numbers of the right labels or candidates."""

    rows: tuple[tuple[Example, int], ...]
    right: tuple[int, ...]

    def __len__(self) -> int:
        return sum(len(example) for example, _ in self.rows)

    @property
    def num_labels(self) -> int:
        """1: each question counts once."""
        return 1


def pair_example(encoded: EncodedPair, encoder: PairEncoder) -> PairExample:
    """Makes the example of a question. Raises RecordError as the encoder."""
    return PairExample(tuple(encoder.rows(encoded)), encoded.record.right)


class PairCollator:
    """Collates questions for a classification head.

    Args:
        encoder: laid them out.
        multiple: the width of rows is a multiple of it.
    """

    def __init__(self, encoder: PairEncoder, *, multiple: int = 1):
        self.encoder = encoder
        self.multiple = multiple

    def read(self, rows: Sequence[tuple[Example, int]]) -> dict[str, np.ndarray]:
        """Returns the model's input; the classified position has the label 0, the only label there is."""
        width = padded_width(max(len(example) for example, _ in rows), self.multiple)
        geometry, pad = self.encoder.geometry, self.encoder.tokenizer.pad_token_id
        batch = geometry.collate([[example] for example, _ in rows], width, pad)
        batch["labels"][:] = IGNORE_INDEX
        batch["labels"][np.arange(len(rows)), [place for _, place in rows]] = 0
        return batch

    def __call__(self, examples: Sequence[PairExample]) -> dict[str, np.ndarray]:
        """Collates questions: the model's input, `choice_rows` [B, K] and `right` [B, K] as in
        `glm.data.task_examples.ChoiceCollator`, and empty `choice_ids`."""
        counts = [len(example.rows) for example in examples]
        K, start = max(max(counts), self.encoder.labels), 0
        numbers, right = np.full((len(examples), K), -1, np.int64), np.zeros((len(examples), K), np.int64)
        for place, (example, count) in enumerate(zip(examples, counts, strict=True)):
            numbers[place, : self.encoder.labels if count == 1 else count] = np.arange(start, start + count)
            start += count
            right[place, list(example.right)] = 1
        ids = np.zeros((len(examples), 0), np.int64)
        batch = self.read([row for example in examples for row in example.rows])
        return batch | {"choice_ids": ids, "choice_rows": numbers, "right": right}
