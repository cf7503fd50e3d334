"""Corrupt files of every kind: each is read as something, or is an InputError; soon, and in little memory.

200 files of each kind; with GLM_LONG_TESTS=1 there are 5,000.
"""

import contextlib
import json
import os
import random
import shutil
import struct
import time
import tracemalloc
from pathlib import Path

import pytest

from glm.checkpoint.convert import export_checkpoint
from glm.checkpoint.whole import open_model
from glm.errors import InputError
from tools.checkpoint_tools import (
    as_torch,
    tiny_weights,
    write_config,
    write_glm,
    write_megatron,
    write_torch,
)

TRIES = 5000 if os.environ.get("GLM_LONG_TESTS") else 200
MOST_MEMORY = 1 << 25  # the files have 50 kB
MOST_SECONDS = 10
SEVERAL = 8  # corrupt bytes at most


def folder_of(kind: str, root: Path) -> Path:
    """An intact checkpoint and the file in it that is to be corrupted."""
    weights = tiny_weights(num_layers=1)
    start = write_glm(root / "start", weights, num_layers=1)
    folder = root / kind
    if kind == "safetensors":
        return start / "model.safetensors"
    if kind == "pdparams":
        export_checkpoint(start, folder, to="paddlenlp")
        return folder / "model_state.pdparams"
    if kind == "config":
        config = start / "config.json"
        config.write_text(
            json.dumps({**json.loads(config.read_text()), "layernorm_epsilon": 1e-5, "bad_words_id": [40]})
        )
        return config
    if kind == "megatron":
        write_config(write_megatron(folder, weights, degree=2), num_layers=1)
        return folder / "1000" / "mp_rank_01_model_states.pt"
    folder.mkdir()
    write_config(folder, num_layers=1)
    write_torch(folder / "pytorch_model.bin", as_torch(weights), legacy=kind == "legacy bin")
    if kind != "index":
        return folder / "pytorch_model.bin"
    (folder / "pytorch_model.bin").rename(folder / "part.bin")
    names = dict.fromkeys(as_torch(weights), "part.bin")
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": names}))
    return folder / "pytorch_model.bin.index.json"


def interesting_places(content: bytes) -> list[int]:
    """Where the structure of the file is: outside of the numbers, which may be anything."""
    return [*range(min(len(content), 1500)), *range(max(len(content) - 3000, 0), len(content))]


def corrupted(content: bytes, generator: random.Random) -> bytes:
    """The file cut, with other bytes, with huge or negative sizes, with a part twice, missing or elsewhere."""
    changed = bytearray(content)
    places = interesting_places(content)
    how = generator.randrange(6)
    if how == 0:
        return bytes(changed[: generator.randrange(len(changed))])
    if how == 1:
        for _ in range(generator.randint(1, SEVERAL)):
            changed[generator.choice(places)] = generator.randrange(256)
    elif how == 2:
        for _ in range(generator.randint(1, SEVERAL)):
            changed[generator.choice(places)] ^= 1 << generator.randrange(8)
    elif how == 3:
        size = generator.choice([-1, -(2**31), 2**31 - 1, 2**40, 2**62, 2**63 - 1, 0])
        form = generator.choice(["<q", ">q", "<i", "<h"])
        width = struct.calcsize(form)
        place = generator.choice(places[: -width or None])
        changed[place : place + width] = struct.pack("<q", size)[:width]
    elif how == 4:
        first, second = sorted(generator.choices(places, k=2))
        part = changed[first : first + generator.randint(1, 200)]
        changed[second : second + generator.choice([0, len(part)])] = part
    else:
        start = generator.choice(places)
        del changed[start : start + generator.randint(1, 200)]
    return bytes(changed)


@pytest.mark.fault
@pytest.mark.parametrize("kind", ["safetensors", "pdparams", "bin", "legacy bin", "megatron", "index", "config"])
def test_corrupt_files(kind, tmp_path):
    file = folder_of(kind, tmp_path)
    folder = file.parent.parent if kind == "megatron" else file.parent
    intact = file.read_bytes()
    open_model(folder)
    refused = 0
    tracemalloc.start()
    try:
        for seed in range(TRIES):
            file.write_bytes(corrupted(intact, random.Random(f"{kind} {seed}")))
            tracemalloc.reset_peak()
            start = time.perf_counter()
            try:
                for tensor in open_model(folder).weights.values():
                    tensor.load()
            except InputError as error:
                refused += 1
                assert str(folder) in str(error) and len(str(error)) < 200_000, seed
            except Exception as error:
                raise AssertionError(f"{kind} {seed}: {error!r}") from error
            assert tracemalloc.get_traced_memory()[1] < MOST_MEMORY, seed
            assert time.perf_counter() - start < MOST_SECONDS, seed
    finally:
        tracemalloc.stop()
    assert refused > TRIES / 3  # the rest are other numbers in an intact file
    file.write_bytes(intact)
    open_model(folder)


def test_claims_of_terabytes(tmp_path):
    """A file that is nothing but a hole: what it claims is there, and nothing of it is read."""
    folder = write_glm(tmp_path / "m", tiny_weights())
    with contextlib.suppress(OSError):
        os.truncate(folder / "model.safetensors", 1 << 42)
    with pytest.raises(InputError, match="model.safetensors: not a readable safetensors file"):
        open_model(folder)
    shutil.rmtree(folder)
