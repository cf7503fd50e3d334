"""Chinese punctuation in generated texts: tokenizers write `，` as `,` (NFKC), and this writes it back.

Which of the two a text should have is what the targets of training had.
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
    """A Chinese text whose half-width marks beside Chinese characters are full-width; those within numbers and foreign
    words, as in `3:15` and `a, b`, stay."""
    if not _HAS_CHINESE.search(text):
        return text
    text = _RUN.sub(lambda found: "".join(FULL_WIDTH[mark] for mark in found.group()), text)
    return _with_like_brackets(_SPACE.sub("", _DOTS.sub("……", text)))


def _with_like_brackets(text: str) -> str:
    """A text whose closing brackets are as wide as those that they close."""
    characters, opened = list(text), []
    for place, character in enumerate(characters):
        if character in "(（":
            opened.append(character)
        elif character in ")）" and opened:
            characters[place] = "）" if opened.pop() == "（" else ")"
    return "".join(characters)


def count_marks(text: str) -> tuple[int, int]:
    """How many marks of a text are full-width, and how many are half-width that would be in `to_full_width`."""
    full = len(_FULL.findall(text))
    half = sum(len(found.group()) for found in _RUN.finditer(text)) if _HAS_CHINESE.search(text) else 0
    return full, half
