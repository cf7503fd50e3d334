"""What is chosen among, the same for every program, and how a program is timed. NumPy only."""

import json
import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from time import perf_counter
from typing import Any

import numpy as np
from work import GMASK, SHAPES, WORDS, Shape


@dataclass(frozen=True)
class ChooseWork:
    """One measurement: random weights of a shape, random sources and candidates.

    Args:
        records: of a batch.
        source, candidates, pieces: ids of a source, its candidates, and ids of each of these.
    """

    shape: str
    records: int = 8
    source: int = 300
    candidates: int = 4
    pieces: int = 8
    threads: int = 2

    @property
    def size(self) -> Shape:
        """The shape itself."""
        return SHAPES[self.shape]

    def tables(self) -> tuple[np.ndarray, np.ndarray]:
        """Sources [records, source] with a blank near their end, and candidates [records, candidates, pieces]."""
        random = np.random.default_rng(0)
        sources = random.integers(*WORDS, size=(self.records, self.source))
        sources[:, -2] = GMASK
        return sources, random.integers(*WORDS, size=(self.records, self.candidates, self.pieces))


def run(build: Callable[[ChooseWork], Callable[[], Any]], packages: list[str]) -> None:
    """The main function of every program: builds, warms up, measures, prints one line of JSON.

    Args:
        build: gives a function that returns the log-probability of each candidate: [records, candidates].
    """
    work = ChooseWork(**json.loads(sys.argv[1]))
    score = build(work)
    score()
    start = perf_counter()
    found = np.asarray(score())
    figures = {"seconds": perf_counter() - start}
    if found.shape != (work.records, work.candidates) or not np.isfinite(found).all():
        raise RuntimeError(f"a score for each of {work.records} x {work.candidates} candidates is expected")
    figures["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # KiB -> GiB
    print(json.dumps(figures | {"versions": {name: version(name) for name in packages}}), flush=True)
