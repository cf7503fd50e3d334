"""Stores training examples on disk: encoded once, found again by content, read one by one.

A folder holds the ids of all examples in a row, where each one's source and span end, and the report of the check. Its
name is a digest of everything the ids depend on, so that a file, tokenizer, template or length that has changed has
another folder. Its seal has the size and SHA-256 of each file, and is written last: what a disk or anybody has changed
since is found before it is used.
"""

import hashlib
import json
import os
import re
import shutil
import tempfile
from array import array
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path

import numpy as np

from glm.data.check import FileCheck
from glm.data.examples import EncodedRecord, ExampleEncoder
from glm.data.mixture import Mixture
from glm.data.records import BadRecord
from glm.data.report import FileReport
from glm.errors import InputError
from glm.models.protocol import Example, Tokenizer
from glm.runtime.atomic import lock
from glm.runtime.plain_files import check_plain
from glm.runtime.seals import FileSeal, seal
from glm.runtime.settings_file import Settings, read_settings

VERSION = 2  # version of the file format; another one has other folders
IDS, ENDS, ROWS, PLACES, REPORT = "ids.bin", "ends.bin", "rows.bin", "places.txt", "report.json"
SEAL = "seal.json"
TEMPORARY = re.compile(r"(corpus-)?[0-9a-f]{32}\.(dead\.)?[a-z0-9_]{8}")  # names of what is not finished, or removed


class Seal(Settings):
    """Size and SHA-256 of a store's files."""

    files: dict[str, FileSeal]


class ExampleStore(Sequence[Example]):
    """The examples in a folder; each is laid out when it is read.

    Attributes:
        folder: where they lie.
        report: report of the check of the file they are from.
        row_hashes: hashes of its rows, see `FileCheck.compare`.
    """

    is_drawn = False  # `lengths` and `target_lengths` do not depend on what is drawn

    def __init__(self, folder: Path, encoder: ExampleEncoder):
        self.folder = folder
        self.encoder = encoder
        self._places = folder / PLACES
        # Memory-mapped: pages that are used stay in the page cache, which all processes share.
        self._ids = np.memmap(folder / IDS, dtype=id_type(encoder.tokenizer), mode="r")
        self._ends = np.fromfile(folder / ENDS, dtype=np.int64)  # end of source 0, span 0, source 1, span 1, ...
        self.row_hashes = np.fromfile(folder / ROWS, dtype=np.uint64)
        self.report = FileReport.from_dict(json.loads((folder / REPORT).read_text(encoding="utf-8")))

    def __len__(self) -> int:
        return len(self._ends) // 2

    def __getitem__(self, index: int) -> Example:
        """Returns the example that evaluation uses."""
        return self.draw(index, None)

    def draw(self, index: int, random: np.random.Generator | None) -> Example:
        """Returns an example; with `random` for training, see `Geometry.example`."""
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        start = self._ends[2 * index - 1] if index else 0
        source_end, span_end = self._ends[2 * index : 2 * index + 2]
        source, span = self._ids[start:source_end].tolist(), self._ids[source_end:span_end].tolist()
        return self.encoder.example_of(source, span, random)

    @property
    def target_lengths(self) -> np.ndarray:
        """[number of examples], labels."""
        return self._sizes[1]

    @property
    def lengths(self) -> np.ndarray:
        """[number of examples], tokens."""
        return self._sizes[0]

    @cached_property
    def widths(self) -> np.ndarray:
        """[number of examples], what each takes of `--max_tokens`."""
        return self.encoder.family.row_width(self.lengths - self.target_lengths, self.target_lengths)

    @cached_property
    def _sizes(self) -> tuple[np.ndarray, np.ndarray]:
        spans = self._ends[1::2] - self._ends[::2]
        sources = self._ends[::2] - np.concatenate([[0], self._ends[1:-1:2]])
        return self.encoder.geometry.sizes(sources, spans, tgt_length=self.encoder.tgt_length)

    @cached_property
    def origins(self) -> list[str]:
        """Says where each example is from, "file, line n", for messages."""
        places = self._places.read_text(encoding="utf-8").splitlines()
        return [f"{self.report.file}, {place}" for place in places]

    def folder_of(self, index: int) -> Path:
        """Returns the folder of an example."""
        return self.folder

    def mixture(self, seed: int) -> Mixture:
        """Which examples an epoch has: all of them."""
        return Mixture([len(self)], seed=seed)


class JoinedExamples(Sequence[Example]):
    """The examples of several data sets, one set after the other, with the interface of `ExampleStore`.

    Args:
        stores: by name of the set.
        shares: share that each has of an epoch, see `glm.data.mixture.Mixture`.
    """

    def __init__(self, stores: Mapping[str, ExampleStore], shares: Sequence[float] | None = None):
        self.stores = dict(stores)
        self.shares = shares
        self._ends = np.cumsum([len(store) for store in self.stores.values()])
        self._parts = list(self.stores.values())

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> Example:
        """Returns the example that evaluation uses."""
        return self.draw(index, None)

    def draw(self, index: int, random: np.random.Generator | None) -> Example:
        """See `ExampleStore.draw`."""
        store, own = self._place(index)
        return store.draw(own, random)

    def folder_of(self, index: int) -> Path:
        """See `ExampleStore.folder_of`."""
        return self._place(index)[0].folder

    def _place(self, index: int) -> tuple[ExampleStore, int]:
        """Returns an example's set, and its number in it."""
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        place = int(np.searchsorted(self._ends, index, side="right"))
        return self._parts[place], index - int(self._ends[place]) + len(self._parts[place])

    @property
    def is_drawn(self) -> bool:
        """Whether sizes are known only after drawing; `lengths` and `target_lengths` are upper bounds then."""
        return any(store.is_drawn for store in self._parts)

    @cached_property
    def target_lengths(self) -> np.ndarray:
        """[number of examples], labels."""
        return np.concatenate([store.target_lengths for store in self._parts])

    @cached_property
    def lengths(self) -> np.ndarray:
        """[number of examples], tokens."""
        return np.concatenate([store.lengths for store in self._parts])

    @cached_property
    def widths(self) -> np.ndarray:
        """[number of examples], tokens of a row of a batch that holds one."""
        return np.concatenate([store.widths for store in self._parts])

    @cached_property
    def origins(self) -> list[str]:
        """See `ExampleStore.origins`."""
        return [origin for store in self._parts for origin in store.origins]

    def mixture(self, seed: int) -> Mixture:
        """Which examples an epoch has."""
        return Mixture([len(store) for store in self._parts], self.shares, seed=seed)


Examples = ExampleStore | JoinedExamples


@contextmanager
def new_store(folder: Path) -> Iterator[Path]:
    """Yields a temporary folder for writing a store, which is renamed to `folder` at the end; after an error nothing
    remains. What killed processes left in the cache is removed first."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    _sweep(folder.parent)
    with _beside(folder) as aside:
        yield aside
        files = {path.name: seal(path) for path in sorted(aside.iterdir())}
        (aside / SEAL).write_text(Seal(files=files).model_dump_json(), encoding="utf-8")
        if not folder.exists():  # if it exists, another process was faster with the same content
            os.replace(aside, folder)


@contextmanager
def _beside(folder: Path) -> Iterator[Path]:
    """Yields a new folder beside another, which is removed at the end. It is locked, so that `_sweep` of another
    process leaves it alone; the lock ends with the process."""
    while True:
        aside = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
        descriptor = os.open(aside, os.O_RDONLY)
        if lock(descriptor) is not False and aside.is_dir():
            break
        os.close(descriptor)  # another process has swept it away before it was locked
    try:
        yield aside
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        os.close(descriptor)


def _sweep(cache: Path) -> None:
    """Removes the temporary folders of processes that live no more."""
    for path in cache.iterdir():
        if TEMPORARY.fullmatch(path.name):
            with suppress(OSError):  # it is gone already, or is not ours to remove
                descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
                try:
                    if lock(descriptor):
                        shutil.rmtree(path, ignore_errors=True)
                finally:
                    os.close(descriptor)


def verify_store(folder: Path, names: Collection[str] = (IDS, ENDS, ROWS, PLACES, REPORT)) -> None:
    """Reads a whole store and compares it with its seal.

    Args:
        names: names of its files.

    Raises:
        InputError: it is not what was written; the text names the file.
    """
    files = read_settings(folder / SEAL, Seal).files
    if files.keys() != set(names):
        raise InputError(f"{folder / SEAL}: is not what was written")
    for name, sealed in files.items():
        try:
            found = seal(folder / name)
        except OSError as error:
            raise InputError(f"{folder / name}: cannot be read ({error.strerror})") from error
        if found != sealed:
            raise InputError(f"{folder / name}: is not what was written (size or SHA-256 differs)")


def remove_store(folder: Path) -> None:
    """Removes a store, its name first; another process may do the same."""
    with _beside(folder) as dead, suppress(FileNotFoundError):
        os.replace(folder, dead / folder.name)


def write_examples(folder: Path, items: Iterable[EncodedRecord | BadRecord], encoder: ExampleEncoder) -> None:
    """Lays out and writes the usable ones of these records."""
    ends, total = array("q"), 0
    with open(folder / IDS, "wb") as file:
        for item in items:
            if isinstance(item, EncodedRecord):
                source_ids, span = encoder.lay_out_source(item), encoder.lay_out_span(item)
                file.write(np.array(source_ids + span, dtype=id_type(encoder.tokenizer)).tobytes())
                ends.extend((total + len(source_ids), total + len(source_ids) + len(span)))
                total = ends[-1]
    (folder / ENDS).write_bytes(ends.tobytes())


def write_report(folder: Path, report: FileReport, check: FileCheck) -> None:
    """Writes the check's report beside the examples."""
    (folder / ROWS).write_bytes(check.row_hashes.tobytes())
    (folder / PLACES).write_text("\n".join(check.places), encoding="utf-8")
    (folder / REPORT).write_text(json.dumps(report.as_dict()), encoding="utf-8")


def id_type(tokenizer: Tokenizer) -> type:
    """Returns the type that ids are written in: two bytes if they fit."""
    return np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32


def store_name(content: str, check: FileCheck) -> str:
    """Returns the folder name for a file's content (a digest) and everything that its examples and report depend
    on."""
    encoder = check.encoder
    settings = {
        "version": VERSION,
        "file": check.name,
        "content": content,
        "columns": check.columns,
        "tokenizer": encoder.tokenizer.digest,
        "template": encoder.described,
        "lengths": [encoder.src_length, encoder.tgt_length, encoder.min_tgt_length],
        "allow_cut_targets": encoder.allow_cut_targets,
    }
    return hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:32]


def content_digest(path: Path) -> str:
    """Returns the SHA-256 of a file, or of the files of a folder with their names."""
    check_plain(path)
    if path.is_file():
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    names = sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file())
    parts = [f"{name} {content_digest(path / name)}" for name in names]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
