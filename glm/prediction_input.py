"""What `predict.py` generates text for, read one by one: records, or texts with blanks."""

import hashlib
import sys
from collections.abc import Iterable, Iterator

from glm.data.records import BadRecord, Record, stream_records
from glm.errors import InputError
from glm.filling import BadText, stream_texts


class PredictionInput:
    """Records or texts of a file, of standard input, or the one text that was given.

    Args:
        path: a file, read again for each iteration; None for `text` or standard input.
        text: a text with blanks.
        fills: the lines are texts with blanks, not records.
        need_question: a record without question is unusable.

    Attributes:
        count: how many there are; None for standard input.
        sha256: of the file.

    Raises:
        InputError: the file cannot be read, or has nothing in it.
    """

    def __init__(self, path: str | None, *, text: str | None = None, fills: bool, need_question: bool = False):
        self.path = path
        self.text = text
        self.fills = fills
        self.need_question = need_question
        self.count: int | None = None if text is None else 1
        self.sha256: str | None = None
        if path is not None:
            try:
                with open(path, "rb") as file:
                    self.sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            except OSError as error:
                raise InputError(f"{path}: cannot be read ({error.strerror})") from error
            self.count = sum(1 for _ in self)
            if not self.count:
                kind = "text with blanks" if fills else "JSON object"
                raise InputError(f"{path}: no record in it; one {kind} per line is expected")

    def __iter__(self) -> Iterator[Record | BadRecord | str | BadText]:
        if self.text is not None:
            yield self.text
        elif self.path is not None:
            with open(self.path, "rb") as lines:
                yield from self._parsed(lines, self.path)
        else:
            if sys.stdin.isatty():
                print("reading records from standard input, one JSON object per line", file=sys.stderr)
            yield from self._parsed(sys.stdin.buffer, "standard input")

    def _parsed(self, lines: Iterable[bytes], name: str) -> Iterator[Record | BadRecord | str | BadText]:
        if self.fills:
            return stream_texts(lines, name=name)
        return stream_records(lines, name=name, need_question=self.need_question)
