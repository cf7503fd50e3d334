"""Configuration files."""

from pathlib import Path

from glm.options.run_config import read_config


def test_read_config_keeps_order_and_values(write):
    path = Path(write('{"b": [1, 2], "_a": 0, "a": {"x": 1}, "c": "中"}'))
    assert list(read_config(path).items()) == [("b", [1, 2]), ("a", {"x": 1}), ("c", "中")]
