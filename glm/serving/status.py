"""A server's status for `/health`, in memory shared with the process that answers."""

import math
import mmap
import os
import struct
import time
from typing import Any, NamedTuple

FORM = struct.Struct("=dqq?")  # struct of the time of the update and the status fields
STALLED_SECONDS = 10.0  # without an update until the server counts as stalled


class Status(NamedTuple):
    """What a server is doing, and whether it is healthy.

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
        """Returns the content of `/health`, and its HTTP status."""
        word = "failed" if not self.is_alive else "stalled" if self.is_stalled else "ok"
        counts = {"decoding": self.decoding, "waiting": self.waiting}
        return {"status": word, **counts}, 200 if word == "ok" else 503


class Board:
    """A status in memory shared by two processes: one writes it, the other reads it.

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
        """Writes a status with the present time."""
        FORM.pack_into(self._memory, 0, time.monotonic(), *status[:3])

    def read(self) -> Status:
        """Reads the last status. Has to be called regularly: if the reader was stopped together with the server, as
        when a machine sleeps, it cannot tell for how long the server gave no sign."""
        noted, decoding, waiting, is_alive = FORM.unpack_from(self._memory)
        now = time.monotonic()
        if noted != self._noted or now - self._looked > STALLED_SECONDS / 2:
            self._noted, self._since = noted, now
        self._looked = now
        return Status(decoding, waiting, is_alive, now - self._since > STALLED_SECONDS)
