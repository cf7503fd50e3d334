"""The optimizer's tensors under the weights' names, and back; numbers that must not be saved; the random state."""

import numpy as np
import paddle
import pytest
from paddle import nn
from paddle.distributed.fleet.meta_parallel import get_rng_state_tracker

from glm.checkpoint.safetensors_files import read_safetensors
from glm.errors import InputError
from glm.training.optimizer_state import (
    check_finite,
    lazy_tensors,
    load_named_state,
    named_state,
    write_tensors,
)
from glm.training.randomness import seed_step


class Model(nn.Layer):
    """Ten layers more than names of one digit: a name is the beginning of another."""

    def __init__(self):
        super().__init__()
        self.parts = nn.LayerList([nn.Linear(2, 2) for _ in range(12)])
        self.parts[3].weight.stop_gradient = True

    def forward(self, states):
        for part in self.parts:
            states = part(states)
        return states


def trained_model() -> tuple[Model, paddle.optimizer.Optimizer]:
    paddle.seed(3)
    model = Model()
    scheduler = paddle.optimizer.lr.LambdaDecay(0.1, lambda step: 1.0)
    return model, paddle.optimizer.AdamW(scheduler, parameters=model.parameters())


def take_step(model, optimizer) -> None:
    model(paddle.to_tensor([[1.0, -2.0]])).square().sum().backward()
    optimizer.step()
    optimizer.clear_grad()


def test_state_goes_under_the_weights_names_and_back(tmp_path):
    model, optimizer = trained_model()
    for _ in range(3):
        take_step(model, optimizer)
    state = named_state(model, optimizer)
    kinds = ("moment1_0", "moment2_0", "beta1_pow_acc_0", "beta2_pow_acc_0")
    trained = [name for name, weight in model.named_parameters() if not weight.stop_gradient]
    assert set(state) == {f"{name}/{kind}" for name in trained for kind in kinds} and len(trained) == 23
    write_tensors(tmp_path / "o", lazy_tensors(state))
    write_tensors(tmp_path / "w", lazy_tensors(model.state_dict()))

    other, its_optimizer = trained_model()  # Paddle's own names are others now
    assert other.parts[0].weight.name != model.parts[0].weight.name
    for name, tensor in read_safetensors(tmp_path / "w").items():
        other.state_dict()[name].set_value(tensor.load())
    load_named_state(other, its_optimizer, read_safetensors(tmp_path / "o"), {"last_epoch": 3, "last_lr": 0.1})
    for _ in range(2):
        take_step(model, optimizer)
        take_step(other, its_optimizer)
    for name, weight in model.state_dict().items():
        np.testing.assert_array_equal(weight.numpy(), other.state_dict()[name].numpy(), err_msg=name)
    for name, tensor in named_state(model, optimizer).items():
        np.testing.assert_array_equal(tensor.numpy(), named_state(other, its_optimizer)[name].numpy(), err_msg=name)


def test_a_sharded_optimizer_takes_its_own_weights_state_only():
    model, optimizer = trained_model()
    take_step(model, optimizer)
    state = lazy_tensors(named_state(model, optimizer))
    other, its_optimizer = trained_model()
    its_optimizer._param2rank = {weight.name: number % 2 for number, weight in enumerate(other.parameters())}
    load_named_state(other, its_optimizer, state, {"last_epoch": 1, "last_lr": 0.1}, sharding_rank=1)
    held = [tensor.name for tensors in its_optimizer._accumulators.values() for tensor in tensors.values()]
    trained = {weight.name for weight in other.parameters() if not weight.stop_gradient}
    own = {name for name in trained if its_optimizer._param2rank[name] == 1}
    assert len(held) == 4 * len(own) and 0 < len(own) < len(trained)
    assert all(name.rpartition("_moment")[0] in own for name in held if "_moment" in name)


def test_weights_that_have_made_no_step_have_no_state():
    """As those of a task without an example yet: neither their first step nor the next checkpoint loses a state."""

    def step_of(model, optimizer, part: int) -> None:
        model.parts[part](paddle.to_tensor([[1.0, -2.0]])).square().sum().backward()
        optimizer.step()
        optimizer.clear_grad(set_to_zero=False)  # no gradient, no update

    model, optimizer = trained_model()
    step_of(model, optimizer, 0)
    other, its_optimizer = trained_model()
    other.set_state_dict(model.state_dict())
    state = lazy_tensors(named_state(model, optimizer))
    load_named_state(other, its_optimizer, state, {"last_epoch": 1, "last_lr": 0.1})
    for part in (1, 0):
        step_of(model, optimizer, part)
        step_of(other, its_optimizer, part)
        expected, found = named_state(model, optimizer), named_state(other, its_optimizer)
        assert {name.partition(".bias")[0].partition(".weight")[0] for name in expected} == {"parts.0", "parts.1"}
        assert expected.keys() == found.keys()
        for name, tensor in expected.items():
            np.testing.assert_array_equal(tensor.numpy(), found[name].numpy(), err_msg=name)


def test_a_state_of_another_model():
    model, optimizer = trained_model()
    with pytest.raises(InputError, match="optimizer has head.weight/moment1_0, and the model no head.weight"):
        load_named_state(model, optimizer, lazy_tensors({"head.weight/moment1_0": paddle.zeros([2])}), {})


def test_half_precision_and_its_masters(tmp_path):
    weight = paddle.to_tensor([1.5, -2.25]).astype("bfloat16")
    write_tensors(tmp_path / "t", lazy_tensors({"a": weight, "b": paddle.to_tensor([3, 4], dtype="int64")}))
    back = read_safetensors(tmp_path / "t")
    assert back["a"].dtype == "bfloat16"
    assert (paddle.to_tensor(back["a"].load()) == weight).all() and back["b"].load().tolist() == [3, 4]


@pytest.mark.fault
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_what_is_not_finite_is_not_saved(tmp_path, value, dtype):
    sound = paddle.to_tensor([1.0, 65000.0, -65000.0]).astype(dtype)
    spoilt = paddle.to_tensor([1.0, value, 0.0]).astype(dtype)
    write_tensors(tmp_path / "sound", lazy_tensors({"a": sound}))
    with pytest.raises(InputError, match="b.c is not finite"):
        write_tensors(tmp_path / "spoilt", lazy_tensors({"a": sound, "b.c": spoilt}))
    with pytest.raises(InputError, match="b.c is not finite"):
        check_finite(lazy_tensors({"b.c": spoilt}))


def test_a_sum_that_overflows_is_finite_numbers(tmp_path):
    write_tensors(tmp_path / "t", lazy_tensors({"a": paddle.full([100], 3e38)}))


# -- random state


def draws() -> list[float]:
    found = [float(paddle.rand([1])), float(np.random.rand())]
    tracker = get_rng_state_tracker()
    for name in ("global_seed", "local_seed"):
        with tracker.rng_state(name):
            found.append(float(paddle.rand([1])))
    return found


@pytest.fixture
def tracker():
    from paddlenlp.trainer import set_seed

    set_seed(1)


def test_a_steps_random_state_is_a_function_of_seed_and_step(tracker):
    seed_step(7, 100)
    first = draws()
    draws()
    seed_step(7, 101)
    assert not set(draws()) & set(first)
    seed_step(8, 100)
    assert not set(draws()) & set(first)
    seed_step(7, 100)
    assert draws() == first and len(set(first)) == 4


def test_ranks_draw_the_same_where_activations_are_replicated_only(tracker):
    found = []
    for data_rank, tensor_rank in ((0, 0), (0, 1), (1, 0)):
        seed_step(7, 100, data_rank=data_rank, tensor_rank=tensor_rank)
        found.append(draws())
    first, other_weights, other_data = found
    assert first[:3] == other_weights[:3] and first[3] != other_weights[3]
    assert not set(first) & set(other_data)
