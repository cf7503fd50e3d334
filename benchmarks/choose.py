"""Times choices among candidates against one full forward per candidate: PaddleNLP's class, and torch.

    python benchmarks/choose.py --shapes base --repeats 3

Each record has a source of 300 random ids and 4 candidates of 8; every program gives the log-probability of each of
its candidates. Prints a Markdown table.
"""

import argparse
import sys
from collections.abc import Sequence

from choose_work import ChooseWork
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
from work import SHAPES

OURS = Program("choose_ours.py", "this toolkit")
PEERS = (
    Program("choose_paddlenlp.py", "PaddleNLP GLM"),
    Program("choose_torch.py", "torch GPT-2", foreign=True),
)


def table(runner: Runner, arguments: argparse.Namespace, machine: Figures) -> str:
    """A row for each shape and program."""
    programs = [OURS, *(peer for peer in PEERS if peer.label in arguments.peers)]
    rows = []
    for shape in arguments.shapes:
        works = [
            Job(program, ChooseWork(shape, records=arguments.records, threads=arguments.threads))
            for program in programs
        ]
        found = runner.interleave(works)
        ours = found[0]
        for program, figures in zip(programs, found, strict=True):
            rate = "" if figures is None else f"{arguments.records / figures['seconds']:.2f}"
            ratio = "" if figures is None or ours is None else f"{figures['seconds'] / ours['seconds']:.2f}"
            rows.append([shape, program.label, rate, *seconds(figures), ratio])
    headings = ("shape", "program", "records per second", "seconds", "least to most", "times this toolkit's seconds")
    return markdown(headings, rows)


def main(argv: Sequence[str]) -> int:
    """Reads the command line, runs, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=list(SHAPES), default=["base"])
    parser.add_argument("--peers", nargs="*", default=[peer.label for peer in PEERS])
    parser.add_argument("--records", type=int, default=8)
    add_options(parser)
    arguments = parser.parse_args(argv)
    arguments.tables = ["E"]
    return print_tables(arguments, {"E": table})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
