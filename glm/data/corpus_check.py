"""Checks a corpus before a model is loaded, in one pass: what is wrong in it, and how long its documents are."""

import math
import re
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from itertools import compress, islice

import numpy as np
from tqdm import tqdm

from glm.data.check import CONTROL, Lengths, code_point, text_hash
from glm.data.corpora import CorpusFiles, Document
from glm.data.corpus_encoding import EncodedBatch, encoded_ahead
from glm.data.problems import Kind
from glm.data.records import BadRecord
from glm.data.report import SHOWN, FileReport, ProblemGroup
from glm.models.protocol import Pretraining, Tokenizer

SHORT = 8  # ids; shorter documents are only used together with others
LINES = re.compile(r"[\n。！？!?]+")  # separates passages in which boilerplate is searched
SHORTEST_PASSAGE = 12  # characters; shorter passages repeat naturally


class CorpusCheck:
    """The findings in a corpus.

    Args:
        name: name of the corpus, for messages.
        tokenizer: encodes its documents.
        pretraining: says in which parts.
        most_repeats: a passage that occurs more often is boilerplate; None does not look for any, which takes memory.
        shown: problems of a kind that are kept in words.
        keep_bad: refused rows that are kept.
    """

    def __init__(
        self,
        name: str,
        tokenizer: Tokenizer,
        pretraining: Pretraining,
        *,
        most_repeats: int | None = None,
        shown: int = SHOWN,
        keep_bad: int = 0,
    ):
        self.name, self.tokenizer, self.pretraining = name, tokenizer, pretraining
        self.most_repeats, self.shown, self.keep_bad = most_repeats, shown, keep_bad
        self.read = self.used = self.unknown = 0
        self.counts: Counter[Kind] = Counter()
        self.problems: dict[Kind, list[str]] = {}
        self.bad: list[BadRecord] = []
        self.lengths = Lengths()
        self._hashes = array("q")  # hashes of all documents read
        self._passages: Counter[int] = Counter()
        self._known: dict[int, str] = {}

    @property
    def refused(self) -> int:
        """Number of rows that were refused."""
        return self.read - self.used

    def take(self, items: Sequence[Document | BadRecord], encoded: EncodedBatch) -> None:
        """Checks rows, whose documents are given as ids too."""
        documents, tokens = [item for item in items if isinstance(item, Document)], encoded.tokens
        if len(documents) < len(items):
            for item in items:
                if isinstance(item, BadRecord):
                    self._refuse(item)
        self._hashes.extend([hash(document.text) for document in documents])
        if 0 in tokens:
            self._refuse_empty(compress(documents, [not count for count in tokens]))
            documents, tokens = list(compress(documents, tokens)), [count for count in tokens if count]
        self.read += len(items)
        self.used += len(documents)
        self.unknown += encoded.unknown
        self.lengths.extend([len(document.text) for document in documents], tokens)
        self._look_at(documents, tokens)

    def _refuse_empty(self, documents: Iterable[Document]) -> None:
        for document in documents:
            message = f"{document.origin}: has no token: the tokenizer drops all of it"
            self._refuse(BadRecord(document.number, document.origin, message, Kind.EMPTY))

    def _refuse(self, item: BadRecord) -> None:
        self.note(item.kind, item.error)
        if len(self.bad) < self.keep_bad:
            self.bad.append(item)

    def note(self, kind: Kind, message: str) -> None:
        """Counts a problem."""
        self.counts[kind] += 1
        words = self.problems.setdefault(kind, [])
        if len(words) < self.shown:
            words.append(message)

    def _look_at(self, documents: Sequence[Document], tokens: Sequence[int]) -> None:
        if tokens and min(tokens) < SHORT:
            for document, count in zip(documents, tokens, strict=True):
                if count < SHORT:
                    self.note(Kind.SHORT, f"{document.origin}: {count} tokens")
        if CONTROL.search("\n".join([document.text for document in documents])):
            for document in documents:
                if found := CONTROL.search(document.text):
                    self.note(
                        Kind.CONTROL, f"{document.origin}: holds the control character {code_point(found.group())}"
                    )
        if self.most_repeats is not None:
            for document in documents:
                self._count_passages(document.text)

    def _count_passages(self, text: str) -> None:
        for passage in {part.strip() for part in LINES.split(text)}:
            if len(passage) >= SHORTEST_PASSAGE:
                self._passages[key := text_hash(passage)] += 1
                if self._passages[key] == self.most_repeats + 1:
                    self._known[key] = passage

    def finish(self, corpus: CorpusFiles) -> None:
        """Checks what only the whole corpus shows."""
        count, pairs = first_repeats(self._hashes, self.shown)
        if count:
            origins = self._origins(corpus, {place for pair in pairs for place in pair})
            self.counts[Kind.DUPLICATE_ROW] += count
            words = [f"{origins[again]}: is {origins[first]} once more" for first, again in pairs]
            self.problems.setdefault(Kind.DUPLICATE_ROW, []).extend(words)
        for key, passage in sorted(self._known.items(), key=lambda item: -self._passages[item[0]]):
            self.note(Kind.BOILERPLATE, f"{self.name}: {self._passages[key]} documents hold {passage:.60}")

    def _origins(self, corpus: CorpusFiles, places: set[int]) -> dict[int, str]:
        """Returns the origins of documents by number; reads them again, as keeping all would take memory."""
        documents = (item for item in corpus if isinstance(item, Document))
        read = islice(enumerate(documents), max(places, default=-1) + 1)
        return {place: document.origin for place, document in read if place in places}

    def report(self) -> FileReport:
        """Makes the report."""
        return FileReport(
            file=self.name,
            columns="",
            read=self.read,
            used=self.used,
            refused=self.refused,
            problems=[ProblemGroup.of(kind, self.counts[kind], first) for kind, first in self.problems.items()],
            lengths={"text": self.lengths.quantiles()} if self.used else {},
            cut_sources=0,
            lost_tokens=0,
            cut_targets=0,
            unknown_rows=self.unknown,
            unknown_pieces={},
            warnings=[],
            recommended={},
            bad_rows=[{"error": bad.error, "row": bad.values} for bad in self.bad],
            notes=[f"{self.name}: {sum(self.lengths.tokens):,} tokens"] if self.used else [],
        )

    def encoded(self, corpus: CorpusFiles, *, most_refused: float = math.inf) -> Iterator[EncodedBatch]:
        """Reads a whole corpus; yields its documents as ids.

        Args:
            most_refused: reading ends early where it is clear that more rows are refused.

        Raises:
            InputError: a file cannot be read, or a process that encodes has ended.
        """
        ahead = encoded_ahead(corpus.batches(), self.tokenizer, self.pretraining, size=corpus.size)
        with closing(ahead), tqdm(desc=f"encoding {self.name}", unit="document", disable=None, delay=1) as bar:
            for rows, encoded in ahead:
                self.take(rows, encoded)
                yield encoded
                bar.update(len(rows))
                if self.refused > most_refused + SHOWN:
                    break
        self.finish(corpus)


def first_repeats(hashes: array, most: int) -> tuple[int, list[tuple[int, int]]]:
    """Returns how many values occurred before, and the places (first, again) of the first of them.

    Args:
        hashes: values of type "q".
        most: pairs of places.
    """
    values = np.frombuffer(hashes, dtype=np.int64)
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    again = np.sort(order[1:][ordered[1:] == ordered[:-1]])
    firsts = order[np.searchsorted(ordered, values[again[:most]])]
    return len(again), list(zip(firsts.tolist(), again[:most].tolist(), strict=True))
