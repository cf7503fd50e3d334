"""Makes SIGTERM and SIGINT end a run at a safe point: critical sections are finished first."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from glm.errors import Stopped


class StopSignals:
    """Handles the two signals while its block lasts.

    The first signal raises Stopped wherever the process is, except in blocks of `deferred()`, which check `number`
    themselves. The second one ends the process at once; a file that is being written does not have its final name yet.

    Attributes:
        number: the signal that came; 0 before.
    """

    def __init__(self):
        self.number = 0
        self._is_deferred = False
        self._process = os.getpid()

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Installs the handlers, and restores the previous ones at the end."""
        before = {number: signal.signal(number, self._hear) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Signals only set `number` in this block."""
        yield from self._with_deferral(True)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Within `deferred()`: signals raise Stopped in this block."""
        if self.number:
            raise Stopped(self.number)
        yield from self._with_deferral(False)

    def _with_deferral(self, is_deferred: bool) -> Iterator[None]:
        before, self._is_deferred = self._is_deferred, is_deferred
        try:
            yield
        finally:
            self._is_deferred = before

    def _hear(self, number: int, frame: object) -> None:
        if os.getpid() != self._process:  # a loader's worker, which ends with the run
            if number == signal.SIGTERM:
                os._exit(128 + number)
            return
        if self.number:
            os._exit(128 + number)
        self.number = number
        name = signal.Signals(number).name
        print(f"{name}: the run ends as soon as its state is saved; once more ends it at once", file=sys.stderr)
        if not self._is_deferred:
            raise Stopped(number)
