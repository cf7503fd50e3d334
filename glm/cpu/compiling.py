"""Says when kernels are compiled, once for each machine and version, and how long it took."""

import atexit
import os
import sys
import time

from numba.core import event

KIND = "numba:compile"  # Numba's name of these events; one for each kernel, and for those that it calls


class CompilingNotice(event.Listener):
    """Prints a line on standard error when the first kernel is compiled; `report` says how long all of them took.

    Of several processes the first one speaks.

    Attributes:
        kept: whether what is compiled is there the next time.
    """

    def __init__(self, *, kept: bool):
        self.kept = kept
        self.kernels = 0
        self._seconds = 0.0
        self._depth = 0
        self._start = 0.0

    def on_start(self, event) -> None:
        """Starts the clock, unless this kernel is a part of one that is being compiled."""
        if not self.kernels and not self._depth:
            until = "once for this machine and version" if self.kept else "as each time: no cache can be written"
            self._say(f"compiling kernels for this processor, {until}; this takes up to a minute")
        if not self._depth:
            self._start = time.perf_counter()
        self._depth += 1

    def on_end(self, event) -> None:
        """Stops the clock."""
        self._depth -= 1
        if not self._depth:
            self.kernels += 1
            self._seconds += time.perf_counter() - self._start

    def report(self) -> None:
        """Says how many kernels were compiled since the last report, and how long that took; nothing if none was."""
        if self.kernels:
            self._say(f"compiled {self.kernels} kernels in {self._seconds:.1f} s")
            self.kernels, self._seconds = 0, 0.0

    def _say(self, line: str) -> None:
        if os.environ.get("PADDLE_TRAINER_ID", "0") == "0":
            print(line, file=sys.stderr, flush=True)


def tell(*, kept: bool) -> CompilingNotice:
    """Speaks of all that is compiled from now on, at the latest when the process ends."""
    notice = CompilingNotice(kept=kept)
    event.register(KIND, notice)
    atexit.register(notice.report)
    return notice
