"""Rows with the same source share their references: each is scored against the targets of all of them."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np

from glm.data.records import BadRecord, Record


class SharedReferences:
    """The targets of records with the same source.

    Args:
        records: returns a new iterator over the records at each call. Only targets of repeated sources are held.

    Attributes:
        count: number of records that share their source with another one.
    """

    def __init__(self, records: Callable[[], Iterable[Record | BadRecord]]):
        keys = np.fromiter((_key(record) for record in records() if _has_target(record)), dtype=np.uint64)
        values, counts = np.unique(keys, return_counts=True)
        shared = set(values[counts > 1].tolist())
        self.count = int(counts[counts > 1].sum())
        self._targets: dict[int, dict[str, None]] = {key: {} for key in shared}
        for record in records() if shared else ():
            if _has_target(record) and (key := _key(record)) in shared:
                self._targets[key] |= dict.fromkeys(record.references)

    def given_to(self, record: Record | BadRecord) -> Record | BadRecord:
        """Gives a record the targets of all records with its source, its own first; none if it has no target."""
        if not self._targets or not _has_target(record) or (key := _key(record)) not in self._targets:
            return record
        own = record.references
        return replace(record, more_targets=(*own[1:], *(text for text in self._targets[key] if text not in own)))


def shared_note(count: int) -> str:
    """Returns the note about records that share their source with others."""
    return f"{count} records share their source with others: each is scored against the targets of all of them"


def _has_target(record: Record | BadRecord) -> bool:
    return isinstance(record, Record) and record.target is not None


def _key(record: Record) -> int:
    text = f"{record.source}\0{record.answer}\0{record.extras or ''}"
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest(), "little")
