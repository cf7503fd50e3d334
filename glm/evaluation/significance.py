"""Tests whether one set of predictions is better than another: paired bootstrap and paired permutation test over
records."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from glm.evaluation.metrics import figures_of_sums
from glm.evaluation.statistics import COUNTS, Pair, statistics
from glm.evaluation.trials import figures_of_trials

RESAMPLES = 1000  # of the bootstrap, as sacrebleu
PERMUTATIONS = 10_000  # as sacrebleu
CHUNK = 50  # trials drawn at once

_SAME = ("empty references", "records")  # figures that are equal in both, by what is compared


@dataclass(frozen=True)
class Difference:
    """A figure of two sets of predictions.

    Args:
        first, second: the figure of each.
        low, high: 95 % interval of second - first, by paired bootstrap (percentiles; Koehn 2004).
        p_value: share of random exchanges of the two predictions of records that differ at least as much (paired
            permutation test, also called approximate randomization; Riezler and Maxwell 2005).
    """

    first: float
    second: float
    low: float
    high: float
    p_value: float

    @property
    def difference(self) -> float:
        """second - first."""
        return self.second - self.first


def table_of_statistics(pairs: Iterable[Pair]) -> np.ndarray:
    """Returns [N, C + M] float64: `COUNTS` and `VALUES` of each of N records."""
    return np.array([np.concatenate([found.counts, found.values]) for found in map(statistics, pairs)])


def compare(
    first: np.ndarray,
    second: np.ndarray,
    *,
    seed: int,
    figures: Callable[[np.ndarray], dict[str, float]] | None = None,
) -> dict[str, Difference]:
    """Compares every figure of two sets of predictions for the same records.

    Distinct-n is left out: a record that is drawn twice adds no new n-gram, so its bootstrap is biased.

    Args:
        first, second: [N, C + M] from `table_of_statistics`; row i of both is the same record.
        seed: seed of the random draws.
        figures: computes figures from sums over rows, where the columns are not those of `table_of_statistics`.

    Returns:
        The difference by name of the figure. Equal arguments give equal results.
    """
    of_trials = figures_of_trials if figures is None else _one_by_one(figures)
    figures = figures or _figures
    streams = np.random.default_rng(seed).spawn(2)
    of_first, of_second = (figures(table.sum(axis=0)) for table in (first, second))
    names = [name for name in of_first if name in of_second and name not in _SAME]
    observed = _vector(of_second, names) - _vector(of_first, names)
    resampled = _differences(_resample(first, second, streams[0]), of_trials, names, RESAMPLES, "bootstrap")
    low, high = np.percentile(resampled, [2.5, 97.5], axis=0)
    permuted = _differences(_permute(first, second, streams[1]), of_trials, names, PERMUTATIONS, "permutation test")
    # With the tolerance, a trial that exchanged nothing, or everything, equals the observed difference.
    as_large = (np.abs(permuted) >= np.abs(observed) - 1e-9).sum(axis=0)
    p_values = (as_large + 1) / (PERMUTATIONS + 1)
    rows = zip(names, low.tolist(), high.tolist(), p_values.tolist(), strict=True)
    return {name: Difference(of_first[name], of_second[name], lower, upper, p) for name, lower, upper, p in rows}


def _figures(sums: np.ndarray) -> dict[str, float]:
    return figures_of_sums(np.rint(sums[: len(COUNTS)]), sums[len(COUNTS) :])


def _vector(figures: dict[str, float], names: Sequence[str]) -> np.ndarray:
    return np.array([figures.get(name, 0.0) for name in names])  # a resample may hold no record with an answer


def _one_by_one(figures: Callable[[np.ndarray], dict[str, float]]) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """Makes of the figures of one sum those of many, [T] each."""

    def of_trials(sums: np.ndarray) -> dict[str, np.ndarray]:
        found = [figures(trial) for trial in sums]
        names = {name for of_trial in found for name in of_trial}
        return {name: np.array([of_trial.get(name, 0.0) for of_trial in found]) for name in names}

    return of_trials


def _differences(
    trials: Iterator[tuple[np.ndarray, np.ndarray]], of_trials: Callable, names, count: int, description: str
) -> np.ndarray:
    """Returns second - first of each trial, [count, F]; a trial gives the sums of both."""
    drawn = tqdm(trials, total=count, desc=description, unit="trial", disable=None, leave=False)
    first, second = (of_trials(np.array(sums)) for sums in zip(*drawn, strict=True))
    nothing = np.zeros(count)
    return np.stack([second.get(name, nothing) - first.get(name, nothing) for name in names], axis=1)


def _resample(first: np.ndarray, second: np.ndarray, random: np.random.Generator):
    """Draws N records with replacement, the same for both sets, and returns the sums."""
    records = len(first)
    for _ in range(RESAMPLES):
        drawn = np.bincount(random.integers(records, size=records), minlength=records)
        yield drawn @ first, drawn @ second


def _permute(first: np.ndarray, second: np.ndarray, random: np.random.Generator):
    """Exchanges the two predictions of each record with probability 1/2, and returns the sums."""
    change = second - first
    sums = first.sum(axis=0), second.sum(axis=0)
    for _ in range(0, PERMUTATIONS, CHUNK):
        tosses = random.integers(2, size=(CHUNK, len(first)), dtype=np.int8)
        for exchanged in tosses.astype(np.float64) @ change:
            yield sums[0] + exchanged, sums[1] - exchanged
