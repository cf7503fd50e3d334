"""A server on a real socket: start, end, load, clients that are slow or leave. The full load is opt-in: GLM_LOAD=1."""

import asyncio
import json
import logging
import os
import re
import signal
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from glm.errors import InputError, UsageError
from glm.options.predict import parse_predict_arguments
from glm.serving import app as app_module
from glm.serving import server as server_module
from glm.serving.server import bind
from serving.load import EXPECTED_STATUS, RECORD, connection, essence, head, requests_of, storm

FULL = os.environ.get("GLM_LOAD") == "1"


# -- a server in a thread


def closed_after(link: socket.socket) -> float:
    """Seconds until the server closes a connection."""
    start = time.monotonic()
    with suppress(ConnectionResetError):  # closed while something was on its way
        while link.recv(65536):
            pass
    return time.monotonic() - start


def test_a_slow_body_is_given_up(threaded, monkeypatch):
    """And the connection is closed, long before the time for a whole request is over."""
    monkeypatch.setattr(app_module, "BODY_SECONDS", 0.3)
    server = threaded()
    with connection(server.port) as link:
        link.sendall(head("/generate", 100) + b"{")
        reply = b"".join(iter(lambda: link.recv(65536), b""))
    head_of_reply, _, body = reply.partition(b"\r\n\r\n")
    assert head_of_reply.startswith(b"HTTP/1.1 408 Request Timeout\r\n") and b"connection: close" in head_of_reply
    error = json.loads(body)["error"]
    assert (error["type"], error["code"]) == ("timeout_error", "timeout")


@pytest.mark.parametrize(
    "sent",
    [b"GET /hea", head("/generate", 100), head("/generate", 9_000_000) + b"{"],
    ids=["half a head", "no body", "refused, and goes on"],
)
def test_requests_that_never_end_are_closed(threaded, monkeypatch, sent):
    """A byte now and then does not keep the connection; a whole request before it does not either."""
    monkeypatch.setattr(server_module, "REQUEST_SECONDS", 0.5)
    server = threaded()
    with connection(server.port) as link:
        link.sendall(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert link.recv(65536).startswith(b"HTTP/1.1 200")
        stop = threading.Event()

        def drip():
            link.sendall(sent[:-1])
            while not stop.wait(0.1):
                try:
                    link.sendall(sent[-1:] if len(sent) < 20 else b" ")
                except OSError:
                    return

        thread = threading.Thread(target=drip)
        thread.start()
        seconds = closed_after(link)
        stop.set()
        thread.join()
    assert seconds < 15


def test_connections_without_request_are_closed(threaded, monkeypatch):
    monkeypatch.setattr(server_module, "REQUEST_SECONDS", 0.5)
    server = threaded()
    with connection(server.port) as link:
        assert closed_after(link) < 15


def test_each_request_has_its_own_time(threaded, monkeypatch):
    """Also one that follows a refused request in the same connection."""
    monkeypatch.setattr(server_module, "REQUEST_SECONDS", 1.2)
    server = threaded()
    with connection(server.port) as link:
        link.sendall(head("/generate", 5_000_000))
        time.sleep(0.8)
        link.sendall(b" " * 5_000_000)
        assert link.recv(65536).startswith(b"HTTP/1.1 413")
        time.sleep(0.1)
        link.sendall(b"GET /health HTTP/1.1\r\n")
        time.sleep(0.8)
        link.sendall(b"Host: 127.0.0.1\r\nConnection: close\r\n\r\n")
        reply = b"".join(iter(lambda: link.recv(65536), b""))
    assert b"HTTP/1.1 200 OK" in reply


def test_idle_connections_outlive_those_of_clients(threaded):
    """A client that ends its idle connections sooner never sends into one that the server is just ending."""
    assert threaded().config.timeout_keep_alive > 2 * httpx.Limits().keepalive_expiry


def test_who_leaves_within_a_body_leaves_no_traceback(threaded):
    server, said = threaded(), []
    handler = logging.Handler()
    handler.emit = said.append
    logging.getLogger("uvicorn.error").addHandler(handler)
    for _ in range(3):
        with connection(server.port) as link:
            link.sendall(head("/generate", 5000) + b'{"records": [')
            while not server.server_state.tasks:
                time.sleep(0.01)
        while server.server_state.tasks:
            time.sleep(0.01)
    logging.getLogger("uvicorn.error").removeHandler(handler)
    assert said == []


def test_work_of_a_client_that_left_is_dropped(threaded, monkeypatch):
    server, steps = threaded(), []
    step = server.service.writer.model.step

    def slowly(*given):
        steps.append(time.sleep(0.03))
        return step(*given)

    monkeypatch.setattr(server.service.writer.model, "step", slowly)
    body = json.dumps({"records": [RECORD] * 3, "tgt_length": 40, "min_tgt_length": 26}).encode()
    batcher = server.service.batcher
    with connection(server.port) as link:
        link.sendall(head("/generate", len(body)) + body)
        while batcher.load["decoding"] < 3:
            time.sleep(0.01)
    while batcher.load["decoding"]:
        time.sleep(0.01)
    assert len(steps) < 25  # of the 26 that the texts take at least


def test_addresses_that_cannot_be_used():
    with bind("127.0.0.1", 0) as taken:
        taken.listen()
        with pytest.raises(InputError, match=f"host 127.0.0.1, port {taken.getsockname()[1]}: cannot be used"):
            bind("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(InputError, match="host no.such.host.invalid, port 0: cannot be used"):
        bind("no.such.host.invalid", 0)


# -- the program


def memory(process, which: str) -> float:
    """A figure in MB of /proc: `VmRSS`, or `VmHWM`, its most so far."""
    (line,) = [line for line in Path(f"/proc/{process.pid}/status").read_text().splitlines() if which in line]
    return int(line.split()[1]) / 1024


def resident(process) -> float:
    """Memory of a process in MB."""
    return memory(process, "VmRSS")


def test_many_clients_and_bad_requests(program):
    """Every good request gets its answer, the one it gets alone; memory does not grow with the requests."""
    process, port = program
    clients, rounds, storms = (100, 6, 5) if FULL else (20, 1, 3)
    answers = {}
    for which in range(12):
        path, body = requests_of(which)
        answers[which] = essence(httpx.post(f"http://127.0.0.1:{port}{path}", json=body).raise_for_status().json())
    assert len({str(answer) for answer in answers.values()}) == 12
    memory = []
    for seed in range(storms):
        tally = asyncio.run(storm(port, clients=clients, rounds=rounds, expected=answers.get, seed=seed))
        assert tally.wrong == [] and tally.good == clients * rounds
        assert tally.refused and set(tally.refused) <= EXPECTED_STATUS
        memory.append(resident(process))
        print(f"{tally.good} good answers, refused {dict(tally.refused)}, {memory[-1]:.0f} MB")
    assert memory[-1] - memory[0] < 40, memory  # the first storm has opened what there is to open
    deadline = time.monotonic() + 30
    while httpx.get(f"http://127.0.0.1:{port}/health").json() != {"status": "ok", "decoding": 0, "waiting": 0}:
        assert time.monotonic() < deadline


def test_the_end_lets_a_request_finish(program):
    """SIGTERM during a request: it is answered, nobody else is, and the exit code is 0. Ends the program."""
    process, port = program
    answers = []
    body = {"records": [RECORD] * 40, "tgt_length": 40, "min_tgt_length": 26, "num_beams": 8}
    thread = threading.Thread(
        target=lambda: answers.append(httpx.post(f"http://127.0.0.1:{port}/generate", json=body, timeout=60))
    )
    thread.start()
    while not httpx.get(f"http://127.0.0.1:{port}/health").json()["decoding"]:
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM)
    thread.join()
    assert answers[0].status_code == 200 and len(answers[0].json()["rows"]) == 40
    assert process.wait(30) == 0
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/health")


# -- options


def arguments(*argv: str):
    return parse_predict_arguments(["--model_name_or_path", "m", "--device", "cpu", *argv]).prediction


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "localhost", "::1"])
def test_own_addresses_need_no_key(host):
    assert arguments("--serve", "--host", host).host == host


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "example.org", "127.0.0.1.example.org", ""])
def test_other_addresses_need_a_key(host):
    with pytest.raises(UsageError, match=f"host {re.escape(host)}: can be reached from other machines; protect it"):
        arguments("--serve", f"--host={host}")
    assert arguments("--serve", f"--host={host}", "--api_key", "k").api_key == "k"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--port", "9"], "port 9: has no effect without --serve"),
        (["--api_key", "k"], "api_key: has no effect without --serve"),
        (["--serve", "--test_file", "f"], "test_file f: has no effect with --serve"),
        (["--serve", "--fill", "f"], "fill f: has no effect with --serve"),
        (["--serve", "--show", "3"], "show 3: has no effect with --serve"),
        (["--serve", "--report", "r"], "report r: has no effect with --serve"),
        (["--serve", "--token_scores"], "token_scores True: has no effect with --serve"),
        (["--serve", "--port", "70000"], "port 70000: use 0 to 65535"),
        (["--serve", "--max_waiting", "0"], "max_waiting 0: use 1 or more"),
        (["--serve", "--request_timeout", "0"], "request_timeout 0.0: use a number above 0"),
        (["--serve", "--api_key", "钥匙"], "api_key: use printable ASCII"),
        (["--serve", "--api_key", ""], "api_key: use printable ASCII"),
    ],
)
def test_wrong_usage(argv, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        arguments(*argv)


def test_a_key_from_a_file_or_the_environment(tmp_path, monkeypatch):
    path = tmp_path / "key"
    path.write_text("secret\n")
    open_address = ["--serve", "--host", "0.0.0.0"]
    assert arguments(*open_address, "--api_key_file", str(path)).api_key == "secret"
    monkeypatch.setenv("GLM_API_KEY", "other")
    assert arguments(*open_address).api_key == "other"
    assert arguments("--serve").api_key == "other"
    assert arguments(*open_address, "--api_key_file", str(path)).api_key == "secret"
    assert arguments().api_key is None  # of no use without a server


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_key_file_that_an_editor_of_windows_saved(tmp_path, encoding):
    path = tmp_path / "key"
    path.write_bytes("secret\r\n".encode(encoding))
    assert arguments("--serve", "--api_key_file", str(path)).api_key == "secret"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        (b"", "use printable ASCII characters, at least one"),
        (b"a\nb", "use printable ASCII characters"),
        ("钥匙".encode(), "use printable ASCII characters"),
        (b"\xff", "use printable ASCII characters"),
        (b"a" * 5000, "holds more than 4096 bytes"),
    ],
)
def test_a_key_file_that_holds_none(tmp_path, content, message):
    path = tmp_path / "key"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError) as error:
        arguments("--serve", "--api_key_file", str(path))
    assert f"api_key_file {path}: {message}" in str(error.value)
    assert content is None or "钥" not in str(error.value)


def test_two_keys():
    with pytest.raises(UsageError, match="api_key_file f: has no effect beside api_key"):
        arguments("--serve", "--api_key", "k", "--api_key_file", "f")
