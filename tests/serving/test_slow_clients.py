"""Sweeps of a server as a program: hundreds of clients that send next to nothing, and many ends."""

import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import psutil
import pytest

from serving.conftest import serving
from serving.load import RECORD, connection, essence, head

SOCKETS, GOOD = 500, 60
BODY = {"records": [RECORD]}
LONG = {"records": [RECORD] * 4, "tgt_length": 40, "min_tgt_length": 26, "num_beams": 8}


def answers(port: int) -> tuple[list[float], list]:
    """Waiting times of good requests one after another, in seconds, and what came."""
    times, found = [], []
    for _ in range(GOOD):
        start = time.perf_counter()
        found.append(httpx.post(f"http://127.0.0.1:{port}/generate", json=BODY, timeout=60).raise_for_status().json())
        times.append(time.perf_counter() - start)
    return times, [essence(answer) for answer in found]


@pytest.mark.sweep
def test_five_hundred_slow_clients(program):
    """Half of them silent, half sending a byte a second. Others get the same answers; prints how long they wait."""
    _, port = program
    answers(port)
    alone, expected = answers(port)
    links = [connection(port) for _ in range(SOCKETS)]
    request, stop = head("/generate", 1000), threading.Event()

    def drip() -> None:
        for place in range(len(request)):
            for number, link in enumerate(links):
                if number % 2:
                    try:
                        link.sendall(request[place : place + 1])
                    except OSError:
                        continue
            if stop.wait(1):
                return

    thread = threading.Thread(target=drip)
    thread.start()
    time.sleep(3)
    beside, found = answers(port)
    stop.set()
    thread.join()
    for link in links:
        link.close()
    assert found == expected
    for name, times in (("alone", alone), (f"beside {SOCKETS} slow clients", beside)):
        print(
            f"{name}: median {1000 * np.median(times):.0f} ms, 95 of 100 within {1000 * np.quantile(times, 0.95):.0f}"
        )


@pytest.mark.sweep
@pytest.mark.parametrize("number", range(20))
def test_ends_with_ten_requests_in_flight(checkpoint, number):
    """Each of them is answered, or refused, or closed; the exit code is 0, and no process is left."""
    with serving(checkpoint) as (process, port), ThreadPoolExecutor(10) as threads:
        children = psutil.Process(process.pid).children(recursive=True)

        def ask() -> int | None:
            try:
                return httpx.post(f"http://127.0.0.1:{port}/generate", json=LONG, timeout=60).status_code
            except httpx.TransportError:
                return None

        asked = [threads.submit(ask) for _ in range(10)]
        while not httpx.get(f"http://127.0.0.1:{port}/health").json()["decoding"]:
            time.sleep(0.005)
        time.sleep(0.02 * number)
        process.send_signal(signal.SIGTERM)
        start = time.monotonic()
        assert process.wait(60) == 0
        found = [answer.result() for answer in asked]
        print(f"{found.count(200)} of 10 answered; ended after {time.monotonic() - start:.1f} s")
        assert set(found) <= {200, 503, None}
        assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
