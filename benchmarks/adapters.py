"""What residual adapters cost, at GPT-2 small's shape with random weights on a CPU, beside transformers' GPT-2.

python benchmarks/adapters.py --threads 2 --peer_python .venv-bench/bin/python

A process per measurement, one after another, the sides in turn, the run of median time: greedy decoding of a batch of
16 (prompts of 30 tokens, 30 generated) without a task, of one task, and of five tasks in one batch, residual or LoRA
of rank 8 on every linear of a block; transformers' with its cache, 16 at once, and without, one at a time, which
stands in for VLM's own program; and a training step of 4 examples of 128 tokens, half of them labelled, of the whole
model and of one task's adapter.
"""

import argparse
import json
import os
import resource
import shlex
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PEER = ROOT / "benchmarks" / "peers" / "gpt2.py"
WIDTHS = [300, 100, 100, 300, 10]  # VLM's, by number of the task
DECODING = ("none", "one", "five", "lora", "five loras")
PEERS = {"cached": "transformers, 16 at once", "plain": "transformers without a cache, 1 at once"}
TRAINING = ("full", "adapter")
TABLES = {"decoding": ("none", "one", "five", *PEERS), "lora": ("none", "lora", "five loras"), "training": TRAINING}


def main() -> None:
    """Measures, and prints a table each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", default="2")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--peer_python", help="with torch and transformers; without it there are no peers")
    parser.add_argument("--one", choices=(*DECODING, *TRAINING), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps((decode if arguments.one in DECODING else train)(arguments.one)))
        return
    for table in arguments.tables:
        kinds = [kind for kind in TABLES[table] if arguments.peer_python or kind not in PEERS]
        found: dict[str, list[dict[str, float]]] = {kind: [] for kind in kinds}
        for _ in range(arguments.repeats):
            for kind in kinds:
                found[kind].append(measured(kind, arguments))
        print_table(found, unit="s a step" if table == "training" else "s a record")


def print_table(found: dict[str, list[dict[str, float]]], *, unit: str) -> None:
    """Medians of each kind, and how they compare with the first."""
    print(f"| | {unit} | least to most | of the first | peak GB | of the first |\n|---|---|---|---|---|---|")
    medians = {kind: {name: middle(runs, name) for name in ("seconds", "gigabytes")} for kind, runs in found.items()}
    first = next(iter(medians.values()))
    for kind, median in medians.items():
        seconds = sorted(run["seconds"] for run in found[kind])
        cells = [PEERS.get(kind, kind), f"{median['seconds']:.4f}", f"{seconds[0]:.4f} to {seconds[-1]:.4f}"]
        for name in ("seconds", "gigabytes"):
            cells += [] if name == "seconds" else [f"{median[name]:.2f}"]
            cells.append(f"{median[name] / first[name]:.2f}")
        print(f"| {' | '.join(cells)} |", flush=True)
    print()


def middle(runs: list[dict[str, float]], name: str) -> float:
    """The median of a figure."""
    return statistics.median(run[name] for run in runs)


def measured(kind: str, arguments: argparse.Namespace) -> dict[str, float]:
    """Runs one measurement in a process of its own."""
    command = [sys.executable, __file__, "--one", kind]
    if kind in PEERS:
        command = [arguments.peer_python, str(PEER), kind]
    environment = {**os.environ, "OMP_NUM_THREADS": arguments.threads, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{shlex.join(command)}: {done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def build(kind: str):
    """A model of GPT-2 small's shape; with adapters of five tasks where they are measured."""
    import glm.runtime.environment  # noqa: F401
    from glm.models.vlm.configuration import VLMConfig
    from glm.models.vlm.modeling import VLMForConditionalGeneration
    from glm.runtime.device import prepare

    prepare("cpu")
    dropout = dict.fromkeys(("embedding_dropout_prob", "attention_dropout_prob", "output_dropout_prob"), 0.1)
    widths = WIDTHS if kind in ("one", "five", "adapter") else []
    return VLMForConditionalGeneration(VLMConfig(bottlenecks=widths, **dropout))


def decode(kind: str) -> dict[str, float]:
    """Seconds a record; texts never end, so that all are of one length."""
    import numpy as np

    from glm.generation.config import GenerationConfig
    from glm.generation.search import generate
    from glm.models.vlm.geometry import Prompt
    from glm.modules.decoding import prepare_decoding

    model = build(kind)
    prepare_decoding(model, "float32", "cpu")
    numbers = np.random.default_rng(0)
    tasks = [0, 1, 2, 3, 4] if kind.startswith("five") else [-1 if kind == "none" else 0]
    if "lora" in kind:
        add_loras(model, len(tasks))
    segments = np.full(30, 50269)
    prompts = [
        Prompt(numbers.integers(0, 50000, 30), segments, tasks[place % len(tasks)], 0, 30) for place in range(16)
    ]
    config = GenerationConfig(tgt_length=31, min_tgt_length=30, num_beams=1, no_repeat_ngram_size=0)
    how = {"end_token_id": 50256, "banned_token_ids": list(range(50257, 50287))}
    list(generate(model, prompts, config, batch_size=16, **how))
    start = time.perf_counter()
    list(generate(model, prompts, config, batch_size=16, **how))
    return {"seconds": (time.perf_counter() - start) / len(prompts), "gigabytes": peak()}


def add_loras(model, count: int) -> None:
    """Matrices of rank 8 beside all linears of the blocks, for so many tasks."""
    import numpy as np

    from glm.adapters.bottleneck import place_tasks
    from glm.models.vlm import FAMILY
    from glm.models.vlm.tokenization import TASKS
    from glm.modules.low_rank import add_low_rank

    numbers, names = np.random.default_rng(1), list(TASKS)[:count]
    place_tasks(model, names)
    shapes = FAMILY.weights.shapes(model.config.to_dict())
    linears = {
        name.removesuffix(".weight"): shape
        for name, shape in shapes.items()
        if name.removesuffix(".weight").rpartition(".")[2] in FAMILY.weights.lora_targets
    }
    for name in names:
        pairs = {
            layer: tuple(numbers.normal(0, 0.02, part).astype(np.float32) for part in ((rows, 8), (8, columns)))
            for layer, (rows, columns) in linears.items()
        }
        add_low_rank(model, model.stacks[0], name, pairs)


def train(kind: str) -> dict[str, float]:
    """Seconds of a step with AdamW, the median of five."""
    import numpy as np
    import paddle

    from glm.modules.trained_rows import TrainedRows

    model = build(kind)
    model.train()
    if kind == "adapter":
        for name, weight in model.named_parameters():
            weight.stop_gradient = ".adapters.mt." not in name
        model.head.embedding.rows = TrainedRows(model.head.embedding.weight, {"mt": [50268, 50269, 50270, 50271]})
    weights = [weight for weight in model.parameters() if not weight.stop_gradient]
    optimizer = paddle.optimizer.AdamW(1e-4, parameters=weights, weight_decay=0.0)
    numbers = np.random.default_rng(0)
    ids = numbers.integers(0, 50000, (4, 128))
    labels = np.where(np.arange(128) < 64, -100, ids)
    batch = {"input_ids": ids, "segment_ids": np.full(ids.shape, 50270), "labels": labels}
    batch |= {"lengths": np.full((4, 1), 128), "tasks": np.full((4, 1), 0 if kind == "adapter" else -1)}
    batch = {name: paddle.to_tensor(table) for name, table in batch.items()}
    seconds = []
    for _ in range(6):
        start = time.perf_counter()
        model(**batch).backward()
        optimizer.step()
        optimizer.clear_grad(set_to_zero=False)
        seconds.append(time.perf_counter() - start)
    return {"seconds": statistics.median(seconds[1:]), "gigabytes": peak()}


def peak() -> float:
    """The process's largest resident set."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    main()
