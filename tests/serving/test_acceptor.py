"""The process that accepts a server's connections: it answers `/health` whatever the server does, and hands over all
else as it came."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import psutil
import pytest

from glm.serving import status as status_module
from glm.serving.acceptor import Acceptor
from glm.serving.hosts import Hosts
from glm.serving.status import Board, Status
from serving.load import RECORD, head

ROOT = Path(__file__).resolve().parents[2]
HEALTH = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n"


@pytest.fixture
def board(tmp_path):
    with (tmp_path / "board").open("w+b") as file:
        Board.reserve(file.fileno())
        yield Board(file.fileno())


@pytest.fixture
def accepted(board):
    """An acceptor in a thread: (where to connect, the server's end of the channel)."""
    listener = socket.create_server(("127.0.0.1", 0))
    address = listener.getsockname()
    ours, theirs = socket.socketpair()
    thread = threading.Thread(target=Acceptor(listener, theirs, board, Hosts("127.0.0.1")).run)
    thread.start()
    ours.settimeout(10)
    yield address, ours
    ours.shutdown(socket.SHUT_WR)
    thread.join(10)
    assert not thread.is_alive()


def ask(address, *parts: bytes) -> socket.socket:
    link = socket.create_connection(address, timeout=10)
    for part in parts:
        link.sendall(part)
    return link


def handed_over(channel) -> socket.socket:
    data, [file], _, _ = socket.recv_fds(channel, 1, 1)
    assert data == b"."
    return socket.socket(fileno=file)


def test_health_is_answered_from_the_board(accepted, board):
    address, _ = accepted
    for status, code, word in (
        (Status(3, 2, True), 200, "ok"),
        (Status(0, 0, False), 503, "failed"),
    ):
        board.note(status)
        answer = httpx.get(f"http://127.0.0.1:{address[1]}/health?why=not")
        assert answer.status_code == code
        assert answer.json() == {"status": word, "decoding": status.decoding, "waiting": status.waiting}


def test_a_server_that_gives_no_sign_is_stalled(accepted, board, monkeypatch):
    monkeypatch.setattr(status_module, "STALLED_SECONDS", 2.0)
    url = f"http://127.0.0.1:{accepted[0][1]}/health"
    board.note(Status(1, 0, True))
    assert httpx.get(url).json()["status"] == "ok"
    time.sleep(3)
    answer = httpx.get(url)
    assert (answer.status_code, answer.json()["status"]) == (503, "stalled")
    board.note(Status(1, 0, True))
    assert httpx.get(url).json()["status"] == "ok"


def test_who_stood_still_too_does_not_say_so(board, monkeypatch):
    board.note(Status(1, 0, True))
    assert not board.read().is_stalled
    now = time.monotonic()
    monkeypatch.setattr(status_module.time, "monotonic", lambda: now + 1000)
    assert not board.read().is_stalled


def test_a_connection_is_answered_as_often_as_it_asks(accepted, board):
    board.note(Status(0, 0, True))
    with ask(accepted[0]) as link:
        for _ in range(3):
            link.sendall(HEALTH + b"\r\n")
            assert link.recv(1000).startswith(b"HTTP/1.1 200")
        link.sendall(HEALTH + b"\r\n" + HEALTH + b"Connection: close\r\n\r\n")
        assert b"".join(iter(lambda: link.recv(1000), b"")).count(b"HTTP/1.1 200") == 2


@pytest.mark.parametrize(
    "sent",
    [
        b"POST /generate HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 2\r\n\r\n{}",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET /healthy HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        HEALTH,  # no whole head
        b"GET /health HTTP/1.1\r\nHost: site.example\r\n\r\n",
        HEALTH + b"Origin: http://site.example\r\n\r\n",
        HEALTH + b"Content-Length: 5\r\n\r\nabcde",
        HEALTH + b" folded\r\n\r\n",
        b"GET /health HTTP/1.1\r\n\r\n",  # without Host
        b"\x16\x03\x01",
        HEALTH + b"X: " + b"x" * 9000,
    ],
)
def test_all_else_is_handed_over_as_it_came(accepted, sent):
    address, channel = accepted
    with ask(address, sent), handed_over(channel) as link:
        link.settimeout(10)
        found = b""
        while len(found) < len(sent):
            found += link.recv(65536)
        assert found == sent


def test_who_says_nothing_is_handed_over_soon(accepted):
    address, channel = accepted
    with ask(address) as link, handed_over(channel) as other:
        assert other.getpeername() == link.getsockname()


def test_health_is_answered_while_the_server_takes_nothing(accepted, board):
    """A channel that is full keeps nobody waiting; later everything comes through."""
    address, channel = accepted
    board.note(Status(0, 0, True))
    links = [ask(address, b"POST %d" % number) for number in range(600)]
    with ask(address, HEALTH + b"\r\n") as link:
        assert link.recv(1000).startswith(b"HTTP/1.1 200")
    found = set()
    for _ in links:
        with handed_over(channel) as link:
            found.add(link.recv(100))
    assert found == {b"POST %d" % number for number in range(600)}
    for link in links:
        link.close()


# -- the program


def children(process) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def test_a_server_that_stands_still_is_not_silent(program):
    process, port = program
    os.kill(process.pid, signal.SIGSTOP)
    try:
        assert httpx.get(f"http://127.0.0.1:{port}/health", timeout=10).status_code in (200, 503)
    finally:
        os.kill(process.pid, signal.SIGCONT)


def test_the_acceptor_ignores_signals_and_may_be_killed(program):
    """The server goes on without it."""
    process, port = program
    [acceptor] = children(process)
    for number in (signal.SIGINT, signal.SIGTERM):
        acceptor.send_signal(number)
    body = json.dumps({"records": [RECORD]}).encode()
    assert httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200 and acceptor.is_running()
    acceptor.kill()
    deadline = time.monotonic() + 10
    while True:
        try:
            with ask(("127.0.0.1", port), head("/generate", len(body)) + body) as link:
                link.settimeout(60)
                assert link.recv(100).split()[1] == b"200"
                break
        except (ConnectionError, IndexError):  # what it had accepted goes with it
            assert time.monotonic() < deadline
    assert httpx.get(f"http://127.0.0.1:{port}/health").json()["status"] == "ok"


STARTS = """
import asyncio, os, signal, socket
from glm.serving.front import Front
async def main():
    front = Front(socket.create_server(("127.0.0.1", 0)), ["127.0.0.1"], print, print)
    print(front._process.pid, flush=True)
    await asyncio.sleep(2)
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""


def test_it_ends_with_a_server_that_is_killed():
    server = subprocess.Popen([sys.executable, "-c", STARTS], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    acceptor = psutil.Process(int(server.stdout.readline()))
    assert server.wait(timeout=60) == -signal.SIGKILL
    _, left = psutil.wait_procs([acceptor], timeout=20)
    assert left == []
