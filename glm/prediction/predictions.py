"""The result of generation for a record, and how it is written to files."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glm.data.records import BadRecord, Record
from glm.runtime.paths import published

# The fields of a row; a column of these names is not copied beside them.
ROW_FIELDS = ("id", "source", "answer", "cut", "seen", "predictions", "reference", "error")


@dataclass(frozen=True)
class Text:
    """A generated text, its score, and its tokens with their log-probabilities (`eop` last).

    Args:
        at_limit: the length limit ended it: it has no `eop`.
    """

    text: str
    score: float
    token_scores: list[tuple[str, float]]
    at_limit: bool = False


@dataclass(frozen=True)
class Cut:
    """What was cut from a source.

    Args:
        tokens: how many.
        seen: where the part that is left begins and ends, in characters of the source.
    """

    tokens: int
    seen: tuple[int, int]


@dataclass(frozen=True)
class Prediction:
    """The texts generated for a record, best first; or an error.

    Args:
        cut: what its source lost; None if it was read whole.
    """

    record: Record | BadRecord
    texts: list[Text]
    error: str | None = None
    cut: Cut | None = None

    @property
    def best(self) -> str:
        """The best text; empty if there is none."""
        return self.texts[0].text if self.texts else ""

    def as_row(self, *, token_scores: bool = False, most_texts: int | None = None) -> dict[str, Any]:
        """Returns the JSON object of a line of a predictions file, with at most `texts` texts."""
        row: dict[str, Any] = {"id": self.record.id}
        if isinstance(self.record, Record):
            row |= {name: plain(value) for name, value in self.record.kept.items() if name not in ROW_FIELDS}
            row["source"] = self.record.source
            if self.record.answer is not None:
                row["answer"] = self.record.answer
        if self.cut is not None:
            row |= {"cut": self.cut.tokens, "seen": list(self.cut.seen)}
        row["predictions"] = [
            text_row(text, token_scores=token_scores) | ({"finish_reason": "length"} if text.at_limit else {})
            for text in self.texts[:most_texts]
        ]
        if isinstance(self.record, Record) and self.record.references:
            one, *more = self.record.references
            row["reference"] = [one, *more] if more else one
        return row if self.error is None else row | {"error": published(self.error)}


def plain(value: Any) -> Any:
    """Converts a data file's value to JSON's types: dates and the like, from parquet, become text."""
    return json.loads(json.dumps(value, default=str))


def text_row(text: Text, *, token_scores: bool) -> dict[str, Any]:
    """Returns the JSON object of a generated text."""
    row: dict[str, Any] = {"text": text.text, "score": round(text.score, 6)}
    if token_scores:
        row["token_scores"] = [[piece, round(score, 6)] for piece, score in text.token_scores]
    return row


def write_rows(path: Path, rows: Iterable[dict[str, Any]], *, most_texts: int | None = None) -> None:
    """Writes one JSON line per row, with so many generated texts at most."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            if "predictions" in row:
                row = row | {"predictions": row["predictions"][:most_texts]}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def write_predictions(path: Path, predictions: Sequence[Prediction], *, most_texts: int | None = None) -> None:
    """Writes one JSON line per record, see `Prediction.as_row`."""
    write_rows(path, (prediction.as_row() for prediction in predictions), most_texts=most_texts)
