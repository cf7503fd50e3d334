"""This toolkit's training step of a GanLM: one loss or three, Paddle's AdamW."""

import numpy as np
import paddle
from ganlm_model import random_model
from ganlm_work import (
    EOS,
    LABEL_SMOOTHING,
    LEARNING_RATE,
    MASK,
    WEIGHT_DECAY,
    WEIGHT_DISCRIMINATOR,
    WEIGHT_INCONSISTENCY,
    GanLMWork,
    run,
)

from glm.runtime.device import give_memory_back


def build(work: GanLMWork):
    """The model and its optimizer, and a step."""
    model = random_model(work, dropout=work.dropout)
    model.train()
    model.weights = (WEIGHT_DISCRIMINATOR, WEIGHT_INCONSISTENCY) if work.three else (0.0, 0.0)
    optimizer = paddle.optimizer.AdamW(LEARNING_RATE, parameters=model.parameters(), weight_decay=WEIGHT_DECAY)
    sources, targets = work.sources(), work.targets()
    inputs = np.concatenate([np.full((work.batch, 1), EOS), targets[:, :-1]], axis=1)
    labels = np.concatenate([np.full(sources.shape, -100), targets], axis=1)
    tables = {
        "input_ids": np.concatenate([sources, inputs], axis=1),
        "labels": labels,
        "segments": np.tile([[work.source, work.target]], (work.batch, 1, 1)),
        "text_ids": np.array([MASK]),
    }
    batch = {name: paddle.to_tensor(table) for name, table in tables.items()}
    steps = 0

    def once() -> float:
        nonlocal steps
        loss = model(**batch, label_smoothing=LABEL_SMOOTHING)
        loss.backward()
        if not steps:  # as `glm.training.capacity.MemoryReturn`
            give_memory_back()
        optimizer.step()
        if not steps:
            give_memory_back()
        steps += 1
        optimizer.clear_grad(set_to_zero=False)
        return float(loss)

    return once


if __name__ == "__main__":
    run(build, ["paddlepaddle", "numpy"])
