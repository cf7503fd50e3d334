"""Answers questions about passages window by window: the first window that has an answer gives it."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from glm.data.records import BadRecord, Record
from glm.data.task_records import TaskRecord
from glm.data.windows import EncodedQuestion, WindowEncoder
from glm.errors import InputError
from glm.evaluation.answers import score_answers
from glm.evaluation.metrics import Scores
from glm.generation.search import Hypothesis
from glm.models.protocol import Prompt
from glm.prediction.choosing import failed_row
from glm.prediction.writer import Writer

NO_ANSWER = "n/a"  # what a window without the answer says; case and white space do not count


def says_nothing(text: str) -> bool:
    """Whether a window's output says that the answer is not in it."""
    return "".join(text.split()).lower() in (NO_ANSWER, "")


def selected(texts: list[str]) -> int:
    """Returns the index of the text that counts: the first that says something, else the first of all."""
    return next((place for place, text in enumerate(texts) if not says_nothing(text)), 0)


@dataclass(frozen=True)
class Answerer:
    """Writes an answer for each window and selects one.

    Args:
        writer: writes texts.
        encoder: lays out windows.
    """

    writer: Writer
    encoder: WindowEncoder

    @property
    def batch_size(self) -> int:
        """Number of windows that are decoded together."""
        return self.writer.batch_size

    def answer(self, records: Mapping[int, Record | BadRecord]) -> Iterator[tuple[int, dict[str, Any]]]:
        """Answers numbered records: yields (number, JSON object) as they finish, unusable ones first."""
        encoded, failed = self.lay_out(records)
        yield from failed.items()
        prompts, places = self.prompts(encoded)
        found: dict[int, dict[int, Hypothesis]] = {number: {} for number in encoded}
        for (number, place), hypotheses in self.writer.write(prompts, places):
            found[number][place] = hypotheses[0] if hypotheses else None
            if len(found[number]) == len(encoded[number].windows):
                yield number, self.row(encoded[number], found.pop(number))

    def lay_out(
        self, records: Mapping[int, Record | BadRecord]
    ) -> tuple[dict[int, EncodedQuestion], dict[int, dict[str, Any]]]:
        """Returns questions with their windows by number, and the rows of those that cannot be used."""
        usable = {number: record for number, record in records.items() if isinstance(record, TaskRecord)}
        encoded = dict(zip(usable, self.encoder.encode(list(usable.values())), strict=True))
        failed = {}
        for number, record in records.items():
            error = record.error if isinstance(record, BadRecord) else self.encoder.source_problem(encoded[number])
            if error is not None:
                failed[number] = failed_row(record, str(error))
                encoded.pop(number, None)
        return encoded, failed

    def prompts(self, encoded: Mapping[int, EncodedQuestion]) -> tuple[list[Prompt], list[tuple[int, int]]]:
        """Returns each window's prompt, with the numbers of its question and of the window."""
        prompts, places = [], []
        for number, question in encoded.items():
            for place, window in enumerate(question.windows):
                prompts.append(self.encoder.prompt(window.source_ids))
                places.append((number, place))
        return prompts, places

    def row(self, encoded: EncodedQuestion, found: Mapping[int, Hypothesis | None]) -> dict[str, Any]:
        """Makes the JSON object of a question from the best hypothesis of each of its windows."""
        texts = [
            self.writer.text(found[place]).text.strip() if found[place] is not None else ""
            for place in range(len(encoded.windows))
        ]
        place, record = selected(texts), encoded.record
        hypothesis = found[place]
        row = {
            "id": record.id,
            "task": self.encoder.task.name,
            "question": record.values["question"],
            "context": record.values["context"],
            "language": record.language,
            "prediction": texts[place],
            "score": round(hypothesis.score, 6) if hypothesis is not None else None,
            "window": place,
            "window_text": encoded.windows[place].text,
            "windows": len(encoded.windows),
        }
        if record.answers is not None:
            row["references"] = list(record.answers) or [self.encoder.task.no_answer or ""]
        return row


def predict(
    writer: Answerer, records: Mapping[int, Record | BadRecord], *, token_scores: bool = False
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Answers numbered records: yields (number, JSON object) as they finish."""
    if token_scores:
        raise InputError("token_scores True: an answer has one score; leave it out")
    yield from writer.answer(records)


def score(rows: Iterable[dict[str, Any]]) -> Scores:
    """Scores rows that have references: EM and F1."""
    return score_answers(rows)
