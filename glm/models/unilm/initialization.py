"""What a UniLM's random weights are drawn from."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import paddle

from glm.models.unilm.weights import DOWN, FUSED, HEAD_DENSE, OUTPUT, POSITIONS
from glm.modules.mimetic import MimeticDraws, sinusoids
from glm.modules.split_layers import draw

NOISE = 0.5  # standard deviation of what is added, over `initializer_range`


def draw_weights(model: Any) -> None:
    """N(0, initializer_range), biases 0; in a model of the pretraining script the two linears of layer i (from 0) that
    end in a residual sum divided by sqrt(2 (i + 1)); with `mimetic_init` as below."""
    config, numbers = model.config, np.random.default_rng(model.seed)
    like = _mimetic(config, numbers) if config.mimetic_init else {}
    for name, weight in model.named_parameters():
        if weight.ndim != 2:
            continue
        std = config.initializer_range
        made = next((make for ending, make in like.items() if name.endswith(ending)), None)
        if made is not None:
            weight.set_value(paddle.to_tensor(made(weight.shape), dtype=weight.dtype))
            continue
        if config.new_pos_ids and name.endswith((f"{OUTPUT}.weight", f"{DOWN}.weight")):
            std /= math.sqrt(2 * (int(name.split(".layers.")[1].split(".")[0]) + 1))
        draw(weight, name, {}, numbers, std, degree=1, rank=0)


def _mimetic(config: Any, numbers: np.random.Generator) -> dict[str, Callable[[list[int]], np.ndarray]]:
    """How the weights begin that `glm.modules.mimetic` is for, by the ends of their names; the head's linear passes
    on unchanged what it is given, too."""
    H, noise = config.hidden_size, NOISE * config.initializer_range
    draws = MimeticDraws(H, config.num_attention_heads, noise=noise, numbers=numbers)

    def positions(shape: list[int]) -> np.ndarray:
        waves = config.initializer_range * math.sqrt(2) * sinusoids(shape[0], H)
        return np.tile(waves, shape[1] // H)

    def head(shape: list[int]) -> np.ndarray:
        return np.tile(np.eye(H), shape[1] // H) + noise * numbers.standard_normal(shape)

    made = {FUSED: draws.queries_keys_values, OUTPUT: draws.output, HEAD_DENSE: head}
    return {f"{name}.weight": make for name, make in made.items()} | {POSITIONS: positions}
