"""Checks files of records before a model is loaded, in one pass: what is wrong in them, and how long their texts are.

`python -m glm check`, training and prediction all look at data here, and so come to the same count of usable rows.
"""

import hashlib
import math
import re
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from glm.data.columns import Columns
from glm.data.formats import format_without_header, guess_row_count, has_byte_order_mark
from glm.data.frames import Encoder
from glm.data.problems import Kind
from glm.data.punctuation import count_marks
from glm.data.records import BadRecord, Record, RecordFile
from glm.data.report import SHOWN, FileReport, ProblemGroup
from glm.data.tasks import GENERATE, Task, english_words
from glm.data.truncation import find_answer

BATCH = 2048  # records whose texts are encoded together
# C0 and C1 control characters except tab, line feed and carriage return; a byte order mark within a text; U+FFFD,
# which a wrong decoding leaves.
CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ufeff\ufffd]")
# Soft hyphens, zero-width spaces and joiners, marks and overrides of direction.
INVISIBLE = re.compile("[\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f]")
JOINED_EMOJI = re.compile("(?<=[\u2190-\u2bff\ufe0f\U0001f000-\U0001faff])\u200d")  # a joiner within an emoji is fine
# How pandas, SQL, Excel and Python write a missing value.
NULL_WORDS = {"nan", "-nan", "null", "none", "nil", "nat", "undefined", "n/a", "<na>", "\\n", "(null)", "[null]"}
NULL_WORDS |= {"#n/a", "#na", "#null!", "#ref!", "#value!", "#name?", "#div/0!", "#num!"}
LONGEST_WORD = 32  # characters, white space around it included
QUANTILES = {"min": 0.0, "median": 0.5, "95 %": 0.95, "99 %": 0.99, "max": 1.0}


class Lengths:
    """Counts the lengths of texts in characters and tokens."""

    def __init__(self) -> None:
        self.characters = array("I")
        self.tokens = array("I")

    def add(self, text: str, tokens: int) -> None:
        """Adds a text."""
        self.characters.append(len(text))
        self.tokens.append(tokens)

    def extend(self, characters: Sequence[int], tokens: Sequence[int]) -> None:
        """Takes texts in, of which the lengths are known."""
        self.characters.extend(characters)
        self.tokens.extend(tokens)

    def quantiles(self) -> dict[str, dict[str, int]]:
        """Returns quantiles (the value at or below which that share lies) of characters and of tokens."""
        table = {"characters": self.characters, "tokens": self.tokens}
        return {unit: quantiles(values) for unit, values in table.items()}


def quantiles(values: Sequence[int]) -> dict[str, int]:
    """`QUANTILES` of some numbers."""
    return {name: _quantile(values, share) for name, share in QUANTILES.items()}


def _quantile(values: Sequence[int], share: float) -> int:
    return int(np.quantile(values, share, method="inverted_cdf"))


class FileCheck:
    """The findings in one file.

    Args:
        encoder: lays records out, and so knows what fits.
        name: name of the file.
        columns: where its fields are taken from.
        learns_targets: a target that would be cut is a problem; what is only compared with may have any length.
        is_training: a record that is too short to be learnt from is a problem.
        shown: problems of a kind that are kept in words.

    Attributes:
        read, used: numbers of rows; all others were refused.
        counts: number of problems of each kind.
        problems: the first of each kind, in words.
        bad: the refused rows, as many as `keep_bad` allows.
        row_hashes, places: hashes of the used rows for `compare`, and where each is in the file ("line 7").
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        name: str,
        columns: Columns | None = None,
        learns_targets: bool = True,
        has_ids: bool = True,
        is_training: bool = False,
        shown: int = SHOWN,
        keep_bad: int = 0,
    ):
        self.encoder = encoder
        self.name = name
        self.columns = str(columns or "")
        self._roles = columns
        self.learns_targets = learns_targets
        self.has_ids = has_ids
        self.is_training = is_training
        self.shown = shown
        self.keep_bad = keep_bad
        self.read = self.used = 0
        self.counts: Counter[Kind] = Counter()
        self.problems: dict[Kind, list[str]] = {}
        self.bad: list[BadRecord] = []
        self.source, self.target = Lengths(), Lengths()
        self.cut_sources = self.lost_tokens = self.cut_targets = self.lost_answers = 0
        self.notes: list[str] = []
        self.several_targets = 0
        self.marks = [0, 0]  # punctuation of the targets: full-width, and half-width that could be full-width
        self.unknown: Counter[str] = Counter()
        self.unknown_rows = 0
        self.row_hashes, self._id_hashes = array("Q"), array("Q")
        self.places: list[str] = []

    @property
    def refused(self) -> int:
        """Number of rows that were refused."""
        return self.read - self.used

    def take(self, items: Sequence[Record | BadRecord]) -> list[Any]:
        """Checks rows; returns them as ids, or as refused."""
        encoded = iter(self.encoder.encode([item for item in items if isinstance(item, Record)]))
        return [self._take(next(encoded) if isinstance(item, Record) else item) for item in items]

    def _take(self, item: Any) -> Any:
        self.read += 1
        if not isinstance(item, BadRecord):
            error = self.encoder.source_problem(item)
            if error is None and self.learns_targets:
                error = self.encoder.target_problem(item)
            if error is None and self.is_training and self.encoder.kind == GENERATE:
                error = self.encoder.shortness(item)
            if error is None:
                self._use(item)
                return item
            item = BadRecord(item.record.id, item.record.origin, str(error), error.kind, _fields(item.record))
        self.note(item.kind, item.error)
        if len(self.bad) < self.keep_bad:
            self.bad.append(item)
        return item

    def note(self, kind: Kind, message: str) -> None:
        """Counts a problem."""
        self.counts[kind] += 1
        words = self.problems.setdefault(kind, [])
        if len(words) < self.shown:
            words.append(message)

    def _use(self, encoded: Any) -> None:
        self.used += 1
        record, encoder = encoded.record, self.encoder
        self.source.add(record.source, encoder.uncut_length(encoded))
        overflow = encoder.overflow(encoded)
        self.cut_sources += overflow > 0
        self.lost_tokens += overflow
        if overflow and record.answer is not None:
            self.lost_answers += find_answer(record.source, record.answer) is None
        if encoded.target is not None:
            self.target.add(record.target, len(encoded.target))
            self.several_targets += bool(record.more_targets)
            self.marks = [sum(counts) for counts in zip(self.marks, count_marks(record.target), strict=True)]
            self.cut_targets += len(encoded.target) > encoder.target_budget
        self._look_at_text(encoded)
        self.places.append(record.origin.removeprefix(f"{self.name}, "))
        content = f"{record.source}\0{record.answer}\0{record.target}\0{record.extras or ''}"
        self.row_hashes.append(text_hash(content + "\0".join(record.more_targets)))
        if self.has_ids:
            self._id_hashes.append(text_hash(f"{type(record.id).__name__} {record.id}"))

    def _look_at_text(self, encoded: Any) -> None:
        record = encoded.record
        for name, text in _texts(record):
            column = f"{record.origin}, field {self._column(name)}"
            if found := CONTROL.search(text):
                code = code_point(found.group())
                self.note(Kind.CONTROL, f"{column}: holds the control character {code}")
            if INVISIBLE.search(text) and (found := INVISIBLE.findall(JOINED_EMOJI.sub("", text))):
                codes = ", ".join(map(code_point, dict.fromkeys(found)))
                noun = "characters" if "," in codes else "character"
                self.note(Kind.INVISIBLE, f"{column}: holds the invisible {noun} {codes}")
            if found := [token for token in self.encoder.family.marks if token in text]:
                self.note(Kind.MARK, f"{column}: holds {', '.join(found)}, which stays text")
            if len(text) < LONGEST_WORD and text.strip().lower() in NULL_WORDS:
                self.note(Kind.NULL_WORD, f"{column}: is nothing but {text.strip()}")
        unknown = self.encoder.tokenizer.unknown_token_id
        if unknown in encoded.before or unknown in encoded.after or unknown in (encoded.target or ()):
            self.unknown_rows += 1
            for _, text in _texts(record):
                self.unknown.update(self.encoder.tokenizer.unknown_parts(text))

    def _column(self, role: str) -> str:
        """Returns the column that a role's text is taken from."""
        return " + ".join(getattr(self._roles, role, None) or (role,))

    def finish(self) -> None:
        """Checks what only the whole file shows: rows and ids that occur twice."""
        for first, again in repeated(self.row_hashes):
            message = f"{self.name}, {self.places[again]}: is {self.places[first]} once more"
            self.note(Kind.DUPLICATE_ROW, message)
        for first, again in repeated(self._id_hashes):
            message = f"{self.name}, {self.places[again]}, field id: is that of {self.places[first]} too"
            self.note(Kind.DUPLICATE_ID, message)

    def compare(self, name: str, row_hashes: Sequence[int]) -> None:
        """Finds rows that are in another file too.

        Args:
            row_hashes: hashes of that file's rows.
        """
        there = set(row_hashes)
        for row, place in zip(self.row_hashes, self.places, strict=True):
            if row in there:
                self.note(Kind.SHARED_ROW, f"{self.name}, {place}: is in {name} too")

    # -- conclusions

    def report(self) -> FileReport:
        """Makes the report."""
        lengths = {"source": self.source, "target": self.target}
        return FileReport(
            file=self.name,
            columns=self.columns,
            read=self.read,
            used=self.used,
            refused=self.refused,
            problems=[ProblemGroup.of(kind, self.counts[kind], first) for kind, first in self.problems.items()],
            lengths={name: found.quantiles() for name, found in lengths.items() if found.tokens},
            cut_sources=self.cut_sources,
            lost_tokens=self.lost_tokens,
            cut_targets=self.cut_targets,
            unknown_rows=self.unknown_rows,
            unknown_pieces=dict(self.unknown.most_common(SHOWN)),
            warnings=self._warnings(),
            recommended=self._recommended(),
            bad_rows=[{"error": bad.error, "row": bad.values} for bad in self.bad],
            notes=self._notes(),
            full_width=self.marks[0] >= self.marks[1] if any(self.marks) else None,
        )

    def _warnings(self) -> list[str]:
        encoder, found = self.encoder, []
        if unknown := " ".join(encoder.tokenizer.unknown_parts(encoder.constant_text)):
            found.append(f"template: the tokenizer has no piece for {unknown}, which the model cannot tell apart")
        if self.cut_sources:
            found.append(
                f"{self.name}: {self.cut_sources} of {self.used} sources are longer than src_length "
                f"{encoder.src_length} and are cut; they lose {self.lost_tokens} tokens or more"
            )
        if self.lost_answers:
            found.append(
                f"{self.name}: {self.lost_answers} of the sources that are cut do not hold their answer, so their "
                "beginning is what is left of them"
            )
        if self.cut_targets:
            found.append(
                f"{self.name}: {self.cut_targets} of {self.used} targets do not fit into tgt_length "
                f"{encoder.tgt_length} and are cut"
            )
        short = sum(tokens < encoder.min_tgt_length for tokens in self.target.tokens)
        if short:
            found.append(
                f"{self.name}: {short} of {len(self.target.tokens)} targets have fewer tokens than min_tgt_length "
                f"{encoder.min_tgt_length} (median {_quantile(self.target.tokens, 0.5)}): what is generated will be "
                "too long; lower it"
            )
        return found

    def _notes(self) -> list[str]:
        if not self.several_targets:
            return self.notes
        several = f"{self.name}: {self.several_targets} of {self.used} rows have several targets: references of an "
        return [*self.notes, f"{several}evaluation, which training does not take"]

    def _recommended(self) -> dict[str, int]:
        """Recommends lengths: `src_length` for 99 % of the sources, `tgt_length` for all targets."""
        found = {"src_length": _rounded(_quantile(self.source.tokens, 0.99))} if self.used else {}
        if self.target.tokens:
            room = len(self.encoder.opening_ids) + 1  # eop
            found["tgt_length"] = _rounded(max(self.target.tokens) + room)
        return found


def check_records(
    items: Iterable[Record | BadRecord], check: FileCheck, *, total: int | None = None, most_refused: float = math.inf
) -> Iterator[list[Any]]:
    """Checks rows in batches, with a progress bar on a terminal; yields them as ids or as refused.

    Args:
        total: about how many there are.
        most_refused: reading ends early where it is clear that more are refused.
    """
    items = iter(items)
    with tqdm(total=total, desc=f"checking {Path(check.name).name}", unit="row", disable=None, delay=1) as bar:
        while check.refused <= most_refused + SHOWN and (batch := list(islice(items, BATCH))):
            yield check.take(batch)
            bar.update(len(batch))
    check.finish()


def check_file(
    file: RecordFile,
    encoder: Encoder,
    *,
    learns_targets: bool = True,
    is_training: bool = False,
    most_refused: float = math.inf,
    shown: int = SHOWN,
) -> tuple[FileCheck, Iterator[list[Any]]]:
    """Returns a file's check, and an iterator over its rows in batches; the check is complete when all have been read.

    Args:
        learns_targets, is_training: see `FileCheck`.
        most_refused: reading ends early where it is clear that more rows are refused; so many are kept in the report.
        shown: problems of a kind that are kept in words.
    """
    check = FileCheck(
        encoder,
        name=file.name,
        columns=file.columns,
        learns_targets=learns_targets,
        is_training=is_training,
        has_ids=file.has_ids,
        shown=shown,
        keep_bad=0 if most_refused == math.inf else int(most_refused),
    )
    if kind := format_without_header(file.path):
        check.notes.append(f"{file.name}: {kind}")
    if has_byte_order_mark(file.path):
        check.notes.append(f"{file.name}: starts with a byte order mark, which is skipped")
    if isinstance(encoder.template, Task) and (words := english_words(encoder.template, encoder.constant_text)):
        language = encoder.template.language
        check.notes.append(f"{file.name}: the task's own words ({words}) stay English around texts in {language}")
    return check, check_records(file, check, total=guess_row_count(file.path), most_refused=most_refused)


def _fields(record: Record) -> dict[str, str]:
    fields = {"source": record.source, "answer": record.answer, "target": record.target, **record.extras}
    return {name: text for name, text in fields.items() if text is not None}


def _texts(record: Record) -> Iterator[tuple[str, str]]:
    """Returns the texts of a record, all its targets included, with the names of their fields."""
    yield from _fields(record).items()
    yield from (("target", text) for text in record.more_targets)


def code_point(character: str) -> str:
    """Formats a character as a code point for messages."""
    return f"U+{ord(character):04X}"


def text_hash(text: str) -> int:
    """Hashes a text to 64 bits."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def repeated(hashes: array) -> Iterator[tuple[int, int]]:
    """Returns the indices (first, again) of values that occurred before, in the order of `again`."""
    values = np.frombuffer(hashes, dtype=np.uint64) if hashes else np.empty(0, np.uint64)
    order = np.argsort(values, kind="stable")
    found, first = [], 0
    for place in np.flatnonzero(np.diff(values[order]) == 0) + 1:
        first = order[place - 1] if not found or found[-1][1] != order[place - 1] else first
        found.append((int(first), int(order[place])))
    return iter(sorted(found, key=lambda pair: pair[1]))


def _rounded(length: int) -> int:
    """Rounds up to a multiple of 8."""
    return -(-length // 8) * 8
