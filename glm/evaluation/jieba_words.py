"""Splits Chinese text into words by jieba, of whose dictionary only what a text can ask for is loaded."""

import contextlib
import hashlib
import logging
import marshal
import sys
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from itertools import pairwise
from typing import Any, NamedTuple

from glm.runtime.atomic import write_file
from glm.runtime.caches import private_cache

CACHE_NAME = "words.cache"


class _Dictionary(NamedTuple):
    """A tokenizer of jieba's, and the words and prefixes that it does not know yet, each part in `marshal`'s form."""

    tokenizer: Any
    by_character: dict[str, bytes]  # by the first one: what `by_start` shall have
    by_start: dict[str, bytes]  # by the first two, or the only one: frequencies by word


def jieba_cut(text: str) -> list[str]:
    """Splits as `jieba.lcut` with its default dictionary, white space included."""
    tokenizer, by_character, by_start = _dictionary()
    # All that jieba looks up is a part of the text, and so begins as one of these does.
    for character in by_character.keys() & set(text):
        by_start.update(marshal.loads(by_character.pop(character)))
    for start in by_start.keys() & {*text, *map("".join, pairwise(text))}:
        tokenizer.FREQ.update(marshal.loads(by_start.pop(start)))
    return tokenizer.lcut(text)


@cache
def _dictionary() -> _Dictionary:
    """Returns jieba's dictionary, of which nothing is known to its tokenizer yet.

    It is cached where only this user can write. Left alone jieba reads whatever lies as `jieba.cache` in the folder
    for temporary files, which all users share; and all of it takes 0.2 s to read from a cache, 1.5 s without.
    """
    with _without_pkg_resources():
        import jieba  # imported here because it is slow

    jieba.setLogLevel(logging.WARNING)
    with jieba.get_dict_file() as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    path = private_cache(f"jieba-{version('jieba')}-{digest[:16]}") / CACHE_NAME
    tokenizer = jieba.Tokenizer()
    tokenizer.initialized = True
    try:
        tokenizer.total, by_character = marshal.loads(path.read_bytes())
    except (OSError, ValueError, EOFError, TypeError):
        frequencies, tokenizer.total = tokenizer.gen_pfdict(jieba.get_dict_file())
        by_character = _grouped(_grouped(frequencies, 2), 1)
        with contextlib.suppress(OSError):  # a full disk: the next process reads the dictionary again
            write_file(path, marshal.dumps((tokenizer.total, by_character)))
    return _Dictionary(tokenizer, by_character, {})


def _grouped(values: dict[str, Any], length: int) -> dict[str, bytes]:
    """Groups a dictionary by that many first characters of its keys."""
    groups = defaultdict(dict)
    for key, value in values.items():
        groups[key[:length]][key] = value
    return {start: marshal.dumps(group) for start, group in groups.items()}


@contextlib.contextmanager
def _without_pkg_resources() -> Iterator[None]:
    """Makes jieba open its files without pkg_resources, whose import takes longer than everything else."""
    loaded = sys.modules.get("pkg_resources")
    sys.modules["pkg_resources"] = None
    try:
        yield
    finally:
        del sys.modules["pkg_resources"]
        if loaded is not None:
            sys.modules["pkg_resources"] = loaded
