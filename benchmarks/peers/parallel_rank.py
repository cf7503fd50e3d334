"""One rank of `parallel.py`: a few steps of training, with what passes through collectives counted.

python -m paddle.distributed.launch --nproc_per_node N parallel_rank.py WORK FOLDER
"""

import json
import os
import sys
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import paddle
from paddle.base import core
from paddle.base.core import ProcessGroupGloo
from paddle.distributed import fleet
from paddlenlp.trainer import set_seed
from parallel_work import Work
from work import SHAPES, VOCABULARY

from glm.models.glm.configuration import GLMConfig
from glm.models.glm.modeling import GLMForConditionalGeneration
from glm.parallel.launch import join
from glm.runtime.device import prepare
from glm.training.clip import GlobalNormClip

COLLECTIVES = ("all_reduce", "all_gather", "broadcast")  # all that glm.parallel.gloo makes the others of


class Traffic:
    """Bytes of the tensors that ranks exchange, and seconds of it, waiting for others included, by part of a step."""

    def __init__(self):
        self.part = "start"
        self.bytes: Counter[str] = Counter()
        self.seconds: Counter[str] = Counter()
        for name in COLLECTIVES:
            setattr(ProcessGroupGloo, name, self._counted(getattr(ProcessGroupGloo, name)))

    def _counted(self, collective):
        def call(group, tensor, *arguments):
            start = perf_counter()
            task = collective(group, tensor, *arguments)
            task.wait()
            self.seconds[self.part] += perf_counter() - start
            self.bytes[self.part] += tensor.size * tensor.element_size()
            return task

        return call


def build(work: Work, layers: int, hidden: int, heads: int, vocabulary: int = VOCABULARY):
    """A model of random weights, and AdamW with clipping, as the Trainer wraps them."""
    config = GLMConfig(
        num_layers=layers,
        hidden_size=hidden,
        num_attention_heads=heads,
        vocab_size=vocabulary,
        max_sequence_length=1024,
        tensor_parallel_degree=work.ranks,
        tensor_parallel_rank=max(paddle.distributed.get_rank(), 0),
    )
    model = GLMForConditionalGeneration(config)
    model.train()
    model.glm.transformer.enable_recompute = work.recompute
    optimizer = paddle.optimizer.AdamW(1e-4, parameters=model.parameters(), grad_clip=GlobalNormClip(1.0))
    if work.ranks == 1:
        return model, optimizer
    return fleet.distributed_model(model), fleet.distributed_optimizer(optimizer)


def random_batch(work: Work, vocabulary: int = VOCABULARY) -> dict[str, paddle.Tensor]:
    """Examples of full length: nothing is padding."""
    S, L = work.source, work.source + work.target
    generator, places = np.random.default_rng(0), np.arange(L)
    ids, labels = generator.integers(vocabulary, size=(2, work.batch, L))
    labels[:, :S] = -100
    positions = np.stack([np.minimum(places, S), np.maximum(places - S + 1, 0)])
    tables = {
        "input_ids": ids,
        "position_ids": positions[None].repeat(work.batch, 0),
        "segments": np.array([[[S, work.target]]] * work.batch),
        "labels": labels,
    }
    return {name: paddle.to_tensor(table) for name, table in tables.items()}


def take_step(model, optimizer, batch: dict, traffic: Traffic) -> int:
    """One step; returns the bytes that the forward pass leaves for the backward pass."""
    before = core.host_memory_stat_current_value("Allocated", 0)
    traffic.part = "forward"
    loss = model(**batch, label_smoothing=0.1)
    kept = core.host_memory_stat_current_value("Allocated", 0) - before
    traffic.part = "backward"
    loss.backward()
    traffic.part = "update"
    optimizer.step()
    optimizer.clear_grad(set_to_zero=False)
    return kept


def resident(name: str) -> int:
    """Bytes of the resident set: `VmRSS` now, `VmHWM` at most so far."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(name)).split()[1])


def measure(work: Work) -> dict:
    """The figures of this rank."""
    prepare("cpu")
    paddle.set_device("cpu")
    join(work.ranks, "cpu")
    set_seed(1)  # makes the generators of fleet's dropout
    traffic = Traffic()
    # Loads what is loaded late.
    take_step(*build(work, 1, 32, 4, 128), random_batch(replace(work, batch=1, source=16, target=16), 128), traffic)
    before = resident("VmRSS")
    shape = SHAPES[work.shape]
    model, optimizer = build(work, work.layers or shape.layers, shape.hidden, shape.heads)
    batch, seconds = random_batch(work), []
    for step in range(work.steps + 1):
        if step == 1:  # the first one makes the optimizer's state
            traffic.bytes.clear(), traffic.seconds.clear()
            core.host_memory_stat_reset_peak_value("Allocated", 0)
        start = perf_counter()
        kept = take_step(model, optimizer, batch, traffic)
        seconds.append(perf_counter() - start)
    return {
        "bytes": {part: number // work.steps for part, number in traffic.bytes.items()},
        "seconds": median(seconds[1:]),
        "share": sum(traffic.seconds.values()) / sum(seconds[1:]),
        "weights": sum(weight.size for weight in model.parameters()) * 4,
        "kept": kept,
        "allocated": core.host_memory_stat_peak_value("Allocated", 0),
        "resident": resident("VmHWM") - before,
    }


if __name__ == "__main__":
    work = Work(**json.loads(sys.argv[1]))
    figures = measure(work) | {"work": asdict(work)}
    Path(sys.argv[2], f"{os.environ['PADDLE_TRAINER_ID']}.json").write_text(json.dumps(figures))
