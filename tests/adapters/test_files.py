"""LoRA: adds nothing at first, then x A B alpha / rank; merged equals unmerged. Prefixes: test_prefix.py.

Files of both that PaddleNLP reads too.
"""

import json

import numpy as np
import paddle
import pytest
from paddle import nn
from paddlenlp.peft import LoRAModel, PrefixConfig, PrefixModelForCausalLM
from paddlenlp.peft.prefix import llama_postprocess_past_key_value
from safetensors.numpy import load_file, save_file

from glm.adapters.files import (
    ADAPTER_WEIGHTS_NAME,
    adapter_weights,
    add_adapter,
    fold_prefix,
    load_adapter,
    lora_config,
    merge_lora,
    prefix_config,
    read_adapter_config,
)
from glm.adapters.schema import PrefixSettings
from glm.errors import InputError
from glm.models.glm import FAMILY as GLM
from tools.adapter_files import save_adapter
from tools.prefix_tools import encoder_weights, keys_and_values, put_prefix

ALL = "query_key_value|dense|dense_h_to_4h|dense_4h_to_h"
OPTIONS = {"targets": ALL, "rank": 3, "alpha": 6, "dropout": 0.0}


def batch() -> dict[str, paddle.Tensor]:
    random = np.random.default_rng(5)
    tables = {
        "input_ids": random.integers(0, 40, [2, 12]),
        "position_ids": random.integers(0, 12, [2, 2, 12]),
        "segments": np.array([[[7, 5]], [[6, 4]]]),
    }
    return {name: paddle.to_tensor(table) for name, table in tables.items()}


def with_lora(model, *, seed: int = 1, **options):
    """The model with an adapter whose weights, B too, are drawn from N(0, 0.3)."""
    config = lora_config("THUDM/glm-large-chinese", **{**OPTIONS, **options})
    add_adapter(model, config)
    random = np.random.default_rng(seed)
    for weight in adapter_weights(model).values():
        weight.set_value(random.normal(0, 0.3, weight.shape).astype("float32"))
    return config


def test_a_new_adapter_does_nothing(tiny_model):
    plain = tiny_model()(**batch()).numpy()
    model = tiny_model()
    add_adapter(model, lora_config("x", **OPTIONS))
    model.eval()
    assert (model(**batch()).numpy() == plain).all()


@pytest.mark.parametrize(
    ("targets", "names"),
    [
        ("query_key_value", {"attention.query_key_value"}),
        ("dense", {"attention.dense"}),
        ("dense_h_to_4h|dense_4h_to_h", {"mlp.dense_h_to_4h", "mlp.dense_4h_to_h"}),
    ],
)
def test_only_the_adapter_is_trained(tiny_model, targets, names):
    model = tiny_model(num_layers=2)
    with_lora(model, targets=targets)
    expected = {
        f"glm.transformer.layers.{layer}.{name}.lora_{part}" for layer in (0, 1) for name in names for part in "AB"
    }
    assert {name for name, weight in model.named_parameters() if not weight.stop_gradient} == expected
    assert set(adapter_weights(model)) == expected


@pytest.mark.parametrize("training", [False, True])
def test_unmerged_equals_weights_added_by_hand(tiny_model, training):
    model, by_hand = tiny_model(), tiny_model()
    with_lora(model)
    adapter = {name: weight.numpy() for name, weight in adapter_weights(model).items()}
    for name, weight in by_hand.named_parameters():
        stem = name.removesuffix(".weight")
        if f"{stem}.lora_A" in adapter:
            weight.set_value(weight.numpy() + adapter[f"{stem}.lora_A"] @ adapter[f"{stem}.lora_B"] * (6 / 3))
    (model.train if training else model.eval)()
    before = tiny_model()(**batch()).numpy()
    after = by_hand(**batch()).numpy()
    assert np.abs(after - before).max() > 0.1
    np.testing.assert_allclose(model(**batch()).numpy(), after, atol=1e-4)


def test_merged_equals_unmerged(tiny_model, tmp_path):
    model = tiny_model()
    config = with_lora(model)
    model.eval()
    unmerged = model(**batch()).numpy()
    layers = {name: type(layer) for name, layer in tiny_model().named_sublayers()}
    save_adapter(model, config, tmp_path)
    model = tiny_model()
    merge_lora(model, config, tmp_path)
    model.eval()
    np.testing.assert_allclose(model(**batch()).numpy(), unmerged, atol=1e-5 * np.abs(unmerged).max())
    assert {name: type(layer) for name, layer in model.named_sublayers()} == layers
    assert set(model.state_dict()) == set(tiny_model().state_dict())
    assert not any(weight.stop_gradient for weight in model.parameters())


def test_saved_and_loaded(tiny_model, tmp_path):
    model, again = tiny_model(), tiny_model()
    save_adapter(model, with_lora(model), tmp_path)
    saved = load_file(tmp_path / ADAPTER_WEIGHTS_NAME)
    assert set(saved) == set(adapter_weights(model))
    add_adapter(again, read_adapter_config(tmp_path))
    load_adapter(again, tmp_path)
    for name, weight in adapter_weights(again).items():
        assert (weight.numpy() == saved[name]).all()
    assert all(layer.scaling == 2.0 for layer in again.sublayers() if hasattr(layer, "scaling"))


def test_paddlenlp_reads_the_files(tiny_model, tmp_path):
    model = tiny_model()
    save_adapter(model, with_lora(model), tmp_path)
    model.eval()
    theirs = LoRAModel.from_pretrained(tiny_model(), str(tmp_path))
    theirs.eval()
    np.testing.assert_array_equal(theirs.model(**batch()).numpy(), model(**batch()).numpy())


def test_a_folder_is_named_in_full(tmp_path, monkeypatch):
    (tmp_path / "base").mkdir()
    monkeypatch.chdir(tmp_path)
    assert lora_config("base", **OPTIONS).base_model_name_or_path == str(tmp_path / "base")
    assert lora_config("THUDM/glm-2b", **OPTIONS).base_model_name_or_path == "THUDM/glm-2b"


def test_a_folder_without_adapter(tmp_path):
    assert read_adapter_config(tmp_path) is None


def test_files_that_cannot_be_used(tiny_model, tmp_path):
    model = tiny_model()
    config = with_lora(model)
    with pytest.raises(InputError, match=f"there is no {ADAPTER_WEIGHTS_NAME} in it"):
        load_adapter(model, tmp_path)
    save_adapter(model, config, tmp_path)
    other = tiny_model()
    with_lora(other, rank=2)
    with pytest.raises(InputError, match=r"is of another adapter or model \(glm.transformer.layers.0.attention.dense"):
        load_adapter(other, tmp_path)
    weights = load_file(tmp_path / ADAPTER_WEIGHTS_NAME)
    weights.pop(sorted(weights)[-1])
    save_file(weights, tmp_path / ADAPTER_WEIGHTS_NAME)
    with pytest.raises(InputError, match="is of another adapter"):
        load_adapter(model, tmp_path)
    (tmp_path / ADAPTER_WEIGHTS_NAME).write_bytes(b"x" * 20)
    with pytest.raises(InputError, match="cannot be read"):
        load_adapter(model, tmp_path)
    path = tmp_path / "lora_config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps({**settings, "base_model_name_or_path": None}))
    with pytest.raises(InputError, match="does not name the adapter's model"):
        read_adapter_config(tmp_path)
    path.write_text("[1]")
    with pytest.raises(InputError, match="config.json: a JSON object is expected"):
        read_adapter_config(tmp_path)


def test_an_adapter_learns(tiny_model):
    """Both matrices get gradients; nothing else does."""
    model = tiny_model()
    with_lora(model)
    model.train()
    labels = paddle.full([2, 12], -100, dtype="int64")
    labels[:, 7:10] = 3
    model(**batch(), labels=labels).backward()
    for name, weight in model.named_parameters():
        assert (weight.grad is not None and bool(weight.grad.any())) == ("lora_" in name), name


@pytest.mark.parametrize("put", [with_lora, put_prefix])
def test_gradients_do_not_depend_on_what_is_frozen(tiny_model, put):
    model, found = tiny_model(), []
    put(model)
    model.train()
    labels = paddle.full([2, 12], -100, dtype="int64")
    labels[:, 7:10] = 3
    for _ in range(2):
        model.clear_gradients()
        model(**batch(), labels=labels).backward()
        found.append({name: weight.grad.numpy() for name, weight in adapter_weights(model).items()})
        for weight in model.parameters():
            weight.stop_gradient = False
    for name, frozen in found[0].items():  # with other weights to train, sums are in another order
        bound = 1e-5 * np.abs(frozen).max()
        np.testing.assert_allclose(frozen, found[1][name], rtol=0, atol=bound, err_msg=name)


@pytest.mark.parametrize("projection", [False, True])
def test_a_folded_prefix_is_the_same(tiny_model, projection):
    """What a projection makes stands in its place."""
    model = tiny_model()
    put_prefix(model, projection=projection)
    want = keys_and_values(encoder_weights(model), num_layers=model.config.num_layers)
    model.eval()
    before = model(**batch()).numpy()
    fold_prefix(model)
    (table,) = adapter_weights(model).values()
    np.testing.assert_allclose(table.numpy(), want.transpose(2, 1, 0, 3).reshape(table.shape), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(model(**batch()).numpy(), before, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prefix_projection": True}, "prefix_projection_hidden_size None; 1 or more is expected"),
        (
            {"prefix_projection": True, "prefix_projection_hidden_size": 0},
            "prefix_projection_hidden_size 0; 1 or",
        ),
        ({"multi_query_group_num": 2}, "multi_query_group_num 2; null is expected"),
    ],
)
def test_settings_of_a_prefix_that_cannot_be(tiny_model, settings, message):
    model = tiny_model()
    config = prefix_config("x", model, tokens=3, projection=False).model_copy(update=settings)
    with pytest.raises(InputError, match=f"prefix_config.json: {message}"):
        add_adapter(model, config)


def test_linear_layers_are_those_of_the_options(tiny_model):
    found = {name.rpartition(".")[2] for name, layer in tiny_model().named_sublayers() if isinstance(layer, nn.Linear)}
    assert found == set(GLM.weights.lora_targets)


# -- prefixes


@pytest.mark.parametrize("projection", [False, True])
def test_a_prefix_saved_and_loaded(tiny_model, tmp_path, projection):
    model, again = tiny_model(), tiny_model()
    config = put_prefix(model, projection=projection)
    save_adapter(model, config, tmp_path)
    assert set(load_file(tmp_path / ADAPTER_WEIGHTS_NAME)) == set(encoder_weights(model))
    read = read_adapter_config(tmp_path)
    assert isinstance(read, PrefixSettings) and read == config
    add_adapter(again, read)
    load_adapter(again, tmp_path)
    np.testing.assert_array_equal(again(**batch()).numpy(), model(**batch()).numpy())


@pytest.mark.parametrize("projection", [False, True])
def test_paddlenlp_reads_the_files_of_a_prefix(tiny_model, tmp_path, projection):
    """Its class cannot run our model; the settings, the weights, and the keys and values it makes of them are ours."""
    model = tiny_model(num_layers=3)
    config = put_prefix(model, tokens=4, projection=projection)
    save_adapter(model, config, tmp_path)
    settings = PrefixConfig.from_pretrained(str(tmp_path))
    assert {name: getattr(config, name) for name in settings.to_dict()} == settings.to_dict()
    bare = tiny_model(num_layers=3)
    bare.prepare_inputs_for_generation = None  # which its class only keeps
    theirs = PrefixModelForCausalLM.from_pretrained(
        bare, str(tmp_path), postprocess_past_key_value=llama_postprocess_past_key_value
    )
    for ours, weight in zip(adapter_weights(model).values(), theirs.prefix_encoder.parameters(), strict=True):
        np.testing.assert_array_equal(weight.numpy(), ours.numpy())
    prefixes = model.glm.transformer.prefixes()
    for (keys, values), table in zip(theirs._get_past_key_values(1), prefixes, strict=True):  # [1, P, N, D] each
        np.testing.assert_array_equal(table.numpy()[:, 24:48], keys.numpy().reshape(4, 24))
        np.testing.assert_array_equal(table.numpy()[:, 48:], values.numpy().reshape(4, 24))
        assert not table.numpy()[:, :24].any()


def test_a_model_that_is_split_takes_no_prefix(tiny_model):
    model = tiny_model()
    model.config.tensor_parallel_degree = 2
    with pytest.raises(InputError, match="tensor_parallel_degree 2: not beside an adapter, which is not split"):
        put_prefix(model)


def test_a_prefix_that_cannot_be_used(tiny_model, tmp_path):
    model = tiny_model()
    config = put_prefix(model, tokens=4)
    save_adapter(model, config, tmp_path)
    for name, options in (("num_hidden_layers", {"num_layers": 3}), ("hidden_size", {"hidden_size": 12})):
        with pytest.raises(InputError, match=f"prefix_config.json: {name} .*, but its model has"):
            add_adapter(tiny_model(**options), config)
    for tokens in (0, None, "4"):
        with pytest.raises(InputError, match=f"num_prefix_tokens {tokens}; 1 or more is expected"):
            add_adapter(tiny_model(), config.model_copy(update={"num_prefix_tokens": tokens}))
    other = tiny_model()
    put_prefix(other, tokens=5)
    with pytest.raises(InputError, match=r"is of another adapter or model \(0.weight differs\)"):
        load_adapter(other, tmp_path)
    path = tmp_path / "prefix_config.json"
    theirs = PrefixConfig(num_prefix_tokens=4, num_attention_heads=3, num_hidden_layers=2, hidden_size=24)
    theirs.save_pretrained(str(tmp_path))
    with pytest.raises(InputError, match="does not name the adapter's model; set base_model_name_or_path"):
        read_adapter_config(tmp_path)
    path.write_text("[1]")
    with pytest.raises(InputError, match="config.json: a JSON object is expected"):
        read_adapter_config(tmp_path)
