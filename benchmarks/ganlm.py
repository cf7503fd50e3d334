"""Times GanLM's decoding and training against other programs; prints Markdown tables.

python benchmarks/ganlm.py --tables decode train --output tables.md      (peers as of benchmarks/decode.py)
"""

import argparse
import sys
from dataclasses import replace

from ganlm_work import SIZES, GanLMWork
from running import Figures, Job, Program, Runner, add_options, markdown, print_tables, seconds

OURS, OURS_TRAIN = Program("ganlm_decode.py", "this toolkit"), Program("ganlm_train.py", "this toolkit")
BART = Program("bart.py", "transformers BART, cache", foreign=True)
TORCH = Program("ganlm_torch.py", "plain torch GanLM", foreign=True)
DECODERS = {"ours": OURS, "bart": BART, "torch": TORCH}
SOURCES = (4, 16)  # of the table of decoding
MOST_WITHOUT_CACHE = 4  # sources; more take it minutes


def decode_table(runner: Runner, arguments: argparse.Namespace, machine: Figures) -> str:
    """Sources together: this toolkit, a peer with a cache, and one that computes the prefix anew at each step."""
    start = GanLMWork(arguments.shape, threads=arguments.threads)
    rows = []
    for batch in arguments.sources:
        programs = [DECODERS[name] for name in arguments.programs if name != "torch" or batch <= MOST_WITHOUT_CACHE]
        jobs = [Job(program, replace(start, batch=batch)) for program in programs]
        rows += rows_of(str(batch), programs, runner.interleave(jobs))
    headings = ["sources", "program", "seconds", "least to most", "times ours", "peak GiB"]
    title = f"### Decoding: {start.source} tokens a source, {start.target} generated, {start.beams} beams"
    return f"{title}\n\n{markdown(headings, rows)}"


def train_table(runner: Runner, arguments: argparse.Namespace, machine: Figures) -> str:
    """A step with three losses, with the generator's alone, and three losses in plain torch."""
    work = GanLMWork(arguments.shape, decodes=False, threads=arguments.threads, steps=arguments.steps)
    alone = replace(work, three=False)
    jobs = [Job(OURS_TRAIN, work), Job(OURS_TRAIN, alone), Job(TORCH, work), Job(TORCH, alone)]
    found = runner.interleave(jobs)
    rows = []
    for job, figures in zip(jobs, found, strict=True):
        losses = "three" if job.work.three else "generator's"
        rows += rows_of(losses, [job.program], [figures], first=found[0])
    headings = ["losses", "program", "seconds a step", "least to most", "times ours with three", "peak GiB"]
    title = f"### Training: {work.batch} x ({work.source} + {work.target}) tokens, dropout {work.dropout}, AdamW"
    return f"{title}\n\n{markdown(headings, rows)}"


def rows_of(
    label: str, programs: list[Program], found: list[Figures | None], first: Figures | None = None
) -> list[list[str]]:
    """A line for each program; the first one's figures, or those given, are what others are divided by."""
    first, rows = first or found[0], []
    for program, figures in zip(programs, found, strict=True):
        row = [label, program.label, *seconds(figures)]
        if figures and first:
            row += [f"{figures['seconds'] / first['seconds']:.2f}", f"{figures['memory']:.2f}"]
        rows.append(row)
    return rows


TABLES = {"decode": decode_table, "train": train_table}


def parse(argv: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--tables", nargs="+", choices=list(TABLES), default=list(TABLES))
    parser.add_argument("--shape", choices=list(SIZES), default="base")
    parser.add_argument("--sources", type=int, nargs="+", default=SOURCES, help="decoded together")
    parser.add_argument("--programs", nargs="+", choices=list(DECODERS), default=list(DECODERS), help="that decode")
    parser.add_argument("--steps", type=int, default=3, help="of training that are timed")
    add_options(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    options = parse(sys.argv[1:])
    sys.exit(print_tables(options, TABLES))
