"""Training examples, in memory, of tasks that choose or extract: questions with candidates, or windows."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from glm.data.choices import ChoiceEncoder, EncodedChoice
from glm.data.collator import padded_width
from glm.data.mixture import Mixture
from glm.data.pairs import PairEncoder, pair_example
from glm.data.report import FileReport
from glm.data.tasks import CHOOSE
from glm.data.windows import WindowEncoder
from glm.models.protocol import IGNORE_INDEX, Example


@dataclass(frozen=True)
class ChoiceExample:
    """A question to learn from.

    Args:
        rows: one for each candidate; a single one where all candidates are single pieces.
        scored: for each row, how many of its last labels are the candidate's.
        candidates: ids of candidates that are single pieces; none of several.
        right: numbers of the right candidates.
    """

    rows: tuple[Example, ...]
    scored: tuple[int, ...]
    candidates: tuple[int, ...]
    right: tuple[int, ...]

    def __len__(self) -> int:
        return sum(map(len, self.rows))

    @property
    def num_labels(self) -> int:
        """1: each question counts once, whatever its candidates."""
        return 1

    @property
    def right_alone(self) -> "ChoiceExample":
        """Returns the question without wrong candidates, where each candidate has a row."""
        if self.candidates:
            return self
        rows, scored = zip(*((self.rows[place], self.scored[place]) for place in self.right), strict=True)
        return ChoiceExample(rows, scored, (), tuple(range(len(rows))))


def choice_example(encoded: EncodedChoice, encoder: ChoiceEncoder) -> ChoiceExample:
    """Makes the training example of a question whose right candidate is known. Raises RecordError as the encoder."""
    source_ids, geometry, opening = encoder.lay_out_source(encoded), encoder.geometry, encoded.opening
    ends = not encoder.is_single and encoder.task.ends
    shown = encoded.candidates[:1] if encoder.is_single else encoded.candidates
    rows = tuple(
        geometry.example(source_ids, [*opening, *(ids[:-1] if ends else ids)], tgt_length=len(opening) + len(ids))
        for ids in shown
    )
    single = tuple(ids[0] for ids in encoded.candidates) if encoder.is_single else ()
    return ChoiceExample(rows, tuple(map(len, shown)), single, encoded.record.right)


class ChoiceCollator:
    """Collates questions: the family's batch of all rows, and which rows belong to which candidates.

    Args:
        geometry, pad_token_id, multiple: as of `glm.data.collator.Collator`.
        only_right: leaves out the rows of candidates that are wrong, for a loss that does not look at them.
    """

    def __init__(self, geometry: Any, *, pad_token_id: int, multiple: int = 1, only_right: bool = False):
        self.only_right = only_right
        self.geometry = geometry
        self.pad_token_id = pad_token_id
        self.multiple = multiple

    def __call__(self, examples: Sequence[ChoiceExample]) -> dict[str, np.ndarray]:
        """Collates questions.

        Returns:
            What the model reads, labels for scored positions only; and `choice_ids` [B, K] of single pieces (or
            [B, 0]), `choice_rows` [B, K], the row of each candidate, -1 where a question has fewer, and `right`
            [B, K], 1 for those that are.
        """
        if self.only_right:
            examples = [example.right_alone for example in examples]
        rows = [row for example in examples for row in example.rows]
        scored = [count for example in examples for count in example.scored]
        batch = self.geometry.collate(
            [[row] for row in rows], padded_width(max(map(len, rows)), self.multiple), self.pad_token_id
        )
        for labels, count in zip(batch["labels"], scored, strict=True):
            labels[np.flatnonzero(labels != IGNORE_INDEX)[:-count]] = IGNORE_INDEX
        B = len(examples)
        is_single = bool(examples[0].candidates)
        counts = [len(example.candidates or example.rows) for example in examples]
        K, start = max(counts), 0
        numbers, right = np.full((B, K), -1, np.int64), np.zeros((B, K), np.int64)
        ids = np.zeros((B, K if is_single else 0), np.int64)
        for place, (example, count) in enumerate(zip(examples, counts, strict=True)):
            numbers[place, :count] = place if is_single else np.arange(start, start + count)
            start += count
            right[place, list(example.right)] = 1
            ids[place, : len(example.candidates)] = example.candidates
        return batch | {"choice_ids": ids, "choice_rows": numbers, "right": right}


class TaskExamples(Sequence[Any]):
    """The training examples of a file, with the interface of `glm.data.store.ExampleStore`.

    Args:
        items: encoded questions that can be used.
        report: report of the check of the file.
        row_hashes: hashes of its rows, see `FileCheck.compare`.
    """

    folder = Path("memory")  # stands for a folder in messages
    is_drawn = False  # see `glm.data.store.ExampleStore`

    def __init__(self, items: Sequence[Any], encoder: ChoiceEncoder | WindowEncoder, report: FileReport, row_hashes):
        self.report = report
        self.row_hashes = np.asarray(row_hashes, np.uint64)
        self._examples: list[Any] = []
        self.origins: list[str] = []
        self.encoder = encoder
        for item in items:
            if encoder.kind == CHOOSE and not item.record.right:
                continue  # nothing is to be learnt from it
            if encoder.kind == CHOOSE:
                make = pair_example if isinstance(encoder, PairEncoder) else choice_example
                found = [make(item, encoder)]
            else:
                found = encoder.examples(item)
            self._examples += found
            self.origins += [item.record.origin] * len(found)
        self._sizes = np.array([self._size(index) for index in range(len(self))], np.int64).reshape(-1, 2)

    def _size(self, index: int) -> tuple[int, int]:
        example = self[index]
        return len(example), example.num_labels

    @property
    def lone(self) -> str | None:
        """Where the first question with a single candidate is from, which comparing losses cannot use; None if there
        is none."""
        if self.encoder.kind != CHOOSE or self.encoder.is_single:
            return None
        places = (place for place, example in enumerate(self._examples) if len(example.rows) == 1)
        place = next(places, None) if not isinstance(self.encoder, PairEncoder) else None
        return None if place is None else self.origins[place]

    @property
    def lengths(self) -> np.ndarray:
        """[number of examples], tokens."""
        return self._sizes[:, 0]

    @property
    def widths(self) -> np.ndarray:
        """[number of examples], tokens of a row of a batch that holds one."""
        return self._sizes[:, 0]

    @property
    def target_lengths(self) -> np.ndarray:
        """[number of examples], labels; 1 for a question with candidates."""
        return self._sizes[:, 1]

    def folder_of(self, index: int) -> Path:
        """See `glm.data.store.ExampleStore.folder_of`."""
        return self.folder

    def mixture(self, seed: int) -> Mixture:
        """Which examples an epoch has: all of them."""
        return Mixture([len(self)], seed=seed)

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> Any:
        return self.draw(index)

    def draw(self, index: int, random: np.random.Generator | None = None) -> Any:
        """Returns an example; with `random` for training, see `Geometry.example`."""
        if self.encoder.kind == CHOOSE:
            return self._examples[index]
        return self.encoder.example_of(*self._examples[index], random)
