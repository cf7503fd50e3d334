"""What `python -m glm memory` computes for a rank, held against what Paddle counts in one."""

import pytest

from glm.models.glm import FAMILY as GLM
from glm.models.memory import Training, training_memory
from tools import rank_jobs
from tools.rank_tools import run_ranks

MODEL = {
    **{"num_layers": 3, "hidden_size": 256, "num_attention_heads": 4, "vocab_size": 8064},
    **{"max_sequence_length": 512, "block_position_encoding": True},
    **{"attention_dropout_prob": 0.0, "output_dropout_prob": 0.0},  # masks are NumPy's, so Paddle does not count them
}


@pytest.mark.parametrize(("recompute", "keeps"), [(False, True), (True, False)])
def test_training_over_two_ranks_against_measured(recompute, keeps):
    work = {"examples": 8, "S": 160, "T": 96, "recompute": recompute, "keeps": keeps}
    run = Training(8, 160, 96, device="cpu", recompute=recompute, tensor_parallel_degree=2, keeps_gradients=keeps)
    parts = training_memory(GLM, MODEL, run)
    computed = sum(size for part, size in parts.items() if part not in ("libraries", "allocator"))
    for allocated in run_ranks(rank_jobs.measure_training, 2, 2, MODEL, work):
        assert computed == pytest.approx(allocated, rel=0.08)
