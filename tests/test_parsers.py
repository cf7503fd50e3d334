"""Changed inputs of the parsers that a stranger's file or request meets first: each is read, or refused by an error of
ours, in little memory.

300 of each kind; with GLM_FUZZ=N there are N.
"""

import json
import os
import random
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from glm.checkpoint.formats import _indexed
from glm.checkpoint.safetensors_files import read_safetensors
from glm.data.formats import read_rows
from glm.errors import InputError
from glm.serving.bodies import Limits, parse
from glm.serving.errors import ApiError
from glm.serving.schemas import CompletionRequest
from glm.training.checkpoints import MANIFEST_NAME, _manifest_bytes, verify, write_checkpoint
from tools.changed_files import corrupted, mutated_json, mutated_safetensors

TRIES = int(os.environ.get("GLM_FUZZ", 300))
MOST_MEMORY = 64 << 20  # bytes that reading one may take
MOST_SECONDS = 5
ROWS = [
    {"context": "青石镇位于河的北岸。", "answer": "河的北岸", "question": "青石镇在哪里？"},
    {"id": 3, "context": "", "answer": "无"},
]
BODY = {
    "prompt": "答案：河的北岸，问题：",
    "max_tokens": 20,
    "temperature": 0.5,
    "n": 1,
    "stop": ["。", "？"],
    "seed": 3,
}


@dataclass
class Parser:
    """What is changed, how beside by bytes, and what reads it."""

    intact: bytes
    by_structure: Callable[[random.Random, bytes], bytes]
    read: Callable[[bytes], object]

    def changed(self, draw: random.Random) -> bytes:
        if draw.random() < 0.5:
            return corrupted(draw, self.intact)
        return self.by_structure(draw, self.intact)


def of_safetensors(folder: Path) -> Parser:
    path = folder / "model.safetensors"
    save_file({"a.weight": np.ones((3, 4), np.float32), "a.bias": np.zeros(3, np.float16)}, path)

    def read(data: bytes) -> None:
        path.write_bytes(data)
        for tensor in read_safetensors(path).values():
            tensor.load()

    return Parser(path.read_bytes(), mutated_safetensors, read)


def of_index(folder: Path) -> Parser:
    path = folder / "pytorch_model.bin.index.json"
    for name in ("1.bin", "2.bin"):
        (folder / name).touch()
    names = {"weight_map": {"a.weight": "1.bin", "a.bias": "2.bin"}, "metadata": {"total_size": 54}}

    def read(data: bytes) -> None:
        path.write_bytes(data)
        _indexed(path)

    return Parser(json.dumps(names).encode(), mutated_json, read)


def of_manifest(folder: Path) -> Parser:
    def write(aside: Path) -> None:
        (aside / "model.safetensors").write_bytes(b"weights")

    checkpoint = write_checkpoint(folder, 3, write, {"data": {"train.json": {"rows": 20}}, "seed": 42})
    path = checkpoint.folder / MANIFEST_NAME

    def read(data: bytes) -> None:
        path.write_bytes(data)
        verify(checkpoint.folder)

    def signed(draw: random.Random, data: bytes) -> bytes:
        """Changed by someone who knows how to make the digest fit."""
        try:
            content = json.loads(mutated_json(draw, data))
            return _manifest_bytes({name: value for name, value in content.items() if name != "sha256"})
        except (ValueError, AttributeError, RecursionError):
            return data[:-1]

    return Parser(path.read_bytes(), signed, read)


def of_rows(folder: Path) -> Parser:
    path = folder / "rows.jsonl"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        for row in list(read_rows(path)):  # a bad one ends nothing
            if row.error:
                raise InputError(str(row.error))

    def one_changed(draw: random.Random, data: bytes) -> bytes:
        first, second, *_ = data.split(b"\n")
        return b"\n".join(draw.sample([mutated_json(draw, first), second], 2))

    lines = [json.dumps(row, ensure_ascii=False) for row in ROWS]
    return Parser("\n".join([*lines, ""]).encode(), one_changed, read)


def of_body(folder: Path) -> Parser:
    return Parser(json.dumps(BODY).encode(), mutated_json, lambda data: parse(data, CompletionRequest, Limits()))


@pytest.mark.fault
@pytest.mark.parametrize("parser_of", [of_safetensors, of_index, of_manifest, of_rows, of_body])
def test_changed_inputs(parser_of, tmp_path, request):
    parser = parser_of(tmp_path)
    parser.read(parser.intact)
    refused = 0
    tracemalloc.start()
    request.addfinalizer(tracemalloc.stop)
    for seed in range(TRIES):
        data = parser.changed(random.Random(seed))
        tracemalloc.reset_peak()
        start, before = time.perf_counter(), tracemalloc.get_traced_memory()[0]
        try:
            parser.read(data)
        except (InputError, ApiError) as error:
            refused += 1
            assert str(error).replace("\n", "").isprintable() and len(str(error)) < 3000, seed
        except BaseException as error:
            raise AssertionError(f"{seed}: {error!r} of {data[:500]!r}") from error
        assert tracemalloc.get_traced_memory()[1] - before < MOST_MEMORY, seed
        assert time.perf_counter() - start < MOST_SECONDS, seed
    assert refused > TRIES / 4  # the rest are other values that mean something
