"""A rank reads its own part of a checkpoint: it never needs memory for much more."""

import numpy as np
import pytest

from glm.checkpoint.safetensors_files import write_safetensors
from glm.checkpoint.tensors import LazyTensor
from glm.models.glm.configuration import GLMConfig
from tools import rank_jobs
from tools.rank_tools import run_ranks

# Many small tensors: whatever is needed for one of them for a moment is little beside the whole.
LAYERS, HIDDEN, WORDS = 32, 256, 1024


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    config = GLMConfig(
        num_layers=LAYERS, hidden_size=HIDDEN, num_attention_heads=4, vocab_size=WORDS, max_sequence_length=64
    )
    config.save_pretrained(str(folder))
    numbers = np.random.default_rng(0).standard_normal(4 * HIDDEN * HIDDEN, dtype=np.float32)
    tensors = {
        name: LazyTensor(shape, "float32", lambda shape=shape: numbers[: np.prod(shape)].reshape(shape))
        for name, shape in rank_jobs.shapes_of(config).items()
    }
    write_safetensors(folder / "model.safetensors", tensors, framework="np")
    return folder


@pytest.mark.parametrize("degree", [1, 2])
def test_a_rank_needs_memory_for_its_part_only(checkpoint, degree):
    """At most a fifth more than the part, pages of the file included."""
    for peak, part, whole in run_ranks(rank_jobs.measure_loading, degree, degree, checkpoint):
        assert part == pytest.approx(whole / degree, rel=0.01) and whole > 95e6
        assert part * 0.9 < peak < part * 1.2
