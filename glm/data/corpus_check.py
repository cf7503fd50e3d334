"""Checks a corpus before a model is loaded, in one pass: what is wrong in it, and how long its documents are."""

import math
import re
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tqdm import tqdm

from glm.data.check import CONTROL, Lengths, code_point, repeated, text_hash
from glm.data.corpora import CorpusFiles, Document
from glm.data.problems import Kind
from glm.data.records import BadRecord
from glm.data.report import SHOWN, FileReport, ProblemGroup
from glm.models.protocol import Pretraining, Tokenizer

SHORT = 8  # ids; shorter documents are only used together with others
CHARACTERS = 1 << 20  # characters of the documents that are encoded together
DOCUMENTS = 1 << 14
LINES = re.compile(r"[\n。！？!?]+")  # separates passages in which boilerplate is searched
SHORTEST_PASSAGE = 12  # characters; shorter passages repeat naturally

Encoded = list[list[int]]  # ids of each part of a document


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
        self._hashes = array("Q")
        self._files: dict[str, int] = {}
        self._numbers = array("q")  # of a document's file, and of its line
        self._passages: Counter[int] = Counter()
        self._known: dict[int, str] = {}

    @property
    def refused(self) -> int:
        """Number of rows that were refused."""
        return self.read - self.used

    def take(self, items: Sequence[Document | BadRecord]) -> list[Encoded]:
        """Checks rows; returns the usable ones as ids."""
        return self._taken(items, self._encode(items))

    def _encode(self, items: Sequence[Document | BadRecord]) -> list[Encoded]:
        """Encodes the documents among rows; runs in a thread, and reads nothing that `_taken` writes."""
        parts = [self.pretraining.parts(item.text) for item in items if isinstance(item, Document)]
        texts = [text for own in parts for text in own]
        ids = iter(self.tokenizer.encode_text(texts) if texts else [])
        return [[next(ids) for _ in own] for own in parts]

    def _taken(self, items: Sequence[Document | BadRecord], found: list[Encoded]) -> list[Encoded]:
        encoded = iter(found)
        return [ids for item in items if (ids := self._take(item, encoded)) is not None]

    def _take(self, item: Document | BadRecord, encoded: Iterator[Encoded]) -> Encoded | None:
        self.read += 1
        if isinstance(item, BadRecord):
            return self._refuse(item)
        ids = next(encoded)
        tokens = sum(map(len, ids))
        if not tokens:
            message = f"{item.origin}: has no token: the tokenizer drops all of it"
            return self._refuse(BadRecord(self.read, item.origin, message, Kind.EMPTY))
        self.used += 1
        self.lengths.add(item.text, tokens)
        self.unknown += any(self.tokenizer.unknown_token_id in part for part in ids)
        self._look_at(item, tokens)
        return ids

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

    def _look_at(self, document: Document, tokens: int) -> None:
        if tokens < SHORT:
            self.note(Kind.SHORT, f"{document.origin}: {tokens} tokens")
        if found := CONTROL.search(document.text):
            self.note(Kind.CONTROL, f"{document.origin}: holds the control character {code_point(found.group())}")
        self._hashes.append(text_hash(document.text))
        file, _, number = document.origin.rpartition(" ")
        self._files.setdefault(file, len(self._files))
        self._numbers.extend((self._files[file], int(number.rstrip(")")) if number.rstrip(")").isdecimal() else 0))
        if self.most_repeats is not None:
            for passage in {part.strip() for part in LINES.split(document.text)}:
                if len(passage) >= SHORTEST_PASSAGE:
                    self._passages[key := text_hash(passage)] += 1
                    if self._passages[key] == self.most_repeats + 1:
                        self._known[key] = passage

    def _place(self, number: int) -> str:
        file, line = self._numbers[2 * number], self._numbers[2 * number + 1]
        return f"{list(self._files)[file]} {line}"

    def finish(self) -> None:
        """Checks what only the whole corpus shows."""
        for first, again in repeated(self._hashes):
            self.counts[Kind.DUPLICATE_ROW] += 1
            words = self.problems.setdefault(Kind.DUPLICATE_ROW, [])
            if len(words) < self.shown:
                words.append(f"{self._place(again)}: is {self._place(first)} once more")
        for key, passage in sorted(self._known.items(), key=lambda item: -self._passages[item[0]]):
            self.note(Kind.BOILERPLATE, f"{self.name}: {self._passages[key]} documents hold {passage:.60}")

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

    def documents(self, corpus: CorpusFiles, *, most_refused: float = math.inf) -> Iterator[Encoded]:
        """Reads a whole corpus; yields its documents as ids.

        Args:
            most_refused: reading ends early where it is clear that more rows are refused.
        """
        with tqdm(desc=f"encoding {self.name}", unit="document", disable=None, delay=1) as bar:
            for batch, encoded in self._encoded_ahead(corpus):
                yield from self._taken(batch, encoded)
                bar.update(len(batch))
                if self.refused > most_refused + SHOWN:
                    break
        self.finish()

    def _encoded_ahead(self, corpus: CorpusFiles) -> Iterator[tuple[list[Any], list[Encoded]]]:
        """Yields rows in batches with the ids of their documents. A batch is encoded, without holding the
        interpreter's lock, while the next one is read and the previous one is written."""
        with ThreadPoolExecutor(1) as worker:
            waiting = None
            for batch in batches(corpus):
                coming = batch, worker.submit(self._encode, batch)
                if waiting is not None:
                    yield waiting[0], waiting[1].result()
                waiting = coming
            if waiting is not None:
                yield waiting[0], waiting[1].result()


def batches(corpus: Iterable[Any]) -> Iterator[list[Any]]:
    """Groups documents up to a number of characters; a longer one is a group by itself."""
    group: list[Any] = []
    size = 0
    for item in corpus:
        group.append(item)
        size += len(item.text) if isinstance(item, Document) else 0
        if size >= CHARACTERS or len(group) >= DOCUMENTS:
            yield group
            group, size = [], 0
    if group:
        yield group
