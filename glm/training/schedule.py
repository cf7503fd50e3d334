"""The learning rate over the steps of a run."""

import math

from paddle.optimizer.lr import LambdaDecay


def decay_factor(step: int, *, warmup_steps: int, total_steps: int, decay_ratio: float, shape: str) -> float:
    """The learning rate after `step` steps as a share of its peak (THUDM/GLM, learning_rates.py, AnnealingLR).

    It rises linearly from 0 at step 0 to 1 at `warmup_steps` and falls to `decay_ratio` at `total_steps`.

    Args:
        shape: `linear` or `cosine`.
    """
    if step < warmup_steps:
        return step / warmup_steps
    progress = min((step - warmup_steps) / max(total_steps - warmup_steps, 1), 1.0)
    remaining = 1.0 - progress if shape == "linear" else (1.0 + math.cos(math.pi * progress)) / 2.0
    return decay_ratio + (1.0 - decay_ratio) * remaining


def decaying_schedule(
    learning_rate: float, *, warmup_steps: int, total_steps: int, decay_ratio: float, shape: str
) -> LambdaDecay:
    """`decay_factor` as a Paddle scheduler with the peak `learning_rate`."""
    return LambdaDecay(
        learning_rate,
        lambda step: decay_factor(
            step, warmup_steps=warmup_steps, total_steps=total_steps, decay_ratio=decay_ratio, shape=shape
        ),
    )
