"""Runs training and decoding many times beside a load, with several numbers of threads and other places in memory, and
compares bits.

python benchmarks/same_bits.py --runs 50 --threads 1 2 3 --load 8      (see benchmarks/README.md)
"""

import argparse
import contextlib
import hashlib
import json
import os
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
HEAD_SIZE = 64
SIZES = {"num_layers": 2, "vocab_size": 4032, "max_sequence_length": 300}
EXAMPLES, SOURCE, TARGET = 8, 90, 33  # of a training batch
STEPS = 2
TARGETS = "query_key_value|dense|dense_h_to_4h|dense_4h_to_h"  # linear layers that LoRA adapts
SOURCES = (7, 61, 150, 200)  # tokens of the prompts that are decoded
# How glibc hands out memory, in turn: as always; without its short lists, so that neighbours are others; from one heap
# to all threads; both.
SHORT, ONE = "glibc.malloc.tcache_count=0:glibc.malloc.mxfast=0", "glibc.malloc.arena_max=1"
MEMORY = ("", SHORT, ONE, f"{SHORT}:{ONE}")
# Works at and sleeps for times of no pattern, on numbers that do not fit into a core's own cache.
BUSY = """
import numpy as np, os, time
random, table = np.random.default_rng(os.getpid()), np.ones((1 << 20, 4))
while os.getppid() == {parent}:
    for _ in range(random.integers(1, 40)): table *= 1.0000001
    time.sleep(random.random() / 50)
"""


def main() -> int:
    """Runs everything and prints a table; 1 if bits differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=50, help="Of each work with each number of threads.")
    parser.add_argument("--in_process", type=int, default=5, help="Runs in one process, one after another.")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--load", type=int, default=8, help="Processes that keep the machine busy.")
    parser.add_argument(
        "--hidden_size", type=int, default=256, help="Of the model; heads have 64 where it has as many."
    )
    parser.add_argument("--work", help=argparse.SUPPRESS)
    values = parser.parse_args()
    SIZES["hidden_size"], SIZES["num_attention_heads"] = values.hidden_size, max(1, values.hidden_size // HEAD_SIZE)
    if values.work:
        print(json.dumps(list(works(values.in_process))))
        return 0
    found: dict[tuple[str, int], Counter[str]] = defaultdict(Counter)
    with loaded(values.load):
        for process in range(-(-values.runs // values.in_process)):
            for threads in values.threads:  # in turn, so that each meets the same load
                memory = MEMORY[process % len(MEMORY)]
                for name, digest in digests(values.hidden_size, threads, values.in_process, memory):
                    found[name, threads][digest] += 1
    print("| work | threads | runs | different results | result |\n| --- | --- | --- | --- | --- |")
    for (name, threads), counted in sorted(found.items()):
        print(f"| {name} | {threads} | {counted.total()} | {len(counted)} | {counted.most_common(1)[0][0]} |")
    return int(any(len(counted) > 1 for counted in found.values()))


@contextlib.contextmanager
def loaded(processes: int) -> Iterator[None]:
    """Keeps so many processes busy."""
    code = BUSY.format(parent=os.getpid())
    busy = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()


def digests(hidden_size: int, threads: int, count: int, memory: str) -> list[tuple[str, str]]:
    """Runs every work so often in a process of its own; returns their names and digests.

    Args:
        memory: one of `MEMORY`.
    """
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(ROOT), "GLIBC_TUNABLES": memory}
    command = [sys.executable, __file__, "--work", "all", "--in_process", str(count)]
    command += ["--hidden_size", str(hidden_size)]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return [tuple(pair) for pair in json.loads(done.stdout.splitlines()[-1])]


# -- in the process


def works(count: int) -> Iterator[tuple[str, str]]:
    """Yields each work's name and a digest of every bit of its result."""
    import glm  # noqa: F401  settings that come before Paddle
    from glm.cpu.panels import bfloat16_kernel, integer_kernel
    from glm.runtime.device import prepare
    from glm.runtime.onednn import multiplies_bfloat16

    prepare("cpu")
    # Arrays that lie between others, in each run in other places.
    sizes, apart = np.random.default_rng(os.getpid()), []
    dtypes = ["float32", *["int8"] * bool(integer_kernel()), *["bfloat16"] * bool(bfloat16_kernel())]
    for _ in range(count):
        apart += [np.empty(size, np.uint8) for size in sizes.integers(1, 5000, 200)]
        yield "training, float32", digest(trained())
        yield "training, LoRA", digest(trained(adapted=True))
        if multiplies_bfloat16():
            yield "training, --bf16", digest(trained(in_bfloat16=True))
        for dtype in dtypes:
            yield f"decoding, {dtype}", digest(decoded(dtype))


def digest(arrays: Iterator[np.ndarray]) -> str:
    """The beginning of a SHA-256 of arrays."""
    found = hashlib.sha256()
    for array in arrays:
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()[:12]


def model_of(seed: int):
    """Makes a model with drawn weights, which are the same for a seed."""
    import paddle

    from glm.models.glm.configuration import GLMConfig
    from glm.models.glm.modeling import GLMForConditionalGeneration

    paddle.seed(seed)
    return GLMForConditionalGeneration(GLMConfig(**SIZES))


def trained(*, adapted: bool = False, in_bfloat16: bool = False) -> Iterator[np.ndarray]:
    """Trains with dropout for a few steps; yields losses, and then all weights."""
    import paddle

    from glm.adapters.files import add_adapter, lora_config
    from glm.training.precision import train_in_bfloat16

    model = model_of(1)
    if adapted:
        add_adapter(model, lora_config("x", targets=TARGETS, rank=4, alpha=8, dropout=0.1))
    if in_bfloat16:
        train_in_bfloat16(model)
    model.train()
    clip = paddle.nn.ClipGradByGlobalNorm(1.0)
    optimizer = paddle.optimizer.AdamW(1e-3, parameters=model.parameters(), grad_clip=clip)
    random, places = np.random.default_rng(0), np.arange(SOURCE + TARGET)
    for _ in range(STEPS):
        ids, labels = random.integers(SIZES["vocab_size"], size=(2, EXAMPLES, SOURCE + TARGET))
        labels[:, :SOURCE] = -100
        positions = np.stack([np.minimum(places, SOURCE), np.maximum(places - SOURCE + 1, 0)])
        batch = {
            "input_ids": ids,
            "position_ids": positions[None].repeat(EXAMPLES, 0),
            "segments": np.array([[[SOURCE, TARGET]]] * EXAMPLES),
            "labels": labels,
        }
        loss = model(**{name: paddle.to_tensor(part) for name, part in batch.items()}, label_smoothing=0.1)
        loss.backward()
        optimizer.step()
        optimizer.clear_grad(set_to_zero=False)
        yield loss.numpy()
    for weight in model.parameters():
        yield weight.numpy()


def decoded(dtype: str) -> Iterator[np.ndarray]:
    """Decodes with beam search; yields all beams' tokens and scores."""
    from glm.generation.config import GenerationConfig
    from glm.generation.search import generate
    from glm.models.glm.geometry import BlankInfilling
    from glm.modules.decoding import prepare_decoding

    model, random = model_of(2), np.random.default_rng(0)
    prepare_decoding(model, dtype, "cpu")
    blank, start, end = 0, 1, 2
    geometry = BlankInfilling((blank, blank, blank), start, end)
    sources = [[*random.integers(3, SIZES["vocab_size"], size=size).tolist(), blank] for size in SOURCES]
    config = GenerationConfig(tgt_length=12, num_beams=5)
    found = dict(generate(model, [geometry.prompt(source) for source in sources], config, end_token_id=end))
    for place in sorted(found):
        for hypothesis in found[place]:
            yield np.array(hypothesis.tokens)
            yield np.array(hypothesis.score)


if __name__ == "__main__":
    sys.exit(main())
