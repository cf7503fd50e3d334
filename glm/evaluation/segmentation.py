"""Splits Chinese text into the tokens that metrics count; the segmenter's name is part of a figure's name."""

import unicodedata
from collections.abc import Callable
from functools import cache
from importlib.metadata import version

from glm.evaluation.jieba_words import jieba_cut


def normalized(text: str) -> str:
    """Normalises a text for scoring to Unicode's NFKC form: GLM's tokenizer writes full-width punctuation half-width,
    which is not an error of the model."""
    return unicodedata.normalize("NFKC", text)


def squeezed(text: str) -> str:
    """Normalises a text and removes white space, for comparing whole texts."""
    return "".join(normalized(text).split())


# Chinese characters in BERT's sense: first and last code point of each block.
_CHINESE = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)
# Characters that PaddleNLP counts as symbols beside Unicode's.
_SYMBOLS = frozenset("\u00ad\u00b2\u00ba\u3007\u00b5\u00d8\u014b\u01b1")


@cache
def _cleaned(character: str) -> str:
    category = unicodedata.category(character)
    if character in "\t\n\r" or category == "Zs":
        return " "
    if category.startswith("C") or character == "\ufffd":
        return ""
    chinese = any(first <= ord(character) <= last for first, last in _CHINESE)
    return f" {character} " if chinese else character


@cache
def _parted(character: str) -> str:
    category = unicodedata.category(character)
    if category == "Mn":  # an accent
        return ""
    return f" {character} " if category[0] in "PS" or character in _SYMBOLS else character


def bert_words(text: str) -> list[str]:
    """Splits as BERT's basic tokenizer in PaddleNLP (`BasicTokenizer`), with which the figures published for
    DuReaderQG were computed: each Chinese character, punctuation mark and symbol is a token; Latin words and numbers
    stay whole, in lower case and without accents. White space and control characters are dropped."""
    lower = "".join(map(_cleaned, text)).lower()
    return "".join(map(_parted, unicodedata.normalize("NFD", lower))).split()


def _jieba_words(text: str) -> list[str]:
    return [word for word in jieba_cut(text) if not word.isspace()]


SEGMENTERS: dict[str, Callable[[str], list[str]]] = {"char": bert_words, "jieba": _jieba_words}
"""Segmenter by name. Both drop white space.

char: Chinese characters one by one, Latin words and numbers whole, in lower case; see `bert_words`.
jieba: the words of `jieba.lcut`; Latin words and numbers stay whole, case is kept.
"""


def segmenter_signature(segmenter: str) -> str:
    """Describes what a segmenter and `normalized` do to a text, for the signature of a figure."""
    tokens = {"char": "case:lower|tok:bert-basic", "jieba": f"case:mixed|tok:jieba-{version('jieba')}"}
    return f"norm:nfkc|{tokens[segmenter]}"
