"""Reads rows whose source has parts: conversations with their subject, and slots with values. Loads no model.

Each becomes a row with a readable `source`, a `target`, and `parts`: what each part is, and its text. A family that
has tags for them lays the parts out with these; any other one reads the source. A row that brings `parts` keeps them.

    dialogue  {"personality": [text], "utterances": [{"history": [text], "candidates": [text, the right one last]}]}
              or {"persona": [text], "turns": [[what the other says, the answer]]}
    qa        the same with "document" in place of "personality"; only its first text is read
    nlg       {"src": {slot: value}, "tgt": text}, or a text `name[Alimentum], area[city centre]`
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from glm.data.formats import Row
from glm.data.problems import Kind, RecordError

Parts = list[tuple[str, str]]
PARTS = "parts"
DIALOGUE, QA, NLG = "dialogue", "qa", "nlg"
ROLES = {DIALOGUE: ("persona", "speaker1", "speaker2"), QA: ("document", "question", "answer")}
SUBJECTS = {DIALOGUE: ("personality", "persona"), QA: ("document",)}  # columns with the subject of a conversation
SLOTS = ("name", "eatType", "familyFriendly", "priceRange", "food", "near", "area", "customerRating")
OTHER_SLOTS = {"customer rating": "customerRating"}
SLOT = re.compile(r"\s*([^\[\],]+?)\s*\[([^\]]*)\]\s*(?:,|$)")
SLOT_COLUMNS, TEXT_COLUMNS = ("src", "mr", "source"), ("tgt", "ref", "references", "target")


@dataclass(frozen=True)
class Form:
    """How rows with parts are read.

    Args:
        kind: DIALOGUE, QA or NLG.
        max_history: h; of a conversation the last 2 h + 1 turns are read.
        document_length: most tokens of a document.
    """

    kind: str
    max_history: int = 2
    document_length: int = 400


def with_parts(rows: Iterable[Row], form: Form, *, training: bool) -> Iterator[Row]:
    """Yields rows with one source each, as many as a conversation has utterances.

    Args:
        training: the sentences of a persona are rotated by one from each utterance of a conversation to the next.
    """
    count = 0
    for row in rows:
        try:
            if row.error is not None:
                raise row.error
            found = list(_unfolded(row, form, training=training))
        except RecordError as error:
            count += 1
            yield replace(row, number=count, values={}, error=error)  # its columns are not those of a record
            continue
        for values, place in found:
            count += 1
            origin = f"{row.origin}, utterance {place}" if place else row.origin
            yield replace(row, number=count, origin=origin, values=values)


def _unfolded(row: Row, form: Form, *, training: bool) -> Iterator[tuple[dict[str, Any], int]]:
    if isinstance(row.values.get(PARTS), list):
        parts = [tuple(part) for part in row.values[PARTS] if isinstance(part, list) and len(part) == 2]
        if len(parts) < len(row.values[PARTS]) or not all(isinstance(text, str) for part in parts for text in part):
            raise RecordError(Kind.TYPE, row.origin, "pairs of a name and a text are expected", field=PARTS)
        yield {**row.values, **_values(parts, row.values.get("target"))}, 0
    elif form.kind == NLG:
        yield {**_other(row, {*SLOT_COLUMNS, *TEXT_COLUMNS}), **_values(_slots(row), _first(row, TEXT_COLUMNS))}, 0
    else:
        yield from _conversation(row, form, training=training)


def _values(parts: Parts, target: Any) -> dict[str, Any]:
    values = {"source": "\n".join(f"{name}: {text}" for name, text in parts), PARTS: parts}
    return values if target is None else {**values, "target": target}


def _other(row: Row, without: set[str]) -> dict[str, Any]:
    return {name: value for name, value in row.values.items() if name not in without}


def _first(row: Row, names: Iterable[str]) -> Any:
    return next((row.values[name] for name in names if row.values.get(name) is not None), None)


# -- slots


def _slots(row: Row) -> Parts:
    column = next((name for name in SLOT_COLUMNS if name in row.values), SLOT_COLUMNS[0])
    given = row.values.get(column)
    pairs = list(given.items()) if isinstance(given, dict) else _written_slots(row, column, given)
    if not pairs:
        raise RecordError(Kind.EMPTY, row.origin, "no slot in it", field=column)
    parts = [(OTHER_SLOTS.get(name, name), value) for name, value in pairs]
    for name, value in parts:
        if name not in SLOTS:
            raise RecordError(Kind.TYPE, row.origin, f"{name} is no slot; slots are {', '.join(SLOTS)}", field=column)
        if not isinstance(value, str):
            message = f"{name}: {type(value).__name__} where text is expected"
            raise RecordError(Kind.TYPE, row.origin, message, field=column)
    return parts


def _written_slots(row: Row, column: str, text: Any) -> Parts:
    if not isinstance(text, str):
        raise RecordError(Kind.TYPE, row.origin, "an object of slots, or name[value], … is expected", field=column)
    found = SLOT.findall(text)
    if SLOT.sub("", text).strip():
        raise RecordError(Kind.SYNTAX, row.origin, "name[value], name[value], … is expected", field=column)
    return found


# -- conversations


def _conversation(row: Row, form: Form, *, training: bool) -> Iterator[tuple[dict[str, Any], int]]:
    about, asks, answers = ROLES[form.kind]
    column = next((name for name in SUBJECTS[form.kind] if name in row.values), SUBJECTS[form.kind][0])
    subject = _texts(row, row.values.get(column), column)
    if form.kind == QA:
        subject = subject[:1]
    for place, (history, target) in enumerate(_utterances(row)):
        turns = history[-(2 * form.max_history + 1) :]
        # Counted backwards from the reply, which is always the second speaker's.
        named = [(asks if (len(turns) - n) % 2 else answers, text) for n, text in enumerate(turns)]
        shift = place % len(subject) if training and form.kind == DIALOGUE else 0
        rotated = [*subject[len(subject) - shift :], *subject[: len(subject) - shift]]
        kept = _other(row, {column, "utterances", "turns", "id"})
        yield {**kept, **_values([*((about, text) for text in rotated), *named], target)}, place + 1


def _utterances(row: Row) -> Iterator[tuple[list[str], str | None]]:
    """Yields what was said before each reply, and the reply."""
    if isinstance(row.values.get("turns"), list):
        said: list[str] = []
        for turn in row.values["turns"]:
            pair = _texts(row, turn, "turns")
            yield [*said, pair[0]], pair[1] if len(pair) > 1 else None
            said += pair
        return
    utterances = row.values.get("utterances")
    if not isinstance(utterances, list) or not utterances:
        raise RecordError(
            Kind.EMPTY, row.origin, "a list of utterances, at least one, is expected", field="utterances"
        )
    for utterance in utterances:
        if not isinstance(utterance, dict):
            message = f"{type(utterance).__name__} where an utterance is expected"
            raise RecordError(Kind.TYPE, row.origin, message, field="utterances")
        candidates = utterance.get("candidates")
        target = None if candidates is None else _texts(row, candidates, "candidates")[-1]
        yield _texts(row, utterance.get("history"), "history"), target


def _texts(row: Row, value: Any, field: str) -> list[str]:
    """Returns a list of at least one text."""
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise RecordError(Kind.TYPE, row.origin, "a list of texts is expected", field=field)
    if not value:
        raise RecordError(Kind.EMPTY, row.origin, "empty", field=field)
    return value
