"""Counts values and depth of a JSON text from its bytes in milliseconds: how large it would be if parsed; and says why
one was not parsed."""

import json
from typing import NamedTuple

import numpy as np

CHUNK = 1 << 18  # bytes counted at a time
QUOTE = ord('"')
STEPS = np.zeros(256, dtype=np.int8)  # for each byte, by how much it changes the depth
STEPS[list(b"[{")], STEPS[list(b"]}")] = 1, -1
BEGINS = np.zeros(256, dtype=bool)  # for each byte, whether a value or a name follows it
BEGINS[list(b"[{,:")] = True


class Structure(NamedTuple):
    """The size of a JSON text.

    Attributes:
        items: number of values, lists and objects included, and of names in objects; never underestimated.
        depth: depth of nested lists and objects.
    """

    items: int
    depth: int


def structure(data: bytes) -> Structure:
    """Returns the structure of a JSON text; of malformed text, of what a parser may build before it fails."""
    signs = np.frombuffer(data.replace(b"\\\\", b"  ").replace(b'\\"', b"  "), dtype=np.uint8)
    items, depth, deepest, is_inside = 1, 0, 0, False
    for start in range(0, signs.size, CHUNK):
        part = signs[start : start + CHUNK]
        inside = np.logical_xor.accumulate(part == QUOTE) ^ is_inside  # inside a string
        is_inside = bool(inside[-1])
        outside = part[~inside]
        items += int(np.count_nonzero(BEGINS[outside]))
        depths = depth + np.cumsum(STEPS[outside], dtype=np.int64)
        deepest = max(deepest, int(depths.max(initial=0)))
        depth = int(depths[-1]) if depths.size else depth
    return Structure(items, deepest)


def json_problem(error: ValueError | RecursionError) -> str:
    """Says why `json.loads` refused a text. Of what it could not hold Python speaks in its own terms."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    is_long = not isinstance(error, json.JSONDecodeError) and "digits" in str(error)
    return "a number of too many digits" if is_long else str(error)
