"""Stores a corpus as ids on disk: encoded once, found again by content, memory-mapped.

A folder as `glm.data.store` has them: the ids of all units in a row (2 or 4 bytes each), where each part ends, where
each unit ends if units have several parts, and the report of the check. Its seal is written last and its name given
last of all, so that what a full disk or a kill has cut short is never taken for whole.
"""

import hashlib
import json
from array import array
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import numpy as np

from glm.data.corpora import CorpusFiles
from glm.data.corpus_check import CorpusCheck
from glm.data.corpus_encoding import EncodedBatch
from glm.data.mixture import Mixture
from glm.data.report import FileReport
from glm.data.store import content_digest, id_type, new_store, remove_store, verify_store
from glm.data.task_pool import TaskPool
from glm.errors import InputError
from glm.models.protocol import Pretraining, Sample, Tokenizer

VERSION = 1  # version of the file format
IDS, PARTS, UNITS, REPORT = "ids.bin", "parts.bin", "units.bin", "report.json"


class MappedCorpus:
    """The units in a folder, memory-mapped (`glm.models.protocol.Corpus`)."""

    def __init__(self, folder: Path, tokenizer: Tokenizer):
        self.folder = folder
        self._ids = _mapped(folder / IDS, id_type(tokenizer))
        self._parts = _mapped(folder / PARTS, np.dtype(np.int64))  # where each part ends, in ids
        has_parts = (folder / UNITS).stat().st_size > 0
        self._units = _mapped(folder / UNITS, np.dtype(np.int64)) if has_parts else None  # each unit, in parts
        self.tokens = len(self._ids)
        self.report = FileReport.from_dict(json.loads((folder / REPORT).read_text(encoding="utf-8")))

    def __len__(self) -> int:
        return len(self._parts if self._units is None else self._units)

    def unit(self, number: int) -> list[np.ndarray]:
        """Returns the ids of each part of a unit."""
        first, behind = (number, number + 1) if self._units is None else _bounds(self._units, number)
        return [self._ids[slice(*_bounds(self._parts, part))] for part in range(first, behind)]

    def at(self, token: int) -> int:
        """Returns the number of the unit that holds this one of all tokens."""
        part = int(np.searchsorted(self._parts, token, side="right"))
        return part if self._units is None else int(np.searchsorted(self._units, part, side="right"))

    def lengths(self) -> np.ndarray:
        """[units], tokens of each."""
        ends = self._parts if self._units is None else self._parts[self._units - 1]
        return np.diff(ends, prepend=0)


class MemoryCorpus:
    """The units of a few documents in memory (`glm.models.protocol.Corpus`), for display and tests."""

    def __init__(self, units: Iterable[Sequence[Sequence[int]]]):
        self._units = [[np.asarray(part, np.int64) for part in unit] for unit in units]
        self._ends = np.cumsum([sum(map(len, unit)) for unit in self._units])
        self.tokens = int(self._ends[-1]) if self._units else 0

    def __len__(self) -> int:
        return len(self._units)

    def unit(self, number: int) -> list[np.ndarray]:
        """Returns the ids of each part of a unit."""
        return self._units[number]

    def at(self, token: int) -> int:
        """Returns the number of the unit that holds this one of all tokens."""
        return int(np.searchsorted(self._ends, token, side="right"))

    def lengths(self) -> np.ndarray:
        """[units], tokens of each."""
        return np.diff(self._ends, prepend=0)


def _mapped(path: Path, kind: np.dtype) -> np.ndarray:
    return np.memmap(path, dtype=kind, mode="r")


def _bounds(ends: np.ndarray, number: int) -> tuple[int, int]:
    return int(ends[number - 1]) if number else 0, int(ends[number])


def corpus_digest(corpus: CorpusFiles) -> str:
    """Returns the SHA-256 of a corpus's content; file names do not count."""
    digests = [content_digest(path) for path in corpus.files]
    return digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()


def open_corpus(
    name: str,
    corpus: CorpusFiles,
    tokenizer: Tokenizer,
    pretraining: Pretraining,
    cache: Path,
    *,
    content: str,
    most_refused: int = 0,
) -> tuple[MappedCorpus, list[str]]:
    """Opens a corpus from the cache, or encodes it.

    Args:
        name: name of the corpus, for messages.
        content: see `corpus_digest`.
        most_refused: rows that may be refused.

    Returns:
        The corpus, and what is to be said of the cache.

    Raises:
        InputError: the corpus cannot be used, or the disk is full.
    """
    folder, notes = cache / _store_name(name, corpus, tokenizer, pretraining, content), []
    if folder.is_dir():
        try:
            verify_store(folder, {IDS, PARTS, UNITS, REPORT})
        except InputError as error:
            notes.append(f"{error}; the corpus is encoded anew")
            remove_store(folder)
    if not folder.is_dir():
        check = CorpusCheck(name, tokenizer, pretraining, keep_bad=most_refused)
        try:
            with new_store(folder) as aside:
                write_corpus(aside, check.encoded(corpus, most_refused=most_refused))
                report = check.report()
                if not report.read:
                    raise InputError(f"{corpus.path}: no document in it")
                report.require(most_refused)
                (aside / REPORT).write_text(json.dumps(report.as_dict()), encoding="utf-8")
                if not (aside / IDS).stat().st_size:
                    raise InputError(f"{corpus.path}: no sample can be made of its documents; they are too short")
        except OSError as error:
            raise InputError(f"{folder}: cannot be written ({error.strerror or error}); nothing is kept") from error
    found = MappedCorpus(folder, tokenizer)
    found.report.require(most_refused)
    return found, notes


def write_corpus(folder: Path, batches: Iterable[EncodedBatch]) -> None:
    """Writes the units of documents, keeping only a few in memory."""
    tokens = parts = 0
    has_parts = False
    with open(folder / IDS, "wb") as ids, open(folder / PARTS, "wb") as ends, open(folder / UNITS, "wb") as of_units:
        for batch in batches:
            ids.write(batch.ids)
            tokens, parts = _write_ends(ends, batch.parts, tokens), _write_ends(of_units, batch.units, parts)
            has_parts |= len(batch.parts) > len(batch.units)
    if not has_parts:  # each unit has exactly one part
        (folder / UNITS).write_bytes(b"")


def _write_ends(file: BinaryIO, sizes: array, before: int) -> int:
    """Writes where each of these ends, and returns where the last does."""
    ends = before + np.cumsum(np.frombuffer(sizes, np.int64))
    file.write(ends.tobytes())
    return int(ends[-1]) if len(ends) else before


def _store_name(name: str, corpus: CorpusFiles, tokenizer: Tokenizer, pretraining: Pretraining, content: str) -> str:
    settings = {
        "version": VERSION,
        "name": name,
        "content": content,
        "column": corpus.column,
        "ends at": corpus.ends_at,
        "bytes": corpus.most,
        "tokenizer": tokenizer.digest,
        "units": [type(pretraining).__name__, dict(pretraining.described_units)],
    }
    return "corpus-" + hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:32]


class CorpusSamples(Sequence[Sample]):
    """The training samples of a corpus, with the interface of `glm.data.store.ExampleStore`.

    How large a sample is only drawing it tells: `lengths` and `target_lengths` are those of the largest.

    Args:
        name: name of the corpus, for messages.
        tasks: examples of tasks that take the place of some samples, or None.
    """

    is_drawn = True

    def __init__(self, name: str, corpus: MappedCorpus, pretraining: Pretraining, tasks: TaskPool | None = None):
        self.name, self.corpus, self.pretraining, self.tasks = name, corpus, pretraining, tasks
        self.report = corpus.report
        self.folder = corpus.folder
        self._count = pretraining.samples(corpus)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Sample:
        return self.draw(index, np.random.default_rng(index))

    def draw(self, index: int, random: np.random.Generator | None, objective: str | None = None) -> Sample:
        """Draws a sample, a function of its number and the random generator; `objective` fixes the objective."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        if objective is None and self.tasks is not None and random.random() < self.tasks.share:
            return self.tasks.draw(random)
        return self.pretraining.draw(self.corpus, index, random, objective)

    @property
    def lengths(self) -> np.ndarray:
        """[samples], most tokens of one."""
        return np.broadcast_to(self.pretraining.planned[0], len(self))

    @property
    def widths(self) -> np.ndarray:
        """[samples], what one takes of `--max_tokens` at most."""
        return self.lengths

    @property
    def target_lengths(self) -> np.ndarray:
        """[samples], labels of one with most tokens."""
        return np.broadcast_to(self.pretraining.planned[1], len(self))

    @cached_property
    def origins(self) -> "Origins":
        """Says where each sample is from, for messages."""
        return Origins(self.name, len(self))

    def folder_of(self, index: int) -> Path:
        """Returns the folder of the corpus."""
        return self.folder

    def mixture(self, seed: int) -> Mixture:
        """Which samples an epoch has: all of them."""
        return Mixture([len(self)], seed=seed)


class Origins(Sequence[str]):
    """Descriptions of samples, made on demand: there may be millions."""

    def __init__(self, name: str, count: int):
        self.name, self.count = name, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> str:
        if not 0 <= index < self.count:
            raise IndexError(index)
        return f"{self.name}, sample {index}"


def held_out(
    corpora: Mapping[str, CorpusSamples], objectives: Sequence[str], *, most: int, seed: int
) -> dict[str, dict[str, list[Sample]]]:
    """Draws the samples that dev losses are measured on, by corpus and objective: the same ones in every evaluation of
    any run.

    Args:
        most: samples of an objective and corpus.
    """
    return {
        name: {
            objective: [
                samples.draw(index, np.random.default_rng([seed, place, index]), objective)
                for index in range(min(len(samples), most))
            ]
            for place, objective in enumerate(objectives)
        }
        for name, samples in corpora.items()
    }
