"""This toolkit's training step: its model and loss, its clipping, Paddle's AdamW, gradients freed after the step."""

import paddle
from settings import settle
from train_work import LEARNING_RATE, MAX_GRAD_NORM, WEIGHT_DECAY, Step, TrainWork, run

from glm.models.glm.configuration import GLMConfig
from glm.models.glm.modeling import GLMForConditionalGeneration
from glm.runtime.device import give_memory_back
from glm.training.clip import GlobalNormClip
from glm.training.precision import train_in_bfloat16


def random_model(work: TrainWork) -> GLMForConditionalGeneration:
    """Random weights of the shape."""
    model = GLMForConditionalGeneration(GLMConfig(**work.settings()))
    model.glm.transformer.enable_recompute = work.recompute
    if work.dtype == "bfloat16":
        train_in_bfloat16(model)
    model.train()
    return model


def build(work: TrainWork) -> Step:
    """The model and its optimizer."""
    settle(work)
    model = random_model(work)
    optimizer = paddle.optimizer.AdamW(
        LEARNING_RATE,
        parameters=model.parameters(),
        weight_decay=WEIGHT_DECAY,
        grad_clip=GlobalNormClip(MAX_GRAD_NORM),
    )
    inputs = {name: paddle.to_tensor(table) for name, table in work.tables().items()}

    has_state = False

    def step(label_smoothing: float) -> float:
        nonlocal has_state
        loss = model(**inputs, label_smoothing=label_smoothing)
        loss.backward()
        if not has_state:  # as `glm.training.capacity.MemoryReturn`
            give_memory_back()
        optimizer.step()
        if not has_state:
            give_memory_back()
        has_state = True
        optimizer.clear_grad(set_to_zero=False)
        return float(loss)

    return step


if __name__ == "__main__":
    run(build, ["paddlepaddle", "numpy"])
