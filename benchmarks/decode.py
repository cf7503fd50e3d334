"""Times the decoder against other programs and against what the machine allows; prints Markdown tables.

python benchmarks/decode.py --shapes tiny base large --output tables.md      (see benchmarks/README.md)
"""

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from floor import Floor
from running import (
    Figures,
    Job,
    Program,
    Runner,
    add_options,
    markdown,
    ms,
    print_tables,
    seconds,
)
from work import SHAPES, Work

FLATTERED = "extrapolated from prefill and 3 steps, which flatters PaddleNLP"
GROWTH_TOKENS, GROWTH_POSITIONS = 40, 2048  # table B
RECORD_TOKENS, RECORD_BATCH = 30, 16  # table C

PROGRAMS = {
    "ours": Program("ours.py", "this toolkit"),
    "paddlenlp": Program("paddlenlp_glm.py", "PaddleNLP GLM"),
    "transformers": Program("huggingface.py", "transformers GPT-2", foreign=True),
    "ctranslate2": Program("ctranslate.py", "CTranslate2 GPT-2", foreign=True),
    "ours-int8": Program("ours.py", "this toolkit, int8"),
    "ours-bfloat16": Program("ours.py", "this toolkit, bfloat16"),
    "ctranslate2-int8": Program("ctranslate.py", "CTranslate2 GPT-2, int8", foreign=True),
}
DTYPES = ("float32", "bfloat16", "int8")
RATES = Program("rates.py", "rates of fewer bits", foreign=True)
LAY_OUT = Program("lay_out.py", "layout of records")
CONVERT = Program("convert.py", "conversion", foreign=True)


def job_of(name: str, work: Work) -> Job:
    """A program's job: `name-dtype` decodes in that type, another peer in float32, `ours` as the work says."""
    dtype = name.partition("-")[2]
    return Job(PROGRAMS[name], work if name == "ours" else replace(work, decode_dtype=dtype or "float32"))


# -- the tables


def floor_of(work: Work, machine: Figures) -> Floor:
    """The least seconds of a work in its type."""
    return Floor(work, machine["bandwidth"], machine["rate"], machine.get(work.decode_dtype))


def peers_table(runner: Runner, arguments: argparse.Namespace, machine: Figures) -> str:
    """A: this toolkit and its peers, for each shape."""
    if any(name in arguments.peers for name in ("ours-int8", "ours-bfloat16")):
        machine = machine | (runner.run(Job(RATES, Work("tiny", tokens=1, threads=arguments.threads))) or {})
    headings = ["shape", "program", "seconds", "least to most", "times ours", "prefill s", "step ms"]
    headings += ["early, middle, late", "peak GiB", "set-up s", "times floor", "prefill, step: times floor"]
    rows, notes = [], []
    for shape in arguments.shapes:
        with tempfile.TemporaryDirectory() as folder:
            work = Work(
                shape,
                tokens=arguments.tokens,
                source=arguments.source,
                beams=arguments.beams,
                threads=arguments.threads,
                decode_dtype=arguments.decode_dtype,
                extrapolate=arguments.paddlenlp == "steps" or (arguments.paddlenlp == "auto" and shape != "tiny"),
                folder=str(Path(folder, "model")),
            )
            names = list(arguments.peers)
            converted = [name for name in names if name.startswith("ctranslate2")]
            if converted and runner.run(Job(CONVERT, work)) is None:
                names = [name for name in names if name not in converted]
            found = runner.interleave([job_of(name, work) for name in names])
        ours = found[names.index("ours")] if "ours" in names else None
        for name, figures in zip(names, found, strict=True):
            mark = "*" if name == "paddlenlp" and work.extrapolate else ""
            floor = floor_of(job_of(name, work).work, machine)
            rows.append(peers_row(shape, PROGRAMS[name].label + mark, figures, ours, floor))
        for dtype in dict.fromkeys(job_of(name, work).work.decode_dtype for name in names if name.startswith("ours")):
            floor = floor_of(replace(work, decode_dtype=dtype), machine)
            row = [shape, f"floor, {dtype}", f"{floor.total():.3f}", "", "", f"{floor.prefill():.3f}"]
            rows.append([*row, ms(floor.mean_step())])
        if work.extrapolate and "paddlenlp" in names:
            notes.append(f"\\* {shape}: {FLATTERED}.")
    title = f"### A. {arguments.tokens} tokens for each of {work.batch} sources of {work.source}, {work.beams} beams"
    return "\n\n".join([title, markdown(headings, rows), *notes])


def peers_row(shape: str, label: str, figures: Figures | None, ours: Figures | None, floor: Floor) -> list[str]:
    """One program's figures."""
    row = [shape, label, *seconds(figures)]
    if figures:
        parts = ", ".join(ms(figures[name]) for name in ("early", "middle", "late") if name in figures)
        row += [f"{figures['seconds'] / ours['seconds']:.2f}" if ours else "", f"{figures['prefill']:.2f}"]
        row += [ms(figures["step"]), parts, f"{figures['memory']:.2f}", f"{figures['build'] + figures['warm_up']:.1f}"]
        row += [f"{figures['seconds'] / floor.total():.2f}"]
        row += [f"{figures['prefill'] / floor.prefill():.2f}, {figures['step'] / floor.mean_step():.2f}"]
    return row


def growth_table(runner: Runner, arguments: argparse.Namespace, machine: Figures) -> str:
    """B: how the cost of this toolkit grows with beams and with the source."""
    tokens = min(arguments.tokens, GROWTH_TOKENS)
    start = Work(
        arguments.growth_shape,
        tokens=tokens,
        positions=GROWTH_POSITIONS,
        threads=arguments.threads,
        decode_dtype=arguments.decode_dtype,
    )
    works = [replace(start, beams=beams) for beams in (1, 2, 5, 10)]
    works += [replace(start, source=source) for source in (128, 256, 512, 1024)]
    rows = []
    for work, figures in zip(works, runner.interleave([Job(PROGRAMS["ours"], work) for work in works]), strict=True):
        floor = Floor(work, machine["bandwidth"], machine["rate"])
        row = [str(work.beams), str(work.source), *seconds(figures)]
        if figures:
            row += [f"{figures['prefill']:.2f}", ms(figures["step"]), f"{figures['memory']:.2f}"]
            row += [f"{figures['prefill'] / floor.prefill():.2f}", f"{figures['step'] / floor.mean_step():.2f}"]
        rows.append(row)
    headings = ["beams", "source", "seconds", "least to most", "prefill s", "step ms", "peak GiB"]
    headings += ["prefill, times floor", "step, times floor"]
    title = f"### B. This toolkit at {start.shape}: {start.batch} examples, {tokens} tokens"
    return f"{title}\n\n{markdown(headings, rows)}"


def record_work(arguments: argparse.Namespace) -> Work:
    """The records of `--data`."""
    return Work(
        arguments.growth_shape,
        tokens=RECORD_TOKENS,
        batch=RECORD_BATCH,
        threads=arguments.threads,
        decode_dtype=arguments.decode_dtype,
        data=str(Path(arguments.data).resolve()),
        tokenizer=str(Path(arguments.tokenizer).resolve()),
        checkpoint=arguments.checkpoint and str(Path(arguments.checkpoint).resolve()),
        records=arguments.records,
    )


def records_table(runner: Runner, arguments: argparse.Namespace, machine: Figures) -> str:
    """C: records of a file, in batches of sources of like length, which are the same for all programs."""
    with tempfile.TemporaryDirectory() as folder:
        work = replace(record_work(arguments), folder=str(Path(folder, "model")), batches=str(Path(folder, "batches")))
        names = list(arguments.peers)
        foreign = [name for name in names if PROGRAMS[name].foreign]
        if foreign and (runner.run(Job(LAY_OUT, work)) is None or runner.run(Job(CONVERT, work)) is None):
            names = [name for name in names if name not in foreign]
        found = runner.interleave([job_of(name, work) for name in names])
    rows = []
    for name, figures in zip(names, found, strict=True):
        row = [PROGRAMS[name].label, *seconds(figures)]
        if figures:
            ratio = f"{figures['seconds'] / found[0]['seconds']:.2f}" if names[0] == "ours" and found[0] else ""
            row += [f"{work.records / figures['seconds']:.2f}", ratio, f"{figures['memory']:.2f}"]
        rows.append(row)
    weights = "trained" if work.checkpoint else f"random ({work.shape})"
    title = f"### C. {work.records} records, batches of {work.batch}, at most {work.tokens} tokens, {weights} weights"
    headings = ["program", "seconds", "least to most", "records/s", "times ours", "peak GiB"]
    return f"{title}\n\n{markdown(headings, rows)}"


def dtype_table(runner: Runner, arguments: argparse.Namespace, machine: Figures) -> str:
    """D: this toolkit in float32, bfloat16 and int8."""
    works = [Work(shape, tokens=arguments.tokens, threads=arguments.threads) for shape in arguments.shapes]
    labels = list(arguments.shapes)
    if arguments.data:
        works.append(replace(record_work(arguments), decode_dtype="float32"))
        labels.append(f"{arguments.records} records")
    found = runner.interleave(
        [Job(PROGRAMS["ours"], replace(work, decode_dtype=dtype)) for work in works for dtype in DTYPES]
    )
    rows = []
    for number, (label, figures) in enumerate(zip(sorted(labels * len(DTYPES), key=labels.index), found, strict=True)):
        full = found[number - number % len(DTYPES)]
        row = [label, DTYPES[number % len(DTYPES)], *([] if full and figures else ["failed"])]
        if full and figures:
            texts, tokens = agreement(full["outputs"], figures["outputs"])
            row += [f"{figures['seconds']:.2f}", f"{full['seconds'] / figures['seconds']:.2f}"]
            row += [f"{figures['memory']:.2f}", f"{texts:.1%}", f"{tokens:.1%}"]
        rows.append(row)
    headings = ["work", "dtype", "seconds", "times faster", "peak GiB", "equal texts"]
    headings += ["equal tokens (of records: characters)"]
    return f"### D. This toolkit in fewer bits, against float32\n\n{markdown(headings, rows)}"


def agreement(ours: list[list[int]], others: list[list[int]]) -> tuple[float, float]:
    """The share of texts that are equal, and of places that hold the same token."""
    pairs = list(zip(ours, others, strict=True))
    same = sum(a == b for one, other in pairs for a, b in zip(one, other, strict=False))
    places = sum(max(len(one), len(other)) for one, other in pairs)
    return sum(one == other for one, other in pairs) / len(pairs), same / max(places, 1)


TABLES = {"A": peers_table, "B": growth_table, "C": records_table, "D": dtype_table}


def parse(argv: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--tables", nargs="+", choices=list(TABLES), help="default: A B D, and C with --data")
    parser.add_argument("--shapes", nargs="+", choices=list(SHAPES), default=["tiny", "base"], help="of A and D")
    parser.add_argument("--growth_shape", choices=list(SHAPES), default="base", help="of B, and of records")
    parser.add_argument("--peers", nargs="+", choices=list(PROGRAMS), default=list(PROGRAMS)[:4], help="of A and C")
    parser.add_argument("--tokens", type=int, default=160, help="generated for each source; 8 or more")
    parser.add_argument("--source", type=int, default=608, help="tokens of a source, of A")
    parser.add_argument("--beams", type=int, default=5, help="of A")
    parser.add_argument("--decode_dtype", choices=DTYPES, default="float32", help="ours, but in D")
    parser.add_argument(
        "--paddlenlp",
        choices=["auto", "full", "steps"],
        default="auto",
        help="PaddleNLP in A: all steps, or prefill and 3 of them; auto takes all at tiny only",
    )
    parser.add_argument("--data", help="JSON lines with context, answer, question")
    parser.add_argument("--tokenizer", help="SentencePiece model, needed with --data")
    parser.add_argument("--checkpoint", help="trained weights for --data in place of random ones")
    parser.add_argument("--records", type=int, default=64, help="first records of --data")
    add_options(parser)
    arguments = parser.parse_args(argv)
    arguments.tables = arguments.tables or (["A", "B", "C", "D"] if arguments.data else ["A", "B", "D"])
    if ("C" in arguments.tables and not arguments.data) or bool(arguments.data) != bool(arguments.tokenizer):
        parser.error("table C needs --data, and --data goes with --tokenizer")
    if arguments.tokens < 8:
        parser.error("--tokens: use 8 or more")
    return arguments


if __name__ == "__main__":
    options = parse(sys.argv[1:])
    sys.exit(print_tables(options, TABLES))
