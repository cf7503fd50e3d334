"""The model against PaddleNLP's own GLM and a NumPy forward; loading, saving, initialisation and recompute."""

import math

import numpy as np
import paddle
import pytest
from paddlenlp.transformers.glm.modeling import GLMForConditionalGeneration as TheirGLM
from safetensors.numpy import load_file, save_file

import glm.modules.head
import glm.modules.stack
from glm.checkpoint.loading import load_model
from glm.errors import InputError
from glm.models.glm import FAMILY as GLM
from glm.models.glm.modeling import GLMForConditionalGeneration, GLMModel
from glm.models.protocol import IGNORE_INDEX
from glm.modules.packing import Packing
from reference.forward import forward, loss
from reference.geometry import build_example, dense_mask

CLS, MASK, EOS, SOP, EOP = 31, 32, 33, 34, 35
EXAMPLES = [  # three sources of unequal lengths, one with two blanks
    ([CLS, 1, 2, 3, MASK, EOS], [[11, 12, 13]]),
    ([CLS, MASK, 4, 5, 6, 7, MASK, 8, EOS], [[14], [15, 16]]),
    ([CLS, MASK], [[17, 18]]),
]
SWITCHES = pytest.mark.parametrize(
    "switches",
    [{"block_position_encoding": block, "attention_scale": scale} for block in (True, False) for scale in (1.0, 8.0)],
    ids=lambda switches: f"block={switches['block_position_encoding']}-scale={switches['attention_scale']:.0f}",
)


@pytest.fixture(scope="module")
def batch():
    """ids [3, 17], positions [3, 2, 17], segments, labels and a dense mask; padding behind each example."""
    rows = []
    for source, spans in EXAMPLES:
        S, T = len(source), sum(len(span) + 1 for span in spans)
        rows.append(
            build_example(source, spans, mask_ids={MASK}, sop=SOP, eop=EOP, pad=EOS, src_length=S, tgt_length=17 - S)
        )
        rows[-1]["segments"] = [[S, T]]
        labels = rows[-1]["labels"]
        assert all(label == IGNORE_INDEX for label in labels[S + T :]) and IGNORE_INDEX not in labels[S : S + T]
    names = ("input_ids", "position_ids", "segments", "labels", "attention_mask")
    arrays = {name: np.array([row[name] for row in rows]) for name in names}
    arrays["attention_mask"] = arrays["attention_mask"][:, None]
    return arrays


def tensors(batch, *names):
    return [paddle.to_tensor(batch[name]) for name in names or ("input_ids", "position_ids", "segments")]


def real(batch):
    """[B, L] bool: which tokens are no padding."""
    return np.arange(batch["input_ids"].shape[1]) < batch["segments"].sum(axis=(1, 2))[:, None]


def weights_of(model):
    return {name: value.numpy() for name, value in model.state_dict().items()}


def numpy_logits(model, batch):
    config = model.config
    return forward(
        weights_of(model),
        batch["input_ids"],
        batch["position_ids"],
        batch["attention_mask"],
        num_layers=config.num_layers,
        num_attention_heads=config.num_attention_heads,
        layernorm_epsilon=config.layernorm_epsilon,
        attention_scale=config.attention_scale,
        block_position_encoding=config.block_position_encoding,
    )


def theirs_from(ours, folder):
    """PaddleNLP's GLM with the weights of ours. Without block positions it wants the first position row alone."""
    ours.save_pretrained(str(folder), safe_serialization=True)
    theirs = TheirGLM.from_pretrained(str(folder))
    theirs.eval()
    return theirs


def their_tensors(batch, block_position_encoding=True, **other_switches):
    ids, positions, mask = tensors(batch, "input_ids", "position_ids", "attention_mask")
    return ids, positions if block_position_encoding else positions[:, 0], mask


# -- numbers


@SWITCHES
def test_logits_equal_paddlenlp(tiny_model, batch, tmp_path, switches):
    ours = tiny_model(**switches)
    theirs = theirs_from(ours, tmp_path)
    for name, value in theirs.state_dict().items():
        assert np.array_equal(value.numpy(), ours.state_dict()[name].numpy()), name
    want = theirs(*their_tensors(batch, **switches))[0].numpy()
    got = ours(*tensors(batch)).numpy()
    assert got.dtype == np.float32 and got.shape == (3, 17, 40)
    assert np.abs(want).max() > 1
    np.testing.assert_allclose(got[real(batch)], want[real(batch)], rtol=0, atol=1e-5)
    assert (got[~real(batch)] == 0).all()


@SWITCHES
@pytest.mark.parametrize("size", [{}, {"num_layers": 3, "num_attention_heads": 2, "layernorm_epsilon": 1e-3}], ids=str)
def test_logits_equal_numpy_reference(tiny_model, batch, switches, size):
    model = tiny_model(seed=1, **switches, **size)
    got, want = model(*tensors(batch)).numpy(), numpy_logits(model, batch)
    np.testing.assert_allclose(got[real(batch)], want[real(batch)], rtol=0, atol=1e-5)


@SWITCHES
def test_logits_equal_numpy_reference_at_any_position_and_packing(tiny_model, switches):
    model = tiny_model(seed=18, **switches)
    generator = np.random.default_rng(18)
    positions = generator.integers(model.config.position_rows, size=(3, 2, 9))
    positions[0, :, 0] = model.config.position_rows - 1
    segments = np.array([[[3, 2], [1, 3]], [[9, 0], [0, 0]], [[0, 4], [2, 1]]])
    batch = {
        "input_ids": generator.integers(40, size=(3, 9)),
        "position_ids": positions,
        "segments": segments,
        "attention_mask": np.array(dense_mask(segments.tolist(), 9))[:, None],
    }
    got, want = model(*tensors(batch)).numpy(), numpy_logits(model, batch)
    np.testing.assert_allclose(got[real(batch)], want[real(batch)], rtol=0, atol=1e-5)


@SWITCHES
def test_loss_equals_paddlenlp(tiny_model, batch, tmp_path, switches):
    ours = tiny_model(seed=2, **switches)
    theirs = theirs_from(ours, tmp_path)
    labels = paddle.to_tensor(batch["labels"])
    loss_mask = (labels != IGNORE_INDEX).astype("float32")  # their loss is per token without it
    want = theirs(*their_tensors(batch, **switches), labels=labels, loss_mask=loss_mask)[0]
    got = ours(*tensors(batch), labels=labels)
    assert float(got) == pytest.approx(float(want), abs=1e-5)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 0.7])
def test_loss_equals_reference(tiny_model, batch, label_smoothing):
    model = tiny_model(seed=3)
    labels = paddle.to_tensor(batch["labels"])
    got = model(*tensors(batch), labels=labels, label_smoothing=label_smoothing)
    assert float(got) == pytest.approx(loss(numpy_logits(model, batch), batch["labels"], label_smoothing), abs=1e-5)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_gradients_of_the_loss_equal_those_through_all_logits(tiny_model, batch, label_smoothing):
    # the short way (logits of labelled positions only) against the long one, written with other operators
    model = tiny_model(seed=4)
    labels = paddle.to_tensor(batch["labels"])
    model(*tensors(batch), labels=labels, label_smoothing=label_smoothing).backward()
    got = {name: parameter.grad.numpy() for name, parameter in model.named_parameters()}
    model.clear_gradients()

    weight = (labels != IGNORE_INDEX).astype("float32")
    V = model.config.vocab_size
    target = paddle.nn.functional.one_hot(labels.clip(min=0), V) * (1 - label_smoothing) + label_smoothing / V
    log_p = paddle.nn.functional.softmax(model(*tensors(batch)), axis=-1).log()
    ((-(target * log_p).sum(axis=-1) * weight).sum() / weight.sum()).backward()
    for name, parameter in model.named_parameters():
        want = parameter.grad.numpy()
        assert np.abs(want).max() > 1e-4, name
        np.testing.assert_allclose(got[name], want, rtol=1e-3, atol=2e-6, err_msg=name)


def test_only_labelled_positions_meet_the_head(tiny_model, batch, monkeypatch):
    model = tiny_model(seed=5)
    seen, objective = [], glm.modules.head.smoothed_cross_entropy
    monkeypatch.setattr(
        glm.modules.head,
        "smoothed_cross_entropy",
        lambda states, *args, **kw: seen.append(states.shape) or objective(states, *args, **kw),
    )
    model(*tensors(batch), labels=paddle.to_tensor(batch["labels"]))
    assert seen == [[4 + 5 + 3, 24]]  # the tokens of the spans and their eops, of 3 * 17 positions


def test_padding_does_not_reach_the_loss(tiny_model, batch):
    model = tiny_model(seed=6)
    labels = paddle.to_tensor(batch["labels"])
    want = float(model(*tensors(batch), labels=labels))
    positions, segments = tensors(batch, "position_ids", "segments")
    ids = np.where(real(batch), batch["input_ids"], 20)
    assert float(model(paddle.to_tensor(ids), positions, segments, labels=labels)) == want
    ids[2, 4] = 22  # the last token that has a label
    assert abs(float(model(paddle.to_tensor(ids), positions, segments, labels=labels)) - want) > 1e-3


def test_loss_is_divided_by_the_number_of_items_given(tiny_model, batch):
    model = tiny_model(seed=7)
    labels = paddle.to_tensor(batch["labels"])
    mean = float(model(*tensors(batch), labels=labels, label_smoothing=0.1))
    total = float(model(*tensors(batch), labels=labels, label_smoothing=0.1, num_items=1))
    assert total == pytest.approx(12 * mean, rel=1e-6)
    nothing = paddle.full_like(labels, IGNORE_INDEX)
    assert float(model(*tensors(batch), labels=nothing)) == 0.0


def test_parts_of_a_batch_add_up_to_the_gradient_of_the_whole(tiny_model, batch):
    model = tiny_model(seed=8)
    model.train()

    def gradients(rows, num_items):
        parts = [part[rows] for part in tensors(batch)]
        model(*parts, labels=paddle.to_tensor(batch["labels"][rows]), num_items=num_items).backward()
        return {name: parameter.grad.numpy() for name, parameter in model.named_parameters()}

    want = gradients(slice(None), None)
    model.clear_gradients()
    gradients(slice(0, 1), 12)
    got = gradients(slice(1, 3), 12)  # added to the first
    for name in want:
        np.testing.assert_allclose(got[name], want[name], rtol=0, atol=1e-6, err_msg=name)


def test_examples_that_do_not_fit_into_their_row_are_refused(tiny_model, batch):
    ids, positions, segments = tensors(batch)
    with pytest.raises(ValueError, match="do not fit into rows of 17 tokens"):
        tiny_model()(ids, positions, segments + 6)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_packed_rows_have_the_loss_and_gradients_of_the_examples_by_themselves(tiny_model, batch, label_smoothing):
    model = tiny_model(seed=8)
    model.train()
    lengths = batch["segments"].sum(axis=(1, 2))
    order = [[0, 2], [1]]  # two rows

    def packed(table, fill):
        rows = [np.concatenate([table[place][..., : lengths[place]] for place in row], axis=-1) for row in order]
        width = max(row.shape[-1] for row in rows) + 1
        return paddle.to_tensor(
            np.stack(
                [
                    np.pad(row, [(0, 0)] * (row.ndim - 1) + [(0, width - row.shape[-1])], constant_values=fill)
                    for row in rows
                ]
            )
        )

    def run(*inputs, labels):
        model.clear_gradients()
        loss = model(*inputs, labels=labels, label_smoothing=label_smoothing)
        loss.backward()
        return float(loss), {name: parameter.grad.numpy() for name, parameter in model.named_parameters()}

    want, plain = run(*tensors(batch), labels=paddle.to_tensor(batch["labels"]))
    parts = [batch["segments"][place, 0] for place in range(3)]
    segments = paddle.to_tensor(np.array([[parts[0], parts[2]], [parts[1], [0, 0]]]))
    got, gradients = run(
        packed(batch["input_ids"], 20),
        packed(batch["position_ids"], 0),
        segments,
        labels=packed(batch["labels"], -100),
    )
    assert got == pytest.approx(want, abs=1e-6)
    for name, gradient in plain.items():
        np.testing.assert_allclose(gradients[name], gradient, rtol=0, atol=1e-6, err_msg=name)


# -- dropout and recompute


DROPOUTS = ("embedding_dropout_prob", "attention_dropout_prob", "output_dropout_prob")


@pytest.mark.parametrize("option", DROPOUTS)
def test_each_dropout_acts_in_training_only(tiny_model, batch, option):
    model, plain = tiny_model(seed=9, **{option: 0.3}), tiny_model(seed=9)
    want = plain(*tensors(batch)).numpy()
    np.testing.assert_array_equal(model(*tensors(batch)).numpy(), want)
    model.train()
    assert np.abs(model(*tensors(batch)).numpy() - want).max() > 1e-2


def test_dropout_falls_on_what_the_formula_names(tiny_model, batch):
    # rate 1 drops everything: without embeddings all states are alike
    model = tiny_model(seed=9, embedding_dropout_prob=1.0)
    model.train()
    logits = model(*tensors(batch)).numpy()
    np.testing.assert_allclose(
        logits[real(batch)], np.broadcast_to(logits[0, 0], logits[real(batch)].shape), atol=1e-5
    )
    model = tiny_model(seed=9, output_dropout_prob=1.0)  # both branches of each layer end in it
    model.train()
    words = model.glm.word_embeddings(paddle.to_tensor(batch["input_ids"]))
    stack, positions = model.glm.transformer, paddle.to_tensor(batch["position_ids"])
    states = words + stack.position_embeddings(positions[:, 0]) + stack.block_position_embeddings(positions[:, 1])
    want = model.head.logits(stack.final_layernorm(states)).numpy()
    np.testing.assert_allclose(model(*tensors(batch)).numpy()[real(batch)], want[real(batch)], atol=1e-5)
    model = tiny_model(seed=9, attention_dropout_prob=1.0)  # no probabilities: nobody sees anybody
    model.train()
    ids = batch["input_ids"].copy()
    want = model(*tensors(batch)).numpy()
    ids[:, 0] = 25
    got = model(paddle.to_tensor(ids), *tensors(batch, "position_ids", "segments")).numpy()
    np.testing.assert_allclose(got[:, 1:], want[:, 1:], atol=1e-6)


def test_recompute_gives_the_same_loss_and_gradients(tiny_model, batch, monkeypatch):
    calls, recompute = [], glm.modules.stack.recompute
    monkeypatch.setattr(glm.modules.stack, "recompute", lambda *args: calls.append(1) or recompute(*args))
    model = tiny_model(seed=10, num_layers=3, **dict.fromkeys(DROPOUTS, 0.2))
    model.train()

    def run(enabled):
        model.glm.transformer.enable_recompute = enabled
        model.clear_gradients()
        paddle.seed(11)
        value = model(*tensors(batch), labels=paddle.to_tensor(batch["labels"]), label_smoothing=0.1)
        value.backward()
        return float(value), {name: parameter.grad.numpy() for name, parameter in model.named_parameters()}

    plain_loss, plain = run(False)
    assert not calls
    recomputed_loss, recomputed = run(True)
    assert len(calls) == 3
    model.glm.transformer.recompute_layers = 2
    assert run(True)[0] == plain_loss and len(calls) == 5
    assert recomputed_loss == plain_loss
    for name, gradient in plain.items():
        assert np.abs(gradient).max() > 0, name
        np.testing.assert_allclose(recomputed[name], gradient, rtol=0, atol=1e-7, err_msg=name)
    paddle.seed(12)
    other = float(model(*tensors(batch), labels=paddle.to_tensor(batch["labels"]), label_smoothing=0.1))
    assert other != plain_loss  # dropout was at work
    model.eval()
    model(*tensors(batch))
    assert len(calls) == 7  # no recompute outside training


# -- initialisation


@pytest.mark.parametrize("scaled", [True, False])
def test_initial_weights(tiny_config, scaled):
    config = tiny_config(
        num_layers=8, hidden_size=48, initializer_range=0.05, use_scaled_init_for_output_weights=scaled
    )
    paddle.seed(13)
    model = GLMForConditionalGeneration(config)
    for name, value in weights_of(model).items():
        if name.endswith("layernorm.weight"):
            assert (value == 1).all(), name
        elif name.endswith("bias"):
            assert (value == 0).all(), name
        else:
            output = name.endswith(("attention.dense.weight", "dense_4h_to_h.weight"))
            std = 0.05 / math.sqrt(2 * 8) if output and scaled else 0.05
            # five standard errors
            assert value.std() == pytest.approx(std, rel=5 / math.sqrt(2 * value.size)), name
            assert abs(value.mean()) < 5 * std / math.sqrt(value.size), name


# -- saving and loading


@SWITCHES
def test_saved_and_loaded_is_bit_equal(tiny_model, batch, tmp_path, switches):
    model = tiny_model(seed=14, **switches)
    model.save_pretrained(str(tmp_path), safe_serialization=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    loaded = GLMForConditionalGeneration.from_pretrained(str(tmp_path))
    loaded.eval()
    want, got = weights_of(model), weights_of(loaded)
    assert list(got) == list(want)
    for name in want:
        assert got[name].dtype == np.float32 and np.array_equal(got[name], want[name]), name
    assert np.array_equal(loaded(*tensors(batch)).numpy(), model(*tensors(batch)).numpy())
    for option in ("num_layers", "vocab_size", "hidden_size", "num_attention_heads", "max_sequence_length", *switches):
        assert getattr(loaded.config, option) == getattr(model.config, option), option


def test_paddlenlps_own_checkpoint_loads(tiny_model, batch, tmp_path):
    theirs = theirs_from(tiny_model(seed=15), tmp_path / "ours")
    theirs.save_pretrained(str(tmp_path / "theirs"))  # model_state.pdparams
    with pytest.raises(InputError, match="no folder with model.safetensors"):  # PaddleNLP would unpickle it
        GLMForConditionalGeneration.from_pretrained(str(tmp_path / "theirs"))
    ours = load_model(GLM, str(tmp_path / "theirs"), tiny_model().config)
    ours.eval()
    got, want = ours(*tensors(batch)).numpy(), theirs(*their_tensors(batch))[0].numpy()
    np.testing.assert_allclose(got[real(batch)], want[real(batch)], rtol=0, atol=1e-5)


def test_base_model_loads_from_a_full_checkpoint(tiny_model, batch, tmp_path):
    model = tiny_model(seed=16)
    model.save_pretrained(str(tmp_path), safe_serialization=True)
    base = GLMModel.from_pretrained(str(tmp_path))
    base.eval()
    ids, positions, segments = tensors(batch)
    inputs = ids, positions, Packing.of(segments.numpy(), 17)
    assert np.array_equal(base(*inputs).numpy(), model.glm(*inputs).numpy())


@pytest.fixture
def checkpoint(tiny_model, tmp_path):
    """Saves a checkpoint, changed by a function of its weights; gives its folder."""

    def make(change):
        tiny_model(seed=17).save_pretrained(str(tmp_path), safe_serialization=True)
        weights = load_file(str(tmp_path / "model.safetensors"))
        change(weights)
        save_file(weights, str(tmp_path / "model.safetensors"), metadata={"format": "np"})
        return str(tmp_path)

    return make


BIAS = "glm.transformer.layers.1.mlp.dense_h_to_4h.bias"


@pytest.mark.parametrize("name", [BIAS, "glm.word_embeddings.weight", "glm.transformer.final_layernorm.weight"])
def test_missing_weight_is_an_error_that_names_it(checkpoint, name):
    folder = checkpoint(lambda weights: weights.pop(name))
    with pytest.raises(InputError, match=f"missing {name}$"):
        GLMForConditionalGeneration.from_pretrained(folder)


@pytest.mark.parametrize("name", ["glm.transformer.layers.2.mlp.dense_h_to_4h.bias", "lm_head.weight"])
def test_unknown_weight_is_an_error_that_names_it(checkpoint, name):
    folder = checkpoint(lambda weights: weights.update({name: weights[BIAS]}))
    with pytest.raises(InputError, match=f"unknown {name}$"):
        GLMForConditionalGeneration.from_pretrained(folder)


def test_renamed_weights_are_named_from_both_sides_and_counted_off(checkpoint):
    def rename(weights):
        for name in [name for name in weights if ".mlp." in name]:
            weights[name.replace(".mlp.", ".ffn.")] = weights.pop(name)

    with pytest.raises(InputError) as error:
        GLMForConditionalGeneration.from_pretrained(checkpoint(rename))
    missing, unknown = str(error.value).split("; ")
    assert "missing glm.transformer.layers.0.mlp.dense_4h_to_h.bias, " in missing and missing.endswith(" ...")
    assert unknown.startswith("unknown glm.transformer.layers.0.ffn.dense_4h_to_h.bias, ")


@pytest.mark.parametrize("name", [BIAS, "glm.word_embeddings.weight"])
def test_weight_of_another_shape_is_an_error_that_names_it(checkpoint, name):
    folder = checkpoint(lambda weights: weights.update({name: weights[name][:3]}))
    with pytest.raises((InputError, RuntimeError), match=name):
        GLMForConditionalGeneration.from_pretrained(folder)
