"""Runs that cannot learn stop before the optimizer step, and say which step and which records."""

import types

import numpy as np
import paddle
import pytest
from paddle import nn
from paddlenlp.trainer import TrainerState

from glm.errors import InputError
from glm.training.guards import MOST_OVERFLOWS, Guard
from tools.run_tools import logged

ARGS = types.SimpleNamespace(sharding=[])


def guarded(learning_rate: float = 0.1, **factors) -> tuple[Guard, nn.Layer, paddle.optimizer.Optimizer]:
    """A linear layer with gradients (see `backward`), its optimizer, and the guard."""
    model = nn.Linear(3, 2)
    backward(model, **factors)
    optimizer = paddle.optimizer.AdamW(learning_rate, parameters=model.parameters())
    return Guard(lambda step: f"those of {step}"), model, optimizer


def backward(model: nn.Layer, *, weight: float | None = 1.0, bias: float | None = 1.0) -> None:
    """Gives each entry of weight and bias this gradient; None gives none."""
    loss = sum(
        part.sum() * factor for part, factor in ((model.weight, weight), (model.bias, bias)) if factor is not None
    )
    loss.backward()


def take_step(guard, model, optimizer, *, step: int = 4, scaler=None, moves: bool = True) -> None:
    state = TrainerState(global_step=step)
    guard.on_optimizer_begin(ARGS, state, None, scaler=scaler, model=model, optimizer=optimizer)
    if moves:
        optimizer.step()
    guard.on_optimizer_end(ARGS, state, None, scaler=scaler)


def scaler_that(overflows: bool) -> types.SimpleNamespace:
    return types.SimpleNamespace(_cache_found_inf=overflows)


def test_a_sound_step_passes():
    guard, model, optimizer = guarded()
    take_step(guard, model, optimizer)
    assert guard.has_moved
    take_step(guard, model, optimizer, moves=False)  # the weights are looked at once


@pytest.mark.fault
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("later", [False, True])
def test_a_gradient_that_is_not_finite(value, later):
    guard, model, optimizer = guarded()
    if later:
        take_step(guard, model, optimizer)
    backward(model, bias=value)
    before = model.weight.numpy().copy()
    with pytest.raises(InputError) as caught:
        take_step(guard, model, optimizer)
    assert str(caught.value) == (
        "step 5: the gradient of bias is not finite; training stops here. Records of this step: those of 4"
    )
    assert (model.weight.numpy() == before).all()


@pytest.mark.fault
@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite(loss):
    guard = Guard(lambda step: f"those of {step}")
    guard.check_loss(3.5, 9)
    with pytest.raises(InputError, match=f"step 10: the loss is {loss}; .* those of 9"):
        guard.check_loss(loss, 9)


def test_a_weight_without_gradient():
    guard, model, optimizer = guarded(weight=None)
    with pytest.raises(InputError, match="step 5: no gradient reaches weight;"):
        take_step(guard, model, optimizer)


def test_a_frozen_weight_needs_no_gradient():
    guard, model, optimizer = guarded(weight=None)
    model.weight.stop_gradient = True
    take_step(guard, model, optimizer)
    assert guard.has_moved


def test_gradients_that_are_all_zero():
    guard, model, optimizer = guarded(weight=0.0, bias=0.0)
    with pytest.raises(InputError, match="step 5: all gradients are zero;"):
        take_step(guard, model, optimizer)


@pytest.mark.fault
def test_weights_that_do_not_move():
    guard, model, optimizer = guarded()
    with pytest.raises(InputError, match="step 5: the optimizer moved no weight;"):
        take_step(guard, model, optimizer, moves=False)


def test_the_first_step_of_a_warmup_need_not_move():
    guard, model, optimizer = guarded(learning_rate=0.0)
    take_step(guard, model, optimizer)
    assert not guard.has_moved
    optimizer.set_lr(0.1)
    with pytest.raises(InputError, match="moved no weight"):
        take_step(guard, model, optimizer, moves=False)


def test_fp16_overflows_in_a_row_stop_the_run():
    guard, model, optimizer = guarded(bias=float("inf"))  # which the scaler sees to
    for _ in range(2):
        for _ in range(MOST_OVERFLOWS - 1):
            take_step(guard, model, optimizer, scaler=scaler_that(overflows=True), moves=False)
        take_step(guard, model, optimizer, scaler=scaler_that(overflows=False))
    with pytest.raises(InputError, match=f"{MOST_OVERFLOWS} steps in a row overflowed float16"):
        for _ in range(MOST_OVERFLOWS):
            take_step(guard, model, optimizer, scaler=scaler_that(overflows=True), moves=False)


# -- in a run


def spoil(monkeypatch, *, at: int, value: float, gradient_only: bool):
    """The loss of the `at`-th batch (from 0), or its gradient alone, becomes `value`."""
    from glm.training.trainer import GenerationTrainer

    compute, calls = GenerationTrainer.compute_loss, []

    def spoilt(self, model, inputs, *args, **kwargs):
        loss = compute(self, model, inputs, *args, **kwargs)
        calls.append(1)
        if len(calls) == at + 1:
            weight = model.glm.word_embeddings.weight
            loss = loss + (Spoilt.apply(weight, value) if gradient_only else weight.sum() * value)
        return loss

    monkeypatch.setattr(GenerationTrainer, "compute_loss", spoilt)


class Spoilt(paddle.autograd.PyLayer):
    """0, with a gradient that is not finite."""

    @staticmethod
    def forward(ctx, weight, value):
        ctx.value, ctx.shape = value, weight.shape
        return paddle.zeros([])

    @staticmethod
    def backward(ctx, gradient):
        return paddle.full(ctx.shape, ctx.value)


@pytest.mark.fault
@pytest.mark.parametrize("gradient_only", [False, True])
@pytest.mark.parametrize(("accumulation", "at"), [(1, 2), (2, 4)])
def test_a_run_stops_and_names_step_and_records(workspace, monkeypatch, gradient_only, accumulation, at):
    name = f"stopped-{gradient_only}-{accumulation}"
    spoil(monkeypatch, at=at, value=float("nan"), gradient_only=gradient_only)
    with pytest.raises(InputError) as caught:
        workspace.finetune(
            name,
            max_steps=6,
            gradient_accumulation_steps=accumulation,
            per_device_train_batch_size=4 // accumulation,
            save_strategy="steps",
            save_steps=1,
        )
    text = str(caught.value)
    reason = "the gradient of glm.word_embeddings.weight is not finite" if gradient_only else "the loss is nan"
    assert text.startswith(f"step 3: {reason}; training stops here. Records of this step: ")
    assert text.count("train.json, line ") == 4
    assert len(logged(workspace.folder / name, "loss")) == 2
    checkpoints = sorted(path.name for path in (workspace.folder / name).glob("checkpoint-*"))
    assert checkpoints == ["checkpoint-1", "checkpoint-2"]

    lines = [int(part.partition(";")[0]) - 1 for part in text.split("line ")[1:]]
    order = np.random.default_rng([42, 0]).permutation(20)[8:12]
    assert sorted(lines) == sorted(order)


@pytest.mark.fault
def test_a_run_that_trains_nothing_stops(workspace, monkeypatch):
    """As when a collective without a backward cuts the graph."""
    from glm.training.trainer import GenerationTrainer

    compute = GenerationTrainer.compute_loss

    def cut(self, model, inputs, *args, **kwargs):
        loss = compute(self, model, inputs, *args, **kwargs).detach()
        loss.stop_gradient = False
        return loss

    monkeypatch.setattr(GenerationTrainer, "compute_loss", cut)
    with pytest.raises(InputError, match=r"step 1: no gradient reaches glm\.word_embeddings\.weight and \d+ more;"):
        workspace.finetune("cut", max_steps=2)
