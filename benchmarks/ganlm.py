"""Times GanLM's decoding and training against other programs; prints Markdown tables.

python benchmarks/ganlm.py --tables decode train --output tables.md      (peers as of benchmarks/decode.py)
python benchmarks/ganlm.py --tables demo      the demo with three losses, and with the generator's alone as long
"""

import argparse
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from time import perf_counter

from ganlm_work import SIZES, GanLMWork
from running import Figures, Job, Program, Runner, add_options, markdown, print_tables, seconds

OURS, OURS_TRAIN = Program("ganlm_decode.py", "this toolkit"), Program("ganlm_train.py", "this toolkit")
BART = Program("bart.py", "transformers BART, cache", foreign=True)
TORCH = Program("ganlm_torch.py", "plain torch GanLM", foreign=True)
DECODERS = {"ours": OURS, "bart": BART, "torch": TORCH}
SOURCES = (4, 16)  # of the table of decoding
MOST_WITHOUT_CACHE = 4  # sources; more take it minutes
ROOT = Path(__file__).resolve().parents[1]
DEMO = Path("configs", "ganlm", "demo.json")
GENERATOR_EPOCHS = 1.7  # of the generator's loss alone in the time of one with three losses
FIGURE = "bleu-4 (char, corpus)"


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


def demo_table(runner: Runner, arguments: argparse.Namespace, machine: Figures) -> str:
    """The demo from each seed: three losses, and the generator's alone in as many more epochs as it is faster."""
    three = json.loads((ROOT / DEMO).read_text(encoding="utf-8"))["num_train_epochs"]
    alone = round(three * GENERATOR_EPOCHS)
    kinds = {"three": ("both", three), "the generator's": ("generator", alone)}
    rows = []
    for seed in arguments.seeds:
        for losses, (start, epochs) in kinds.items():
            output = f"runs/demo-ganlm-{start}-{seed}"
            options = {"start": start, "num_train_epochs": epochs, "seed": seed, "output_dir": output}
            taken, used = timed(runner, [f"--{name}={value}" for name, value in options.items()])
            found = json.loads((ROOT / output / "all_results.json").read_text(encoding="utf-8"))
            figures = [
                f"{found['train_runtime']:.0f}",
                f"{taken:.0f}",
                f"{used:.0f}",
                f"{found[f'eval_{FIGURE}']:.1f}",
            ]
            rows.append([losses, str(seed), str(epochs), *figures])
            print(f"  {rows[-1]}", file=sys.stderr, flush=True)
    headings = ["losses", "seed", "epochs", "seconds of training", "seconds", "processor seconds", FIGURE]
    return f"### The demo: `{DEMO}`, dev records\n\n{markdown(headings, rows)}"


def timed(runner: Runner, options: list[str]) -> tuple[float, float]:
    """Runs the demo's training and evaluation with these options: its seconds, and those of all its threads."""
    command = [sys.executable, "finetune_generation.py", str(DEMO), *options]
    begin, before = perf_counter(), os.times()
    done = subprocess.run(command, env=runner.environment, cwd=ROOT, capture_output=True, text=True)
    after = os.times()
    if done.returncode:
        raise SystemExit(f"the demo failed: {done.stderr[-2000:]}")
    used = after.children_user - before.children_user + after.children_system - before.children_system
    return perf_counter() - begin, used


TABLES = {"decode": decode_table, "train": train_table, "demo": demo_table}


def parse(argv: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--tables", nargs="+", choices=list(TABLES), default=["decode", "train"])
    parser.add_argument("--shape", choices=list(SIZES), default="base")
    parser.add_argument("--sources", type=int, nargs="+", default=SOURCES, help="decoded together")
    parser.add_argument("--programs", nargs="+", choices=list(DECODERS), default=list(DECODERS), help="that decode")
    parser.add_argument("--steps", type=int, default=3, help="of training that are timed")
    parser.add_argument("--seeds", type=int, nargs="+", default=(42, 1, 2), help="of the demo")
    add_options(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    options = parse(sys.argv[1:])
    sys.exit(print_tables(options, TABLES))
