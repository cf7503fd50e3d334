"""Reads and writes safetensors files one tensor at a time; the library checks them."""

import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path

from safetensors import safe_open

from glm.checkpoint.tensors import ITEMS, LazyTensor, Place, chunks, reading, tensor_of_file, with_progress

HEADER_LIMIT = 1 << 20  # bytes, which take up to 40 times as much of memory; glm-10b's header has 60,000
CODES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
}
CODE_OF = {dtype: code for code, dtype in CODES.items()}


def read_safetensors(path: Path) -> dict[str, LazyTensor]:
    """Reads the tensors of a file.

    Raises:
        InputError: it cannot be read.
    """
    with path.open("rb") as file, reading(path, "safetensors file"):
        (length,) = struct.unpack("<Q", file.read(8))
        if length > HEADER_LIMIT:
            raise ValueError(f"a header of {length} bytes")
        if 8 + length > os.fstat(file.fileno()).st_size:
            raise ValueError("the file ends within its header: cut short?")
        # The library checks that the header is valid and that the tensors fill the file without gap or overlap.
        with safe_open(path, framework="np"):
            pass
        header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        return {name: _tensor(path, 8 + length, entry) for name, entry in header.items()}


def _tensor(path: Path, data: int, entry: dict) -> LazyTensor:
    start, end = entry["data_offsets"]
    place = Place(path, data + start, data + end)
    return tensor_of_file(place, shape=tuple(entry["shape"]), dtype=CODES[entry["dtype"]])


def write_safetensors(path: Path, tensors: Mapping[str, LazyTensor], *, framework: str) -> None:
    """Writes tensors in the library's order: wide types first, then by name.

    The library itself needs all tensors in memory, and cannot write bfloat16 from NumPy.

    Args:
        framework: the framework named in the file: `np` (which PaddleNLP takes for its own) or `pt`.
    """
    ordered = dict(sorted(tensors.items(), key=lambda pair: (-ITEMS[pair[1].dtype].itemsize, pair[0])))
    header: dict[str, dict] = {"__metadata__": {"format": framework}}
    offset = 0
    for name, tensor in ordered.items():
        end = offset + tensor.nbytes
        header[name] = {
            "dtype": CODE_OF[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # data starts at a multiple of 8
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, tensor in with_progress(ordered, path.name):
            for chunk in chunks(tensor):
                file.write(chunk)
