"""Ends the processes of a run together: the run if a worker or a rank stops or exits."""

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

from glm.errors import InputError

INTERVAL = 5.0  # seconds between checks
STRIKES = 3  # failed checks in a row; a run stopped by Ctrl-Z and continued is no failure, as this process stops too
LINGER = 2.0  # seconds a rank stays after another one exited, so that the others see which one was first


@dataclass(frozen=True)
class Watched:
    """A process that the run needs, and its log if it has one of its own."""

    name: str
    process: int
    log: str = ""

    def __str__(self) -> str:
        return f"{self.name} (process {self.process}{f', log {self.log}' if self.log else ''})"


@contextmanager
def watching(advice: str) -> Iterator[None]:
    """Watches loader workers in the background, and with several ranks the next rank in a ring.

    Args:
        advice: what to do when the run had to end.

    Raises:
        InputError: a rank has exited; replaces the error that this caused.
    """
    from paddle import distributed  # imported here so that a script reads its options without it

    ranks = _ranks()
    after = (distributed.get_rank() + 1) % max(len(ranks), 1)
    watch = _Watch(ranks[after] if ranks else None, _launcher() if ranks else None, advice)
    watch.thread.start()
    try:
        yield
    except Exception as error:
        lost = None if isinstance(error, InputError) else _lost(ranks)
        if lost is None:
            raise
        raise InputError(f"{lost} is gone; the run ends here. {advice}") from error
    finally:
        watch.ended.set()
        watch.thread.join()


def _ranks() -> list[Watched | None]:
    """Returns the ranks of the run, None for those on other machines; empty for a run in one process."""
    from paddle import distributed

    if distributed.get_world_size() == 1:
        return []
    faulthandler.register(signal.SIGUSR1)  # lets the process that watches this rank print its stack
    host, folder = socket.gethostname(), os.environ.get("PADDLE_LOG_DIR")  # set by the launcher
    log = os.path.join(folder, f"workerlog.{os.environ['PADDLE_LOCAL_RANK']}") if folder else ""
    places: list[tuple[str, int, str]] = []
    distributed.all_gather_object(places, (host, os.getpid(), log))
    return [
        Watched(f"rank {number}", process, log) if where == host else None
        for number, (where, process, log) in enumerate(places)
    ]


def _lost(ranks: list[Watched | None]) -> Watched | None:
    """Returns the rank that has exited; this may be seen only a moment after its connections broke."""
    for _ in range(10 if ranks else 0):
        for rank in ranks:
            if rank is not None and _state(rank.process) == "gone":
                time.sleep(LINGER)
                return rank
        time.sleep(0.1)
    return None


def _launcher() -> Watched | None:
    """Returns the launcher of the ranks, without which none may go on; None if something else started this process.

    The launcher ends the other ranks when one has exited.
    """
    try:
        command = psutil.Process(os.getppid()).cmdline()
    except psutil.Error:
        return None
    is_launcher = any("paddle.distributed.launch" in part for part in command)
    return Watched("the launcher", os.getppid()) if is_launcher else None


class _Watch:
    """Checks every few seconds; ends the process if the same one is gone or stopped several times in a row."""

    def __init__(self, rank: Watched | None, launcher: Watched | None, advice: str):
        self.rank = rank
        self.launcher = launcher
        self.advice = advice
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._look_on, daemon=True)

    def _look_on(self) -> None:
        strikes: dict[Watched, int] = {}
        while not self.ended.wait(INTERVAL):
            states = {watched: _state(watched.process) for watched in self._watched()}
            if self.launcher is not None and os.getppid() != self.launcher.process:
                states[self.launcher] = "gone"
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
            f"error: {watched} has been {state} for {seconds} s; the run ends here. {self.advice}",
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
