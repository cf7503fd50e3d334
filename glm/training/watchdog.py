"""Processes of a run end together: workers with the run, the run when workers or a rank are stopped or gone."""

import ctypes
import faulthandler
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil
from paddle import distributed

INTERVAL = 5.0  # seconds between looks
STRIKES = 3  # looks in a row: whoever stops a whole run by Ctrl-Z stops this process too, and lets all go on at once


@dataclass(frozen=True)
class Watched:
    """A process that the run cannot do without."""

    name: str
    process: int


PR_SET_PDEATHSIG = 1  # from Linux's prctl.h


def end_with_run(worker: int) -> None:
    """Has a loader's worker end when the run does, however that ends; called in the worker.

    Paddle's workers mean to look for their parent every few seconds, but wait for work without end.
    """
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    except (OSError, AttributeError):
        pass  # not Linux
    if multiprocessing.parent_process() is not None and os.getppid() != multiprocessing.parent_process().pid:
        os._exit(1)  # it was quicker


@contextmanager
def watching() -> Iterator[None]:
    """Watches in the background: loader workers as they come and go, and of several ranks the next one."""
    watch = _Watch(_next_rank())
    watch.thread.start()
    try:
        yield
    finally:
        watch.ended.set()
        watch.thread.join()


def _next_rank() -> Watched | None:
    """The rank after this one, in a ring, if it is on this machine."""
    ranks, rank = distributed.get_world_size(), distributed.get_rank()
    if ranks == 1:
        return None
    faulthandler.register(signal.SIGUSR1)  # has whoever watches this rank see where it stands
    places: list[tuple[str, int]] = []
    distributed.all_gather_object(places, (socket.gethostname(), os.getpid()))
    number = (rank + 1) % ranks
    host, process = places[number]
    return Watched(f"rank {number}", process) if host == socket.gethostname() else None


class _Watch:
    """Looks every few seconds; ends the process when the same one is missing or stopped several times in a row."""

    def __init__(self, rank: Watched | None):
        self.rank = rank
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._look_on, daemon=True)

    def _look_on(self) -> None:
        strikes: dict[Watched, int] = {}
        while not self.ended.wait(INTERVAL):
            states = {watched: _state(watched.process) for watched in self._watched()}
            strikes = {watched: strikes.get(watched, 0) + 1 for watched, state in states.items() if state}
            for watched, count in strikes.items():
                if count >= STRIKES:
                    self._end(watched, states[watched])

    def _watched(self) -> list[Watched]:
        workers = [Watched(f"loader worker {child.name}", child.pid) for child in multiprocessing.active_children()]
        return workers + ([self.rank] if self.rank else [])

    def _end(self, watched: Watched, state: str) -> None:
        seconds = round(STRIKES * INTERVAL)
        print(
            f"error: {watched.name} (process {watched.process}) has been {state} for {seconds} s; the run ends here. "
            "The same command goes on from the last checkpoint",
            file=sys.stderr,
            flush=True,
        )
        if state == "stopped":
            if watched is self.rank:
                _signal(watched.process, signal.SIGUSR1)
                _signal(watched.process, signal.SIGCONT)
                time.sleep(1.0)  # it prints its stack
            _signal(watched.process, signal.SIGKILL)
        for child in multiprocessing.active_children():
            _signal(child.pid, signal.SIGKILL)
        os._exit(1)


def _state(process: int) -> str | None:
    """`stopped` or `gone`; None if the process is well."""
    try:
        status = psutil.Process(process).status()
    except psutil.NoSuchProcess:
        return "gone"
    return {psutil.STATUS_STOPPED: "stopped", psutil.STATUS_ZOMBIE: "gone"}.get(status)


def _signal(process: int, number: int) -> None:
    try:
        os.kill(process, number)
    except ProcessLookupError:
        pass
