"""What is trained, and how each program is timed: the work comes in as JSON, the figures go out as one line of JSON.

Every program `peers/train_*.py` is run by `train.py` as `python peers/train_NAME.py WORK`. NumPy only: this file runs
in the toolkit's environment and in that of its peers.
"""

import json
import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from time import perf_counter

import numpy as np
from work import GMASK, SHAPES, VOCABULARY, WORDS, Shape

LEARNING_RATE, WEIGHT_DECAY, MAX_GRAD_NORM = 1e-4, 0.1, 1.0


@dataclass(frozen=True)
class TrainWork:
    """One measurement: random weights of a shape take AdamW steps on random examples, or on those of a file.

    Args:
        shape: a name in SHAPES.
        dropout: of embeddings, attention and residual branches.
        batch, source, target: examples of a step, and tokens of each.
        warm_up, steps: steps that do not count, and steps that do.
        label_smoothing: of every second step that counts (the first of a pair has none), if it is not 0.
        recompute: activations of no layer are kept.
        dtype: `float32`, or `bfloat16` for products of float32 weights: `--bf16`, torch's autocast.
        data, tokenizer: JSON lines and SentencePiece model, if the examples are those of a file.
        records: of the file, evenly spread over it.
        max_tokens: of a batch of records, in place of `batch` of them.
    """

    shape: str
    dropout: float = 0.1
    batch: int = 2
    source: int = 608
    target: int = 160
    warm_up: int = 5
    steps: int = 3
    threads: int = 2
    label_smoothing: float = 0.0
    recompute: bool = False
    dtype: str = "float32"
    data: str | None = None
    tokenizer: str | None = None
    records: int = 0
    max_tokens: int | None = None

    @property
    def size(self) -> Shape:
        """The shape itself."""
        return SHAPES[self.shape]

    def settings(self) -> dict[str, float]:
        """Of the configuration of a GLM, here and in PaddleNLP."""
        dropout = dict.fromkeys(
            ("attention_dropout_prob", "embedding_dropout_prob", "output_dropout_prob"), self.dropout
        )
        return {**self.size.settings(), "max_sequence_length": 1024, **dropout}

    def tables(self) -> dict[str, np.ndarray]:
        """The same random examples for every program: Part A with a blank near its end, right behind it Part B.

        Returns:
            input_ids [B, L], position_ids [B, 2, L], labels [B, L] (-100 in Part A), segments [B, 1, 2].
        """
        random = np.random.default_rng(0)
        B, S, T = self.batch, self.source, self.target
        ids = random.integers(*WORDS, size=(B, S + T))
        ids[:, S - 2] = GMASK
        labels = np.full((B, S + T), -100)
        labels[:, S:] = random.integers(*WORDS, size=(B, T))
        places = np.concatenate([np.arange(S), np.full(T, S - 2)])
        blocks = np.concatenate([np.zeros(S, int), np.arange(1, T + 1)])
        return {
            "input_ids": ids,
            "position_ids": np.tile(np.stack([places, blocks]), (B, 1, 1)),
            "labels": labels,
            "segments": np.tile([[S, T]], (B, 1, 1)),
        }

    def operations(self) -> float:
        """Multiplications and additions of the products of a step: forward once, backward twice."""
        size, tokens = self.size, self.batch * (self.source + self.target)
        blocks = 2 * tokens * size.layers * 12 * size.hidden**2
        own_past = self.source + (self.target + 1) / 2  # keys that a query of Part B sees, on average
        scores = self.batch * (self.source**2 + self.target * own_past)
        attention = 4 * scores * size.hidden * size.layers
        head = 2 * self.batch * self.target * VOCABULARY * size.hidden
        return (4 if self.recompute else 3) * (blocks + attention) + 3 * head


Step = Callable[[float], object]


def run(build: Callable[[TrainWork], Step], packages: list[str]) -> None:
    """The main function of every program that takes steps on random examples: prints one line of JSON.

    Args:
        build: makes the model and returns what takes a step, given the label smoothing.
        packages: whose versions are reported.
    """
    work = TrainWork(**json.loads(sys.argv[1]))
    start = perf_counter()
    step = build(work)
    built = perf_counter()
    for _ in range(work.warm_up):
        step(work.label_smoothing)
    warm = perf_counter()
    plain, smoothed = [], []
    for number in range(work.steps):
        if not work.label_smoothing:
            plain.append(seconds(step, 0.0))
        elif number % 2:  # either goes first in turn
            smoothed.append(seconds(step, work.label_smoothing))
            plain.append(seconds(step, 0.0))
        else:
            plain.append(seconds(step, 0.0))
            smoothed.append(seconds(step, work.label_smoothing))
    figures = {"seconds": float(np.median(plain)), "steps": plain, "build": built - start, "warm_up": warm - built}
    if smoothed:
        figures |= {"smoothed": float(np.median(smoothed)), "smoothed_steps": smoothed}
    report(figures, packages)


def seconds(step: Step, label_smoothing: float) -> float:
    """Seconds of a step."""
    start = perf_counter()
    step(label_smoothing)
    return perf_counter() - start


def report(figures: dict, packages: list[str]) -> None:
    """Prints figures, peak memory and versions as one line of JSON."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # KiB -> GiB
    versions = {name: version(name) for name in packages}
    print(json.dumps(figures | {"memory": peak, "versions": versions}), flush=True)
