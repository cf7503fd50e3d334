"""Safetensors: byte for byte what the library writes; headers that lie are refused."""

import json
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from glm.checkpoint.safetensors_files import read_safetensors, write_safetensors
from glm.checkpoint.tensors import LazyTensor
from glm.errors import InputError
from tools.checkpoint_tools import write_safetensors as write_by_library

ITEMS = {"float32": "<f4", "float16": "<f2", "bfloat16": "<u2"}


@pytest.mark.parametrize("dtype", ITEMS)
def test_the_same_bytes_as_the_librarys(tmp_path, dtype):
    generator = np.random.default_rng(0)
    shapes = {"b": (3, 5), "a": (7,), "问": (1, 1), "a.b": (2, 3, 4)}
    arrays = {name: generator.integers(0, 999, shape).astype(ITEMS[dtype]) for name, shape in shapes.items()}
    write_by_library(tmp_path / "theirs", arrays, dtype=dtype)
    lazy = {name: LazyTensor(array.shape, dtype, lambda array=array: array) for name, array in arrays.items()}
    write_safetensors(tmp_path / "ours", lazy, framework="np")
    theirs = read_safetensors(tmp_path / "theirs")
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()
    assert set(theirs) == set(arrays)
    for path in ("theirs", "ours"):
        for name, tensor in read_safetensors(tmp_path / path).items():
            assert (tensor.dtype, tensor.shape) == (dtype, shapes[name])
            assert (tensor.load() == arrays[name]).all()


def test_wide_types_stand_first(tmp_path):
    """As the library orders them, so that every number is aligned."""
    lazy = {
        "a": LazyTensor((3,), "float16", lambda: np.zeros(3, "<f2")),
        "b": LazyTensor((2,), "float32", lambda: np.ones(2, "<f4")),
    }
    write_safetensors(tmp_path / "x", lazy, framework="pt")
    places = {name: tensor.place.start for name, tensor in read_safetensors(tmp_path / "x").items()}
    assert places["b"] % 8 == 0 and places["a"] == places["b"] + 8


def with_header(path: Path, header: dict | bytes, data: int, length: int | None = None) -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + bytes(data))


def entry(start: int, end: int, *shape: int, dtype: str = "F32") -> dict:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}


@pytest.mark.fault
@pytest.mark.parametrize(
    ("header", "data", "length"),
    [
        ({"a": entry(0, 8, 2)}, 4, None),  # cut short
        ({"a": entry(0, 8, 2)}, 12, None),  # more than the header tells
        ({"a": entry(0, 8, 2), "b": entry(4, 12, 2)}, 12, None),  # overlap
        ({"a": entry(0, 8, 2), "b": entry(12, 20, 2)}, 20, None),  # a gap
        ({"a": entry(0, 2**62, 2**60)}, 8, None),  # claims an exabyte
        ({"a": entry(0, 8, 2**33, 2**33, 2**33)}, 8, None),
        ({"a": entry(0, 8, -2)}, 8, None),
        ({"a": entry(0, 8, 2, dtype="F3")}, 8, None),
        ({"a": entry(0, 8, 2)}, 8, 2**63),
        ({"a": entry(0, 8, 2)}, 8, 2**40),
        ({"a": entry(0, 8, 2)}, 8, 0),
        (b"{", 0, None),
        (b"[]", 0, None),
        (b'{"a": 1}', 0, None),
        (b"", 0, None),
    ],
)
def test_headers_that_lie(tmp_path, header, data, length):
    with_header(tmp_path / "x", header, data, length)
    with pytest.raises(InputError, match=str(tmp_path / "x")):
        read_safetensors(tmp_path / "x")


def test_a_file_too_short_for_a_header(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    with pytest.raises(InputError, match="not a readable safetensors file"):
        read_safetensors(tmp_path / "x")


def test_a_large_header_takes_little_memory(tmp_path):
    """150,000 tensors of no numbers: 9.5 MiB of header, which was 355 MiB as objects."""
    entry = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    header = json.dumps({f"t{number}": entry for number in range(150_000)}).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    tracemalloc.start()
    with pytest.raises(InputError, match="a header of 9"):
        read_safetensors(path)
    assert tracemalloc.get_traced_memory()[1] < 64 << 20
    tracemalloc.stop()
