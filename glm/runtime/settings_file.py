"""Reads settings files as data, against a schema, whoever wrote them.

A folder with a model may come from anywhere. What is taken from its JSON files is a closed list of fields, each with a
type and a range; nothing of it is ever a command line, a pattern that is run, or a name of code.
"""

import codecs
import json
import re
import stat
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from glm.errors import InputError, shown
from glm.runtime.json_structure import json_problem, structure

MOST_BYTES = 1 << 21  # bytes of a file; its values in memory take up to 30 times as much
MOST_DEPTH = 32  # nested lists and objects
MOST_ERRORS = 100
SHOWN_ERRORS = 3


class Settings(BaseModel):
    """Schema of a settings file. Nothing is converted; infinity and NaN are not accepted as numbers.

    A subclass refuses fields that it does not name, unless it says `extra="ignore"`: of a file that has those of other
    programs, too.
    """

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)


Schema = TypeVar("Schema", bound=Settings)


def read_settings(path: Path, schema: type[Schema]) -> Schema:
    """Reads the settings in a file.

    Raises:
        InputError: it cannot be read, or a field is unknown, of another type or out of its range; the text names it.
    """
    return checked(read_object(path), schema, path)


def read_object(path: Path, *, most_bytes: int = MOST_BYTES) -> dict[str, Any]:
    """Reads the JSON object in a file.

    Raises:
        InputError: it is no plain file, too large, nested too deeply, or no JSON object; or a name is in it twice.
    """
    return parsed_object(read_plain(path, "JSON", most_bytes), path)


def read_plain(path: Path, form: str, most_bytes: int) -> bytes:
    """Reads all bytes of a settings file.

    Args:
        form: what it is to be read as, for messages.

    Raises:
        InputError: it is no plain file, or too large.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # reading a pipe or a device may never end
            raise InputError(f"{path}: cannot be read as {form} (not a plain file)")
        with path.open("rb") as file:
            data = file.read(most_bytes + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read as {form} ({shown(str(error))})") from error
    if len(data) > most_bytes:
        raise InputError(f"{path}: has more than {most_bytes} bytes, too many to be read as {form}")
    return data


def as_utf8(data: bytes) -> bytes:
    """Converts text with a mark of UTF-16 to UTF-8; other bytes stay as they are.

    Raises:
        ValueError: it is neither.
    """
    try:
        text = data.decode("utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 (byte {error.start}); save it as UTF-8") from error
    return text.encode()


def _json_hint(data: bytes) -> str:
    """Says what JSON has not that stands in a text; empty if it is nothing known."""
    if re.search(rb"(?m)^\s*(//|#|/\*)", data):
        return "; JSON has no comments: a name that starts with _ is a note"
    return "; take the comma before } or ] away" if re.search(rb",\s*[}\]]", data) else ""


def parsed_object(data: bytes, origin: Path | str) -> dict[str, Any]:
    """Parses bytes as a JSON object; see `read_object`."""
    try:
        data = as_utf8(data)
        if structure(data).depth > MOST_DEPTH:
            raise InputError(f"{origin}: cannot be read as JSON (nested more than {MOST_DEPTH} deep)")
        content = json.loads(data.decode("utf-8-sig"), parse_constant=_no_number, object_pairs_hook=_object)
        json.dumps(content, ensure_ascii=False).encode()  # unpaired surrogates are not text
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        reason = stand_in(data) or f"{shown(json_problem(error))}{_json_hint(data)}"
        raise InputError(f"{origin}: cannot be read as JSON ({reason})") from error
    if not isinstance(content, dict):
        raise InputError(f"{origin}: a JSON object is expected")
    return content


def checked(content: dict[str, Any], schema: type[Schema], origin: Path | str) -> Schema:
    """Checks settings that were read against a schema; see `read_settings`."""
    try:
        return schema.model_validate(content)
    except ValidationError as error:
        found = _deviations(content, error.errors(include_url=False)[:MOST_ERRORS])
        raise InputError("\n".join(f"{origin}: {text}" for text in found)) from None


def _deviations(content: dict[str, Any], errors: list[dict[str, Any]]) -> list[str]:
    """Describes the errors, one line per field: its name, its value, and what is expected."""
    found: dict[str, list[str]] = {}
    for error in errors:
        names, value = [], content
        for part in error["loc"]:
            try:
                value = value[part]
            except (LookupError, TypeError):  # missing, or the name of one of several possible types
                names += [part] if error["type"] == "missing" else []
                break
            names.append(part)
        name = shown(".".join(map(str, names)))
        if error["type"] == "extra_forbidden":
            found[f"unknown entry {name}"] = []
        elif error["type"] == "missing":
            found[f"has no {name}"] = []
        else:
            subject = f"{name} {shown(json.dumps(value, ensure_ascii=False))}: "
            found.setdefault(subject, []).append(_advice(error))
    return [subject + " or ".join(advice) for subject, advice in found.items()][:SHOWN_ERRORS]


def _advice(error: dict[str, Any]) -> str:
    message = error["msg"].removeprefix("Value error, ")
    return re.sub(r"^\w+ should (be|have)\b", r"has to \1", message)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice} is in it twice")
    return found


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def stand_in(opening: bytes) -> str | None:
    """Recognises, by its first bytes, what a failed download left instead of a file."""
    opening = opening[:100].lstrip().lower()
    if opening.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS; fetch the file itself with git lfs pull"
    if opening.startswith((b"<!doctype html", b"<html")):
        return "a web page; download the file itself"
    return None
