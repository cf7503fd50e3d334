"""Checks numbers of options against their ranges before any work, all at once."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from glm.errors import UsageError

ABOVE_0, BELOW_1 = math.ulp(0.0), math.nextafter(1.0, 0.0)
MANY = 2**31 - 1
COUNT = (1, MANY, "use 1 or more")

# Name -> smallest and largest value, and what to say of others. None, an option that is not set, is always allowed.
Ranges = Mapping[str, tuple[float, float, str]]


def out_of_range(options: Mapping[str, Any], ranges: Ranges, *, also: Mapping[str, Iterable] = {}) -> list[str]:
    """Returns one line for each number that is out of its range.

    Args:
        options: values by name.
        also: values outside of a range that have a meaning of their own, such as -1 for "not set".
    """
    found = []
    for name, (low, high, advice) in ranges.items():
        value = options.get(name)
        if value is None or value in also.get(name, ()):
            continue
        if not low <= value <= high:  # NaN is refused too
            names_most = any(word in advice for word in ("at most", "less than", " to "))
            found.append(f"{name} {value}: {advice if names_most or not value > high else f'use at most {high:g}'}")
    return found


def raise_any(errors: list[str]) -> None:
    """Raises UsageError with all of these, if there is one."""
    if errors:
        raise UsageError(*errors)
