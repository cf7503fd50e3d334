"""Memory of a conversion: that of its largest tensor, not of the checkpoint. GLM_CHECKPOINT_GB=6 takes a large one."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from glm.checkpoint.convert import ITERATION
from glm.checkpoint.names import expected_shapes, split_weights, turned
from glm.checkpoint.tensors import LazyTensor
from glm.checkpoint.torch_files import write_torch

ROOT = Path(__file__).resolve().parents[2]
CONVERT = """
import re, sys
from pathlib import Path
from glm.checkpoint import convert

def peak():  # of this process alone: ru_maxrss is that of its parent at first
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024

before = peak()
getattr(convert, sys.argv[1])(*sys.argv[2:4], **({"to": sys.argv[4]} if len(sys.argv) > 4 else {}))
print(before, peak())
"""


def synthetic(folder: Path, gigabytes: float) -> tuple[Path, int]:
    """A float16 checkpoint of about that size in two Megatron ranks, and the bytes of its largest tensor."""
    hidden = 2560 if gigabytes >= 1 else 512
    layers = max(round(gigabytes * 1e9 / 2 / (12 * hidden**2)), 1)
    config = {
        "num_layers": layers,
        "vocab_size": 50048 if gigabytes >= 1 else 1024,
        "hidden_size": hidden,
        "max_sequence_length": 1024,
        "block_position_encoding": True,
        "num_attention_heads": 16,
    }

    def numbers(shape: tuple[int, ...]) -> np.ndarray:
        return np.arange(np.prod(shape), dtype=np.uint16).view(np.float16).reshape(shape)

    weights = {
        name: LazyTensor(shape, "float16", lambda shape=shape: numbers(shape))
        for name, shape in expected_shapes(config).items()
    }
    (folder / ITERATION).mkdir(parents=True)
    (folder / "latest").write_text(ITERATION)
    (folder / "config.json").write_text(str(config).replace("'", '"').replace("True", "true"))
    for rank in range(2):
        part = turned(split_weights(weights, rank=rank, degree=2))
        write_torch(folder / ITERATION / f"mp_rank_{rank:02}_model_states.pt", {"module": part})
    return folder, max(tensor.nbytes for tensor in weights.values())


@pytest.mark.parametrize("actions", [("import_checkpoint",), ("export_checkpoint", "paddlenlp", "huggingface-bin")])
def test_memory_is_that_of_the_largest_tensor(tmp_path, actions):
    gigabytes = float(os.environ.get("GLM_CHECKPOINT_GB", 0.15))
    source, largest = synthetic(tmp_path / "source", gigabytes)
    action, *formats = actions
    for form in formats or [None]:
        target = tmp_path / (form or "glm")
        command = [sys.executable, "-c", CONVERT, action, source, target, *([form] if form else [])]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        before, peak = map(int, done.stdout.split())
        size = sum(path.stat().st_size for path in target.rglob("*"))
        print(
            f"{action} {form or ''}: {size / 1e9:.2f} GB, largest tensor {largest / 1e6:.0f} MB, "
            f"peak {peak / 1e6:.0f} MB of which {before / 1e6:.0f} MB before"
        )
        # A tensor merged of two ranks: its parts as the system has read them, the merged one, and the one turned.
        assert peak - before < 3.5 * largest + 30e6 < size
