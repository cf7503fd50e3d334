"""Chooses among candidates: reads the text once, and each candidate behind it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from glm.data.choices import ChoiceEncoder, EncodedChoice
from glm.data.pairs import EncodedPair, PairCollator, PairEncoder
from glm.data.records import BadRecord, Record
from glm.data.task_records import TaskRecord
from glm.errors import InputError
from glm.evaluation.accuracy import score_choices
from glm.evaluation.metrics import Scores
from glm.generation.candidates import log_probs
from glm.models.protocol import TokenScores
from glm.modules.classifier import head_scores
from glm.runtime.paths import published

# Labels of a question with one candidate, which is right if the model itself would write it.
EQUAL = {True: "true", False: "false"}


@dataclass(frozen=True)
class Chooser:
    """Chooses among candidates with a model.

    Args:
        model: decodable and scorable, see `glm.models.protocol`.
        batch_size: records that are read together.
        length_penalty: a candidate of n tokens counts with sum(log p) / n**length_penalty.
    """

    model: Any
    encoder: ChoiceEncoder | PairEncoder
    batch_size: int
    length_penalty: float = 0.0

    @property
    def has_no_tokens(self) -> bool:
        """Whether a candidate has a single score, a logit, instead of a sum over tokens."""
        return self.encoder.is_single or isinstance(self.encoder, PairEncoder)

    def scores(self, encoded: Sequence[EncodedChoice]) -> list[list[TokenScores]]:
        """Scores the candidates of each question; candidates of single tokens by their logits."""
        self.model.eval()
        prompts = [self.encoder.prompt(question) for question in encoded]
        candidates = [question.candidates for question in encoded]
        if not self.encoder.is_single:
            return log_probs(self.model, prompts, candidates)
        logits, _ = self.model.prefill(prompts)  # [B, V]
        best = logits.argmax(axis=1)
        return [
            [TokenScores(row[ids].astype(np.float64), best[place : place + 1]) for ids in found]
            for place, (row, found) in enumerate(zip(logits, candidates, strict=True))
        ]

    def choose(self, records: Mapping[int, Record | BadRecord]) -> Iterator[tuple[int, dict[str, Any]]]:
        """Chooses for numbered records: yields (number, JSON object), unusable ones first, then by length."""
        usable = [number for number, record in records.items() if isinstance(record, TaskRecord)]
        encoded = dict(zip(usable, self.encoder.encode([records[number] for number in usable]), strict=True))
        for number, record in records.items():
            error = record.error if isinstance(record, BadRecord) else self.encoder.source_problem(encoded[number])
            if error is not None:
                yield number, failed_row(record, str(error))
                encoded.pop(number, None)
        in_order = sorted(encoded, key=lambda number: len(encoded[number].before) + len(encoded[number].after))
        read = self._classified if isinstance(self.encoder, PairEncoder) else self.scores
        for start in range(0, len(in_order), self.batch_size):
            numbers = in_order[start : start + self.batch_size]
            found = read([encoded[number] for number in numbers])
            for number, scores in zip(numbers, found, strict=True):
                yield number, self._row(encoded[number], scores)

    def _classified(self, encoded: Sequence[EncodedPair]) -> list[list[TokenScores]]:
        """Scores the labels or candidates of each question with the classification head."""
        rows = [self.encoder.rows(question) for question in encoded]
        flat = head_scores(self.model, PairCollator(self.encoder).read([row for own in rows for row in own]))
        found, start, nothing = [], 0, np.zeros(0, np.int64)
        for own in rows:
            scores = flat[start] if self.encoder.pattern.labels else flat[start : start + len(own), 0]
            start += len(own)
            found.append([TokenScores(np.array([score], np.float64), nothing) for score in scores])
        return found

    def _row(self, encoded: EncodedChoice, scores: Sequence[TokenScores]) -> dict[str, Any]:
        record, task = encoded.record, self.encoder.task
        row: dict[str, Any] = {"id": record.id, "task": task.name, "source": record.source}
        if record.language:
            row["language"] = record.language
        if record.group is not None:
            row |= {"group": record.group} | ({"exclusive": True} if task.assigned else {})
        if task.exact:
            return row | self._last_word(encoded, scores[0])
        if encoded.record.lone:
            return row | self._equality(encoded, scores[0])
        sums = np.array([score.log_probs.sum() for score in scores])
        lengths = np.array([len(score.log_probs) for score in scores])
        ranked = sums / lengths**self.length_penalty
        shares = np.exp(ranked - ranked.max())
        shares /= shares.sum()
        row["prediction"] = record.labels[int(ranked.argmax())]
        row["candidates"] = [
            {
                "label": label,
                "text": word.strip(),
                "probability": round(float(share), 6),
                "score": round(float(total), 6),
            }
            | ({} if self.has_no_tokens else {"mean": round(float(total / length), 6)})
            for label, word, share, total, length in zip(
                record.labels, record.words, shares, sums, lengths, strict=True
            )
        ]
        return row | reference_of(record)

    def _last_word(self, encoded: EncodedChoice, scores: TokenScores) -> dict[str, Any]:
        """Returns what the model would have written in the answer's place, and whether that is the answer."""
        said = self.encoder.tokenizer.decode_ids(scores.best)
        answer, is_right = encoded.record.words[0].strip(), scores.best.tolist() == list(encoded.candidates[0])
        if not is_right and said.strip() == answer:  # a different token with the same text does not count
            said = " ".join(map(self.encoder.tokenizer.token_of, scores.best))
        return {
            "prediction": answer if is_right else said,
            "log_prob": round(float(scores.log_probs.sum()), 6),
            "reference": answer,
        }

    def _equality(self, encoded: EncodedChoice, scores: TokenScores) -> dict[str, Any]:
        """Returns whether the model would write the only candidate."""
        record, is_equal = encoded.record, scores.best.tolist() == list(encoded.candidates[0])
        end = self.encoder.tokenizer.end_token_id
        found = {
            "prediction": EQUAL[is_equal],
            "candidate": record.words[0].strip(),
            "written": self.encoder.tokenizer.decode_ids([token for token in scores.best if token != end]),
            "log_prob": round(float(scores.log_probs.sum()), 6),
        }
        return found if record.equality is None else found | {"reference": EQUAL[record.equality]}


def reference_of(record: TaskRecord) -> dict[str, Any]:
    """Returns the right label, or labels; nothing where it is unknown."""
    labels = [record.labels[place] for place in record.right]
    return {"reference": labels[0] if len(labels) == 1 else labels} if labels else {}


def failed_row(record: Record | BadRecord, error: str) -> dict[str, Any]:
    """Makes the row of a record that cannot be used."""
    return {"id": record.id, "error": published(error)}


def predict(
    writer: Chooser, records: Mapping[int, Record | BadRecord], *, token_scores: bool = False
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Chooses for numbered records: yields (number, JSON object) as they finish."""
    if token_scores:
        raise InputError("token_scores True: candidates have one score each; leave it out")
    yield from writer.choose(records)


def score(rows: Iterable[dict[str, Any]]) -> Scores:
    """Scores rows that have a reference: accuracy, and the task's other metrics."""
    return score_choices(rows)
