"""Cuts Chinese text into the tokens that metrics count; the segmenter's name is part of a figure's name."""

import logging
from collections.abc import Callable


def _characters(text: str) -> list[str]:
    return [character for character in text if not character.isspace()]


def _jieba_words(text: str) -> list[str]:
    import jieba  # here, because it reads its dictionary (1.5 s) and writes a cache into the temporary folder

    jieba.setLogLevel(logging.WARNING)
    return [word for word in jieba.lcut(text) if not word.isspace()]


SEGMENTERS: dict[str, Callable[[str], list[str]]] = {"char": _characters, "jieba": _jieba_words}
"""Segmenter by name. Both drop white space, and neither changes case or width.

char: every Unicode code point is a token, also in Latin words and numbers; a joined emoji is several tokens.
jieba: the words of `jieba.lcut` with its default dictionary; Latin words and numbers stay whole.
"""
