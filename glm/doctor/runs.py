"""Trains and decodes with a small model in different ways, for `glm.doctor.checks` to compare."""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import paddle
from paddle import nn

from glm.generation.config import GenerationConfig
from glm.generation.search import generate
from glm.models import registry
from glm.models.protocol import Family, Trial
from glm.modules.decoding import prepare_decoding
from glm.parallel.launch import join
from glm.parallel.plan import merge_weight, part_of_weight
from glm.runtime.device import prepare

STEPS = 3
SEED = 7
SCALE = 1024.0  # of the loss in float16, in which small gradients would become zero
WEIGHT_SIZE = 0.2  # standard deviation of random weights, large enough that texts differ
# AdamW divides by the gradient's size, which amplifies gradients that are only noise; this limits it.
LEARNING_RATE, EPSILON = 1e-2, 1e-3
# Number of texts, beams, and lengths; no text ends before beams were reordered.
TEXTS, BEAMS, LENGTH, LEAST = 4, 3, 14, 10

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Way:
    """A way to run.

    Args:
        device: `cpu`, `gpu` or `gpu:N`.
        dtype: type of products: `float32`, `float16` or `bfloat16`.
        recompute: activations are computed anew in the backward pass.
        plain: attention by Paddle's own operators, where the device has a faster one.
        degree: processes that hold parts of the model.
    """

    device: str
    dtype: str = "float32"
    recompute: bool = False
    plain: bool = False
    degree: int = 1


@dataclass
class Outcome:
    """The outcome of a run.

    Attributes:
        losses: losses of each step.
        gradients: gradients of the first step, by weight.
        updates: what the steps added to each weight.
        texts: for each prompt the tokens and the score of its best text.
    """

    losses: list[float] = field(default_factory=list)
    gradients: Arrays = field(default_factory=dict)
    updates: Arrays = field(default_factory=dict)
    texts: list[tuple[tuple[int, ...], float]] = field(default_factory=list)


def tried_family() -> Family:
    """Returns the family whose model is tried."""
    return next(family for family in registry.families() if family.trial is not None)


def run(family: Family, way: Way) -> Outcome:
    """Trains a small model for a few steps and generates some texts with it.

    Every process of a split model calls it; each returns all of the outcome.
    """
    trial = family.trial()
    prepare(way.device)
    rank = join(way.degree, way.device)
    model, start = _model(family, trial, way, rank)
    outcome = Outcome()
    optimizer = paddle.optimizer.AdamW(LEARNING_RATE, epsilon=EPSILON, parameters=model.parameters())
    for step, batch in zip(range(STEPS), _batches(trial), strict=False):
        scale = SCALE if way.dtype == "float16" else 1.0
        with _precision(way):
            loss = model(**{name: paddle.to_tensor(array) for name, array in batch.items()})
        (loss * scale).backward()
        for weight in model.parameters():
            if weight.grad is not None and scale != 1.0:
                weight.grad.set_value(weight.grad / scale)
        outcome.losses.append(float(loss))
        if step == 0:
            gradients = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
            outcome.gradients = _whole(family, gradients, way)
        optimizer.step()
        optimizer.clear_grad(set_to_zero=False)
    end = _whole(family, dict(model.named_parameters()), way)
    outcome.updates = {name: end[name] - start[name] for name in end}
    if np.isfinite(outcome.losses).all():
        outcome.texts = _texts(model, trial, way)
    return outcome


def _model(family: Family, trial: Trial, way: Way, rank: int) -> tuple[nn.Layer, Arrays]:
    """Makes the model with weights that are the same everywhere; returns them whole too."""
    parts = {"tensor_parallel_degree": way.degree, "tensor_parallel_rank": rank} if way.degree > 1 else {}
    model = family.model_class()(family.config_class()(**trial.config, **parts))
    shapes = family.weights.shapes(model.config.to_dict())
    numbers, whole = np.random.default_rng(SEED), {}
    weights = dict(model.named_parameters())
    for name, shape in sorted(shapes.items()):
        drawn = numbers.normal(0.0, WEIGHT_SIZE, shape).astype(np.float32)
        whole[name] = drawn + 1 if len(shape) == 1 and name.endswith("weight") else drawn  # of a norm
    for name, weight in weights.items():
        part = whole[name]
        if way.degree > 1:
            part = part_of_weight(family.weights.plan, name, part, degree=way.degree, rank=rank)
        weight.set_value(part)
    model.train()
    if way.recompute:
        for stack in model.stacks:
            stack.enable_recompute = True
    if way.plain:
        for layer in model.sublayers():
            if hasattr(layer, "attend_by_part"):
                layer.attend_by_example = layer.attend_by_part
    return model, {name: whole[name] for name in weights}


def _batches(trial: Trial) -> Iterator[Arrays]:
    """Yields the examples in order, again and again."""
    examples = [
        trial.geometry.example(source, span, tgt_length=len(span) + 1)
        for source, span in zip(trial.sources, trial.spans, strict=True)
    ]
    width = max(map(len, examples))
    while True:
        for start in range(0, len(examples), trial.batch_size):
            rows = [[example] for example in examples[start : start + trial.batch_size]]
            yield trial.geometry.collate(rows, width, trial.pad_token_id)


def _precision(way: Way) -> Any:
    if way.dtype == "float32":
        return nullcontext()
    return paddle.amp.auto_cast(dtype=way.dtype, level="O1")


def _whole(family: Family, tensors: dict[str, paddle.Tensor], way: Way) -> Arrays:
    """Returns tensors whole, merging the parts of processes."""
    arrays = {name: tensor.astype("float32").numpy() for name, tensor in tensors.items()}
    if way.degree == 1:
        return arrays
    parts: list[Arrays] = []
    paddle.distributed.all_gather_object(parts, arrays)
    return {name: merge_weight(family.weights.plan, name, [part[name] for part in parts]) for name in arrays}


def _texts(model: nn.Layer, trial: Trial, way: Way) -> list[tuple[tuple[int, ...], float]]:
    """Generates texts with the trained model by beam search."""
    if way.device == "cpu" and way.dtype != "float32":
        return []  # products in these types have other kernels and conditions at decoding
    prepare_decoding(model, way.dtype, way.device)
    config = GenerationConfig(tgt_length=LENGTH, min_tgt_length=LEAST, num_beams=BEAMS, no_repeat_ngram_size=0)
    prompts = [trial.geometry.prompt(source) for source in trial.sources[:TEXTS]]
    banned = [number for number in range(model.config.vocab_size) if number < 6 and number != trial.end_token_id]
    found = generate(model, prompts, config, end_token_id=trial.end_token_id, banned_token_ids=banned)
    return [(texts[0].tokens, texts[0].score) for _, texts in sorted(found, key=lambda pair: pair[0])]
