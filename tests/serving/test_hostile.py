"""A server under requests that are made to stop it: others are answered all the while, and memory comes back.

The small version runs one of each kind; the sweep, a hundred clients of all kinds for `GLM_ATTACK_SECONDS` (180).
"""

import asyncio
import json
import os
import random
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from serving.load import BAD, RECORD, Tally, essence, head, requests_of, storm
from serving.test_bodies import MANY
from serving.test_server import memory, resident

SECONDS = int(os.environ.get("GLM_ATTACK_SECONDS", "180"))
HOSTILE = {name: ("/v1/completions" if b"prompt" in body[:20] else "/generate", body) for name, body in MANY.items()}
HOSTILE |= {
    "20,000 prompts, 32 of each": (
        "/v1/completions",
        json.dumps({"prompt": ["a"] * 9000, "n": 32, "temperature": 1.0, "max_tokens": 4}).encode(),
    ),
    "a text as long as may be": ("/v1/completions", json.dumps({"prompt": "a, b. " * 43_000}).encode()),
    "a passage as long as may be": (
        "/generate",
        json.dumps({"records": [{"context": "a, b. " * 43_000, "answer": "b"}], "num_beams": 1}).encode(),
    ),
    "blanks": ("/generate", json.dumps({"texts": ["[MASK]" * 43_000]}).encode()),
    "names": ("/generate", json.dumps({"records": [{f"k{number}": "a" for number in range(9000)}]}).encode()),
}


def post(path: str, body: bytes) -> bytes:
    return head(path, len(body)) + body


def status_of(port: int, request: bytes) -> int:
    with socket.create_connection(("127.0.0.1", port), timeout=60) as link:
        link.sendall(request)
        return int(link.recv(200).split()[1])


@contextmanager
def watched(port: int):
    """Asks for `/health` all the while; the seconds that each answer took, least first, when the block is over."""
    seconds = []
    command = [sys.executable, str(Path(__file__).with_name("watch.py")), str(port)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield seconds
        seconds += sorted(json.loads(process.communicate(timeout=90)[0]))
        assert process.returncode == 0
    finally:
        process.kill()


def forget_peak(process) -> None:
    """Lets the most memory that a process has had be counted from now on."""
    Path(f"/proc/{process.pid}/clear_refs").write_text("5")


def comes_back(process, before: float, most: float) -> float:
    """Memory that a server holds more than before, in MB, when it has had time to return what it can."""
    deadline = time.monotonic() + 20
    while (more := resident(process) - before) > most and time.monotonic() < deadline:
        time.sleep(0.2)
    return more


def test_one_request_of_each_kind(program):
    process, port = program
    usual = post("/generate", json.dumps({"records": [RECORD]}).encode())
    assert status_of(port, usual) == 200
    before = resident(process)
    for name, (path, body) in HOSTILE.items():
        with watched(port) as seconds:
            status = status_of(port, post(path, body))
        print(f"{name}: {status}; /health {seconds[-1] if seconds else 0:.3f} s at worst, {resident(process):.0f} MB")
        expected = {200} if name in ("a passage as long as may be", "blanks") else {400, 413, 422}
        assert status in expected, name
        assert status_of(port, usual) == 200
    assert comes_back(process, before, 128) <= 128


def test_who_leaves_leaves_no_work_behind(program):
    process, port = program
    record = {"context": "他住在北京。" * 150, "answer": "北京"}
    large = post("/generate", json.dumps({"records": [record] * 250, "num_beams": 1, "tgt_length": 14}).encode())
    before = resident(process)
    links = [socket.create_connection(("127.0.0.1", port), timeout=60) for _ in range(12)]
    for link in links:
        link.sendall(large)
    for link in links:
        link.close()
    assert status_of(port, post("/generate", json.dumps({"records": [RECORD]}).encode())) == 200
    deadline = time.monotonic() + 30
    while httpx.get(f"http://127.0.0.1:{port}/health").json() != {"status": "ok", "decoding": 0, "waiting": 0}:
        assert time.monotonic() < deadline
    assert comes_back(process, before, 128) <= 128


@pytest.mark.sweep
def test_an_attack(program):
    """Good requests among hostile ones of every kind: each gets the answer that it gets alone."""
    process, port = program
    answers = {}
    for which in range(12):
        path, body = requests_of(which)
        answers[which] = essence(httpx.post(f"http://127.0.0.1:{port}{path}", json=body).raise_for_status().json())
    asyncio.run(storm(port, clients=40, rounds=2, expected=answers.get, seed=0))  # opens what there is to open
    wrong, good, before = [], [], resident(process)
    forget_peak(process)
    until = time.monotonic() + SECONDS

    async def honest(client, seed):
        draw = random.Random(seed)
        while time.monotonic() < until:
            which = draw.randrange(12)
            path, body = requests_of(which)
            answer = await client.post(path, json=body)
            if answer.status_code == 503:
                await asyncio.sleep(0.2)
            elif answer.status_code != 200 or essence(answer.json()) != answers[which]:
                wrong.append((which, answer.status_code, answer.text[:300]))
            else:
                good.append(which)

    async def hostile(client, seed):
        draw = random.Random(seed)
        tally = Tally()
        while time.monotonic() < until:
            if draw.random() < 0.5:
                with suppress(httpx.TransportError):  # a refusal may cut off who still sends
                    await draw.choice(BAD)(port, client, tally)
                continue
            path, body = draw.choice(list(HOSTILE.values()))
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(post(path, body))
                if draw.random() < 0.7:
                    await asyncio.wait_for(reader.read(100), 60)
            except (ConnectionError, TimeoutError):
                pass
            writer.transport.abort()

    async def main():
        limits = httpx.Limits(max_connections=200)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=300, limits=limits) as client:
            await asyncio.gather(*(honest(client, s) for s in range(40)), *(hostile(client, s) for s in range(60)))

    with watched(port) as seconds:
        asyncio.run(main())
    p50, p99 = (seconds[int(len(seconds) * share)] * 1000 for share in (0.5, 0.99))
    late = sum(second > 0.1 for second in seconds)
    print(f"{SECONDS} s: {len(good)} good answers, {len(wrong)} wrong ones")
    print(f"/health, {len(seconds)} times: p50 {p50:.1f} ms, p99 {p99:.1f} ms, at worst {seconds[-1] * 1000:.1f} ms; "
          f"{late} later than 100 ms")  # fmt: skip
    peak = memory(process, "VmHWM")
    assert wrong == [] and len(good) > 40
    deadline = time.monotonic() + 60
    while httpx.get(f"http://127.0.0.1:{port}/health").json() != {"status": "ok", "decoding": 0, "waiting": 0}:
        assert time.monotonic() < deadline
    time.sleep(30)
    after = resident(process)
    print(f"resident: {before:.0f} MB before, {peak:.0f} MB at its peak, {after:.0f} MB 30 s after the end")
    assert after - before <= 128
