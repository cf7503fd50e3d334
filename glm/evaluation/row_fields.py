"""What the fields of a row of a prediction file hold, whoever wrote it; other fields of a row are the user's own."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from glm.errors import InputError

LARGEST = sys.float_info.max


@dataclass(frozen=True)
class FieldType:
    """What a field may hold: in words, and as a predicate."""

    words: str
    holds: Callable[[Any], bool]


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, float | int) and not isinstance(value, bool) and abs(value) <= LARGEST


def _are_texts(value: Any) -> bool:
    return isinstance(value, str) or (
        isinstance(value, list) and bool(value) and all(isinstance(text, str) for text in value)
    )


def _is_span(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_whole, value))


def _list_of(fields: Mapping[str, FieldType], needed: set[str]) -> Callable[[Any], bool]:
    """Returns a predicate: a list of objects with the needed fields, each of which has its type."""

    def holds(value: Any) -> bool:
        return isinstance(value, list) and all(
            isinstance(item, dict)
            and needed <= item.keys()
            and all(type.holds(item[name]) for name, type in fields.items() if name in item)
            for item in value
        )

    return holds


TEXT = FieldType("text", lambda value: isinstance(value, str))
TEXTS = FieldType("text, or a list of texts,", _are_texts)
NUMBER = FieldType("a finite number", _is_number)
COUNT = FieldType("a whole number", lambda value: _is_whole(value) and value >= 0)
ID = {"id": FieldType("text or a whole number", lambda value: isinstance(value, str) or _is_whole(value))}
WRITTEN = {
    "text": TEXT,
    "score": FieldType("a finite number or null", lambda value: value is None or _is_number(value)),
    "finish_reason": FieldType("text or null", lambda value: value is None or isinstance(value, str)),
}
CANDIDATE = {"label": TEXT, "score": NUMBER, "probability": NUMBER, "mean": NUMBER}
TEXT_ROW = ID | {
    "source": TEXT,
    "answer": TEXT,
    "reference": TEXTS,
    "cut": COUNT,
    "seen": FieldType("a list of two whole numbers", _is_span),
    "predictions": FieldType("a list of objects with a text, and perhaps a score,", _list_of(WRITTEN, {"text"})),
}
CHOICE_ROW = {
    "language": TEXT,
    "source": TEXT,
    "prediction": TEXT,
    "reference": TEXTS,
    "group": ID["id"],
    "exclusive": FieldType("true or false", lambda value: isinstance(value, bool)),
    "candidates": FieldType(
        "a list of objects with label, score and probability", _list_of(CANDIDATE, {"label", "score", "probability"})
    ),
}
ANSWER_ROW = {
    "language": TEXT,
    "question": TEXT,
    "context": TEXT,
    "prediction": TEXT,
    "references": TEXTS,
    "score": NUMBER,
    "window": COUNT,
    "windows": COUNT,
    "window_text": TEXT,
}


def checked_row(fields: Mapping[str, Any], types: Mapping[str, FieldType], origin: str) -> dict[str, Any]:
    """Returns the fields of a row that are not null.

    Args:
        types: what its fields may hold.
        origin: `FILE, line N`.

    Raises:
        InputError: a field holds something else; it is named.
    """
    given = {name: value for name, value in fields.items() if value is not None}
    for name, type in types.items():
        if name in given and not type.holds(given[name]):
            raise InputError(f"{origin}, field {name}: {type.words} is expected")
    return given
