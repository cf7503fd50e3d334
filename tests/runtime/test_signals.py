"""The two signals: where they are heard at once, where later, and the second one."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from glm.errors import Stopped
from glm.runtime.signals import StopSignals

pytestmark = pytest.mark.fault
ROOT = Path(__file__).resolve().parents[2]


def send(number: int = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_at_once(number):
    signals = StopSignals()
    with pytest.raises(Stopped) as caught, signals.heard():
        send(number)
        pytest.fail("went on")
    assert caught.value.number == signals.number == number


def test_deferred():
    signals, after = StopSignals(), []
    with signals.heard(), signals.deferred():
        send()
        after.append(signals.number)
    assert after == [signal.SIGTERM]


def test_at_once_within_deferred():
    signals, after = StopSignals(), []
    with signals.heard(), signals.deferred():
        with pytest.raises(Stopped), signals.at_once():
            send()
            after.append("inner")
        after.append("outer")
    assert after == ["outer"]


def test_one_that_came_before():
    signals = StopSignals()
    with signals.heard(), signals.deferred():
        send()
        with pytest.raises(Stopped), signals.at_once():
            pytest.fail("went on")


def test_handlers_are_given_back():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with StopSignals().heard():
        assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] != before
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_the_second_one_ends_the_process(number, code):
    program = f"""
import os, signal, sys
sys.path.insert(0, {str(ROOT)!r})
from glm.runtime.signals import StopSignals
signals = StopSignals()
with signals.heard(), signals.deferred():
    os.kill(os.getpid(), {int(number)})
    print("first", flush=True)
    os.kill(os.getpid(), {int(number)})
    print("second", flush=True)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (code, "first\n")
    assert "the run ends as soon as its state is saved" in done.stderr


def test_a_forked_worker_ends_by_sigterm_and_leaves_sigint_to_the_run():
    with StopSignals().heard():
        process = os.fork()
        if process == 0:
            try:
                send(signal.SIGINT)
                send(signal.SIGTERM)
            finally:
                os._exit(0)
        _, status = os.waitpid(process, 0)
    assert os.waitstatus_to_exitcode(status) == 143
