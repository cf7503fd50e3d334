"""Perplexity: cuts documents into windows and normalises the sum of their losses."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Window:
    """A part of a document.

    Args:
        source: ids before the scored ones that are read bidirectionally.
        opening: ids after these that are read from left to right but not scored.
        scored: ids that are scored.
    """

    source: list[int]
    opening: list[int]
    scored: list[int]


def windows_of(ids: Sequence[int], *, length: int, step: int, unidirectional: bool = False) -> list[Window]:
    """Cuts a document into windows; each id but the first is scored exactly once (THUDM/GLM, tasks/language_model).

    Args:
        length: W, ids of a window.
        step: v, by how many ids a window reaches beyond the one before it, 1 to W.
        unidirectional: read the whole window from left to right, not only the scored ids.
    """
    n = len(ids)
    if n < 2:
        return []
    windows = []
    for number in range(max(math.ceil((n - length) / step) + 1, 1)):
        part = list(ids[number * step : number * step + length])
        given = 1 if number == 0 else length - step
        seen = min(1, given) if unidirectional else given
        windows.append(Window(part[:seen], part[seen:given], part[given:]))
    return windows


@dataclass
class Perplexity:
    """Sums over documents, and the counts that they are divided by.

    Attributes:
        documents, windows: their numbers.
        loss: sum of -log p of the scored ids, in nats.
        ids, characters, words: number of those scored: all of each document but its first id, or first word.
        too_short: documents of one id, which have nothing to score.
    """

    documents: int = 0
    windows: int = 0
    loss: float = 0.0
    ids: int = 0
    characters: int = 0
    words: int = 0
    too_short: int = 0

    def add_document(self, text: str, ids: Sequence[int], first_id: str, windows: int) -> None:
        """Adds a document to the counts.

        Args:
            first_id: the text of its first id.
        """
        self.documents += 1
        if len(ids) < 2:
            self.too_short += 1
            return
        self.windows += windows
        self.ids += len(ids) - 1
        self.characters += len(text) - len(first_id)
        self.words += len(text.split()) - 1

    def figures(self) -> dict[str, float]:
        """Returns the counts, the mean loss, and perplexity per id, per character, and (in text with spaces) per word.

        Raises:
            ValueError: nothing was scored.
        """
        if not self.ids:
            raise ValueError("nothing to score: no document has two ids")
        found = {
            "documents": self.documents,
            "windows": self.windows,
            "scored ids": self.ids,
            "sum of losses": self.loss,
            "loss per id": self.loss / self.ids,
            "perplexity (id)": exponential(self.loss / self.ids),
        }
        if self.characters > 0:
            per_character = self.loss / self.characters
            found |= {
                "scored characters": self.characters,
                "perplexity (character)": exponential(per_character),
                "bits per character": per_character / math.log(2),
            }
        if self.words > 0:
            found |= {"scored words": self.words, "perplexity (word)": exponential(self.loss / self.words)}
        return found


def exponential(loss: float) -> float:
    """Returns e^loss, or infinity where it overflows."""
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf


# WikiText's tokens as the text that they were made of (Megatron-LM, tasks/zeroshot_gpt/detokenizer.py does the same)
WIKITEXT = (
    (re.compile(r" @(\W)@ "), r"\1"),
    (re.compile(r" ([,;:!?)\]}])"), r"\1"),
    (re.compile(r" \.(?=\s|$)"), "."),
    (re.compile(r"([(\[{]) "), r"\1"),
    (re.compile(r"\" (.*?) \""), r'"\1"'),
    (re.compile(r" '(s|t|re|ve|ll|d|m)\b"), r"'\1"),
    (re.compile(r"= = = (.*?) = = ="), r"=== \1 ==="),
    (re.compile(r"= = (.*?) = ="), r"== \1 =="),
    (re.compile(r" +\n"), "\n"),
)


def detokenized(text: str) -> str:
    """Undoes WikiText's tokenisation: no spaces around punctuation, no `@-@` marks."""
    for pattern, replacement in WIKITEXT:
        text = pattern.sub(replacement, text)
    return text
