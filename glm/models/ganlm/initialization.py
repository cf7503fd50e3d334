"""Random weights for pretraining from scratch, drawn as the original draws them."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from paddle import Tensor, nn

from glm.modules.mimetic import MimeticDraws, sinusoids

STD = 0.02  # standard deviation of word embeddings, the encoder with its positions, and the relative bias
CROSS_GAIN = 1 / math.sqrt(2)  # gain of a decoder's query, key and value projections
MIMETIC_STD, MIMETIC_NOISE = 0.06, 0.03  # of words, and of what is added to attention, with `mimetic_init`
RESIDUAL = ("out_proj.weight", "mlp.fc2.weight")  # of linears that feed a residual sum


def draw_weights(model: nn.Layer) -> None:
    """Initialises all weights of a model from its `seed`; biases are 0, LayerNorms are the identity.

    Words, encoder and relative bias are of N(0, 0.02); a decoder's attention is of Xavier's uniform distribution, its
    positions of N(0, 1 / sqrt(H)), its MLP and the discriminator's head of U(-1 / sqrt(inputs), 1 / sqrt(inputs)).
    With `rescale_init` the linears of layer l, from 1 on, that end in a residual sum are divided by sqrt(2 l).
    With `mimetic_init` words, positions and attention are those of `_mimetic`.
    """
    random, rescales = np.random.default_rng(model.seed), model.config.rescale_init
    like = _mimetic(model.config, random) if model.config.mimetic_init else {}
    for name, weight in model.named_parameters():
        if weight.ndim < 2:
            continue
        made = next((make for ending, make in like.items() if name.endswith(ending)), None)
        numbers = made(weight.shape) if made else _drawn(random, name, weight)
        if rescales and not made and name.endswith(RESIDUAL) and ".layers." in name:
            numbers /= math.sqrt(2.0 * (int(name.split(".layers.")[1].split(".")[0]) + 1))
        if name.startswith("word_embeddings") or "position_embeddings" in name:
            numbers[1] = 0.0  # row of the padding token
        weight.set_value(numbers.astype(str(weight.dtype).rpartition(".")[2]))


def _drawn(random: np.random.Generator, name: str, weight: Tensor) -> np.ndarray:
    """Draws a weight of a linear [inputs, outputs] or of a table."""
    shape, (rows, columns) = weight.shape, weight.shape
    if name.startswith(("word_embeddings", "encoder.")):
        return random.normal(0.0, STD, shape)
    if "position_embeddings" in name:
        return random.normal(0.0, 1 / math.sqrt(columns), shape)
    if "_attn." in name:
        # Queries, keys and values are side by side, each as wide as the model.
        gain = 1.0 if "out_proj" in name else CROSS_GAIN
        limit = gain * math.sqrt(6.0 / (2 * rows))
    else:
        limit = 1 / math.sqrt(rows)
    return random.uniform(-limit, limit, shape)


def _mimetic(config: Any, random: np.random.Generator) -> dict[str, Callable[[list[int]], np.ndarray]]:
    """How the weights begin that `glm.modules.mimetic` is for, by the ends of their names.

    Words are further apart than the original's, so that a word that was copied is the likeliest from the first step
    on. A decoder's positions go on behind the longest source's: to be at the same place of two texts means nothing.
    """
    H = config.hidden_size
    draws = MimeticDraws(H, config.num_attention_heads, noise=MIMETIC_NOISE, numbers=random)

    def positions(first: int) -> Callable[[list[int]], np.ndarray]:
        # As large as words, which are multiplied by sqrt(H).
        return lambda shape: MIMETIC_STD * math.sqrt(2 * H) * sinusoids(first + shape[0], H)[first:]

    return {
        "word_embeddings.weight": lambda shape: random.normal(0.0, MIMETIC_STD, shape),
        "encoder.position_embeddings.weight": positions(0),
        "position_embeddings.weight": positions(config.max_source_positions),
        "self_attn.qkv_proj.weight": draws.queries_keys_values,
        "cross_attn.q_proj.weight": draws.queries,
        "cross_attn.kv_proj.weight": draws.keys_values,
        "attn.out_proj.weight": draws.output,
    }
