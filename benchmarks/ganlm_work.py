"""What the programs compared on GanLM do: the same shape and sources for each, and how a measurement is taken."""

import json
import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from time import perf_counter, process_time

import numpy as np

VOCABULARY = 50_048
WORDS = (100, 50_000)  # ids of words; the others are special ones
EOS, PAD = 2, 1
MASK = 50_000  # ids below it stand for text
WEIGHT_DISCRIMINATOR, WEIGHT_INCONSISTENCY = 5.0, 1.0
LEARNING_RATE, WEIGHT_DECAY, LABEL_SMOOTHING = 1e-4, 0.05, 0.1
WARM_UP = 4  # tokens that are decoded before those that count
SIZES = {  # hidden size, MLP, heads, layers of encoder, generator, discriminator
    "base": (768, 3072, 12, 12, 12, 4),
    "tiny": (128, 512, 2, 2, 2, 1),
}


@dataclass(frozen=True)
class GanLMWork:
    """A measurement.

    Args:
        shape: a key of SIZES.
        decodes: whether it is decoding, or training.
        batch: sources; of decoding together, of training in a batch.
        source, target: tokens of each; decoding writes `target` of them.
        beams: of decoding.
        three: whether training has three losses, or the generator's alone.
        dropout: of training.
        steps: of training that are timed, behind one that is not.
        threads: of products.
    """

    shape: str = "base"
    decodes: bool = True
    batch: int = 4
    source: int = 400
    target: int = 47
    beams: int = 6
    three: bool = True
    dropout: float = 0.1
    steps: int = 3
    threads: int = 2

    def sources(self) -> np.ndarray:
        """[B, S], each closed by `</s>`."""
        ids = np.random.default_rng(0).integers(*WORDS, size=(self.batch, self.source))
        ids[:, -1] = EOS
        return ids

    def targets(self) -> np.ndarray:
        """[B, T], each closed by `</s>`."""
        ids = np.random.default_rng(1).integers(*WORDS, size=(self.batch, self.target))
        ids[:, -1] = EOS
        return ids


def run(build: Callable[[GanLMWork], Callable[..., object]], packages: list[str]) -> None:
    """The main function of every program: builds, warms up, measures, prints one line of JSON.

    Args:
        build: what does the work once: a step; or decoding, of so many tokens as it is given.
        packages: whose versions are reported.
    """
    work = GanLMWork(**json.loads(sys.argv[1]))
    start = perf_counter()
    once = build(work)
    built = perf_counter()
    once(*([WARM_UP] if work.decodes else []))
    warm = perf_counter()
    taken, used = [], process_time()
    for _ in range(1 if work.decodes else work.steps):
        begin = perf_counter()
        once(*([work.target] if work.decodes else []))
        taken.append(perf_counter() - begin)
    figures = {"seconds": float(np.median(taken)), "all": taken, "build": built - start, "warm_up": warm - built}
    figures["cpu"] = (process_time() - used) / len(taken)  # of all threads; says more on a machine that others use
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # KiB -> GiB
    versions = {name: version(name) for name in packages}
    print(json.dumps(figures | {"memory": peak, "versions": versions}), flush=True)
