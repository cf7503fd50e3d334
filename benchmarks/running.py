"""Runs the programs of `peers/`, each measurement in a process of its own, and writes their figures as tables."""

import argparse
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from work import Work

HERE = Path(__file__).resolve().parent
MALLOC = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**40),
    "MALLOC_TOP_PAD_": str(64 * 2**20),
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}

Figures = dict[str, Any]


@dataclass(frozen=True)
class Program:
    """A file of `peers/`, its name in the tables, and whether it runs in the environment of the peers."""

    file: str
    label: str
    foreign: bool = False


MACHINE = Program("machine.py", "machine")


@dataclass(frozen=True)
class Job:
    """A program and its work."""

    program: Program
    work: Any  # a dataclass with a `shape`


class Runner:
    """Runs programs one after another, each measurement in a process of its own under the same settings."""

    def __init__(self, arguments: argparse.Namespace):
        self.repeats = arguments.repeats
        self.peer_python = arguments.peer_python
        self.launcher = shlex.split(arguments.launcher)
        self.versions = {"python": platform.python_version()}
        threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(arguments.threads))
        self.environment = os.environ | MALLOC | threads | {"PYTHONPATH": f"{HERE.parent}{os.pathsep}{HERE}"}

    def run(self, job: Job) -> Figures | None:
        """The figures of one process; None if it failed, which standard error tells."""
        python = self.peer_python if job.program.foreign else sys.executable
        command = [*self.launcher, python, str(HERE / "peers" / job.program.file), json.dumps(asdict(job.work))]
        done = subprocess.run(command, env=self.environment, cwd=HERE.parent, capture_output=True, text=True)
        lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
        if done.returncode or not lines:
            error = "\n".join(done.stderr.splitlines()[-3:])
            print(f"{job.program.label} failed (exit code {done.returncode}) on {job.work}:\n{error}", file=sys.stderr)
            return None
        figures = json.loads(lines[-1])
        self.versions |= figures.get("versions", {})
        if "seconds" in figures:
            print(f"  {job.program.label}, {job.work.shape}: {figures['seconds']:.2f} s", file=sys.stderr, flush=True)
        return figures

    def interleave(self, jobs: Sequence[Job]) -> list[Figures | None]:
        """Runs all jobs in turn, and that as often as asked for: of each the run of median time.

        Returns:
            For each job its figures, with the least and most seconds and the largest memory of all its runs.
        """
        runs: list[list[Figures]] = [[] for _ in jobs]
        failed: set[int] = set()
        for _ in range(self.repeats):
            for index, job in enumerate(jobs):
                figures = None if index in failed else self.run(job)
                if figures is None:
                    failed.add(index)
                else:
                    runs[index].append(figures)
        return [None if index in failed else middle_run(found) for index, found in enumerate(runs)]


def middle_run(runs: list[Figures]) -> Figures:
    """The run of median time."""
    runs = sorted(runs, key=lambda figures: figures["seconds"])
    spread = {"least": runs[0]["seconds"], "most": runs[-1]["seconds"]}
    return runs[len(runs) // 2] | spread | {"memory": max(figures["memory"] for figures in runs)}


Table = Callable[[Runner, argparse.Namespace, Figures], str]


# -- the command line


def add_options(parser: argparse.ArgumentParser) -> None:
    """What every benchmark is asked."""
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--peer_python", default=".venv-bench/bin/python")
    parser.add_argument(
        "--launcher", default="", help="command that starts each measurement, such as numactl --cpunodebind=0"
    )
    parser.add_argument("--output", help="file for the tables")


# -- cells, and what the tables were made with


def seconds(figures: Figures | None) -> list[str]:
    """Seconds of the median run, and of the fastest and slowest."""
    if figures is None:
        return ["failed"]
    return [f"{figures['seconds']:.2f}", f"{figures['least']:.2f} to {figures['most']:.2f}"]


def ms(duration: float) -> str:
    """Seconds as milliseconds."""
    return f"{duration * 1e3:.1f}"


def markdown(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; short rows are filled up."""
    lines = [headings, ["---"] * len(headings), *([*row, *[""] * (len(headings) - len(row))] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def command_line() -> str:
    """The command as typed; of files elsewhere only the name."""
    words = [Path(word).name if Path(word).is_absolute() else word for word in sys.argv[1:]]
    return shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *words])


def machine_line(machine: Figures, threads: int) -> str:
    """Processor, cores, memory, and what was measured of them."""
    info = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    processor = next((line.partition(":")[2].strip() for line in info if line.startswith("model name")), "unknown")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{processor}, {len(os.sched_getaffinity(0))} cores, {memory:.0f} GiB; {threads} threads: "
        f"{machine['bandwidth'] / 1e9:.1f} GB/s, {machine['rate'] / 1e9:.0f} float32 GFLOP/s"
    )


def write(output: str | None, sections: list[str]) -> None:
    """Writes what there is so far."""
    if output is not None:
        Path(output).write_text("\n\n".join(sections) + "\n", encoding="utf-8")


def print_tables(arguments: argparse.Namespace, tables: dict[str, Table]) -> int:
    """Table after table, the machine's own rates measured before each; what is done is written at once.

    Args:
        tables: what makes each; `arguments.tables` says which are wanted.

    Returns:
        The exit code.
    """
    runner = Runner(arguments)
    load = os.getloadavg()[0]
    sections = [f"`{command_line()}`"]
    machine = {"bandwidth": 0.0, "rate": 0.0}
    for name in arguments.tables:
        found = runner.run(Job(MACHINE, Work("tiny", tokens=1, threads=arguments.threads)))
        if found is None:
            return 1
        machine = {figure: max(value, found[figure]) for figure, value in machine.items()}
        sections.append(tables[name](runner, arguments, machine))
        print(f"\n{sections[-1]}", flush=True)
        write(arguments.output, sections)
    versions = ", ".join(f"{name} {number}" for name, number in sorted(runner.versions.items()))
    sections.append(f"{machine_line(machine, arguments.threads)}; load before the first run {load:.1f}. {versions}.")
    print(f"\n{sections[0]}\n\n{sections[-1]}", flush=True)
    write(arguments.output, sections)
    return 0
