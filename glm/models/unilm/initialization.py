"""What a UniLM's random weights are drawn from."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import paddle

from glm.models.unilm.weights import DOWN, FUSED, HEAD_DENSE, OUTPUT, POSITIONS
from glm.modules.split_layers import draw

LONGEST_WAVE = 100.0  # of a position table's sines, over 2 pi: positions nearby differ, and texts are short
LIKENESS = 0.5  # of queries to keys, see `_mimetic`
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
    """How the weights begin that in trained models are found to have a structure (Trockman and Kolter 2023, "Mimetic
    Initialization of Self-Attention Layers"), by the ends of their names.

    A head looks for what is like itself, positions are waves, and what it finds passes on unchanged, through the
    head's linear too: a model begins by copying, which it would take most of a short run to learn.
    """
    H, noise = config.hidden_size, NOISE * config.initializer_range
    rotations: list[np.ndarray] = []  # of the values of the last layer that was drawn

    def queries_keys_values(shape: list[int]) -> np.ndarray:
        """Queries are keys in each head: its scores are LIKENESS times the states' products in a random subspace."""
        size = H // config.num_attention_heads
        alike = [_rotation(H, numbers)[:, :size] for _ in range(config.num_attention_heads)]
        both = math.sqrt(LIKENESS) * np.concatenate(alike, axis=1)
        rotations.append(_rotation(H, numbers))
        return np.concatenate([both, both, rotations[-1]], axis=1) + noise * numbers.standard_normal(shape)

    def output(shape: list[int]) -> np.ndarray:
        """Turns the values' rotation back."""
        return rotations.pop().T + noise * numbers.standard_normal(shape)

    def positions(shape: list[int]) -> np.ndarray:
        waves = config.initializer_range * math.sqrt(2) * sinusoids(shape[0], H)
        return np.tile(waves, shape[1] // H)

    def head(shape: list[int]) -> np.ndarray:
        return np.tile(np.eye(H), shape[1] // H) + noise * numbers.standard_normal(shape)

    made = {FUSED: queries_keys_values, OUTPUT: output, HEAD_DENSE: head}
    return {f"{name}.weight": make for name, make in made.items()} | {POSITIONS: positions}


def _rotation(size: int, numbers: np.random.Generator) -> np.ndarray:
    """A random orthogonal matrix."""
    return np.linalg.qr(numbers.standard_normal((size, size)))[0]


def sinusoids(positions: int, size: int) -> np.ndarray:
    """Waves of one length for each pair of columns, sines and then cosines (Vaswani et al. 2017, section 3.5): a shift
    of positions is the same linear map everywhere. [positions, size]"""
    rates = LONGEST_WAVE ** (-np.arange(size // 2) / (size // 2))
    angles = np.arange(positions)[:, None] * rates  # [positions, size / 2]
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
