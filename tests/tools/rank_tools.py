"""Runs a function in several processes over which a model can be split, as the launcher would start them.

A fresh process takes seconds to import PaddleNLP. So one process imports it, once for all tests, and does nothing
else; ranks are forks of that one (multiprocessing's fork server).
"""

import contextlib
import functools
import multiprocessing
import os
import signal
import socket
import time
import traceback
from collections.abc import Callable
from multiprocessing import forkserver
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import pytest
from paddle.distributed import parallel

TIMEOUT = 240  # seconds for all ranks of a job

_processes = multiprocessing.get_context("forkserver")


@functools.cache
def _start_server() -> None:
    """Starts the process that imports everything. Python 3.11's looks for modules in PYTHONPATH only."""
    tests = Path(__file__).resolve().parents[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(tests), str(tests.parent)]))
        _processes.set_forkserver_preload(["tools.rank_jobs"])
        forkserver.ensure_running()


def run_ranks(function: Callable, ranks: int, *arguments: Any) -> list[Any]:
    """Calls a function of an importable module in several processes, each a rank of one gloo job.

    Returns:
        What the function returned in each rank.

    Raises:
        RuntimeError: a rank failed, with its traceback, or did not come to an end.
    """
    _start_server()
    ports = _free_ports(ranks + 1)
    started = []
    for rank in range(ranks):
        ours, theirs = _processes.Pipe()
        process = _processes.Process(target=_run_rank, args=(rank, ports, theirs, function, arguments))
        process.start()
        theirs.close()
        started.append((process, ours))
    try:
        return _collect([pipe for _, pipe in started])
    finally:
        for process, _ in started:
            _end(process)


def _end(process: multiprocessing.Process) -> None:
    """Ends a rank, and the processes that it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.join()


def _collect(pipes: list) -> list[Any]:
    results: dict[int, Any] = {}
    errors: dict[int, str] = {}
    waiting = {pipe: rank for rank, pipe in enumerate(pipes)}
    end = time.monotonic() + TIMEOUT
    while waiting:
        for pipe in wait(list(waiting), timeout=max(end - time.monotonic(), 0)):
            rank = waiting.pop(pipe)
            try:
                done, result = pipe.recv()
            except EOFError:
                done, result = False, "its process is gone"
            (results if done else errors)[rank] = result
        if errors:
            end = min(end, time.monotonic() + 3)  # one rank's failure is often caused by another's
        if time.monotonic() >= end:
            break
    if waiting or errors:
        errors |= dict.fromkeys(waiting.values(), "did not come to an end")
        raise RuntimeError("\n".join(f"rank {rank}: {errors[rank]}" for rank in sorted(errors)))
    return [results[rank] for rank in range(len(pipes))]


def _run_rank(rank: int, ports: list[int], pipe: Any, function: Callable, arguments: tuple) -> None:
    os.setsid()
    master, *own = ports
    os.environ |= {
        "PADDLE_TRAINER_ID": str(rank),
        "PADDLE_TRAINERS_NUM": str(len(own)),
        "PADDLE_LOCAL_SIZE": str(len(own)),
        "PADDLE_RANK_IN_NODE": str(rank),
        "PADDLE_LOCAL_RANK": str(rank),
        "PADDLE_TRAINER_ENDPOINTS": ",".join(f"127.0.0.1:{port}" for port in own),
        "PADDLE_CURRENT_ENDPOINT": f"127.0.0.1:{own[rank]}",
        "PADDLE_MASTER": f"127.0.0.1:{master}",
        "PADDLE_DISTRI_BACKEND": "gloo",
    }
    parallel._global_parallel_env = None  # Paddle looked for ranks when it was imported
    if rank:
        _wait_for(master)  # otherwise Paddle tries only every three seconds
    try:
        pipe.send((True, function(*arguments)))
    except BaseException:
        pipe.send((False, traceback.format_exc()))
    pipe.recv()  # waits until the end: the first rank serves the store through which the others connect


def _wait_for(port: int) -> None:
    """Waits until somebody listens, or for a few seconds."""
    for _ in range(100):
        with socket.socket() as visitor:
            if visitor.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for place in sockets:
            place.bind(("127.0.0.1", 0))
        return [place.getsockname()[1] for place in sockets]
    finally:
        for place in sockets:
            place.close()
