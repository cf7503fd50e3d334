"""Documents become ids, packed as a store has them: by several processes where a corpus is large."""

import gc
import os
import signal
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, chain, islice, pairwise
from multiprocessing import get_all_start_methods, get_context
from typing import Any

import numpy as np

from glm.data.corpora import Document
from glm.data.records import BadRecord
from glm.data.store import id_type
from glm.errors import InputError
from glm.models.protocol import Pretraining, Tokenizer
from glm.runtime.environment import cpu_threads
from glm.runtime.workers import end_with_run

SMALL = 4 << 20  # bytes of a corpus: a smaller one is encoded before processes have started
MOST_PROCESSES = 8  # for which one process can read

Rows = list[Document | BadRecord]


@dataclass(frozen=True)
class EncodedBatch:
    """Some documents as ids.

    Args:
        tokens: of each document.
        unknown: documents that hold something the tokenizer has no piece for.
        ids: of all units, one behind the other, in the type of the store.
        parts: tokens of each part of the units.
        units: parts of each unit.
    """

    tokens: list[int]
    unknown: int
    ids: array
    parts: array
    units: array

    def split(self) -> Iterator[list[np.ndarray]]:
        """The ids of each part of each unit."""
        ids = np.array(self.ids, dtype=np.int64)
        bounds = pairwise(accumulate(self.parts, initial=0))
        parts = (ids[first:behind] for first, behind in bounds)
        return (list(islice(parts, count)) for count in self.units)


def encode_documents(tokenizer: Tokenizer, pretraining: Pretraining, texts: Sequence[str]) -> EncodedBatch:
    """Encodes documents, and makes units of them."""
    parts = [pretraining.parts(text) for text in texts]
    pieces = list(chain.from_iterable(parts))
    encoded = tokenizer.encode_text(pieces) if pieces else []
    unknown = tokenizer.unknown_token_id
    if all(len(own) == 1 for own in parts):  # as of most families, and faster
        documents = [[ids] for ids in encoded]
        tokens = list(map(len, encoded))
        holding = sum([unknown in ids for ids in encoded])
    else:
        rest = iter(encoded)
        documents = [list(islice(rest, len(own))) for own in parts]
        tokens = [sum(map(len, own)) for own in documents]
        holding = sum(any(unknown in ids for ids in own) for own in documents)
    units = list(chain.from_iterable(map(pretraining.units, documents)))
    in_units = list(chain.from_iterable(units))
    ids = array(np.dtype(id_type(tokenizer)).char)
    for part in in_units:
        ids.fromlist(part)
    return EncodedBatch(tokens, holding, ids, array("q", map(len, in_units)), array("q", map(len, units)))


def encoded_ahead(
    batches: Iterable[Rows], tokenizer: Tokenizer, pretraining: Pretraining, *, size: int
) -> Iterator[tuple[Rows, EncodedBatch]]:
    """Rows in batches, in order, with their documents as ids; some are encoded while the next ones are read.

    Args:
        size: bytes of them all, about.

    Raises:
        InputError: a process that encodes has ended.
    """
    processes = min(cpu_threads(), MOST_PROCESSES) if size >= SMALL else 1
    waiting: deque[tuple[Rows, Future]] = deque()
    try:
        with _no_collections(), _encoding(tokenizer, pretraining, processes) as submit:
            for batch in batches:
                waiting.append((batch, submit([item.text for item in batch if isinstance(item, Document)])))
                if len(waiting) > processes + 1:
                    rows, future = waiting.popleft()
                    yield rows, future.result()
            while waiting:
                rows, future = waiting.popleft()
                yield rows, future.result()
    except BrokenProcessPool as error:
        raise InputError("a process that encodes texts has ended; is there too little memory?") from error


@contextmanager
def _no_collections() -> Iterator[None]:
    """Documents make no cycles; looking for some, among all objects of the process, takes a fifth of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextmanager
def _encoding(
    tokenizer: Tokenizer, pretraining: Pretraining, processes: int
) -> Iterator[Callable[[list[str]], Future]]:
    """What begins to encode documents: in a thread, for tokenizers let go of the interpreter, or in processes."""
    if processes == 1 or "fork" not in get_all_start_methods():
        with ThreadPoolExecutor(1) as threads:
            yield partial(threads.submit, encode_documents, tokenizer, pretraining)
        return
    start = {"initializer": _begin, "initargs": (tokenizer, pretraining)}
    with ProcessPoolExecutor(processes, get_context("fork"), **start) as pool:
        yield partial(pool.submit, _encode)


_own: dict[str, Any] = {}  # of a process that encodes: what it was forked with


def _begin(tokenizer: Tokenizer, pretraining: Pretraining) -> None:
    end_with_run(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # which comes to all; the parent ends this process
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # threads of that library do not outlive a fork
    _own.update(tokenizer=tokenizer, pretraining=pretraining)


def _encode(texts: list[str]) -> EncodedBatch:
    return encode_documents(texts=texts, **_own)
