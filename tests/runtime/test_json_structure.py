"""Counting over a JSON text against counting in what it becomes."""

import json
import random

import pytest

from glm.runtime import json_structure
from glm.runtime.json_structure import structure


def counted(value) -> tuple[int, int]:
    """Items and depth of a value, by hand; entries of an object count twice. Empty lists are one item, not two."""
    if isinstance(value, dict):
        inner = [counted(one) for one in value.values()]
        return 1 + len(value) + sum(items for items, _ in inner), 1 + max((depth for _, depth in inner), default=0)
    if isinstance(value, list):
        inner = [counted(one) for one in value]
        return 1 + sum(items for items, _ in inner), 1 + max((depth for _, depth in inner), default=0)
    return 1, 0


def drawn(draw: random.Random, depth: int):
    if depth and draw.random() < 0.6:
        inner = [drawn(draw, depth - 1) for _ in range(draw.randrange(4))]
        return inner if draw.random() < 0.5 else {text(draw) + str(place): one for place, one in enumerate(inner)}
    return draw.choice([1, -2.5, None, True, text(draw)])


def text(draw: random.Random) -> str:
    return "".join(draw.choice('[]{},:"\\\\问 \n') for _ in range(draw.randrange(8)))


def test_as_counted_by_hand(monkeypatch):
    monkeypatch.setattr(json_structure, "CHUNK", 7)
    draw = random.Random(5)
    for _ in range(2000):
        value = drawn(draw, 5)
        found = structure(json.dumps(value, ensure_ascii=draw.random() < 0.5, indent=draw.choice([None, 2])).encode())
        items, depth = counted(value)
        assert found.depth == depth
        assert items <= found.items <= 2 * items  # an empty list or object is counted as if it held something


@pytest.mark.parametrize(
    ("data", "depth"),
    [(b"", 0), (b"[", 1), (b"[" * 9, 9), (b"]]][[", 0), (b'"[[[', 0), (b'["\\"[", [1]]', 2), (b'["\\\\", [[]]]', 3)],
)
def test_what_is_no_json(data, depth):
    assert structure(data).depth == depth
