"""Compares ways of computing the same: what has to agree, within which limits, and what did not.

The reference is the CPU in float32, which the toolkit's tests hold against the originals' figures.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from glm.doctor.runs import Arrays, Outcome, Way, run, tried_family

# Largest allowed differences by kind; see `difference`. The last digits of float32 depend on the order of sums;
# products in the other types have 11 and 8 significant bits.
TOLERANCES = {
    "float32": {"losses": 1e-3, "gradients": 1e-2, "updates": 1e-2, "texts": 1e-2},
    "float16": {"losses": 1e-2, "gradients": 5e-2, "updates": 1e-1, "texts": 1e-1},
    "bfloat16": {"losses": 3e-2, "gradients": 2e-1, "updates": 3e-1, "texts": 3e-1},
}
SMALL = 1e-3  # relative to the largest gradient or update: anything smaller is rounding


@dataclass(frozen=True)
class Finding:
    """The result of a check.

    Args:
        name: name of the check.
        differences: the largest by what was compared; none if it was not made.
        tolerances: what they may be.
        note: why it was not made, or what is wrong beyond numbers.
    """

    name: str
    differences: Mapping[str, float]
    tolerances: Mapping[str, float]
    note: str = ""

    @property
    def was_made(self) -> bool:
        """Whether a comparison was made, or should have been."""
        return bool(self.differences)

    @property
    def wrong(self) -> list[str]:
        """Differences above their limits, NaN included."""
        return [name for name, found in self.differences.items() if not found <= self.tolerances[name]]

    @property
    def holds(self) -> bool:
        """Whether the device passed."""
        return not self.wrong


@dataclass(frozen=True)
class Check:
    """Two ways of computing that have to agree.

    Args:
        missing: why the second cannot be tried here.
    """

    name: str
    first: Way
    second: Way
    missing: str = ""


def checks_of(device: str, *, has_flash: bool, processes: int) -> list[Check]:
    """Returns the checks for a device.

    Args:
        has_flash: whether FlashMask runs there.
        processes: devices over which a model can be split.
    """
    on_cpu = Way("cpu")
    here = Way(device)
    is_gpu = device != "cpu"
    half = "" if is_gpu else "on a CPU training computes in float32"
    flash = "" if has_flash else "FlashMask needs a GPU of compute capability 8 or more"
    split = "" if processes > 1 else "one device: a model cannot be split over it"
    attention = "float32" if not is_gpu else "bfloat16"
    return [
        Check("float32", on_cpu, here),
        Check("float16", on_cpu, replace(here, dtype="float16"), half),
        Check("bfloat16", on_cpu, replace(here, dtype="bfloat16"), half),
        Check(
            "fast attention against the plain one",
            replace(here, dtype=attention, plain=True),
            replace(here, dtype=attention),
            flash if is_gpu else "",
        ),
        Check("recompute", here, replace(here, recompute=True)),
        Check("tensor parallelism 2 against 1", here, replace(here, degree=2), split),
    ]


def findings(
    checks: list[Check], *, split: Callable[[Way], Outcome], compute: Callable[[Any, Way], Outcome] = run
) -> Iterator[Finding]:
    """Runs checks one after the other; a check that raises gives a finding too.

    Args:
        split: runs a way of several processes.
        compute: runs any other.
    """
    family, known = tried_family(), {}

    def outcome(way: Way) -> Outcome:
        if way not in known:
            known[way] = split(way) if way.degree > 1 else compute(family, way)
        return known[way]

    for check in checks:
        tolerances = TOLERANCES[check.second.dtype]
        if check.missing:
            yield Finding(check.name, {}, tolerances, f"not tried: {check.missing}")
            continue
        try:
            found = differences(
                outcome(check.first), outcome(check.second), same_texts=check.second.dtype == "float32"
            )
        except Exception as error:  # the other checks are made in any case
            said = str(error).strip().splitlines() or [""]
            note = f"{type(error).__name__}: {said[-1].strip()[:300]}"
            yield Finding(check.name, {"losses": math.inf}, tolerances, note)
            continue
        yield Finding(check.name, found, tolerances)


def differences(first: Outcome, second: Outcome, *, same_texts: bool) -> dict[str, float]:
    """Returns the largest difference of each kind; infinity if one outcome lacks what the other has.

    Args:
        same_texts: texts have to be the same, token by token; else what is compared is how likely they are.
    """
    pairs = zip(first.losses, second.losses, strict=True)
    found = {
        "losses": max((abs(a - b) / max(abs(a), 1e-9) for a, b in pairs), default=math.inf),
        "gradients": _largest(first.gradients, second.gradients),
        "updates": _largest(first.updates, second.updates),
    }
    if first.texts and second.texts:
        pairs = zip(first.texts, second.texts, strict=True)
        found["texts"] = max(math.inf if same_texts and a[0] != b[0] else abs(a[1] - b[1]) for a, b in pairs)
    return {name: value if math.isfinite(value) else math.inf for name, value in found.items()}


def _largest(first: Arrays, second: Arrays) -> float:
    """Returns, over all weights, the largest norm of the difference relative to the first, ignoring rounding."""
    if first.keys() != second.keys() or not first:
        return math.inf
    sizes = {name: float(np.linalg.norm(array)) for name, array in first.items()}
    floor = SMALL * max(sizes.values()) or 1e-9
    distances = (float(np.linalg.norm(first[name] - second[name])) / max(sizes[name], floor) for name in first)
    return max((distance if math.isfinite(distance) else math.inf for distance in distances), default=math.inf)
