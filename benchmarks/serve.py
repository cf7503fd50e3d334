"""Throughput of `predict.py --serve`: many clients at once against one after the other. Prints a Markdown table.

python benchmarks/serve.py --models runs/demo configs/model/base.json      (see benchmarks/README.md)
"""

import argparse
import asyncio
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parents[1]
TOKENIZER = ROOT / "data" / "tokenizer" / "spm.model"


def main() -> None:
    """Measures each model, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=["runs/demo"], help="Folders, or .json for random weights.")
    parser.add_argument("--records", default=str(ROOT / "data" / "dev.json"))
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--requests", type=int, default=48, help="Of a run, each for one record.")
    parser.add_argument("--tokens", type=int, default=12, help="Generated for every record, by 5 beams.")
    parser.add_argument("--repeats", type=int, default=3, help="Runs of each kind, in turn.")
    values = parser.parse_args()
    lines = Path(values.records).read_text(encoding="utf-8").splitlines()
    records = list(islice(cycle(map(json.loads, lines)), values.requests))
    load = os.getloadavg()[0]
    print("| model | one by one, requests/s | clients | at once, requests/s | times | median wait at once, s |")
    print("| --- | --- | --- | --- | --- | --- |")
    for model in values.models:
        with served(model) as url:
            print(row(model, asyncio.run(measure(url, records, values)), values.clients), flush=True)
    print(f"\n{processor()}, {os.cpu_count()} cores; load before the first run {load:.1f}.")


@contextmanager
def served(model: str) -> Iterator[str]:
    """The address of a server of a model, in a process of its own."""
    command = [sys.executable, "predict.py", "--model_name_or_path", model, "--serve", "--port", "0"]
    if model.endswith(".json"):
        command += ["--tokenizer_name_or_path", str(TOKENIZER), "--src_length", "96"]
    process = subprocess.Popen([*command, "--device", "cpu"], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        said = []
        for line in process.stderr:
            said.append(line)
            if found := re.search(r" at (http://\S+)", line):
                yield found.group(1)
                return
        sys.exit(f"{model} is not served:\n{''.join(said)}")
    finally:
        process.terminate()
        process.wait()


async def measure(url: str, records: list[dict], values: argparse.Namespace) -> dict[int, list[tuple[float, float]]]:
    """By number of clients, for each run: requests per second, and the median seconds of a request."""
    async with httpx.AsyncClient(base_url=url, timeout=600) as client:
        opening = await tokens_of_opening(client, records[0])
        length = opening + values.tokens
        options = {"tgt_length": length, "min_tgt_length": values.tokens - 1, "num_beams": 5}
        for clients in (1, values.clients):  # warm-up
            await run(client, records[:clients], clients, options)
        found: dict[int, list[tuple[float, float]]] = {1: [], values.clients: []}
        for _ in range(values.repeats):
            for clients in found:
                found[clients].append(await run(client, records, clients, options))
    return found


async def tokens_of_opening(client: httpx.AsyncClient, record: dict) -> int:
    """Tokens of the constant opening: the error of a text that has room for nothing else says how many."""
    answer = await client.post("/generate", json={"records": [record], "tgt_length": 1})
    return int(re.search(r"after the (\d+) that are given", answer.json()["error"]["message"]).group(1))


async def run(client: httpx.AsyncClient, records: list[dict], clients: int, options: dict) -> tuple[float, float]:
    """Requests per second, and the median seconds of one, when each client sends its next once one is answered."""
    waiting, seconds = iter(records), []

    async def one() -> None:
        for record in waiting:
            start = time.perf_counter()
            answer = await client.post("/generate", json={"records": [record], **options})
            answer.raise_for_status()
            seconds.append(time.perf_counter() - start)

    start = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(clients)))
    return len(records) / (time.perf_counter() - start), statistics.median(seconds)


def row(model: str, found: dict[int, list[tuple[float, float]]], clients: int) -> str:
    """A line of the table: medians, with least and most."""
    alone, together = [speed for speed, _ in found[1]], [speed for speed, _ in found[clients]]
    wait = statistics.median(seconds for _, seconds in found[clients])
    times = statistics.median(together) / statistics.median(alone)
    return f"| {model} | {spread(alone)} | {clients} | {spread(together)} | {times:.1f} | {wait:.2f} |"


def spread(values: list[float]) -> str:
    """Median, least and most."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def processor() -> str:
    """The name of the processor."""
    try:
        return re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text(encoding="utf-8")).group(1)
    except (OSError, AttributeError):
        return platform.machine()


if __name__ == "__main__":
    main()
