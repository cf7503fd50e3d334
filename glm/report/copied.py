"""Finds the parts of a generated text that were copied from its source, to mark them."""

import re
import unicodedata
from functools import lru_cache
from typing import NamedTuple

# Latin words and numbers are one token, all other characters one each.
_TOKEN = re.compile(r"[^\W_\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]+|.", re.DOTALL)


class Span(NamedTuple):
    """A part of a text, marked or not."""

    text: str
    marked: bool


def copied_spans(text: str, source: str) -> list[Span]:
    """Splits a text into parts that its source contains and parts that it does not.

    Marked are runs that the source holds as they are, in Unicode's NFKC form and without regard to case and white
    space: of two Chinese characters or more, or one Latin word or number. From left to right the longest run counts;
    it begins and ends with a word.
    """
    tokens, there = tokens_of(text), _joined_source(source)
    spans: list[Span] = []
    start = 0
    while start < len(tokens):
        end = _end_of_run(tokens, start, there)
        marked = _is_copy(tokens[start:end])
        end = end if marked else start + 1
        _append(spans, Span("".join(tokens[start:end]), marked))
        start = end
    return spans


def tokens_of(text: str) -> list[str]:
    """Splits a text: Latin words and numbers whole, everything else by character."""
    return _TOKEN.findall(text)


def found_span(text: str, part: str) -> list[Span]:
    """Marks the first occurrence of a part in a text, if there is one."""
    before, found, after = text.partition(part) if part else (text, "", "")
    return [span for span in (Span(before, False), Span(found, True), Span(after, False)) if span.text]


def _end_of_run(tokens: list[str], start: int, there: str) -> int:
    """Returns the end of the longest run of words from `start` that the source contains; `start` if there is none."""
    last = end = start
    while end < len(tokens) and _is_word(tokens[start]) and _joined(tokens[start : end + 1]) in there:
        end += 1
        last = end if _is_word(tokens[end - 1]) else last
    return last


@lru_cache(maxsize=1)  # Cached because all beams of a record have the same source.
def _joined_source(source: str) -> str:
    return _joined(tokens_of(source))


def _joined(tokens: list[str]) -> str:
    """Joins normalised tokens with zeros between them, so that a run of tokens is a substring."""
    words = [unicodedata.normalize("NFKC", token).casefold() for token in tokens if not token.isspace()]
    return "\0" + "".join(f"{word}\0" for word in words)


def _is_word(token: str) -> bool:
    return any(map(str.isalnum, token))


def _is_copy(run: list[str]) -> bool:
    return sum(map(_is_word, run)) > 1 or any(len(token) > 1 for token in run)


def _append(spans: list[Span], span: Span) -> None:
    """Appends a span; merges it with the previous one if neither is marked."""
    if spans and not spans[-1].marked and not span.marked:
        spans[-1] = Span(spans[-1].text + span.text, False)
    else:
        spans.append(span)
