"""Times whole processes from their start: one record, verbs that load no model, a run's first step, a server.

python benchmarks/start.py --model runs/demo      (see benchmarks/README.md)
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import httpx
from serve import processor, served, spread

ROOT = Path(__file__).resolve().parents[1]
FIRST_STEP = re.compile(r"global_step: 1\b")
# Those that load no model, with little to do; of `compare` the draws of its tests are most.
VERBS = {
    "check": "data/dev.json --tokenizer_name_or_path data/tokenizer/spm.model",
    "show": "{record} --line 1 --tokenizer_name_or_path data/tokenizer/spm.model",
    "score": "{rows}",
    "compare": "{rows} {rows}",
    "report": "{rows} --output_dir {report} --overwrite_output",
    "memory": "configs/model/base.json",
    "scaling": "--layers 12 --hidden 768",
    "checkpoint": "inspect {model}",
}


def main() -> None:
    """Measures every process, in turn, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="runs/demo", help="A folder that `make demo` has made, or another.")
    parser.add_argument("--config", default="configs/demo.json", help="Of the run whose first step is timed.")
    parser.add_argument(
        "--repeats", type=int, default=5, help="Processes of each kind, in turn, after one that warms."
    )
    parser.add_argument("--output", help="A file for the table.")
    values = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        kinds = {
            **commands(values, Path(folder)),
            "a server: until it serves": lambda: server_seconds(values.model)[0],
        }
        found = {name: [] for name in kinds}
        for number in range(values.repeats + 1):
            for name, measure in kinds.items():
                seconds = measure()
                if number:  # the first fills the caches of files and of kernels
                    found[name].append(seconds)
        first, second = zip(*(server_seconds(values.model)[1:] for _ in range(values.repeats)), strict=True)
    found |= {"a server: its first request": first, "a server: its second request": second}
    lines = [f"`python benchmarks/start.py {' '.join(sys.argv[1:])}`".replace(" `", "`")]
    lines += ["", "| process | seconds: median (least to most) |", "| --- | --- |"]
    lines += [f"| {name} | {spread(list(seconds))} |" for name, seconds in found.items()]
    lines += ["", f"{processor()}, {os.cpu_count()} cores; load before the first run {load:.1f}."]
    print("\n".join(lines))
    if values.output:
        Path(values.output).write_text("\n".join(lines) + "\n", encoding="utf-8")


def commands(values: argparse.Namespace, folder: Path) -> dict[str, Callable[[], float]]:
    """What is timed, by its name in the table; each returns its seconds."""
    record, rows = folder / "one.json", folder / "rows.jsonl"
    record.write_text((ROOT / "data" / "dev.json").read_text(encoding="utf-8").partition("\n")[0] + "\n")
    predict = [
        *("predict.py", "--model_name_or_path", values.model, "--test_file", str(record), "--device", "cpu"),
        *("--overwrite_output", "--output_file", str(rows)),
    ]
    learn = [
        *("finetune_generation.py", values.config, "--max_steps", "1", "--logging_steps", "1", "--do_eval", "false"),
        *("--overwrite_output_dir", "--output_dir", str(folder / "run")),
    ]
    found = {"`predict.py`, one record": lambda: seconds_of(predict)}
    for verb, words in VERBS.items():
        words = words.format(record=record, rows=rows, report=folder / "report", model=values.model).split()
        found[f"`python -m glm {verb}`"] = lambda verb=verb, words=words: seconds_of(["-m", "glm", verb, *words])
    for script in ("predict.py", "finetune_generation.py"):
        found[f"`{script} --help`"] = lambda script=script: seconds_of([script, "--help"])
    found["`finetune_generation.py`, to its first step"] = lambda: seconds_of(learn, until=FIRST_STEP)
    return found


def seconds_of(words: list[str], *, until: re.Pattern | None = None) -> float:
    """Of a Python process, from its start to its end, or to a line that it writes."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *words], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    said, seconds = [], None
    for line in process.stdout:
        said.append(line)
        if seconds is None and until is not None and until.search(line):
            seconds = time.perf_counter() - start
    code = process.wait()
    if code or (until is not None and seconds is None):
        sys.exit(f"{' '.join(words)} failed (exit code {code}):\n{''.join(said)}")
    return seconds or time.perf_counter() - start


def server_seconds(model: str) -> tuple[float, float, float]:
    """Until a server says that it serves, and of its first two requests, for one record each."""
    lines = (ROOT / "data" / "dev.json").read_text(encoding="utf-8").splitlines()
    start, found = time.perf_counter(), []
    with served(model) as url, httpx.Client(base_url=url, timeout=60) as client:
        found.append(time.perf_counter() - start)
        for line in lines[:2]:
            start = time.perf_counter()
            client.post("/generate", json={"records": [json.loads(line)]}).raise_for_status()
            found.append(time.perf_counter() - start)
    return tuple(found)


if __name__ == "__main__":
    main()
