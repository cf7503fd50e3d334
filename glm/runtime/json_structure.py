"""How large a JSON text will be in memory, before it is read as such: counted over its bytes, in milliseconds."""

from typing import NamedTuple

import numpy as np

CHUNK = 1 << 18  # bytes that are looked at together
QUOTE = ord('"')
STEPS = np.zeros(256, dtype=np.int8)  # by byte, how much deeper it leads
STEPS[list(b"[{")], STEPS[list(b"]}")] = 1, -1
BEGINS = np.zeros(256, dtype=bool)  # by byte, whether a value or a name comes behind it
BEGINS[list(b"[{,:")] = True


class Structure(NamedTuple):
    """What a JSON text consists of.

    Attributes:
        items: values, lists and objects among them; of an object's entry name and value both. Never too few.
        depth: of lists and objects within each other.
    """

    items: int
    depth: int


def structure(data: bytes) -> Structure:
    """The structure of a JSON text; of one that is none, of what a reader could make of it before it notices."""
    signs = np.frombuffer(data.replace(b"\\\\", b"  ").replace(b'\\"', b"  "), dtype=np.uint8)
    items, depth, deepest, is_inside = 1, 0, 0, False
    for start in range(0, signs.size, CHUNK):
        part = signs[start : start + CHUNK]
        inside = np.logical_xor.accumulate(part == QUOTE) ^ is_inside  # of a string
        is_inside = bool(inside[-1])
        outside = part[~inside]
        items += int(np.count_nonzero(BEGINS[outside]))
        depths = depth + np.cumsum(STEPS[outside], dtype=np.int64)
        deepest = max(deepest, int(depths.max(initial=0)))
        depth = int(depths[-1]) if depths.size else depth
    return Structure(items, deepest)
