"""Random state of a step: a function of seed, step and rank, so that none has to be saved or restored."""

import random

import numpy as np
import paddle
from paddle.distributed.fleet.meta_parallel import get_rng_state_tracker

SHARED = "global_seed"  # the tracker's state that is the same on all ranks of a tensor-parallel group


def seed_step(seed: int, step: int, *, data_rank: int = 0, tensor_rank: int = 0) -> None:
    """Seeds all generators for an optimizer step (counted from 0).

    Args:
        data_rank: ranks with other data draw other numbers.
        tensor_rank: ranks with the same data and other weights draw other numbers from fleet's tracker, but for its
            state `global_seed`; from Paddle's own generator they draw the same.
    """
    tracker = get_rng_state_tracker()
    here = paddle.incubate.get_rng_state(use_index=True)
    for number, (name, index) in enumerate(sorted(tracker.states_.items()), start=1):
        paddle.incubate.set_rng_state(index, use_index=True)
        paddle.seed(_seed(seed, step, data_rank, number, 0 if name == SHARED else 1 + tensor_rank))
    paddle.incubate.set_rng_state(here, use_index=True)
    common = _seed(seed, step, data_rank)
    paddle.seed(common)
    random.seed(common)
    np.random.seed(common)


def _seed(*parts: int) -> int:
    return int(np.random.SeedSequence(parts).generate_state(1)[0])
