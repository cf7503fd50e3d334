"""Cuts passages that are too long, keeping the answer's sentence."""

import re
import unicodedata
from collections.abc import Callable

SENTENCE = re.compile(r"[^。！？；!?;\n]*[。！？；!?;\n]+[”’」』）)]*|[^。！？；!?;\n]+")


# A character together with marks that NFKC may combine with it.
CHARACTER = re.compile("(?s:.)[\u0300-\u036f\u3099\u309a\uff9e\uff9f]*")


def find_answer(context: str, answer: str | None) -> tuple[int, int] | None:
    """Returns where the first occurrence of an answer begins and ends in a passage; None if there is none.

    It is looked for as it is written, then as tokenizers read it: after Unicode's NFKC, white space and what cannot be
    seen aside, so that `１９９９` is found for `1999`.
    """
    if not answer:
        return None
    place = context.find(answer)
    if place >= 0:
        return place, place + len(answer)
    wanted = "".join(text for _, _, text in _normalized(answer))
    parts = [part for part in _normalized(context) if part[2]]
    text = "".join(text for _, _, text in parts)
    place = text.find(wanted) if wanted else -1
    if place < 0:
        return None
    starts = [start for start, _, text in parts for _ in text]
    ends = [end for _, end, text in parts for _ in text]
    return starts[place], ends[place + len(wanted) - 1]


def _normalized(text: str) -> list[tuple[int, int, str]]:
    """Returns the characters of a text as (start, end, normal form); the form is empty for characters that are
    ignored."""
    return [
        (
            found.start(),
            found.end(),
            "".join(
                character
                for character in unicodedata.normalize("NFKC", found.group())
                if not character.isspace() and unicodedata.category(character) not in ("Cc", "Cf")
            ),
        )
        for found in CHARACTER.finditer(text)
    ]


def shorten_context(context: str, answer: str, fits: Callable[[str], bool]) -> str | None:
    """Shortens a passage to whole sentences around the answer's that fit; arguments as for `window_around`."""
    found = window_around(context, answer, fits)
    return None if found is None else context[slice(*found)]


def window_around(context: str, answer: str, fits: Callable[[str], bool]) -> tuple[int, int] | None:
    """Returns the range of the whole sentences around the answer's that fit.

    Sentences are added in turn after and before the one with the first occurrence of the answer (the passage's start,
    if the answer does not occur in it). If that sentence alone is too long it is cut around the answer.

    Args:
        fits: whether a passage is short enough; what is part of a fitting passage fits.

    Returns:
        Its range, or None if not even the answer itself fits.
    """
    if fits(context):
        return 0, len(context)
    place, answer_end = find_answer(context, answer) or (0, 0)
    ends = [match.end() for match in SENTENCE.finditer(context)]
    starts = [0, *ends[:-1]]
    first = max(index for index, start in enumerate(starts) if start <= place)
    last = max(first, next((index for index, end in enumerate(ends) if end >= answer_end), first))
    if not fits(context[starts[first] : ends[last]]):
        return _cut_around(context[: ends[last]], place, max(answer_end, place), starts[first], fits)

    after = before = True
    while after or before:
        after = after and last + 1 < len(ends) and fits(context[starts[first] : ends[last + 1]])
        last += after
        before = before and first > 0 and fits(context[starts[first - 1] : ends[last]])
        first -= before
    return starts[first], ends[last]


def _cut_around(text: str, start: int, end: int, floor: int, fits: Callable[[str], bool]) -> tuple[int, int] | None:
    """Returns the widest fitting window around text[start:end], equally far on both sides, starting at `floor` or
    later."""
    if not fits(text[start:end]):
        return None

    def window(margin: int) -> tuple[int, int]:
        return max(floor, start - margin), min(end + margin, len(text))

    low, high = 0, len(text)  # window(low) fits; window(high) does not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(text[slice(*window(middle))]) else (low, middle)
    return window(low)
