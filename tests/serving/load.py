"""Clients of a server, many at once, good and bad, over plain sockets: so that what is sent can be broken anywhere."""

import asyncio
import json
import random
import socket
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

RECORD = {"context": "青石镇位于河的北岸，人口大约3万。", "answer": "3万"}


def connection(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=20)


@dataclass
class Tally:
    """What came of the requests."""

    good: int = 0
    wrong: list[Any] = field(default_factory=list)  # answers that are not as expected
    refused: Counter = field(default_factory=Counter)  # statuses of bad requests


def requests_of(number: int) -> tuple[str, dict[str, Any]]:
    """One of 12 good requests of different kinds, lengths and options."""
    kind, size = number % 4, 1 + number % 3
    if kind == 0:
        return "/generate", {"records": [RECORD] * size, "num_beams": size}
    if kind == 1:
        return "/generate", {"texts": [f"河的北岸[MASK]，{'山上的花都开了' * size}[MASK]。"], "tgt_length": 5 * size}
    if kind == 2:
        return "/v1/completions", {"prompt": "他每天早上" * size, "max_tokens": 4 * size, "n": 2}
    return "/v1/completions", {"prompt": "春天", "temperature": 0.8, "seed": size, "n": size, "max_tokens": 12}


def essence(answer: dict[str, Any]) -> Any:
    """What has to be the same every time: texts, and scores but for their last digits."""
    if "rows" in answer:
        found = [text for row in answer["rows"] for text in row.get("predictions") or sum(row["blanks"], [])]
    else:
        found = answer["choices"]
    return [(text["text"], round(text["score"], 2)) for text in found]


async def storm(port: int, *, clients: int, rounds: int, expected: Callable[[int], Any], seed: int = 0) -> Tally:
    """So many clients at once, each sending `rounds` good requests, and bad ones in between."""
    tally = Tally()
    limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=300, limits=limits) as client:

        async def one(number: int) -> None:
            random_stream = random.Random(f"{seed}, {number}")
            for turn in range(rounds):
                await random_stream.choice(BAD)(port, client, tally)
                which = (number + turn) % 12
                path, body = requests_of(which)
                answer = await client.post(path, json=body)
                if answer.status_code == 200 and close(essence(answer.json()), expected(which)):
                    tally.good += 1
                else:
                    tally.wrong.append((which, answer.status_code, answer.text[:500]))

        await asyncio.gather(*map(one, range(clients)))
    return tally


def close(got: list, want: list) -> bool:
    """Equal texts and scores, the last digit aside."""
    return [text for text, _ in got] == [text for text, _ in want] and all(
        abs(one - other) < 0.02 for (_, one), (_, other) in zip(got, want, strict=True)
    )


# -- bad requests


async def broken_json(port, client, tally):
    headers = {"content-type": "application/json"}
    answer = await client.post("/generate", content='{"records": [{"context": ', headers=headers)
    tally.refused[answer.status_code] += 1


async def wrong_types(port, client, tally):
    answer = await client.post("/v1/completions", json={"prompt": {"text": 1}, "n": "many"})
    tally.refused[answer.status_code] += 1


async def huge_body(port, client, tally):
    answer = await client.post("/generate", json={"texts": ["河" * 3_000_000]})
    tally.refused[answer.status_code] += 1


async def unannounced_huge_body(port, client, tally):
    async def parts():
        for _ in range(80):
            yield b" " * 65536

    headers = {"content-type": "application/json"}
    answer = await client.post("/generate", content=parts(), headers=headers)
    tally.refused[answer.status_code] += 1


async def no_http(port, client, tally):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello\r\n\r\n")
    status = (await reader.readline()).split()
    tally.refused[int(status[1])] += 1
    writer.close()


async def leaves_before_the_end(port, client, tally):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head("/generate", 5000) + b'{"records": [')
    await writer.drain()
    await asyncio.sleep(0.05)
    writer.transport.abort()


async def leaves_before_the_answer(port, client, tally):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    body = json.dumps({"records": [RECORD] * 8, "tgt_length": 40, "min_tgt_length": 20, "num_beams": 4}).encode()
    writer.write(head("/generate", len(body)) + body)
    await writer.drain()
    await asyncio.sleep(0.05)
    writer.transport.abort()


async def slow_sender(port, client, tally):
    """Sends a byte now and then for a while; the server has other things to do meanwhile."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for byte in (head("/generate", 100) + b"{" * 20)[-30:]:
        writer.write(bytes([byte]))
        await asyncio.sleep(0.01)
    writer.close()


def head(path: str, length: int) -> bytes:
    """The head of a request with a body of so many bytes."""
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: 127.0.0.1",
        "Content-Type: application/json",
        f"Content-Length: {length}",
        "",
        "",
    ]
    return "\r\n".join(lines).encode()


BAD = [
    broken_json,
    wrong_types,
    huge_body,
    unannounced_huge_body,
    no_http,
    leaves_before_the_end,
    leaves_before_the_answer,
    slow_sender,
]
EXPECTED_STATUS = {400, 413, 422}
