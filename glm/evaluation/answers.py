"""Exact match and F1 of answers, by the protocols that published figures name (SQuAD's and MLQA's).

Rows are those of `glm.prediction.answers`.
"""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from glm.evaluation.metrics import BUCKET_NAMES, Scores, bucket_of

Row = Mapping[str, Any]
ASCII_PUNCTUATION = set(string.punctuation)
ENGLISH_ARTICLES = re.compile(r"\b(a|an|the)\b")
# MLQA's evaluation script: articles of each language it has a rule for
ARTICLES = {
    "en": ENGLISH_ARTICLES,
    "es": re.compile(r"\b(un|una|unos|unas|el|la|los|las)\b"),
    "hi": None,
    "vi": re.compile(r"\b(của|là|cái|chiếc|những)\b"),
    "de": re.compile(r"\b(ein|eine|einen|einem|eines|einer|der|die|das|den|dem|des)\b"),
    "ar": re.compile(r"\sال^|ال"),
    "zh": None,
}
CHINESE = re.compile("[\u4e00-\u9fa5]|[^\u4e00-\u9fa5\\s]+")


def squad_tokens(text: str, language: str) -> list[str]:
    """Normalises as SQuAD's script: lower case, no ASCII punctuation, no English articles, split at spaces (Rajpurkar
    et al. 2016)."""
    kept = "".join(letter for letter in text.lower() if letter not in ASCII_PUNCTUATION)
    return ENGLISH_ARTICLES.sub(" ", kept).split()


def mlqa_tokens(text: str, language: str) -> list[str]:
    """Normalises as MLQA's script: lower case, no punctuation of any script, no articles of the language, split at
    spaces and Chinese characters (Lewis et al. 2020).

    Raises:
        ValueError: MLQA has no rule for the language.
    """
    if language not in ARTICLES:
        raise ValueError(f"{language}: MLQA has rules for {', '.join(ARTICLES)}")
    kept = "".join(letter for letter in text.lower() if not _is_punctuation(letter))
    if ARTICLES[language] is not None:
        kept = ARTICLES[language].sub(" ", kept)
    return CHINESE.findall(kept) if language == "zh" else kept.split()


def original_tokens(text: str, language: str) -> list[str]:
    """Normalises as THUDM/Multilingual-GLM: lower case, transliterated to ASCII letters, then as SQuAD's.

    Words of the same sound are one: 背景 is 北京. Its transliteration is under the GPL; the one that it was ported
    from, under the Artistic License, gives the same for letters and Chinese characters but not for some symbols.
    """
    from text_unidecode import unidecode

    kept = "".join(letter for letter in unidecode(text.lower()) if letter not in ASCII_PUNCTUATION)
    return ENGLISH_ARTICLES.sub(" ", kept).split()


def _is_punctuation(letter: str) -> bool:
    return letter in ASCII_PUNCTUATION or unicodedata.category(letter).startswith("P")


@dataclass(frozen=True)
class AnswerProtocol:
    """A protocol that compares two answers.

    Args:
        tokens: tokens of a text in a language.
        languages: languages that it has rules for; None for all.
        signature: signature of its figures.
    """

    tokens: Callable[[str, str], list[str]]
    languages: tuple[str, ...] | None
    signature: str


PROTOCOLS = {
    "squad": AnswerProtocol(
        squad_tokens, None, "case:lower|punct:ascii|articles:en|tok:blanks|refs:best|avg:questions"
    ),
    "mlqa": AnswerProtocol(
        mlqa_tokens,
        tuple(ARTICLES),
        "case:lower|punct:unicode|articles:own|tok:blanks+zh-char|refs:best|avg:questions",
    ),
}
# Only for reproducing the original's own figures: see `original_tokens`.
ORIGINAL = {
    "original": AnswerProtocol(
        original_tokens,
        None,
        "case:lower|letters:ascii|punct:ascii|articles:en|tok:blanks|refs:best|avg:questions|as:text-unidecode-1.3",
    )
}
ALL_PROTOCOLS = PROTOCOLS | ORIGINAL


def exact_and_f1(prediction: str, answers: Sequence[str], protocol: str, language: str) -> tuple[float, float]:
    """Returns exact match and F1 of an answer against the best of the right ones, 0 to 1.

    Where both sides are nothing but punctuation and articles, they match exactly and have no token in common: F1 is 0.
    """
    tokens = ALL_PROTOCOLS[protocol].tokens
    own = tokens(prediction, language)
    pairs = [(own, tokens(answer, language)) for answer in answers]
    return max(float(a == b) for a, b in pairs), max(_f1(a, b) for a, b in pairs)


def _f1(prediction: Sequence[str], answer: Sequence[str]) -> float:
    common = sum((Counter(prediction) & Counter(answer)).values())
    return 2 * common / (len(prediction) + len(answer)) if common else 0.0


class AnswerTable:
    """Counts for each row, from which figures follow as functions of sums over rows.

    Args:
        rows: they have references.
        languages: languages of all rows together; found in the rows if not given.
        protocols: protocols by which answers are compared, some of ALL_PROTOCOLS.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        languages: Sequence[str] | None = None,
        protocols: Mapping[str, AnswerProtocol] = PROTOCOLS,
    ):
        found = sorted({row.get("language") or "en" for row in rows})
        self.keys = [
            (protocol, language)
            for language in (found if languages is None else languages)
            for protocol, rules in protocols.items()
            if rules.languages is None or language in rules.languages
        ]
        self.counts = np.array([self._counted(row) for row in rows], dtype=np.float64)  # [N, M]

    def _counted(self, row: Row) -> list[float]:
        counts: list[float] = []
        for protocol, language in self.keys:
            own = (row.get("language") or "en") == language
            values = exact_and_f1(row["prediction"], row["references"], protocol, language) if own else (0.0, 0.0)
            counts += [float(own), *values]
        return counts

    def figures(self, sums: np.ndarray) -> dict[str, float]:
        """Computes percentages from sums [M] over any rows: for each language and protocol, and the mean of
        languages."""
        found: dict[str, float] = {}
        means: dict[str, list[tuple[float, float]]] = {}
        for (protocol, language), (records, em, f1) in zip(self.keys, sums.reshape(-1, 3), strict=True):
            if records:
                values = 100 * em / records, 100 * f1 / records
                found[f"em ({protocol}, {language})"], found[f"f1 ({protocol}, {language})"] = map(float, values)
                means.setdefault(protocol, []).append(values)
        for protocol, values in means.items():
            if len(values) > 1:
                em, f1 = np.mean(values, axis=0)
                found[f"em ({protocol}, mean)"], found[f"f1 ({protocol}, mean)"] = float(em), float(f1)
        return found


def score_answers(rows: Iterable[Row], protocols: Mapping[str, AnswerProtocol] = PROTOCOLS) -> Scores:
    """Computes EM and F1 for each language by each protocol that has rules for it, in percent, with `records`.

    Args:
        protocols: some of ALL_PROTOCOLS.

    Raises:
        ValueError: there are no rows.
    """
    rows = list(rows)
    if not rows:
        raise ValueError("no records to score")
    table = AnswerTable(rows, protocols=protocols)
    figures = table.figures(table.counts.sum(axis=0)) | {"records": float(len(rows))}
    places: dict[str | None, list[int]] = {}
    for place, row in enumerate(rows):
        places.setdefault(bucket_of(row.get("context")), []).append(place)
    by_length = {
        name: table.figures(table.counts[places[name]].sum(axis=0)) | {"records": float(len(places[name]))}
        for name in BUCKET_NAMES
        if name in places
    }
    return Scores(figures, answer_signatures(figures), by_length)


def answer_signatures(names: Iterable[str]) -> dict[str, str]:
    """Returns the signature of each figure."""
    found = {}
    for name in names:
        if name == "records":
            found[name] = "unit:records"
        elif name.startswith(("em (", "f1 (")):
            found[name] = ALL_PROTOCOLS[name[4:].partition(",")[0]].signature
    return found


def answer_figures(protocols: Iterable[str] = PROTOCOLS) -> list[str]:
    """Returns the names of all possible figures, for the languages that MLQA has rules for."""
    return [
        f"{figure} ({protocol}, {language})"
        for language in (*ARTICLES, "mean")
        for protocol in protocols
        for figure in ("f1", "em")
    ]
