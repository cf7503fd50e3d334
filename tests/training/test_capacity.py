"""The warning of a run that will not fit: what it is computed for, and when it is said."""

from types import SimpleNamespace

import numpy as np
import pytest
from paddlenlp.utils.log import logger

from glm.adapters.files import adapter_weights
from glm.models.glm import FAMILY as GLM
from glm.models.memory import LIBRARIES, Training, training_memory
from glm.options import finetune
from glm.options.finetune import parse_finetune_arguments
from glm.training import capacity
from glm.training.capacity import available_memory, planned_training, warn_of_memory
from tools.prefix_tools import put_prefix
from tools.run_tools import arguments, make_workspace

LENGTHS = SimpleNamespace(lengths=np.array([30, 50, 41]), target_lengths=np.array([20, 9, 11]))  # sources 10, 41, 30


@pytest.fixture
def parsed(tmp_path, sentencepiece_file):
    """A function: the arguments of a run with these options."""
    options = make_workspace(tmp_path, sentencepiece_file).options | {"output_dir": tmp_path / "run"}

    def parse(**more):
        settings = {name: value for name, value in {**options, **more}.items() if value is not None}
        return parse_finetune_arguments(list(arguments(settings)))

    return parse


@pytest.fixture
def warnings(monkeypatch):
    said = []
    monkeypatch.setattr(logger, "warning", said.append)
    return said


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, Training(4, 41, 20, device="cpu")),
        ({"recompute": True}, Training(4, 41, 20, device="cpu", recompute=True)),
        (
            {"recompute": True, "recompute_layers": 1},
            Training(4, 41, 20, device="cpu", recompute=True, recompute_layers=1),
        ),
        (
            {"prefix_tuning": True, "num_prefix_tokens": 9, "model_name_or_path": "trained"},
            Training(4, 41, 20, device="cpu", prefix_tokens=9),
        ),
        ({"update_freq": 2}, Training(4, 41, 20, device="cpu", keeps_gradients=True)),
        ({"release_grads": False}, Training(4, 41, 20, device="cpu", keeps_gradients=True)),
        ({"max_tokens": 130, "per_device_train_batch_size": None}, Training(2, 41, 20, device="cpu")),
        ({"max_tokens": 56, "per_device_train_batch_size": None}, Training(1, 41, 20, device="cpu")),
    ],
)
def test_a_batch_of_the_longest_is_planned(parsed, options, expected):
    assert planned_training(parsed(**options), LENGTHS) == expected


@pytest.mark.parametrize("has_products", [True, False])
def test_bfloat16_on_a_cpu_is_counted_where_it_is_used(parsed, monkeypatch, has_products):
    monkeypatch.setattr(finetune, "multiplies_bfloat16", lambda: has_products)
    assert planned_training(parsed(bf16=True), LENGTHS) == Training(4, 41, 20, device="cpu", half=has_products)


def test_options_of_a_gpu():
    """Of a run on several cards, which cannot be parsed on this machine."""
    options = {
        "per_device_train_batch_size": 4,
        "max_tokens": None,
        "sharding": [SimpleNamespace(value="stage2"), SimpleNamespace(value="offload")],
        "sharding_parallel_degree": 4,
        "tensor_parallel_degree": 2,
        "device": "gpu:1",
        "fp16": False,
        "bf16": True,
        "trains_in_bfloat16": False,
        "fp16_opt_level": "O2",
        "recompute": False,
        "recompute_layers": None,
        "gradient_accumulation_steps": 2,
        "release_grads": False,
    }
    adapter = SimpleNamespace(prefix_tuning=False)
    found = planned_training(SimpleNamespace(training=SimpleNamespace(**options), adapter=adapter), LENGTHS)
    sharded = {"sharding": "stage2", "sharding_parallel_degree": 4}
    assert found == Training(
        4, 41, 20, half=True, opt_level="O2", tensor_parallel_degree=2, keeps_gradients=True, **sharded
    )


def needed(config, run, trains=lambda name: True) -> int:
    return sum(training_memory(GLM, config.to_dict(), run, trains).values())


@pytest.mark.parametrize(
    ("options", "trains"),
    [
        ({}, lambda name: True),
        ({"freeze": "embeddings|layers.0"}, lambda name: "embeddings" not in name and ".layers.0." not in name),
        ({"lora": True, "model_name_or_path": "trained"}, lambda name: False),
    ],
)
def test_what_does_not_fit_is_said(parsed, tiny_config, monkeypatch, warnings, options, trains):
    config = tiny_config()
    need = needed(config, Training(4, 41, 20, device="cpu"), trains)
    monkeypatch.setattr(capacity, "available_memory", lambda device: need)
    warn_of_memory(GLM, config, parsed(**options), LENGTHS)
    assert warnings == []
    monkeypatch.setattr(capacity, "available_memory", lambda device: need - 1)
    warn_of_memory(GLM, config, parsed(**options), LENGTHS)
    assert len(warnings) == 1 and warnings[0].startswith("memory: this run may need 0.6 GiB, and there are 0.6; ")


@pytest.mark.parametrize("projection", [False, True])
def test_a_prefix_is_counted(parsed, tiny_model, monkeypatch, warnings, projection):
    """Itself, its gradient and two moments of 4 bytes, by the number of weights that such a prefix has."""
    model = tiny_model()
    put_prefix(model, tokens=9, projection=projection)
    numbers = sum(weight.size for weight in adapter_weights(model).values())
    run = Training(4, 41, 20, device="cpu", prefix_tokens=9)
    without = training_memory(GLM, model.config.to_dict(), run, lambda name: False)
    need = sum(without.values()) + 16 * numbers + int(0.4 * 16 * numbers)  # the allocator's share
    options = {"prefix_tuning": True, "num_prefix_tokens": 9, "prefix_projection": projection or None}
    for spare, said in ((1, 0), (-2, 1)):  # a byte is lost in rounding
        monkeypatch.setattr(capacity, "available_memory", lambda device, spare=spare: need + spare)
        warn_of_memory(GLM, model.config, parsed(**options, model_name_or_path="trained"), LENGTHS)
        assert len(warnings) == said


def test_memory_of_this_machine(monkeypatch):
    monkeypatch.setattr(capacity.psutil, "virtual_memory", lambda: SimpleNamespace(available=5))
    assert available_memory("cpu") == 5 + LIBRARIES["cpu"]


def test_it_is_said_before_the_model_is_loaded(tmp_path, sentencepiece_file, monkeypatch, warnings):
    class Loaded(Exception):
        pass

    def load(*arguments, **options):
        raise Loaded

    monkeypatch.setattr("glm.training.setup.load_model", load)
    monkeypatch.setattr(capacity, "available_memory", lambda device: 0)
    with pytest.raises(Loaded):
        make_workspace(tmp_path, sentencepiece_file).finetune("run", max_steps=1)
    assert [text for text in warnings if text.startswith("memory: ")]


def test_freed_memory_goes_back_around_the_first_step(monkeypatch):
    calls = []
    monkeypatch.setattr(capacity, "give_memory_back", lambda: calls.append(1))
    for device, most in (("gpu", 0), ("cpu", 2)):
        callback, args = capacity.MemoryReturn(), SimpleNamespace(device=device)
        for _ in range(3):
            callback.on_optimizer_begin(args, None, None)
            callback.on_optimizer_end(args, None, None)
        assert len(calls) == most
