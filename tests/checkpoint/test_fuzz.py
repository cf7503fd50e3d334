"""Corrupt files of every kind: each is read as something, or is an InputError; soon, and in little memory.

200 files of each kind; with GLM_FUZZ=N there are N.
"""

import contextlib
import json
import os
import random
import shutil
import time
import tracemalloc
from pathlib import Path

import pytest

from glm.checkpoint.convert import export_checkpoint
from glm.checkpoint.whole import open_model
from glm.errors import InputError
from tools.changed_files import corrupted
from tools.checkpoint_tools import (
    as_torch,
    tiny_weights,
    write_config,
    write_glm,
    write_megatron,
    write_torch,
)

TRIES = int(os.environ.get("GLM_FUZZ", 200))
MOST_MEMORY = 1 << 25  # the files have 50 kB
MOST_SECONDS = 10


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
            file.write_bytes(corrupted(random.Random(f"{kind} {seed}"), intact))
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
