"""What residual adapters cost, at GPT-2 small's shape with random weights on a CPU.

python benchmarks/adapters.py --threads 2

A process per measurement, one after another, the sides in turn, the run of median time: greedy decoding of a batch of
16 (prompts of 30 tokens, 30 generated) without a task, of one task, and of five tasks in one batch; and a training
step of 4 examples of 128 tokens, half of them labelled, of the whole model and of one task's adapter.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WIDTHS = [300, 100, 100, 300, 10]  # VLM's, by number of the task
DECODING, TRAINING = ("none", "one", "five"), ("full", "adapter")


def main() -> None:
    """Measures, and prints two tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", default="2")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--one", choices=(*DECODING, *TRAINING), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps((decode if arguments.one in DECODING else train)(arguments.one)))
        return
    for kinds, unit in ((DECODING, "s a record"), (TRAINING, "s a step")):
        found = {kind: [] for kind in kinds}
        for _ in range(arguments.repeats):
            for kind in kinds:
                found[kind].append(measured(kind, arguments.threads))
        print(f"| | {unit} | of the first | peak GB | of the first |\n|---|---|---|---|---|")
        first = [statistics.median(run[name] for run in found[kinds[0]]) for name in ("seconds", "gigabytes")]
        for kind, runs in found.items():
            seconds, memory = (statistics.median(run[name] for run in runs) for name in ("seconds", "gigabytes"))
            print(f"| {kind} | {seconds:.4f} | {seconds / first[0]:.2f} | {memory:.2f} | {memory / first[1]:.2f} |")
        print(flush=True)


def measured(kind: str, threads: str) -> dict[str, float]:
    """Runs one measurement in a process of its own."""
    command = [sys.executable, __file__, "--one", kind]
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def build(kind: str):
    """A model of GPT-2 small's shape; with adapters of five tasks where they are measured."""
    import glm.runtime.environment  # noqa: F401
    from glm.models.vlm.configuration import VLMConfig
    from glm.models.vlm.modeling import VLMForConditionalGeneration
    from glm.runtime.device import prepare

    prepare("cpu")
    dropout = dict.fromkeys(("embedding_dropout_prob", "attention_dropout_prob", "output_dropout_prob"), 0.1)
    widths = [] if kind in ("none", "full") else WIDTHS
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
    tasks = {"none": [-1], "one": [0], "five": [0, 1, 2, 3, 4]}[kind]
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
