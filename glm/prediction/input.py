"""Reads what `predict.py` generates text for, one by one: records, or texts with blanks."""

import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from glm.data.check import check_file
from glm.data.columns import RECOGNISED, ColumnOptions
from glm.data.frames import Encoder
from glm.data.records import BadRecord, Record, RecordFile
from glm.data.references import SharedReferences, shared_note
from glm.data.report import FileReport
from glm.data.store import content_digest
from glm.data.task_records import open_records, stream_of
from glm.data.tasks import GENERATE, Frame
from glm.data.templates import QUESTION_GENERATION
from glm.errors import InputError
from glm.prediction.filling import BadText, stream_texts


class PredictionInput:
    """Records or texts from a file, standard input, or a single given text.

    Args:
        path: a file, read again for each iteration; None for `text` or standard input.
        text: a text with blanks.
        fills: the lines are texts with blanks, not records.
        template: which fields a record has.
        columns: the columns that were named.
        most: only so many records or texts, the first ones.
        need_target: a record without target is unusable.
        reserved: see `RecordFile`.
        pattern_id: number of one of the task's patterns.

    Attributes:
        count: how many there are; None for standard input, and for a file of records before its `check`.
        sha256: of the file.

    Raises:
        InputError: the file cannot be read, has nothing in it, or its columns are not recognised.
    """

    def __init__(
        self,
        path: str | None,
        *,
        text: str | None = None,
        fills: bool,
        template: Frame = QUESTION_GENERATION,
        columns: ColumnOptions = RECOGNISED,
        need_target: bool = False,
        reserved: Sequence[str] = (),
        most: int | None = None,
        pattern_id: int | None = None,
    ):
        self.path = path
        self.pattern_id = pattern_id
        self.text = text
        self.fills = fills
        self.template = template
        self.columns = columns
        self.need_target = need_target
        self.reserved = reserved
        self.most = most
        self.count: int | None = None if text is None else 1
        self.records: RecordFile | None = None
        self.shared: SharedReferences | None = None  # after `check`: what rows with the same source share
        self.sha256: str | None = None
        if path is None:
            return
        try:
            if fills:
                self.count = sum(1 for _ in self)
                if not self.count:
                    raise InputError(f"{path}: no record in it; one text with blanks per line is expected")
            else:
                self.records = open_records(
                    path,
                    template,
                    columns,
                    need_target=need_target,
                    each_needs_target=False,
                    several_targets=True,
                    reserved=reserved,
                    most=most,
                    pattern_id=pattern_id,
                )
            self.sha256 = content_digest(Path(path))
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from error

    def check(self, encoder: Encoder) -> FileReport | None:
        """Checks a file of records before a model is loaded; returns the report, or None for other input.

        Raises:
            InputError: references are needed, and no record has one.
        """
        if self.records is None:
            return None
        check, batches = check_file(self.records, encoder, learns_targets=False)
        self.count = sum(map(len, batches))
        if encoder.kind == GENERATE:
            self.shared = SharedReferences(lambda: self.records)
        if self.shared and self.shared.count:
            check.notes.append(f"{self.path}: {shared_note(self.shared.count)}")
        if self.need_target and check.used and not check.target.tokens:
            column = self.records.target_name
            raise InputError(
                f"{self.path}, field {column}: empty in all records, so there is nothing to score; leave "
                "--metrics_file out, or name another column with --target_column"
            )
        return check.report()

    def __iter__(self) -> Iterator[Record | BadRecord | str | BadText]:
        return islice(self._all(), self.most)

    def _all(self) -> Iterator[Record | BadRecord | str | BadText]:
        if self.text is not None:
            yield self.text
        elif self.records is not None:
            yield from map(self.shared.given_to, self.records) if self.shared else self.records
        elif self.path is not None:
            with open(self.path, "rb") as lines:
                yield from stream_texts(lines, name=self.path)
        else:
            if sys.stdin.isatty():
                print("reading records from standard input, one JSON object per line", file=sys.stderr)
            yield from stream_of(
                sys.stdin.buffer,
                self.template,
                self.columns,
                name="standard input",
                need_target=False,
                several_targets=True,
                reserved=self.reserved,
                pattern_id=self.pattern_id,
            )
