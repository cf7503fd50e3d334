"""Restores full-width Chinese punctuation in generated texts; tokenizers write `，` as `,` (NFKC).

Whether a model's texts should have full-width marks follows from the training targets.
"""

import re

FULL_WIDTH = {",": "，", "?": "？", "!": "！", ":": "：", ";": "；", "(": "（", ")": "）", "~": "～"}
HALF_WIDTH = {full: half for half, full in FULL_WIDTH.items()}
# Han characters, kana, Chinese marks and quotes.
CHINESE = "\u2018-\u201d\u2026\u3001-\u303f\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff"
_MARKS = re.escape("".join(FULL_WIDTH))
# Marks behind a Chinese character, before one, or at the end of the text.
_RUN = re.compile(f"(?<=[{CHINESE}])[{_MARKS}]+|[{_MARKS}]+(?= ?[{CHINESE}])|[?!]+$")
_DOTS = re.compile(rf"(?<=[{CHINESE}])\.{{3,6}}")
_SPACE = re.compile(f"(?<=[{''.join(HALF_WIDTH)}]) (?=[{CHINESE}])")
_FULL = re.compile(f"[{''.join(HALF_WIDTH)}]")
_HAS_CHINESE = re.compile(f"[{CHINESE}]")


def to_full_width(text: str) -> str:
    """Makes half-width marks beside Chinese characters full-width; those in `3:15` and `a, b` stay."""
    if not _HAS_CHINESE.search(text):
        return text
    text = _RUN.sub(lambda found: "".join(FULL_WIDTH[mark] for mark in found.group()), text)
    return _with_like_brackets(_SPACE.sub("", _DOTS.sub("……", text)))


def _with_like_brackets(text: str) -> str:
    """Makes closing brackets as wide as the brackets they close."""
    characters, opened = list(text), []
    for place, character in enumerate(characters):
        if character in "(（":
            opened.append(character)
        elif character in ")）" and opened:
            characters[place] = "）" if opened.pop() == "（" else ")"
    return "".join(characters)


def count_marks(text: str) -> tuple[int, int]:
    """Counts the full-width marks, and the half-width marks that `to_full_width` would change."""
    full = len(_FULL.findall(text))
    half = sum(len(found.group()) for found in _RUN.finditer(text)) if _HAS_CHINESE.search(text) else 0
    return full, half
