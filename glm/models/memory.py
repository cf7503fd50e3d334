"""Computes how much memory training and generation take on one card from a model's sizes, without building it.

What is kept is counted tensor by tensor as `glm.modules` leaves it; the count for a GPU follows Korthikanti et al.
2022 (Reducing Activation Recomputation in Large Transformer Models) in what tensor parallelism divides. On a CPU it
was held against measurements (tests/models/test_memory.py); on a GPU it was not.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from glm.errors import InputError
from glm.models.protocol import Family
from glm.parallel.plan import part_shape

GIB = 1 << 30
FLOAT, HALF = 4, 2  # bytes of a number
CHUNK = 512  # tokens whose logits exist at the same time, see glm.modules.loss
# Of the process: measured on a CPU, where prediction loads fewer; CUDA's context and kernels are assumed.
LIBRARIES = {"cpu": int(0.6 * GIB), "gpu": GIB}
DECODING_LIBRARIES = LIBRARIES | {"cpu": int(0.4 * GIB)}
# Ratio of resident to computed memory in training on a CPU, where freed memory stays with the process
# (glm.runtime.device) and not every gap is reused: 1.15 to 1.6 measured.
TRAINING_ALLOCATOR = 1.4
# The same of what is computed and freed while the sources are read: 1.0 to 1.7 measured, of one run repeated.
READING_ALLOCATOR = 1.3

Bytes = dict[str, int]  # bytes by purpose


@dataclass(frozen=True)
class Training:
    """What a training run's memory depends on beside the model.

    Args:
        examples: number of examples of a batch on one device.
        source_tokens, target_tokens: tokens of each example.
        device: `cpu` or `gpu`.
        half: computes in float16 or bfloat16 (`--fp16`, `--bf16`); on a CPU the products only, of which operands are
            kept in bfloat16, and everything else in float32.
        opt_level: O1 keeps weights in float32 and casts them for products; O2 keeps them in half precision.
        recompute: activations of a layer are kept for the time of its own backward pass only.
        tensor_parallel_degree: cards that a layer is split over.
        sharding: `stage1` divides the optimizer state over `sharding_parallel_degree` cards, `stage2` gradients too,
            `stage3` weights too; empty for none.
        recompute_layers: how many do so; None for all.
        keeps_gradients: those of earlier batches are there while a batch is computed, as in accumulation, or without
            `--release_grads`.
        prefix_tokens: virtual tokens that each example has in every layer (`--prefix_tuning`).
        prefix_weights: numbers that are trained to make them.
    """

    examples: int
    source_tokens: int
    target_tokens: int
    device: str = "gpu"
    half: bool = False
    opt_level: str = "O1"
    recompute: bool = False
    recompute_layers: int | None = None
    tensor_parallel_degree: int = 1
    sharding: str = ""
    sharding_parallel_degree: int = 1
    keeps_gradients: bool = False
    prefix_tokens: int = 0
    prefix_weights: int = 0

    @property
    def tokens(self) -> int:
        """Number of tokens of a batch, Part A and Part B."""
        return self.examples * (self.source_tokens + self.target_tokens)

    @property
    def is_mixed(self) -> bool:
        """Whether it is in the automatic mixed precision of a GPU."""
        return self.half and self.device == "gpu"

    @property
    def number(self) -> int:
        """Bytes of most activations' numbers."""
        return HALF if self.is_mixed else FLOAT


@dataclass(frozen=True)
class Decoding:
    """What generation's memory depends on beside the model; fields as in `Training`.

    Args:
        dtype: type of weights and products, as `--decode_dtype`.
    """

    examples: int
    source_tokens: int
    target_tokens: int
    num_beams: int = 5
    device: str = "gpu"
    dtype: str = "float32"
    tensor_parallel_degree: int = 1


def training_memory(
    family: Family, config: Mapping[str, Any], run: Training, trains: Callable[[str], bool] = lambda name: True
) -> Bytes:
    """Computes the peak bytes of a training step with AdamW.

    Args:
        family: one with the ability `memory_forecast`: its blocks are `glm.modules.block.Block`.
        config: fields of its configuration.
        trains: whether a weight of this name is trained; all are.

    Raises:
        InputError: `tensor_parallel_degree` does not divide the model.
    """
    sizes, words = _sizes_of_part(family, config, run.tensor_parallel_degree), family.weights.words
    whole, trained = sum(sizes.values()), sum(size for name, size in sizes.items() if trains(name))
    kept_half = run.is_mixed and run.opt_level == "O2"
    number = HALF if kept_half else FLOAT
    parts = {
        "weights": whole * number,
        "gradients": trained * number,
        "optimizer state": trained * (3 if kept_half else 2) * FLOAT,  # two moments, and weights in float32
    }
    for part, stage in (("optimizer state", 1), ("gradients", 2), ("weights", 3)):
        if run.sharding and int(run.sharding[-1]) >= stage:
            parts[part] //= run.sharding_parallel_degree
    if run.half and not kept_half:
        # Kept for the backward pass; with recompute those of one layer at a time, and the head's.
        head = sizes[words] if run.is_mixed else 0  # on a CPU it is cast while the loss is computed
        casts = (whole - sizes[words]) // (config["num_layers"] if run.recompute else 1)
        parts["weights in half precision"] = (head + casts) * HALF
    if run.prefix_weights:
        parts["prefix"] = run.prefix_weights * 4 * FLOAT  # the weight, its gradient, two moments
    parts |= _largest_phase(config, run, parts["gradients"], head_is_trained=trains(words))
    if run.device == "cpu":
        parts["allocator"] = int((TRAINING_ALLOCATOR - 1.0) * sum(parts.values()))
    return parts | {"libraries": LIBRARIES[run.device]}


def _largest_phase(config: Mapping[str, Any], run: Training, gradients: int, *, head_is_trained: bool) -> Bytes:
    """Returns what a step needs beside the state at its peak: at the end of the forward pass, in the last layer's
    backward pass, or at the embeddings, where all `gradients` exist."""
    states = run.tokens * config["hidden_size"] * run.number  # [n, H]
    layer = _kept_of_layer(config, run)
    recomputed = 0
    if run.recompute:
        recomputed = min(config["num_layers"], run.recompute_layers or config["num_layers"])
    kept = recomputed * states + (config["num_layers"] - recomputed) * layer
    # The gradient of the head's weight.
    head = head_is_trained * config["vocab_size"] * config["hidden_size"] // run.tensor_parallel_degree * FLOAT
    earlier = gradients if run.keeps_gradients else 0
    # The head's gradient beside an earlier one, and that of the words unless a `TiedEmbedding` adds it in place.
    tables = (earlier > 0) + (run.device != "cpu" or run.tensor_parallel_degree > 1)
    at_last_layer = kept + (layer if run.recompute else 0) + 8 * states
    phases = [
        {"gradients": earlier, "activations": kept + 3 * states, "loss chunk": _loss_chunk(config, run, head)},
        {"gradients": earlier, "activations": at_last_layer, "loss chunk": head},
        {"gradients": gradients, "activations": 2 * states, "loss chunk": tables * head},
    ]
    return max(phases, key=lambda phase: sum(phase.values()))


def _kept_of_layer(config: Mapping[str, Any], run: Training) -> int:
    """Returns the bytes that a layer keeps for its backward pass."""
    H, degree, number = config["hidden_size"], run.tensor_parallel_degree, run.number
    # Counted in [n, H]. On each card inputs and outputs of both LayerNorms are whole (float32 inputs on a GPU);
    # queries, keys, values, context, and the input and output of GELU are divided.
    operand = HALF if run.half else FLOAT  # of a product: both LayerNorms' and GELU's output, and the context
    per_token = 2 * FLOAT + 2 * operand + (3 + 1 + 4) * number / degree + 4 * operand / degree
    if run.half and not run.is_mixed:
        per_token += operand  # the context is attention's too, in float32
    if config["output_dropout_prob"]:
        per_token += 2  # two masks of a byte each
    kept = int(run.tokens * H * per_token) + _kept_scores(config, run)
    # Rows of queries, keys, values and context; for the other tokens the context is gathered from these.
    if run.prefix_tokens:
        kept += (4 * run.examples * run.prefix_tokens + run.tokens) * H * number // degree
    return kept


def _kept_scores(config: Mapping[str, Any], run: Training) -> int:
    """Returns the bytes that a layer keeps of its scores: none with FlashMask, the dropout mask with two-part
    attention on a CPU, else the probabilities before and after dropout."""
    has_mask = config["attention_dropout_prob"] > 0
    S, T = run.source_tokens, run.target_tokens
    heads = run.examples * config["num_attention_heads"] // run.tensor_parallel_degree
    by_part = heads * (S * S + T * (S + T) + run.prefix_tokens * (S + T))
    if run.is_mixed:
        return 0
    if run.device == "gpu":
        return by_part * (FLOAT + has_mask * (FLOAT + 1))
    return by_part * has_mask


def _loss_chunk(config: Mapping[str, Any], run: Training, head: int) -> int:
    """Returns the bytes of a chunk's logits, their gradients and the head's gradient."""
    labels = run.examples * run.target_tokens
    chunks = 1 if labels <= CHUNK else 2  # the last chunk's buffers still exist when the next one's are made
    tables = chunks if run.device == "cpu" else chunks + 5  # a GPU's operators leave more temporaries behind
    numbers = min(labels, CHUNK) * config["vocab_size"] // run.tensor_parallel_degree
    rounded = 0
    if run.half and run.device == "cpu":  # the head and the logits' gradient as operands
        rounded = (config["vocab_size"] * config["hidden_size"] + numbers) * HALF
    return numbers * FLOAT * tables + head * chunks + rounded


def decoding_memory(family: Family, config: Mapping[str, Any], run: Decoding) -> Bytes:
    """Computes the peak bytes of generation for a batch whose texts all reach their full length and share only their
    source.

    Raises:
        InputError: `tensor_parallel_degree` does not divide the model.
    """
    degree, on_cpu = run.tensor_parallel_degree, run.device == "cpu"
    H, layers = config["hidden_size"], config["num_layers"]
    number = FLOAT if on_cpu or run.dtype == "float32" else HALF  # hidden states, keys and values
    prompt = run.examples * run.source_tokens
    longest = run.source_tokens**2 * config["num_attention_heads"] // degree  # scores of one example
    reading = prompt * H * 13 * number + 3 * longest * FLOAT
    return {
        "weights": _decoding_weights(family, _sizes_of_part(family, config, degree), run),
        "keys and values": 2
        * layers
        * H
        // degree
        * number
        * (prompt + run.examples * run.num_beams * run.target_tokens),
        "reading the sources": int(reading * (READING_ALLOCATOR if on_cpu else 1)),
        "logits": 4 * run.examples * run.num_beams * config["vocab_size"] * FLOAT,
        "libraries": DECODING_LIBRARIES[run.device],
    }


def _decoding_weights(family: Family, sizes: Mapping[str, int], run: Decoding) -> int:
    whole = sum(sizes.values())
    number = {"float32": FLOAT, "int8": 1}.get(run.dtype, HALF)
    if run.device != "cpu" or number == FLOAT:
        return whole * number
    names = family.weights
    products = sum(size for name, size in sizes.items() if isinstance(names.part_of(name), int)) + sizes[names.words]
    # The head is a copy of the word embedding.
    lookups = sum(size for name, size in sizes.items() if names.part_of(name) == "embeddings")
    return products * number + lookups * FLOAT


def _sizes_of_part(family: Family, config: Mapping[str, Any], degree: int) -> dict[str, int]:
    """Returns how many numbers of each weight one rank holds, by name."""
    if config["num_attention_heads"] % degree:
        raise InputError(
            f"tensor_parallel_degree {degree}: does not divide num_attention_heads {config['num_attention_heads']}"
        )
    names = family.weights
    shapes = names.shapes(config).items()
    return {name: math.prod(part_shape(names.plan, name, shape, degree=degree)) for name, shape in shapes}
