"""Times a decoding step of each family against the least that it can take; prints a Markdown table.

python benchmarks/families.py --output table.md      (see benchmarks/README.md)
"""

import argparse
import sys

from families_work import BEAMS, FAMILIES, FamilyWork
from floor import BYTES
from running import Figures, Job, Program, Runner, add_options, markdown, ms, print_tables

STEP = Program("family_step.py", "this toolkit")


def least(work: FamilyWork, machine: Figures) -> float:
    """The least seconds of a step in the middle of the text, as `floor.Floor` counts them."""
    family, rows, made = work.sizes, work.batch * BEAMS, work.tokens // 2
    H, layers = family.hidden, family.layers
    weights = layers * family.block * H**2 + family.vocabulary * H
    keys_and_values = 2 * H * layers * (work.batch * work.source + rows * made)
    attention = 4 * rows * family.tokens * (work.source + made) * H * layers
    operations = 2 * rows * family.tokens * layers * family.block * H**2 + 2 * rows * family.vocabulary * H + attention
    return max(BYTES * (weights + keys_and_values) / machine["bandwidth"], operations / machine["rate"])


def table(runner: Runner, arguments: argparse.Namespace, machine: Figures) -> str:
    """A line for each family."""
    works = [
        FamilyWork(name, layers=arguments.layers, tokens=arguments.tokens, threads=arguments.threads)
        for name in arguments.families
    ]
    rows = []
    for work, figures in zip(works, runner.interleave([Job(STEP, work) for work in works]), strict=True):
        row, floor = [work.shape, work.sizes.what], least(work, machine)
        if figures:
            row += [ms(figures["seconds"]), f"{ms(figures['least'])} to {ms(figures['most'])}"]
            row += [ms(floor), f"{figures['seconds'] / floor:.2f}"]
        rows.append(row if figures else [*row, "failed"])
    headings = ["family", "blocks", "step ms", "least to most", "floor ms", "times floor"]
    work = works[0]
    title = f"### A step of {work.batch} sources of {work.source} tokens with {BEAMS} beams, float32"
    return f"{title}\n\n{markdown(headings, rows)}"


def parse(argv: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--families", nargs="+", choices=list(FAMILIES), default=list(FAMILIES))
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--tokens", type=int, default=40, help="generated for each source")
    add_options(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    options = parse(sys.argv[1:])
    options.tables = ["families"]
    sys.exit(print_tables(options, {"families": table}))
