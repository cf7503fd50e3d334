"""Scores predictions against references, over all records and by the length of their source."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from importlib.metadata import version
from typing import Any

import numpy as np

from glm.evaluation.bleu import BLEU_COUNTS, corpus_bleu
from glm.evaluation.rouge import ngrams
from glm.evaluation.segmentation import SEGMENTERS, segmenter_signature, squeezed
from glm.evaluation.statistics import COUNTS, REPEATED_ORDER, VALUES, Pair, Statistics, statistics

BUCKETS = (64, 128, 256, 512, 1024)
"""The longest source of each bucket, in characters without white space; the last bucket has no end."""

DISTINCT_ORDERS = (1, 2)
HEADLINES = ("bleu-4 (char, corpus)", "rouge-l (char)", "exact match", "distinct-2 (char)")
NUMBERS_OF_RECORDS = ("empty predictions", "empty references", "records")
TOTALS = (*NUMBERS_OF_RECORDS, "failed records")


def figure_text(name: str, value: float) -> str:
    """Formats a figure for tables: numbers of records as integers, others with two decimals."""
    return f"{value:.0f}" if name in TOTALS else f"{value:.2f}"


@dataclass(frozen=True)
class Scores:
    """Figures by name, the signature of each, and the same figures by length of the source."""

    figures: dict[str, float]
    signatures: dict[str, str]
    by_source_length: dict[str, dict[str, float]]

    def with_figures(self, more: Mapping[str, float], signatures: Mapping[str, str] | None = None) -> "Scores":
        """Returns these scores with further figures, and their signatures if they have one."""
        more_signatures = self.signatures | dict(signatures or {})
        return replace(self, figures=self.figures | dict(more), signatures=more_signatures)

    def as_json(self) -> dict[str, Any]:
        """Returns the figures, and beside them `signatures` and `by source length (characters)`, as in
        metrics.json."""
        return {
            **self.figures,
            "signatures": self.signatures,
            "by source length (characters)": self.by_source_length,
        }


def score(pairs: Iterable[Pair]) -> Scores:
    """Scores predictions.

    Percentages from 0 to 100, for each segmenter s of `SEGMENTERS`:

    - `bleu-1 (s, corpus)` to `bleu-4 (s, corpus)`: see `glm.evaluation.bleu.corpus_bleu`. `bleu-4 (char, corpus)` is
      the formula of the figures published for DuReaderQG.
    - `rouge-1 (s)`, `rouge-2 (s)`, `rouge-l (s)`: mean over records, see `glm.evaluation.rouge.best_rouge`. Two equal
      texts of one token have no bigram, so their ROUGE-2 is 0.
    - `distinct-1 (s)`, `distinct-2 (s)`: distinct n-grams of all predictions in their number (Li et al. 2016).
    - `exact match`: predictions equal to a reference but for white space.
    - `repeated 4-grams (char)`: mean over records of the share of 4-grams that stood in the text before.
    - `answer leaks`: predictions that hold the record's answer, of those that have one; absent if none has.

    Other figures: `length ratio (char)`, tokens of all predictions by tokens of all references; `generated length`,
    mean characters of a prediction without white space; `empty predictions`, `empty references`, `records`: counts.

    Raises:
        ValueError: There are no records.
    """
    scorer = Scorer()
    scorer.add(pairs)
    return scorer.result()


class Scorer:
    """Computes `score` record by record; only the distinct n-grams take memory."""

    def __init__(self) -> None:
        self._sums: dict[str | None, _Sums] = {}  # by bucket; None collects records without source
        self._reference_counts: set[int] = set()

    def add(self, pairs: Iterable[Pair]) -> None:
        """Adds records."""
        for pair in pairs:
            self._reference_counts.add(len(pair.references))
            self._sums.setdefault(bucket_of(pair.source), _Sums()).add(statistics(pair))

    def result(self) -> Scores:
        """Returns the figures of all records so far. Raises ValueError if there are none."""
        if not self._sums:
            raise ValueError("no records to score")
        figures = _Sums.merged(self._sums.values()).figures()
        return Scores(
            figures,
            signatures(figures, references=reference_signature(self._reference_counts)),
            {name: self._sums[name].figures() for name in BUCKET_NAMES if name in self._sums},
        )


class _Sums:
    """Sums of statistics over records."""

    def __init__(self) -> None:
        self.counts = np.zeros(len(COUNTS), dtype=np.int64)
        # Exact sums, so that the last digit does not depend on the order of records.
        self.values = [Fraction(0)] * len(VALUES)
        self.distinct: dict[tuple[str, int], set] = {(name, n): set() for name in SEGMENTERS for n in DISTINCT_ORDERS}

    def add(self, record: Statistics) -> None:
        self.counts += record.counts
        self.values = [total + Fraction(value) for total, value in zip(self.values, record.values, strict=True)]
        for (name, n), found in self.distinct.items():
            found |= ngrams(record.tokens[name], n)

    @classmethod
    def merged(cls, parts: Iterable["_Sums"]) -> "_Sums":
        whole = cls()
        for part in parts:
            whole.counts += part.counts
            whole.values = [left + right for left, right in zip(whole.values, part.values, strict=True)]
            for key, found in whole.distinct.items():
                found |= part.distinct[key]
        return whole

    def figures(self) -> dict[str, float]:
        """Computes figures in the order of tables: those of each segmenter, then the others."""
        found = figures_of_sums(self.counts, [float(total) for total in self.values]) | self._distinct_figures()
        names = [name for name in FIGURES if name in found]
        return {name: found[name] for name in names}

    def _distinct_figures(self) -> dict[str, float]:
        named = dict(zip(COUNTS, self.counts.tolist(), strict=True))
        return {
            f"distinct-{n} ({name})": _percent(len(found), named[f"{n}-grams ({name})"])
            for (name, n), found in self.distinct.items()
        }


def figures_of_sums(counts: Sequence[float], values: Sequence[float]) -> dict[str, float]:
    """Computes the figures that depend only on sums over records: all but distinct-n.

    Args:
        counts: [C] sums of `COUNTS`.
        values: [M] sums of `VALUES`.
    """
    named = {name: int(count) for name, count in zip(COUNTS, counts, strict=True)}
    records = named["records"]
    figures: dict[str, float] = {}
    for name in SEGMENTERS:
        bleu = [named[f"{count} ({name})"] for count in BLEU_COUNTS]
        figures |= {f"bleu-{order} ({name}, corpus)": corpus_bleu(bleu, order) for order in (1, 2, 3, 4)}
    figures |= {name: 100 * (value / records) for name, value in zip(VALUES, values, strict=True)}
    figures["exact match"] = _percent(named["exact matches"], records)
    if named["answers"]:
        figures["answer leaks"] = _percent(named["answer leaks"], named["answers"])
    expected = named["reference length (char)"]
    figures["length ratio (char)"] = named["length (char)"] / expected if expected else 0.0
    figures["generated length"] = named["characters"] / records
    for name in ("empty predictions", "empty references", "records"):
        figures[name] = float(named[name])
    return figures


def _percent(part: int, whole: int) -> float:
    return 100 * part / whole if whole else 0.0


# -- buckets


BUCKET_NAMES = tuple(f"{start + 1}-{end or ''}" for start, end in zip((0, *BUCKETS), (*BUCKETS, None), strict=True))


def bucket_of(source: str | None) -> str | None:
    """Returns the name of a source's bucket, such as `65-128`."""
    if source is None:
        return None
    return BUCKET_NAMES[int(np.searchsorted(BUCKETS, len(squeezed(source))))]


# -- names and signatures


def _signature_tails() -> dict[str, str]:
    """Returns, by figure name in the order of tables, what follows the number of references in its signature."""
    tails: dict[str, str] = {}
    for name in SEGMENTERS:
        text = segmenter_signature(name)
        bleu = f"{text}|smooth:none|empty:length-0|sacrebleu:{version('sacrebleu')}"
        tails |= {f"bleu-{order} ({name}, corpus)": bleu for order in (1, 2, 3, 4)}
        rouge = f"{text}|f:1|refs:best|avg:records|empty:0|rouge:{version('rouge')}"
        tails |= {f"rouge-{kind} ({name})": rouge for kind in ("1", "2", "l")}
        tails |= {f"distinct-{n} ({name})": f"{text}|avg:corpus|empty:no-ngram" for n in DISTINCT_ORDERS}
    tails["exact match"] = "norm:nfkc|case:mixed|space:dropped|refs:any|empty:0"
    tails["answer leaks"] = "norm:nfkc|case:mixed|space:dropped|of:records-with-answer|empty:0"
    tails["length ratio (char)"] = f"{segmenter_signature('char')}|refs:closest|avg:corpus|empty:length-0"
    tails[f"repeated {REPEATED_ORDER}-grams (char)"] = f"{segmenter_signature('char')}|avg:records|empty:0"
    tails["generated length"] = "norm:nfkc|unit:characters|space:dropped|avg:records|empty:0"
    tails |= {name: "unit:records" for name in NUMBERS_OF_RECORDS}
    return tails


FIGURES = tuple(_signature_tails())
"""Names of all figures, in the order of tables."""


def name_advice(name: str, known: Sequence[str]) -> str:
    """Suggests figures for an unknown name: `did you mean a or b?`, or all names."""
    meant = [other for other in known if name and other.startswith(name)] or difflib.get_close_matches(
        name, known, n=1
    )
    return f"did you mean {' or '.join(meant)}?" if meant else f"known are {', '.join(known)}"


# Figures that depend on the predictions alone, or are counts.
_WITHOUT_REFERENCES = ("distinct", "answer", "repeated", "generated", "empty", "records")


def reference_signature(counts: set[int]) -> str:
    """Returns `1`, `2`, … if every record has that many references, else `var`."""
    return str(next(iter(counts))) if len(counts) == 1 else "var"


def signatures(names: Iterable[str], *, references: str = "1") -> dict[str, str]:
    """Returns the signature of each figure, in the style of sacrebleu: fields `name:value` joined by `|`.

    nrefs: references of a record. norm, case, tok, space: what is done to a text before it is counted. smooth: of
    zero counts. refs: which of several references. avg: over what. empty: how an empty prediction counts. Then
    the versions of libraries.
    """
    tails = _signature_tails()
    return {
        name: tails[name] if name.startswith(_WITHOUT_REFERENCES) else f"nrefs:{references}|{tails[name]}"
        for name in names
        if name in tails
    }
