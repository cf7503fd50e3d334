"""Splits a passage with a question into windows that the model reads separately, each with or without the answer.

Source: the multilingual GLM's question answering (THUDM/Multilingual-GLM); a window is a text of its own, decoded and
encoded again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from glm.data.examples import NO_CHOICE, ExampleEncoder
from glm.data.problems import Kind, RecordError
from glm.data.task_records import TaskRecord
from glm.data.tasks import EXTRACT, Bare, Task, blank_of, text_of_part
from glm.data.templates import BLANKS, Template
from glm.models.protocol import Example, Family, Tokenizer

START = "0"  # put in front of a text that continues another one: a single piece, whatever follows
LEAST_ROOM = 8  # least tokens of a passage that have to fit into a window
BESIDE = 3  # tokens counted beside question and passage: the opening token, the blank, a separator


@dataclass(frozen=True)
class Window:
    """A part of a passage with the question.

    Args:
        text: the part.
        source_ids: as the model reads it.
        has_answer: whether the first answer stands in it.
    """

    text: str
    source_ids: list[int]
    has_answer: bool


@dataclass(frozen=True)
class EncodedQuestion:
    """A question with its windows; `before` and `after` hold the whole passage, for lengths."""

    record: TaskRecord
    before: list[int]
    after: list[int]
    windows: list[Window]
    target: list[int] | None
    too_long: int = 0


class WindowEncoder:
    """Lays out questions about passages.

    Args:
        src_length: most tokens of a window with its question, special ones included.
        tgt_length: most tokens of an answer and its end.
    """

    kind = EXTRACT

    def __init__(
        self,
        family: Family,
        tokenizer: Tokenizer,
        task: Task,
        *,
        src_length: int,
        tgt_length: int,
        pattern_id: int | None = None,
        block_position: bool = True,
        allow_cut_targets: bool = False,
        visible_pads: bool = False,
        objective: Mapping[str, Any] = NO_CHOICE,
    ):
        self.task = self.template = task
        self.pattern = task.pattern(pattern_id)
        self.pattern_id = pattern_id
        blank = blank_of(self.pattern.parts)
        self.base = ExampleEncoder(
            family,
            tokenizer,
            Template(f"{{context}}{blank}", closed=task.closed),
            src_length=src_length,
            tgt_length=tgt_length,
            block_position=block_position,
            allow_cut_targets=allow_cut_targets,
            visible_pads=visible_pads,
            objective=objective,
        )
        self.notes: list[str] = []

    def __getattr__(self, name: str):
        """Takes lengths, tokenizer, family and geometry from the encoder of texts."""
        if name == "base":
            raise AttributeError(name)
        return getattr(self.base, name)

    @property
    def described(self) -> list[str]:
        """Everything beside lengths and tokenizer that the ids of a question depend on."""
        return [*self.task.described(self.pattern_id), *(["visible pads"] if self.base.visible_pads else [])]

    @property
    def constant_text(self) -> str:
        """Text that every window holds."""
        return self.pattern.constant_text

    def uncut_length(self, encoded: EncodedQuestion) -> int:
        """Returns the number of tokens of passage and question together."""
        return len(encoded.before) + len(encoded.after) + self.special_tokens

    def overflow(self, encoded: EncodedQuestion) -> int:
        """0: a long passage becomes several windows, so nothing is cut."""
        return 0

    def source_problem(self, encoded: EncodedQuestion) -> RecordError | None:
        """Says why a question cannot be used: it leaves no room for the passage."""
        if not encoded.too_long:
            return None
        message = (
            f"{encoded.too_long} tokens with its frame leave no room for the passage in src_length {self.src_length}"
        )
        return RecordError(Kind.SOURCE_LENGTH, encoded.record.origin, message, field="question")

    def target_problem(self, encoded: EncodedQuestion) -> RecordError | None:
        """Says why an answer cannot be learnt: it would be cut."""
        return self.base.target_problem(encoded)

    def encode(self, records: Sequence[TaskRecord]) -> list[EncodedQuestion]:
        """Encodes questions with their windows."""
        return [self._encoded(record) for record in records]

    def _encoded(self, record: TaskRecord) -> EncodedQuestion:
        values, tokenizer = record.values, self.base.tokenizer
        context = tokenizer.encode_text(values["context"])
        question = tokenizer.encode_text(f" {values['question']}")
        frame = self._frame(values, "")
        room = self.base.source_budget - sum(map(len, frame))
        answer = record.answers[0] if record.answers else None
        target = None
        if record.answers is not None:
            target = tokenizer.encode_text(f" {answer or self.task.no_answer or ''}")
        encoded = EncodedQuestion(record, context, question, [], target)
        if room < LEAST_ROOM:
            return EncodedQuestion(record, context, question, [], target, sum(map(len, frame)))
        width = max(room, self.base.src_length - BESIDE - len(question))
        stride, S = min(self.base.src_length // 2, room), len(context)
        sought = tokenizer.decode_ids(tokenizer.encode_text(answer)) if answer else ""
        for start in range(0, max(S, 1), stride):
            whole = tokenizer.decode_ids(context[start : start + width])
            ids = tokenizer.encode_text(f" {whole}")[:room]
            text = tokenizer.decode_ids(ids)
            source_ids = self.base.lay_out_ids(*self._frame(values, ids))
            has_answer = bool(sought) and sought in (whole if self.task.windows_as_published else text)
            encoded.windows.append(Window(text, source_ids, has_answer))
            if start + width > S and (self.task.windows_as_published or start + room >= S):
                break
        return encoded

    def _frame(self, values: dict[str, str], passage: Sequence[int] | str) -> tuple[list[int], list[int]]:
        """Returns the ids before and after the blank, with the ids of a window in place of the passage."""
        sides: list[list[int]] = [[], []]
        side = 0
        for part in self.pattern.parts:
            text = text_of_part(part)
            if BLANKS.fullmatch(text):
                side = 1
            elif text == "{context}":
                sides[side] += list(passage)
            elif isinstance(part, Bare):
                sides[side] += self._bare(text)
            else:
                sides[side] += self.base.tokenizer.encode_text(text.format(**values))
        return sides[0], sides[1]

    def _bare(self, text: str) -> list[int]:
        """Returns the ids of a text that continues another one."""
        alone, joined = self.base.tokenizer.encode_text([START, f"{START}{text}"])
        is_continued = joined[: len(alone)] == alone
        return joined[len(alone) :] if is_continued else self.base.tokenizer.encode_text(text)

    def examples(self, encoded: EncodedQuestion) -> list[tuple[list[int], list[int]]]:
        """Returns source and answer of each window of a question. A window without the answer says so, or is left out
        if the task has no words for it. Raises RecordError as `source_problem` and `target_problem`."""
        if error := self.source_problem(encoded) or self.target_problem(encoded):
            raise error
        pairs = []
        for window in encoded.windows:
            if window.has_answer:
                pairs.append((window.source_ids, list(encoded.target)))
            elif self.task.no_answer is not None:
                pairs.append((window.source_ids, self.base.tokenizer.encode_text(f" {self.task.no_answer}")))
        return pairs

    def example_of(
        self, source_ids: Sequence[int], span: Sequence[int], random: np.random.Generator | None = None
    ) -> Example:
        """Makes the example of a window and its answer, see `ExampleEncoder.example_of`."""
        return self.base.example_of(source_ids, span, random)
