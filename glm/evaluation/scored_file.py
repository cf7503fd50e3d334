"""Reads files of predictions and references, ours and those of other tools, which are recognised by their fields."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from glm.data.formats import read_rows
from glm.data.records import SURROGATE
from glm.errors import InputError
from glm.evaluation.row_fields import ID, TEXT_ROW, checked_row
from glm.evaluation.statistics import Pair
from glm.evaluation.symptoms import Symptoms


@dataclass(frozen=True)
class Format:
    """The row format of a tool.

    Args:
        fields: fields that every row has; a format is recognised by them.
        description: the fields, for messages.
        pair: makes the pair of a row; `_Row` raises errors.
    """

    fields: tuple[str, ...]
    description: str
    pair: Callable[["_Row"], Pair]


@dataclass(frozen=True)
class _Row:
    """The fields of a row, and its file and line."""

    fields: dict[str, Any]
    origin: str  # "file, line n"

    def text(self, *names: str) -> str:
        """Returns the text in the first of these fields that exists."""
        name, value = self._field(names)
        if not isinstance(value, str):
            raise InputError(f"{self.origin}, field {name}: {type(value).__name__} where text is expected")
        return self.whole(name, value)

    def references(self, *names: str) -> tuple[str, ...]:
        """Returns the text or texts (at least one) in the first of these fields that exists."""
        name, value = self._field(names, advice="nothing to score against")
        texts = (value,) if isinstance(value, str) else value
        if not isinstance(texts, list | tuple) or not texts or not all(isinstance(text, str) for text in texts):
            raise InputError(f"{self.origin}, field {name}: text, or a list of texts, is expected")
        return tuple(self.whole(name, text) for text in texts)

    def optional(self, *names: str) -> str | None:
        """Returns the text in the first of these fields that exists, or None."""
        return self.text(*names) if any(self.fields.get(name) is not None for name in names) else None

    def whole(self, name: str, text: str) -> str:
        """Returns a field's text if it can be encoded as UTF-8; raises an error otherwise."""
        if SURROGATE.search(text):
            raise InputError(f"{self.origin}, field {name}: holds half of a surrogate pair; escape whole characters")
        return text

    def _field(self, names: tuple[str, ...], *, advice: str = "") -> tuple[str, Any]:
        for name in names:
            if self.fields.get(name) is not None:
                return name, self.fields[name]
        raise InputError(f"{self.origin}: no field {' or '.join(names)}" + (f": {advice}" if advice else ""))


def references_of(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the references of a row of `predict.py`, which has one text, a list, or none."""
    found = row.get("reference", ())
    return (found,) if isinstance(found, str) else tuple(found)


def _own(row: _Row) -> Pair:
    texts = row.fields["predictions"]
    if not isinstance(texts, list) or not all(
        isinstance(text, dict) and isinstance(text.get("text"), str) for text in texts
    ):
        raise InputError(f"{row.origin}, field predictions: a list of objects with a text is expected")
    best = row.whole("predictions", texts[0]["text"]) if texts else ""
    return Pair(best, row.references("reference"), row.optional("source"), row.optional("answer"))


def _plain(row: _Row) -> Pair:
    references = row.references("references", "reference")
    return Pair(row.text("prediction"), references, row.optional("source"), row.optional("answer"))


def _llama_factory(row: _Row) -> Pair:
    return Pair(row.text("predict"), row.references("label"), row.optional("prompt"))


def _ms_swift(row: _Row) -> Pair:
    """Makes the pair of ms-swift's row: the source is the last user message, or `query` in older versions."""
    messages = row.fields.get("messages") or []
    said = (
        [m.get("content") for m in messages if isinstance(m, dict) and m.get("role") == "user"]
        if isinstance(messages, list)
        else []
    )
    source = said[-1] if said and isinstance(said[-1], str) else row.optional("query")
    return Pair(row.text("response"), row.references("labels", "label"), source)


FORMATS = {
    "glm": Format(("predictions",), "predictions, reference[, id, source, answer] of predict.py", _own),
    "llama-factory": Format(("predict", "label"), "predict, label[, prompt] of LLaMA-Factory", _llama_factory),
    "ms-swift": Format(("response",), "response, labels[, messages] of ms-swift", _ms_swift),
    "plain": Format(("prediction",), "prediction, reference or references[, id, source, answer]", _plain),
}

MAY_LACK_REFERENCES = ("glm", "plain")  # the other formats always have them


@dataclass
class ScoredFile:
    """The content of a file of predictions.

    Attributes:
        path: the file.
        format: name of its format.
        pairs: by id, or by line number if rows have no ids; in the order of the file.
        failed: ids of rows with an `error`, which are not scored.
        unscored: ids of rows without a reference, as `predict.py` writes them too.
        symptoms: what is wrong with the texts.
        has_ids: whether rows have ids of their own.
    """

    path: Path
    format: str = ""
    pairs: dict[str | int, Pair] = field(default_factory=dict)
    failed: list[str | int] = field(default_factory=list)
    unscored: list[str | int] = field(default_factory=list)
    symptoms: Symptoms = field(default_factory=Symptoms)
    has_ids: bool = False

    @property
    def rows(self) -> int:
        """The number of rows read: scored, failed, and without a reference."""
        return len(self.pairs) + len(self.failed) + len(self.unscored)

    def notes(self) -> list[str]:
        """Returns what is not scored, one line each."""
        return unscored_notes(self.path, len(self.pairs), len(self.failed), len(self.unscored))


def unscored_notes(path: Path, scored: int, failed: int, unscored: int) -> list[str]:
    """Returns how many records of a file failed or have no reference, one line each."""
    rows = scored + failed + unscored
    found = [f"{path}: {failed} of {rows} records failed and are not scored"] if failed else []
    if unscored:
        have = "has a reference" if scored == 1 else "have a reference"
        found.append(f"{path}: {scored} of {rows} records {have}; the scores are of these")
    return found


def read_scored_file(path: str | Path, *, by_id: bool = True) -> ScoredFile:
    """Reads a file of predictions, in any format of data files (`glm.data.formats`), with the fields of one of
    `FORMATS`.

    Args:
        by_id: identify rows by their ids, if they have any; False uses line numbers.

    Raises:
        InputError: the file cannot be read, has no row, or a row is unusable; file, line and field are named.
    """
    file = ScoredFile(Path(path))
    seen: dict[str | int, str] = {}
    first_without: _Row | None = None
    for found in read_rows(path):
        if found.error is not None:
            raise found.error
        row = _Row(found.values, found.origin)
        if not file.format:
            file.format, file.has_ids = _format_of(row), by_id and "id" in row.fields
        identity = _identity(row, found.number, file) if by_id else found.number
        if identity in seen:
            raise InputError(f"{row.origin}, field id: {identity} is the id of {seen[identity]} too")
        seen[identity] = row.origin
        if row.fields.get("error"):
            file.failed.append(identity)
        elif not _has_references(row) and file.format in MAY_LACK_REFERENCES:
            first_without = first_without or row
            file.unscored.append(identity)
        else:
            pair = file.pairs[identity] = _pair(row, file.format)
            file.symptoms.add(pair.prediction, references=pair.references, **_marks(row))
    if not seen:
        raise InputError(f"{path}: no prediction in it; one JSON object per line is expected")
    if not file.pairs and first_without is not None:
        _pair(first_without, file.format)  # raises: it has no reference
    if not file.pairs:
        raise InputError(f"{path}: all {file.rows} records failed, so there is nothing to score")
    return file


def rows_of_predictions(path: str | Path) -> Iterator[dict[str, Any]]:
    """The rows of a file of predictions in any of `FORMATS`, as `predict.py` writes them; references may miss.

    Raises:
        InputError: as `read_scored_file`, but for references.
    """
    name = ""
    for found in read_rows(path):
        if found.error is not None:
            raise found.error
        row = _Row(found.values, found.origin)
        name = name or _format_of(row)
        fields = checked_row(row.fields, ID if row.fields.get("error") or name != "glm" else TEXT_ROW, row.origin)
        identity = fields.get("id", found.number)
        if row.fields.get("error"):
            yield {"id": identity, "predictions": [], "error": str(row.fields["error"])}
            continue
        given = row.fields if _has_references(row) else row.fields | {"reference": "", "label": "", "labels": ""}
        pair = _pair(_Row(given, row.origin), name)
        texts = row.fields["predictions"] if name == "glm" else [{"text": pair.prediction}]
        one, *more = pair.references
        yield {
            **(fields if name == "glm" else {}),
            **{"id": identity, "source": pair.source or "", "predictions": texts},
            **({} if pair.answer is None else {"answer": pair.answer}),
            **({"reference": [one, *more] if more else one} if _has_references(row) else {}),
        }
    if not name:
        raise InputError(f"{path}: no prediction in it; one JSON object per line is expected")


def _has_references(row: _Row) -> bool:
    return any(row.fields.get(name) is not None for name in ("reference", "references", "label", "labels"))


def _marks(row: _Row) -> dict[str, Any]:
    """Returns what a row of `predict.py` says about cuts and the length limit; other formats do not say."""
    cut, texts = row.fields.get("cut"), row.fields.get("predictions")
    return {
        "cut": cut if isinstance(cut, int) and cut > 0 else 0,
        "at_limit": bool(texts) and isinstance(texts, list) and texts[0].get("finish_reason") == "length",
    }


def _format_of(row: _Row) -> str:
    for name, format in FORMATS.items():
        if all(field in row.fields for field in format.fields):
            return name
    accepted = "".join(f"\n  {name}: {format.description}" for name, format in FORMATS.items())
    fields = ", ".join(row.fields) or "none"
    raise InputError(f"{row.origin}: no known format of predictions (fields: {fields}); accepted are{accepted}")


def _identity(row: _Row, number: int, file: ScoredFile) -> str | int:
    if file.has_ids != ("id" in row.fields):
        raise InputError(f"{row.origin}, field id: some rows have one and some have none; give all of them one")
    identity = row.fields.get("id", number)
    if isinstance(identity, bool) or not isinstance(identity, str | int):
        raise InputError(f"{row.origin}, field id: {type(identity).__name__} where text or a whole number is expected")
    return identity


def _pair(row: _Row, name: str) -> Pair:
    missing = [field for field in FORMATS[name].fields if field not in row.fields]
    if missing:
        raise InputError(f"{row.origin}: no field {' and '.join(missing)}, which the rows before it have ({name})")
    return FORMATS[name].pair(row)
