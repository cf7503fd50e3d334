"""How a server is: what `/health` says of it, kept where the process that answers may read it."""

import math
import mmap
import os
import struct
import time
from typing import Any, NamedTuple

FORM = struct.Struct("=dqq?")  # when it was noted, and the fields of a status, as they are kept
STALLED_SECONDS = 10.0  # without a sign of the server until it counts as stalled


class Status(NamedTuple):
    """What a server has to do, and whether it does.

    Attributes:
        decoding: texts that are decoded.
        waiting: texts that wait.
        is_alive: whether the thread that decodes runs.
        is_stalled: whether the server has given no sign for `STALLED_SECONDS`.
    """

    decoding: int
    waiting: int
    is_alive: bool
    is_stalled: bool = False

    def answer(self) -> tuple[dict[str, Any], int]:
        """What `/health` says, and the status of HTTP that it says it with."""
        word = "failed" if not self.is_alive else "stalled" if self.is_stalled else "ok"
        counts = {"decoding": self.decoding, "waiting": self.waiting}
        return {"status": word, **counts}, 200 if word == "ok" else 503


class Board:
    """A status in memory that two processes share: one notes it, the other reads.

    Args:
        file: an open file of at least `FORM.size` bytes.
    """

    def __init__(self, file: int):
        self._memory = mmap.mmap(file, FORM.size)
        self._noted = self._since = self._looked = -math.inf

    @staticmethod
    def reserve(file: int) -> None:
        """Makes a file large enough."""
        os.truncate(file, FORM.size)

    def note(self, status: Status) -> None:
        """Puts a status down, as of now."""
        FORM.pack_into(self._memory, 0, time.monotonic(), *status[:3])

    def read(self) -> Status:
        """The status that was noted last. To be called all the while: who stood still with the server, as both do in a
        machine that sleeps, does not know how long it has given no sign."""
        noted, decoding, waiting, is_alive = FORM.unpack_from(self._memory)
        now = time.monotonic()
        if noted != self._noted or now - self._looked > STALLED_SECONDS / 2:
            self._noted, self._since = noted, now
        self._looked = now
        return Status(decoding, waiting, is_alive, now - self._since > STALLED_SECONDS)
