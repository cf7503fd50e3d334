"""Translates the API's messages: English as written, and Chinese for requests that prefer it.

Messages come from all over the toolkit, so they are known by their form: a table has the Chinese for each.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from glm.serving.chinese import MESSAGES

ENGLISH, CHINESE = "en", "zh"
_FIELD = re.compile(r"([\w.]+): (.*)", re.DOTALL)
_FIELDS = re.compile(r"; (?=[\w.]+: )")  # between the errors of two fields
_OR = re.compile(r" or (?!more|less)")  # between two errors of a field
_HOLE = re.compile(r"\{(\*?)\}")  # {} stands for any text; {*} for one or several messages, which are translated too


def preferred(headers: Mapping[str, str]) -> str:
    """Returns the language that a request prefers (`Accept-Language`): Chinese unless another one is preferred to
    it."""
    wishes = []
    for place, wish in enumerate(headers.get("accept-language", "").lower().split(",")):
        name, _, weight = wish.strip().partition(";")
        found = re.fullmatch(r"\s*q\s*=\s*([01](?:\.\d{0,3})?)\s*", weight)
        importance = float(found[1]) if found else 1.0
        if name and importance:
            wishes.append((-importance, place, name.strip()))
    first = min(wishes, default=(0, 0, ENGLISH))[2]
    return CHINESE if first.split("-")[0] == "zh" else ENGLISH


def translated(message: str, language: str) -> str:
    """Translates a message line by line; parts that are not in the table stay English."""
    if language != CHINESE:
        return message
    return "\n".join("；".join(map(_of_field, _FIELDS.split(line))) for line in message.split("\n"))


def with_translated_rows(answer: dict[str, Any], language: str) -> dict[str, Any]:
    """Translates the errors of an answer's rows, where it has any."""
    rows = answer.get("rows")
    if language != CHINESE or not rows:
        return answer
    translate = [row | {"error": translated(row["error"], language)} if "error" in row else row for row in rows]
    return answer | {"rows": translate}


def _of_field(text: str) -> str:
    """Translates an error of a field, `name: what` or `name: what or what`; or any other message."""
    whole, found = _entry(text), _FIELD.match(text)
    # An entry that begins with a hole (`{} or more`) takes in the field's name, too, where it is about what is said.
    if whole is not None and not (found and _entry(found[2]) == whole):
        return _in_chinese(text) or text
    if not found:
        return text
    name, said = found.groups()
    for parts in (_OR.split(said), [said]):
        if all(in_chinese := [_in_chinese(part) for part in parts]):
            return f"{name}：{'，或'.join(in_chinese)}"
    return text


def _entry(text: str) -> int | None:
    """Returns the number of the first matching entry; None if none matches."""
    return next((number for number, (pattern, *_) in enumerate(_patterns()) if pattern.fullmatch(text)), None)


def _in_chinese(text: str) -> str | None:
    """Returns the Chinese of the first matching entry; None if none matches."""
    if (number := _entry(text)) is None:
        return None
    pattern, inner, chinese = _patterns()[number]
    groups = pattern.fullmatch(text).groups()
    return chinese.format(*(_in_chinese(part) or part if n in inner else part for n, part in enumerate(groups)))


@lru_cache(maxsize=1)
def _patterns() -> list[tuple[re.Pattern[str], set[int], str]]:
    """Compiles each entry: its regular expression, which of its groups are messages, and the Chinese."""
    found = []
    for english, chinese in MESSAGES.items():
        parts = _HOLE.split(english)  # text, star, text, star, … text
        pattern = "(.+?)".join(map(re.escape, parts[::2]))
        inner = {place for place, star in enumerate(parts[1::2]) if star}
        found.append((re.compile(pattern, re.DOTALL), inner, chinese))
    return found
