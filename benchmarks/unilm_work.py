"""What a UniLM decodes and is trained on: the work comes in as JSON, the figures go out as one line of JSON.

NumPy only: this file runs in the toolkit's environment and in that of its peers.
"""

import json
import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from time import perf_counter

import numpy as np
from work import SHAPES, Shape

VOCABULARY, POSITIONS = 21128, 512  # of Chinese BERTs
PAD, CLS, SEP, MASK = 0, 101, 102, 103
WORDS = (672, 7992)  # ids of Chinese characters, which texts are drawn from
MASK_PROB, MOST_PREDICTED = 0.2, 20


@dataclass(frozen=True)
class UniLMWork:
    """One measurement: random weights of a shape decode random sources, or take training steps on random pairs.

    Args:
        shape: a name in SHAPES.
        trains: training steps, in place of decoding.
        batch: sources decoded together, or pairs of a step.
        source: S, tokens of each source, [CLS] and [SEP] among them.
        tokens: T, generated for each source; decoding only.
        beams: K.
        width: most tokens of a pair, padding included; training only.
        lengths: of source and target of each pair with their special tokens, if not all have the width.
        steps: training steps that count, behind one that does not.
    """

    shape: str = "base"
    trains: bool = False
    batch: int = 32
    source: int = 62
    tokens: int = 32
    beams: int = 3
    width: int = 128
    lengths: tuple[tuple[int, int], ...] = ()
    steps: int = 1
    threads: int = 2

    @property
    def size(self) -> Shape:
        """The shape itself."""
        return SHAPES[self.shape]

    def sources(self) -> np.ndarray:
        """The same random ids for every program: [B, S]."""
        sources = np.random.default_rng(0).integers(*WORDS, size=(self.batch, self.source))
        sources[:, 0], sources[:, -1] = CLS, SEP
        return sources

    def pairs(self) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """The same pairs for every program: source ids, target ids, and places in the row that are predicted."""
        random, pairs = np.random.default_rng(0), []
        lengths = self.lengths or [(self.width - 32, 32)] * self.batch
        for S, T in lengths:
            source, target = random.integers(*WORDS, size=S), random.integers(*WORDS, size=T)
            source[0], source[-1], target[-1] = CLS, SEP, SEP
            count = min(MOST_PREDICTED, max(1, round((T - 1) * MASK_PROB)))
            pairs.append((source, target, np.sort(S + random.choice(T, count, replace=False))))
        return pairs


def run(measure: Callable[[UniLMWork], list[float]], packages: list[str]) -> None:
    """Measures the work on the command line, and prints the median of its seconds and what it took."""
    settings = json.loads(sys.argv[1])
    settings["lengths"] = tuple(map(tuple, settings["lengths"]))
    durations = measure(UniLMWork(**settings))
    figures = {
        "seconds": float(np.median(durations)),
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "versions": {name: version(name) for name in packages},
    }
    print(json.dumps(figures))


def timed(function: Callable[[], object]) -> float:
    """Seconds of a call."""
    start = perf_counter()
    function()
    return perf_counter() - start
