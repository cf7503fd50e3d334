"""Batches requests: a thread decodes texts together, and adds new ones between two steps."""

import asyncio
import itertools
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from glm.errors import InputError
from glm.generation.config import GenerationConfig
from glm.generation.sampling import RecordId
from glm.generation.search import Decoding, ExampleSearch, Hypothesis
from glm.models.protocol import NO_TASK, Prompt
from glm.prediction.writer import Writer
from glm.runtime.device import give_memory_back, prepare
from glm.serving.metrics import Metrics

IDLE_SECONDS = 2.0  # without work until unused memory is given back to the system


class QueueFullError(Exception):
    """More texts are waiting than allowed."""


class DecodingError(Exception):
    """The model failed, and not because of the request."""


@dataclass(frozen=True)
class Task:
    """A text to generate.

    Args:
        record_id: chooses its random stream, if candidates are drawn.
        ends: whether a text ends with its last token, as it does with `eop`.
        heard: is told the tokens so far after each step, by the decoding thread; of a text of one beam.
    """

    prompt: Prompt
    config: GenerationConfig
    record_id: RecordId
    ends: Callable[[Sequence[int]], bool] | None = None
    heard: Callable[[list[int]], None] | None = None


@dataclass(frozen=True)
class _Waiting:
    """A text that waits for a place in a batch, or has one."""

    task: Task
    future: Future = field(default_factory=Future)
    since: float = field(default_factory=time.perf_counter)

    @property
    def seconds(self) -> float:
        """Seconds since it arrived."""
        return time.perf_counter() - self.since


@dataclass(frozen=True)
class _Group:
    """Searches that share a batch, with the texts in it."""

    decoding: Decoding
    waiting: dict[ExampleSearch, _Waiting] = field(default_factory=dict)


class Batcher:
    """Decodes texts in shared batches, each as if it were alone.

    Texts whose options allow it (`GenerationConfig.batch_options`) share a batch, which a text joins as soon as a
    place is free and leaves when it is done. Batches of different options take turns, a token each. Nobody but its
    thread runs the model.

    Args:
        writer: its `batch_size` is the number of places, of all batches together.
        device: where the model runs.
        most_waiting: texts that may wait for a place.

    Attributes:
        metrics: what it has done.
        gone: numbers of tasks whose adapters were taken out, or will be once `is_writing` says so.
    """

    def __init__(self, writer: Writer, *, device: str, most_waiting: int):
        self.writer = writer
        self.device = device
        self.most_waiting = most_waiting
        self.metrics = Metrics(lambda: self.load, places=writer.batch_size)
        self.gone: set[int] = set()
        self._waiting: deque[_Waiting] = deque()
        self._calls: deque[tuple[Callable[[], Any], Future]] = deque()
        self._groups: dict[tuple, _Group] = {}
        self._unfinished: set[Future] = set()
        self._closed = False
        self._changed = threading.Condition()  # guards _waiting, _closed and additions to _unfinished
        self._numbers = itertools.count()
        self._thread = threading.Thread(target=self._run, name="decoding", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def close(self) -> None:
        """Stops the thread after its present step; unfinished texts are cancelled."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    @property
    def is_alive(self) -> bool:
        """Whether the thread is running."""
        return self._thread.is_alive()

    @property
    def load(self) -> dict[str, int]:
        """Number of texts that are being decoded, and of those that wait."""
        waiting = sum(not waiting.future.cancelled() for waiting in self._waiting.copy())
        return {"decoding": len(self._unfinished) - waiting, "waiting": waiting}

    async def write(self, tasks: Sequence[Task]) -> list[list[Hypothesis]]:
        """Generates texts; returns the hypotheses of each, best first. Cancelling it drops their work.

        Raises:
            QueueFullError: they would not all find room among those that may wait.
            InputError: they never would; `tgt_length` leaves no room for what has to be generated.
            DecodingError: the model failed.
        """
        futures = self.submit(tasks)
        try:
            return await asyncio.gather(*map(asyncio.wrap_future, futures))
        finally:
            for future in futures:
                future.cancel()

    async def run(self, work: Callable[[], Any], *, count: int) -> Any:
        """Runs other work on the model in the decoding thread, between two steps; returns its result.

        Args:
            count: number of texts that it stands for.

        Raises:
            QueueFullError, InputError, DecodingError: as `write`.
        """
        self.check_room(count)
        future: Future = Future()
        with self._changed:
            if len(self._unfinished) + count > self._room:
                raise QueueFullError
            self._unfinished.add(future)
            self._calls.append((work, future))
            self._changed.notify()
        future.add_done_callback(self._unfinished.discard)
        try:
            return await asyncio.wrap_future(future)
        finally:
            future.cancel()

    def check_room(self, count: int) -> None:
        """Raises InputError if so many texts would not fit even into an empty queue."""
        if count > self._room:
            message = f"at most {self._room} (per_device_eval_batch_size + max_waiting); send them in several requests"
            raise InputError(f"{count} texts at once: {message}")

    @property
    def _room(self) -> int:
        """Number of texts that may be decoded and wait."""
        return self.writer.batch_size + self.most_waiting

    def submit(self, tasks: Sequence[Task]) -> list[Future]:
        """Queues texts; returns a future of the hypotheses of each. A future that nobody waits for any more has to be
        cancelled.

        Raises:
            QueueFullError, InputError: as `write`, whose other errors are those of the futures.
        """
        self.check_room(len(tasks))
        if any(task_of(task.prompt) in self.gone for task in tasks):
            raise InputError("task: was taken out of the server meanwhile")
        arrived = [_Waiting(task) for task in tasks]
        futures = [waiting.future for waiting in arrived]
        with self._changed:
            if len(self._unfinished) + len(tasks) > self._room:
                raise QueueFullError
            self._unfinished.update(futures)
            self._waiting = deque(waiting for waiting in self._waiting if not waiting.future.cancelled())
            self._waiting.extend(arrived)
            self._changed.notify()
        for future in futures:
            future.add_done_callback(self._unfinished.discard)
        return futures

    def is_writing(self, number: int) -> bool:
        """Whether texts of a task wait or have a place in a batch, be they done; for the decoding thread."""
        with self._changed:
            prompts = [waiting.task.prompt for waiting in self._waiting]
        for batch in (group.decoding.batch for group in self._groups.values()):
            prompts += [] if batch is None else [search.prompt for search in batch.searches]
        return number in map(task_of, prompts)

    # -- the thread

    def _run(self) -> None:
        prepare(self.device)  # the number of threads is set for each thread
        while self._wait_for_work():
            self._call_next()
            for key, arrived in self._take().items():
                self._join(key, arrived)
            for key in list(self._groups):
                self._step(key)
        for future in self._unfinished.copy():
            future.cancel()

    def _wait_for_work(self) -> bool:
        """Waits until there is work; returns False if there will be no more."""
        with self._changed:
            if not self._changed.wait_for(self._has_work, IDLE_SECONDS):
                give_memory_back()  # what a large batch took
            self._changed.wait_for(self._has_work)
            return not self._closed

    def _has_work(self) -> bool:
        return bool(self._waiting or self._calls or self._groups or self._closed)

    def _call_next(self) -> None:
        """Runs one other piece of work, if there is one that somebody still waits for."""
        with self._changed:
            if not self._calls:
                return
            work, future = self._calls.popleft()
        if not future.set_running_or_notify_cancel():
            return
        try:
            future.set_result(work())
        except InputError as error:
            future.set_exception(error)
        except Exception as error:  # one failure must not stop the others
            traceback.print_exc(file=sys.stderr)
            future.set_exception(DecodingError(str(error)))

    def _take(self) -> dict[tuple, list[_Waiting]]:
        """Takes waiting texts that fit into their batches, first come first served."""
        places = self.writer.batch_size - sum(len(group.waiting) for group in self._groups.values())
        taken: dict[tuple, list[_Waiting]] = {}
        with self._changed:
            while self._waiting and places > 0:
                waiting = self._waiting.popleft()
                if not waiting.future.cancelled():
                    taken.setdefault(waiting.task.config.batch_options, []).append(waiting)
                    places -= 1
        return taken

    def _join(self, key: tuple, arrived: list[_Waiting]) -> None:
        """Adds texts to the batch of their options."""
        if key not in self._groups:
            self._groups[key] = _Group(Decoding(self.writer.decoder(arrived[0].task.config)))
        group = self._groups[key]
        searches = []
        for waiting in arrived:
            task = waiting.task
            try:
                search = group.decoding.decoder.search(
                    task.prompt,
                    number=next(self._numbers),
                    record_id=task.record_id,
                    config=task.config,
                    ends=task.ends,
                )
            except InputError as error:
                _fail(waiting.future, error)
            else:
                self.metrics.wait.observe(waiting.seconds)
                group.waiting[search] = waiting
                searches.append(search)
        if searches:
            self._advance(key, lambda: group.decoding.join(searches), first=searches)

    def _step(self, key: tuple) -> None:
        """Decodes one token in a batch; cancelled texts leave it, and it ends with its last text."""
        group = self._groups[key]
        for search in [search for search, waiting in group.waiting.items() if waiting.future.cancelled()]:
            search.done = True
            del group.waiting[search]
        if group.waiting:
            self._advance(key, group.decoding.step)
        if not group.waiting:
            del self._groups[key]

    def _advance(
        self, key: tuple, move: Callable[[], list[ExampleSearch]], *, first: Sequence[ExampleSearch] = ()
    ) -> None:
        """Passes on what is finished after a step; an error is passed to all texts of the batch.

        Args:
            first: texts that get their first token in it.
        """
        group = self._groups[key]
        try:
            done = move()
            for search in first:
                self.metrics.first_token.observe(group.waiting[search].seconds)
            for search in done:
                self._hand_over(search, group.waiting.pop(search))
            _tell(group)
        except Exception as error:  # one failure must not stop other batches
            traceback.print_exc(file=sys.stderr)
            for waiting in group.waiting.values():
                _fail(waiting.future, DecodingError(str(error)))
            group.waiting.clear()

    def _hand_over(self, search: ExampleSearch, waiting: _Waiting) -> None:
        """Passes a text to whoever waits for it, and counts it."""
        self.metrics.text.observe(waiting.seconds)
        self.metrics.prompt_tokens.inc(len(search.prompt))
        self.metrics.generated_tokens.inc(sum(len(text.token_scores) for text in search.found))
        _finish(waiting.future, search.found)


def task_of(prompt: Prompt) -> int:
    """The number of a prompt's task."""
    return getattr(prompt, "task", NO_TASK)


def _tell(group: _Group) -> None:
    """Passes unfinished texts to whoever follows them."""
    batch = group.decoding.batch
    for place, search in enumerate(batch.searches):
        waiting = group.waiting.get(search)
        if waiting is not None and waiting.task.heard is not None:
            waiting.task.heard(batch.text(place, 0)[0].tolist())


def _finish(future: Future, hypotheses: list[Hypothesis]) -> None:
    if future.set_running_or_notify_cancel():
        future.set_result(hypotheses)


def _fail(future: Future, error: Exception) -> None:
    if future.set_running_or_notify_cancel():
        future.set_exception(error)
