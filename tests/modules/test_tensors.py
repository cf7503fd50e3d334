"""Arrays as tensors, and that decoding keeps nothing of them."""

import gc
import tracemalloc
from itertools import pairwise

import numpy as np
import paddle
import pytest

from glm.generation.config import GenerationConfig
from glm.generation.search import generate
from glm.models.glm.geometry import BlankInfilling
from glm.modules.tensors import as_tensor


def kept(run, times: int) -> float:
    """Bytes that each call of `run` leaves behind: the least of several rounds.

    What is kept for good is kept in every round; free lists, caches and other threads fill up in some of them.
    """
    tracemalloc.start()
    try:
        sizes = []
        for _ in range(5):
            for _ in range(times):
                run()
            gc.collect()
            sizes.append(tracemalloc.get_traced_memory()[0])
        return min(after - before for before, after in pairwise(sizes)) / times
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "array",
    [
        np.arange(10).reshape(2, 5),
        np.arange(10, dtype=np.float32).reshape(2, 5).T,
        np.zeros((0, 3), np.int64),
        np.ones(3, bool),
        np.array(7),
    ],
    ids=["int64", "transposed", "empty", "bool", "scalar"],
)
def test_as_paddle_does(array):
    found, expected = as_tensor(array), paddle.to_tensor(array)
    assert (found.shape, found.dtype, found.place) == (expected.shape, expected.dtype, expected.place)
    assert np.array_equal(found.numpy(), expected.numpy()) and found.stop_gradient
    array[...] = 0
    assert np.array_equal(found.numpy(), expected.numpy())


def test_nothing_is_kept_of_a_call():
    assert kept(lambda: as_tensor(np.zeros((2, 3))), 1000) < 8


def test_nothing_is_kept_of_decoding(tiny_model, tokenizer):
    """12 tokens each time; a tensor that `paddle.to_tensor` made at every step would leave 1,200 bytes."""
    model = tiny_model(vocab_size=352)
    geometry = BlankInfilling(
        mask_token_ids=tuple(tokenizer.command_ids[mask] for mask in ("[MASK]", "[sMASK]", "[gMASK]")),
        sop_token_id=tokenizer.sop_token_id,
        eop_token_id=tokenizer.eop_token_id,
    )
    ids = [tokenizer.cls_token_id, *tokenizer.encode_text("春天来了"), tokenizer.command_ids["[gMASK]"]]
    prompts = [geometry.prompt(ids)]
    config = GenerationConfig(tgt_length=12, min_tgt_length=11, num_beams=3)
    eop = tokenizer.eop_token_id
    assert kept(lambda: list(generate(model, prompts, config, end_token_id=eop)), 30) < 800
