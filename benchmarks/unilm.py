"""Times UniLM's decoding and fine-tuning against torch and against what the machine allows; prints Markdown tables.

python benchmarks/unilm.py --data train.json --tokenizer vocab.txt --output tables.md      (see benchmarks/README.md)
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from running import Figures, Job, Program, Runner, add_options, markdown, print_tables, seconds
from unilm_work import VOCABULARY, UniLMWork
from work import SHAPES

PROGRAMS = {
    "ours": Program("unilm_ours.py", "this toolkit"),
    "torch": Program("unilm_torch.py", "torch", foreign=True),
}


def decoding_floor(work: UniLMWork, machine: Figures) -> float:
    """The least seconds: the products of sources, of a token and a [MASK] of each beam a step, and of the head."""
    H, layers = work.size.hidden, work.size.layers
    block = layers * 12 * H**2
    attention = 4 * H * layers
    source_tokens, rows = work.batch * work.source, work.batch * work.beams
    operations = 2 * source_tokens * block + attention * source_tokens * work.source
    for made in range(work.tokens):
        live = rows if made else work.batch
        read = 2 * live if made else live
        operations += 2 * read * block + attention * read * (work.source + made) + 2 * live * H * (VOCABULARY + H)
    return operations / machine["rate"]


def decoding_table(runner: Runner, arguments: argparse.Namespace, machine: Figures) -> str:
    """A: beam search."""
    work = UniLMWork(arguments.shape, batch=arguments.batch, tokens=arguments.tokens, threads=arguments.threads)
    floor = decoding_floor(work, machine)
    title = f"### A. {work.tokens} tokens for each of {work.batch} sources of {work.source}, {work.beams} beams"
    return f"{title} ({arguments.shape})\n\n{_table(runner, work, floor)}"


def training_table(runner: Runner, arguments: argparse.Namespace, machine: Figures) -> str:
    """B: fine-tuning steps on pairs that fill their rows, and on those of a file."""
    padded = UniLMWork(arguments.shape, trains=True, batch=arguments.batch, threads=arguments.threads)
    sections = [f"### B. A fine-tuning step of {padded.batch} pairs ({arguments.shape})"]
    sections += [f"All of {padded.width} tokens:", _table(runner, padded, None)]
    if arguments.data:
        lengths = lengths_of(Path(arguments.data), Path(arguments.tokenizer), padded)
        work = UniLMWork(
            arguments.shape, trains=True, batch=arguments.batch, threads=arguments.threads, lengths=lengths
        )
        tokens = np.sum(lengths) / padded.batch
        sections += [f"Of a file, {tokens:.0f} tokens on average, padded to {work.width}:", _table(runner, work, None)]
    return "\n\n".join(sections)


def _table(runner: Runner, work: UniLMWork, floor: float | None) -> str:
    found = runner.interleave([Job(program, work) for program in PROGRAMS.values()])
    ours = found[0]
    rows = []
    for program, figures in zip(PROGRAMS.values(), found, strict=True):
        row = [program.label, *seconds(figures)]
        if figures and ours:
            row += [f"{figures['seconds'] / ours['seconds']:.2f}", f"{figures['memory']:.2f}"]
            row += [f"{figures['seconds'] / floor:.2f}"] if floor else []
        rows.append(row)
    if floor:
        rows.append(["floor", f"{floor:.2f}"])
    headings = ["program", "seconds", "least to most", "times ours", "peak GiB"]
    return markdown([*headings, "times floor"] if floor else headings, rows)


def lengths_of(data: Path, vocabulary: Path, work: UniLMWork) -> tuple[tuple[int, int], ...]:
    """Tokens of source and target of pairs of a file, spread evenly over it, cut as a pair."""
    from glm.models.unilm.geometry import SPECIAL_TOKENS, cut_lengths
    from glm.models.unilm.tokenization import WordPieceTokenizer

    tokenizer = WordPieceTokenizer(vocabulary)
    records = [json.loads(line) for line in data.read_text(encoding="utf-8").splitlines()]
    chosen = [records[place] for place in np.linspace(0, len(records) - 1, work.batch).astype(int)]
    a, b = ([len(ids) for ids in tokenizer.encode_text([r[field] for r in chosen])] for field in ("source", "target"))
    a, b = cut_lengths(a, b, work.width - SPECIAL_TOKENS)
    return tuple((int(source) + 2, int(target) + 1) for source, target in zip(a, b, strict=True))


TABLES = {"A": decoding_table, "B": training_table}


def parse(argv: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--tables", nargs="+", choices=list(TABLES), default=list(TABLES))
    parser.add_argument("--shape", choices=list(SHAPES), default="base")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=32, help="generated for each source; 2 or more")
    parser.add_argument("--data", help="JSON lines with source and target, for the lengths of pairs")
    parser.add_argument("--tokenizer", help="vocabulary of a BERT, needed with --data")
    add_options(parser)
    arguments = parser.parse_args(argv)
    if bool(arguments.data) != bool(arguments.tokenizer):
        parser.error("--data goes with --tokenizer")
    return arguments


if __name__ == "__main__":
    options = parse(sys.argv[1:])
    sys.exit(print_tables(options, TABLES))
