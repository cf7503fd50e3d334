"""Checkpoints know no ranks: what processes hold comes together whole, and whole tensors are taken apart again."""

import numpy as np
import pytest

from tools import rank_jobs
from tools.rank_tools import run_ranks

SHAPES = {
    "glm.word_embeddings.weight": (8, 4),
    "glm.transformer.position_embeddings.weight": (5, 4),
    "glm.transformer.layers.0.attention.query_key_value.weight": (4, 12),
    "glm.transformer.layers.0.attention.query_key_value.bias": (12,),
    "glm.transformer.layers.0.attention.dense.weight": (4, 4),
    "glm.transformer.layers.0.attention.dense.bias": (4,),
}


def model_and_optimizer() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    kinds = ("", "/moment1_0", "/moment2_0")
    tensors = {name + kind: generator.normal(size=shape) for name, shape in SHAPES.items() for kind in kinds}
    tensors |= {f"{name}/beta1_pow_acc_0": np.array([0.9**7]) for name in SHAPES}
    return {name: tensor.astype("float32") for name, tensor in tensors.items()}


@pytest.mark.parametrize("degree", [1, 2, 4])
def test_split_tensors_come_together_in_the_first_process(degree):
    whole = model_and_optimizer()
    if degree == 1:
        ranks = [rank_jobs.check_gathering(1, whole)]
    else:
        ranks = run_ranks(rank_jobs.check_gathering, degree, degree, whole)
    (parts, gathered), *others = ranks
    assert set(gathered) == set(whole)
    for name, tensor in whole.items():
        np.testing.assert_array_equal(gathered[name], tensor, err_msg=name)
    assert all(found == {} for _, found in others)
    assert parts["glm.word_embeddings.weight/moment1_0"].shape == (8 // degree, 4)
    assert parts["glm.transformer.layers.0.attention.query_key_value.bias/moment2_0"].shape == (12 // degree,)
    assert parts["glm.word_embeddings.weight/beta1_pow_acc_0"].shape == (1,)
    assert parts["glm.transformer.layers.0.attention.dense.bias/moment1_0"].shape == (4,)
