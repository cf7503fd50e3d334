"""Answers questions about passages: each window is asked, and the first that has an answer gives it."""

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

NO_ANSWER = "n/a"  # what windows without the answer say, without case and blanks


def says_nothing(text: str) -> bool:
    """Whether a window says that the answer is not in it."""
    return "".join(text.split()).lower() in (NO_ANSWER, "")


def selected(texts: list[str]) -> int:
    """Which of the windows' texts is the answer: the first that says something, the first of all if none does."""
    return next((place for place, text in enumerate(texts) if not says_nothing(text)), 0)


@dataclass(frozen=True)
class Answerer:
    """Writes the answer of each window, and takes one.

    Args:
        writer: writes texts.
        encoder: lays out windows.
    """

    writer: Writer
    encoder: WindowEncoder

    @property
    def batch_size(self) -> int:
        """Windows that are decoded together."""
        return self.writer.batch_size

    def answer(self, records: Mapping[int, Record | BadRecord]) -> Iterator[tuple[int, dict[str, Any]]]:
        """Answers records by number: (number, JSON object) in the order of finishing; what is unusable first."""
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
        """Questions with their windows by number, and the rows of those that cannot be used."""
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
        """What each window's answer is generated from, and the number of its question and its own."""
        prompts, places = [], []
        for number, question in encoded.items():
            for place, window in enumerate(question.windows):
                prompts.append(self.encoder.prompt(window.source_ids))
                places.append((number, place))
        return prompts, places

    def row(self, encoded: EncodedQuestion, found: Mapping[int, Hypothesis | None]) -> dict[str, Any]:
        """The JSON object of a question, from the best hypothesis of each of its windows."""
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
    """Answers records by number: (number, JSON object) in the order of finishing."""
    if token_scores:
        raise InputError("token_scores True: an answer has one score; leave it out")
    yield from writer.answer(records)


def score(rows: Iterable[dict[str, Any]]) -> Scores:
    """EM and F1, of the rows that have references."""
    return score_answers(rows)
