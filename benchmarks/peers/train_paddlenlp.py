"""PaddleNLP's own GLM class in the loop of its example: logits and loss of every position, mask of 0 and 1."""

import numpy as np
import paddle
from paddlenlp.transformers import GLMConfig, GLMForConditionalGeneration
from settings import settle
from train_work import LEARNING_RATE, MAX_GRAD_NORM, WEIGHT_DECAY, Step, TrainWork, run


def build(work: TrainWork) -> Step:
    """The model and its optimizer."""
    settle(work)
    model = GLMForConditionalGeneration(GLMConfig(**work.settings(), output_predict=True))
    model.glm.transformer.enable_recompute = work.recompute
    model.train()
    optimizer = paddle.optimizer.AdamW(
        LEARNING_RATE,
        parameters=model.parameters(),
        weight_decay=WEIGHT_DECAY,
        grad_clip=paddle.nn.ClipGradByGlobalNorm(MAX_GRAD_NORM),
    )
    inputs = {name: paddle.to_tensor(table) for name, table in inputs_of(work).items()}

    def step(label_smoothing: float) -> float:
        model.config.label_smoothing = label_smoothing
        loss = model(**inputs, return_dict=True).loss.mean()
        loss.backward()
        optimizer.step()
        optimizer.clear_grad()
        return float(loss)

    return step


def inputs_of(work: TrainWork) -> dict[str, np.ndarray]:
    """The work as its collator lays it out."""
    tables = work.tables()
    S, L = work.source, work.source + work.target
    rows, columns = np.arange(L)[:, None], np.arange(L)[None]
    seen = (columns < S) | (columns <= rows)
    return {
        "input_ids": tables["input_ids"],
        "position_ids": tables["position_ids"],
        "attention_mask": np.broadcast_to(seen, (work.batch, 1, L, L)).astype("int64"),
        "labels": tables["labels"],
    }


if __name__ == "__main__":
    run(build, ["paddlepaddle", "paddlenlp"])
