"""Mixes several data sets in one run: their names, and how often each is read. Knows neither records nor models.

A data set is given as `NAME=PATH`. What an epoch has of each set, and in which order, is a function of seed and epoch
alone, so that an interrupted run goes on with the same data, on any number of processes.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from glm.errors import UsageError

NAME = re.compile(r"[^\W_][\w.+-]*")  # `en`, `zh-CN`, `xnli_zh`: without characters that only paths have


@dataclass(frozen=True)
class NamedFile:
    """A data file, with a name if it has one.

    Args:
        name: what tables and logs call it; empty where there is only one, and it has none.
        path: None for a published data set.
    """

    name: str
    path: str | None


def named_files(option: str, given: str | Sequence[str] | None) -> tuple[NamedFile, ...]:
    """Parses the files of an option: `NAME=PATH`, or `PATH`.

    Several files without a name are called by what their names do not share: `dev.en.json dev.zh.json` are en and zh.

    Args:
        option: for messages.
        given: its value or values; None for a published data set.

    Raises:
        UsageError: two have the same name, or some of several have none.
    """
    values = [given] if given is None or isinstance(given, str) else list(given)
    files = [named_file(value) for value in values]
    if len(files) > 1 and not any(file.name for file in files):
        names = _distinct_parts([file.path for file in files])
        files = [NamedFile(name, file.path) for name, file in zip(names, files, strict=True)]
    for file in files:
        if len(files) > 1 and not file.name:
            raise UsageError(f"{option} {file.path}: has no name beside the others; write NAME={file.path}")
        if len({other.path for other in files if other.name == file.name}) > 1:
            paths = " and ".join(str(other.path) for other in files if other.name == file.name)
            raise UsageError(f"{option} {file.name}: is the name of {paths}; write NAME=PATH, each with its own name")
    if len({file.name for file in files}) < len(files):
        raise UsageError(f"{option} {' '.join(map(str, values))}: one of them stands twice")
    return tuple(files)


def named_file(value: str | None) -> NamedFile:
    """Parses `NAME=PATH` or `PATH`."""
    name, mark, path = (value or "").partition("=")
    if value is None or not mark or not NAME.fullmatch(name) or Path(value).exists():
        return NamedFile("", value)
    return NamedFile(name, path)


def _distinct_parts(paths: Sequence[str]) -> list[str]:
    """Returns the parts of each file's name that not all files share; for equal names those of their folders."""
    names = [Path(path).name for path in paths]
    if len(set(names)) < len(names):
        names = [Path(path).parent.name for path in paths]
    parts = [[part for part in re.split(r"[._-]", name) if part] for name in names]
    shared = set.intersection(*map(set, parts))
    return ["-".join(part for part in own if part not in shared) for own in parts]


# -- how often each set is read


def probabilities(sizes: Sequence[float], temperature: float, *, limit: float | None = None) -> np.ndarray:
    """Returns the probability of each set: n^T / sum of n^T (1: in proportion to size, 0: all equal).

    Source: THUDM/Multilingual-GLM, data_utils/datasets.py; Conneau et al. 2020, section 3.1.

    Args:
        sizes: n of each set.
        temperature: T, from 0 to 1.
        limit: no size counts for more.

    Returns:
        [sets], their sum 1.

    Raises:
        ValueError: a size is not positive, or the temperature out of range.
    """
    numbers = np.asarray(sizes, np.float64)
    if not len(numbers) or not (np.isfinite(numbers).all() and (numbers > 0).all()):
        raise ValueError(f"sizes {list(sizes)}: all must be above 0")
    if not 0.0 <= temperature <= 1.0:
        raise ValueError(f"temperature {temperature}: use 0 to 1")
    if limit is not None:
        numbers = np.minimum(numbers, limit)
    powers = numbers**temperature
    return powers / powers.sum()


def times_read(sizes: Sequence[float], shares: Sequence[float], *, fraction: float = 1.0) -> np.ndarray:
    """Returns how many times an epoch reads each set, given as a fraction of all examples.

    Args:
        sizes: sizes of each set.
        shares: share that each set has of the epoch, such as `probabilities`.

    Returns:
        [sets]
    """
    numbers = np.asarray(sizes, np.float64)
    return fraction * np.asarray(shares, np.float64) / (numbers / numbers.sum())


class Mixture:
    """Chooses the examples of an epoch, as indices into all sets, one set after the other.

    Without shares an epoch has every example once. With them it is as long, and each set has its share of it: a set
    is read over and over, each time in another order, and an epoch goes on where the one before it ended.

    Args:
        sizes: examples of each set.
        shares: share that each set has of an epoch, or None; any positive numbers.
        seed: seed of the orders.
    """

    def __init__(self, sizes: Sequence[int], shares: Sequence[float] | None = None, *, seed: int = 0):
        self.sizes = list(sizes)
        self.starts = [sum(self.sizes[:place]) for place in range(len(self.sizes))]
        self.seed = seed
        self.counts = self.sizes if shares is None else apportion(sum(self.sizes), shares)
        self.is_whole = shares is None

    def __len__(self) -> int:
        """Examples of an epoch."""
        return sum(self.counts)

    def epoch(self, number: int) -> np.ndarray:
        """[examples of an epoch] indices, set by set."""
        if self.is_whole:
            return np.arange(len(self))
        return np.concatenate([self._of_set(place, number) for place in range(len(self.sizes))])

    def _of_set(self, place: int, epoch: int) -> np.ndarray:
        """[count] indices: the next ones of a set that is read over and over."""
        size, count = self.sizes[place], self.counts[place]
        start, stop = epoch * count, (epoch + 1) * count
        rounds = range(start // size, -(-stop // size))
        orders = [np.random.default_rng([self.seed, place, number]).permutation(size) for number in rounds]
        found = np.concatenate([np.empty(0, np.int64), *orders])[start - rounds.start * size :][:count]
        return self.starts[place] + found


def apportion(total: int, shares: Sequence[float]) -> list[int]:
    """Divides a total into whole numbers in proportion to shares; the largest remainders are rounded up.

    Raises:
        ValueError: a share is not positive.
    """
    numbers = np.asarray(shares, np.float64)
    if not (np.isfinite(numbers).all() and (numbers > 0).all()):
        raise ValueError(f"shares {list(shares)}: all must be above 0")
    exact = total * numbers / numbers.sum()
    counts = np.floor(exact).astype(int)
    remainders = np.argsort(-(exact - counts), kind="stable")
    counts[remainders[: total - counts.sum()]] += 1
    return counts.tolist()


def parse_weights(text: str) -> list[float]:
    """Parses `2,1` (`--weights`).

    Raises:
        UsageError: one of them is no number above 0.
    """
    try:
        weights = [float(part) for part in text.split(",")]
    except ValueError:
        weights = [math.nan]
    if not all(0.0 < weight < math.inf for weight in weights):
        raise UsageError(f"weights {text}: write a number above 0 for each train_file, joined by commas")
    return weights


def check_shares(weights: str | None, temperature: float | None, *, count: int, one: str, several: str) -> None:
    """Checks `--weights` and `--sampling_temperature` against the number of sets.

    Args:
        count: number of sets.
        one, several: what a message calls a single set, and several.

    Raises:
        UsageError: one of them is out of its range, or has no effect.
    """
    if weights is not None and temperature is not None:
        raise UsageError(f"weights {weights}: has no effect beside sampling_temperature; leave one out")
    for name, value in (("weights", weights), ("sampling_temperature", temperature)):
        if value is not None and count < 2:
            raise UsageError(f"{name} {value}: has no effect with one {one}; leave it out")
    if weights is not None and len(parse_weights(weights)) != count:
        raise UsageError(f"weights {weights}: one for each of the {count} {several} is expected")
    if temperature is not None and not 0.0 <= temperature <= 1.0:
        raise UsageError(f"sampling_temperature {temperature}: use 0 to 1")


def given_shares(sizes: Sequence[int], weights: str | None, temperature: float | None) -> list[float] | None:
    """Returns each set's share of an epoch by the options of `check_shares`; None if all of each is read."""
    if weights is not None:
        return parse_weights(weights)
    return None if temperature is None else probabilities(sizes, temperature).tolist()
