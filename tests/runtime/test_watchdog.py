"""What a process watches beside the other ranks: the program that started it."""

import multiprocessing
import os

import psutil
import pytest

from glm.runtime import watchdog
from glm.runtime.watchdog import Watched, _launcher, _Watch


@pytest.fixture
def ended(monkeypatch):
    """Exit codes with which the process would have ended."""
    codes = []
    monkeypatch.setattr(watchdog, "INTERVAL", 0.01)
    monkeypatch.setattr(multiprocessing, "active_children", lambda: [])  # other tests' loaders are not this one's
    return codes


def watch(launcher: Watched, ended: list, monkeypatch) -> _Watch:
    found = _Watch(None, launcher, "Go on")

    def end(code):
        ended.append(code)
        found.ended.set()

    monkeypatch.setattr(os, "_exit", end)
    found.thread.start()
    return found


@pytest.mark.fault
def test_ranks_end_with_their_launcher(ended, monkeypatch, capsys):
    gone = Watched("the launcher", os.getppid() + 1)  # another process is the parent by now
    watch(gone, ended, monkeypatch).thread.join(20)
    assert ended and set(ended) == {1}
    assert f"error: the launcher (process {os.getppid() + 1}) has been gone for" in capsys.readouterr().err


def test_a_launcher_that_is_there_ends_nothing(ended, monkeypatch):
    found = watch(Watched("the launcher", os.getppid()), ended, monkeypatch)
    assert not found.ended.wait(0.5)
    found.ended.set()
    found.thread.join()
    assert ended == []


@pytest.mark.parametrize(
    ("command", "is_one"),
    [(["python", "-m", "paddle.distributed.launch", "x.py"], True), (["bash"], False), ([], False)],
)
def test_a_launcher_is_known_by_its_command(monkeypatch, command, is_one):
    monkeypatch.setattr(psutil.Process, "cmdline", lambda self: command)
    assert (_launcher() is not None) == is_one
