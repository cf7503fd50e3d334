"""Times training against other programs and against what the machine allows; prints Markdown tables.

python benchmarks/train.py --data train.json --tokenizer cog-pretrain.model      (see benchmarks/README.md)
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from running import (
    Figures,
    Job,
    Program,
    Runner,
    add_options,
    markdown,
    print_tables,
    seconds,
)
from train_work import TrainWork
from work import SHAPES

PROGRAMS = {
    "ours": Program("train_ours.py", "this toolkit"),
    "paddlenlp": Program("train_paddlenlp.py", "PaddleNLP GLM"),
    "torch": Program("train_torch.py", "torch GPT-2", foreign=True),
    "ours-bfloat16": Program("train_ours.py", "this toolkit, --bf16"),
    "torch-bfloat16": Program("train_torch.py", "torch GPT-2, bfloat16 autocast", foreign=True),
}
FLOAT32 = [name for name in PROGRAMS if "-" not in name]
RECORDS = Program("train_records.py", "this toolkit, records")


def job_of(name: str, work: TrainWork) -> Job:
    """A program's job: `name-dtype` multiplies in that type, another one in float32."""
    return Job(PROGRAMS[name], replace(work, dtype=name.partition("-")[2] or "float32"))


def steps_table(runner: Runner, arguments: argparse.Namespace, machine: Figures) -> str:
    """A: a step on examples of full length, this toolkit and its peers, with dropout and without."""
    headings = ["dropout", "program", "seconds", "least to most", "times ours", "peak GiB", "times floor"]
    rows = []
    for dropout in arguments.dropouts:
        work = TrainWork(arguments.shape, dropout=dropout, threads=arguments.threads)
        names = list(arguments.peers)
        found = runner.interleave([job_of(name, work) for name in names])
        ours = found[names.index("ours")] if "ours" in names else None
        for name, figures in zip(names, found, strict=True):
            rows.append(
                [str(dropout), PROGRAMS[name].label, *cells(figures, ours, work.operations() / machine["rate"])]
            )
        rows.append([str(dropout), "floor", f"{work.operations() / machine['rate']:.2f}"])
    title = f"### A. An AdamW step at {arguments.shape}: {describe(work)}"
    return f"{title}\n\n{markdown(headings, rows)}"


def cells(figures: Figures | None, ours: Figures | None, floor: float) -> list[str]:
    """Seconds, their spread, and what they are in those of others."""
    row = seconds(figures)
    if figures:
        row += [f"{figures['seconds'] / ours['seconds']:.2f}" if ours else "", f"{figures['memory']:.2f}"]
        row += [f"{figures['seconds'] / floor:.2f}"]
    return row


def describe(work: TrainWork) -> str:
    """The examples of a step."""
    return f"batch {work.batch}, source {work.source}, target {work.target}"


def records_table(runner: Runner, arguments: argparse.Namespace, machine: Figures) -> str:
    """B: records of a file. PaddleNLP's example pads all to the same length: each of its batches takes as long."""
    padded = TrainWork(arguments.shape, threads=arguments.threads)
    work = TrainWork(
        arguments.shape,
        threads=arguments.threads,
        data=str(Path(arguments.data).resolve()),
        tokenizer=str(Path(arguments.tokenizer).resolve()),
        records=arguments.records,
    )
    ours, theirs = runner.interleave([Job(RECORDS, work), Job(PROGRAMS["paddlenlp"], padded)])
    rows = []
    for label, figures, records in (("this toolkit", ours, 1), ("PaddleNLP GLM, padded", theirs, padded.batch)):
        row = [label, *(["failed"] if figures is None else [f"{records / figures['seconds']:.3f}"])]
        if figures:
            spread = (f"{records / figures[name]:.3f}" for name in ("most", "least"))
            row += [" to ".join(spread), f"{figures['memory']:.2f}"]
        rows.append(row)
    if ours and theirs:
        rows[0].append(f"{theirs['seconds'] / padded.batch / ours['seconds']:.2f}")
    title = f"### B. Records of a file at {arguments.shape}, batches of {work.batch} by length"
    return f"{title}\n\n{markdown(['program', 'records/s', 'least to most', 'peak GiB', 'times PaddleNLP'], rows)}"


def smoothing_table(runner: Runner, arguments: argparse.Namespace, machine: Figures) -> str:
    """C: what label smoothing adds to a step."""
    work = TrainWork(arguments.large_shape, warm_up=3, steps=2, threads=arguments.threads, label_smoothing=0.1)
    (figures,) = runner.interleave([Job(PROGRAMS["ours"], work)])
    row = [arguments.large_shape, "failed"]
    if figures:
        row[1:] = [f"{figures['seconds']:.2f}", f"{figures['smoothed']:.2f}"]
        row += [f"{figures['smoothed'] / figures['seconds'] - 1:+.1%}"]
    title = f"### C. Label smoothing: {describe(work)}"
    return f"{title}\n\n{markdown(['shape', 'without s', 'e = 0.1 s', 'difference'], [row])}"


def memory_table(runner: Runner, arguments: argparse.Namespace, machine: Figures) -> str:
    """D: peak memory with recompute."""
    work = TrainWork(arguments.large_shape, warm_up=1, steps=1, threads=arguments.threads, recompute=True)
    names = [name for name in arguments.peers if not name.startswith("torch")]
    found = runner.interleave([job_of(name, work) for name in names])
    ours = found[names.index("ours")] if "ours" in names else None
    rows = [
        [PROGRAMS[name].label, *cells(figures, ours, work.operations() / machine["rate"])]
        for name, figures in zip(names, found, strict=True)
    ]
    headings = ["program", "seconds", "least to most", "times ours", "peak GiB", "times floor"]
    return f"### D. A step at {arguments.large_shape} with recompute: {describe(work)}\n\n{markdown(headings, rows)}"


TABLES = {"A": steps_table, "B": records_table, "C": smoothing_table, "D": memory_table}


def parse(argv: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--tables", nargs="+", choices=list(TABLES), help="default: A C D, and B with --data")
    parser.add_argument("--shape", choices=list(SHAPES), default="base", help="of A and B")
    parser.add_argument("--large_shape", choices=list(SHAPES), default="large", help="of C and D")
    parser.add_argument("--dropouts", nargs="+", type=float, default=[0.1, 0.0], help="of A")
    parser.add_argument("--peers", nargs="+", choices=list(PROGRAMS), default=FLOAT32, help="of A and D")
    parser.add_argument("--data", help="JSON lines with context, answer, question")
    parser.add_argument("--tokenizer", help="SentencePiece model, needed with --data")
    parser.add_argument("--records", type=int, default=0, help="of --data, evenly spread over the file; 0 for all")
    add_options(parser)
    arguments = parser.parse_args(argv)
    arguments.tables = arguments.tables or (["A", "B", "C", "D"] if arguments.data else ["A", "C", "D"])
    if ("B" in arguments.tables and not arguments.data) or bool(arguments.data) != bool(arguments.tokenizer):
        parser.error("table B needs --data, and --data goes with --tokenizer")
    return arguments


if __name__ == "__main__":
    options = parse(sys.argv[1:])
    sys.exit(print_tables(options, TABLES))
