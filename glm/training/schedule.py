"""Learning-rate schedules."""

import math

from paddle.optimizer.lr import LambdaDecay


def decay_factor(
    step: int, *, warmup_steps: int, total_steps: int, shape: str, decay_ratio: float = 1.0, power: float = 1.0
) -> float:
    """Returns the learning rate after `step` steps, as a fraction of its peak.

    It rises linearly from 0 at step 0 to 1 at `warmup_steps`. `linear`, `cosine` and `polynomial` then fall to
    `decay_ratio` at `total_steps` (THUDM/GLM, learning_rates.py, AnnealingLR), `polynomial` by `power` of the share of
    steps that remain; `inverse_sqrt` falls as `sqrt(warmup_steps / step)` (Vaswani et al. 2017), never below
    `decay_ratio`; `constant` and `constant_with_warmup`, which is the same, stay.
    """
    if step < warmup_steps:
        return step / warmup_steps
    if shape.startswith("constant"):
        return 1.0
    if shape == "inverse_sqrt":
        return max(math.sqrt(warmup_steps / step), decay_ratio)
    remaining = 1.0 - min((step - warmup_steps) / max(total_steps - warmup_steps, 1), 1.0)
    if shape == "cosine":
        remaining = (1.0 - math.cos(math.pi * remaining)) / 2.0
    elif shape == "polynomial":
        remaining = remaining**power
    return decay_ratio + (1.0 - decay_ratio) * remaining


def decaying_schedule(learning_rate: float, **options) -> LambdaDecay:
    """Makes a Paddle scheduler of `decay_factor` with the peak `learning_rate`."""
    return LambdaDecay(learning_rate, lambda step: decay_factor(step, **options))
