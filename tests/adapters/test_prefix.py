"""Prefix tuning: virtual tokens that all see, against a NumPy forward; what is learnt of them; decoding with them."""

import numpy as np
import paddle
import pytest

import glm.modules.packing
from glm.adapters.files import PREFIX_ENCODER, adapter_weights, add_adapter, prefix_config
from glm.cpu.arrays import HEAD_SIZE
from glm.generation.config import GenerationConfig
from glm.generation.search import generate
from glm.models.glm.geometry import IGNORE_INDEX, BlankInfilling, attention_mask
from glm.modules.block import Attention
from glm.modules.decoding import prepare_decoding
from glm.modules.packing import Packing
from reference.beam_search import beam_search
from reference.forward import forward, loss
from reference.geometry import build_example, dense_mask
from tools.dtype_tools import needs_bfloat16
from tools.prefix_tools import encoder_weights, keys_and_values, put_prefix

CLS, MASK, EOS, SOP, EOP, PAD = 31, 32, 33, 34, 35, 36
BANNED = (CLS, MASK, EOS, SOP, PAD)
GEOMETRY = BlankInfilling(mask_token_ids=(MASK,), sop_token_id=SOP, eop_token_id=EOP)
SEGMENTS = np.array([[[3, 2], [1, 3]], [[8, 0], [0, 0]], [[0, 4], [2, 1]]])  # rows of 9 tokens, two of them packed
DROPOUTS = ("embedding_dropout_prob", "attention_dropout_prob", "output_dropout_prob")


def batch() -> dict[str, np.ndarray]:
    random = np.random.default_rng(5)
    tables = {
        "input_ids": random.integers(40, size=(3, 9)),
        "position_ids": random.integers(60, size=(3, 2, 9)),
        "segments": SEGMENTS,
        "labels": random.integers(40, size=(3, 9)),
    }
    tables["labels"][:, ::3] = IGNORE_INDEX
    tables["labels"][~real()] = IGNORE_INDEX
    return tables


def real() -> np.ndarray:
    """[3, 9] bool: which tokens are no padding."""
    return np.arange(9) < SEGMENTS.sum(axis=(1, 2))[:, None]


def tensors(*names: str) -> dict[str, paddle.Tensor]:
    tables = batch()
    return {name: paddle.to_tensor(tables[name]) for name in names or ("input_ids", "position_ids", "segments")}


def numpy_logits(model, weights: dict[str, np.ndarray]) -> np.ndarray:
    """The logits of a model with a prefix of these weights."""
    config, tables = model.config, batch()
    return forward(
        {name: value.numpy() for name, value in model.state_dict().items()},
        tables["input_ids"],
        tables["position_ids"],
        np.array(dense_mask(SEGMENTS.tolist(), 9))[:, None],
        num_layers=config.num_layers,
        num_attention_heads=config.num_attention_heads,
        attention_scale=config.attention_scale,
        prefix=keys_and_values(weights, num_layers=config.num_layers),
    )


@pytest.fixture(params=["by hand", "by part"])
def form(request, monkeypatch) -> str:
    """Attention written by hand, and in Paddle's operators."""
    if request.param == "by part":
        monkeypatch.setattr(Attention, "attend_by_example", Attention.attend_by_part)
    return request.param


# -- numbers


@pytest.mark.parametrize("projection", [False, True])
@pytest.mark.parametrize(("tokens", "scale"), [(1, 1.0), (5, 1.0), (5, 8.0)])
def test_logits_equal_numpy_reference(tiny_model, form, projection, tokens, scale):
    plain, model = (tiny_model(seed=2, num_layers=3, attention_scale=scale) for _ in range(2))
    put_prefix(model, tokens=tokens, projection=projection)
    got, want = model(**tensors()).numpy(), numpy_logits(model, encoder_weights(model))
    np.testing.assert_allclose(got[real()], want[real()], rtol=0, atol=2e-5)
    assert np.abs(got - plain(**tensors()).numpy())[real()].max(axis=-1).min() > 0.01  # every token sees it


@pytest.mark.parametrize("projection", [False, True])
def test_gradient_is_that_of_numpys_loss(tiny_model, form, projection):
    """Against finite differences of the NumPy forward, in each weight of the encoder."""
    model = tiny_model(seed=3)
    put_prefix(model, projection=projection)
    model.train()
    model(**tensors(), **tensors("labels"), label_smoothing=0.1).backward()
    weights, random = encoder_weights(model), np.random.default_rng(0)
    assert len(weights) == (5 if projection else 1)
    for name, weight in weights.items():
        direction = random.normal(size=weight.shape)
        ends = [
            loss(numpy_logits(model, {**weights, name: weight + step * direction}), batch()["labels"], 0.1)
            for step in (1e-5, -1e-5)
        ]
        slope = (adapter_weights(model)[f"glm.transformer.{PREFIX_ENCODER}{name}"].grad.numpy() * direction).sum()
        assert slope == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-3, abs=1e-6), name
        assert abs(slope) > 1e-4


def outcome(model, rows=slice(None), **options) -> tuple[float, dict[str, np.ndarray]]:
    """Loss and gradients of the prefix, of some rows of the batch."""
    model.train()
    paddle.seed(11)
    value = model(**{name: table[rows] for name, table in tensors(*batch()).items()}, **options)
    value.backward()
    return float(value), {name: weight.grad.numpy() for name, weight in adapter_weights(model).items()}


@pytest.mark.parametrize("projection", [False, True])
@pytest.mark.parametrize("layers", [1, 3])
def test_recompute_gives_the_same_loss_and_gradients(tiny_model, projection, layers):
    model = tiny_model(seed=4, num_layers=3, **dict.fromkeys(DROPOUTS, 0.2))
    put_prefix(model, projection=projection)
    plain_loss, plain = outcome(model)
    model.clear_gradients()
    model.glm.transformer.enable_recompute, model.glm.transformer.recompute_layers = True, layers
    value, gradients = outcome(model)
    assert value == plain_loss
    for name, gradient in plain.items():
        assert np.abs(gradient).max() > 0
        np.testing.assert_allclose(gradients[name], gradient, rtol=0, atol=1e-7)


def test_parts_of_a_batch_add_up_to_the_gradient_of_the_whole(tiny_model):
    model = tiny_model(seed=5)
    put_prefix(model)
    _, want = outcome(model)
    model.clear_gradients()
    items = int((batch()["labels"] != IGNORE_INDEX).sum())
    outcome(model, slice(0, 1), num_items=items)
    _, got = outcome(model, slice(1, 3), num_items=items)  # added to the first
    for name in want:
        np.testing.assert_allclose(got[name], want[name], rtol=0, atol=1e-6)


def test_only_the_prefix_has_a_gradient(tiny_model):
    model = tiny_model()
    put_prefix(model)
    outcome(model)
    for name, weight in model.named_parameters():
        assert (weight.grad is not None and bool(weight.grad.any())) == (f".{PREFIX_ENCODER}" in name), name


def test_a_prefix_is_drawn_from_the_seed(tiny_model):
    """Uniformly, as Glorot and Bengio 2010 have it: [P, 2 * layers * H] with P = 5."""
    drawn = []
    for seed in (3, 3, 4):
        model = tiny_model()
        paddle.seed(seed)
        add_adapter(model, prefix_config("x", model, tokens=5, projection=False))
        drawn.append(adapter_weights(model)[f"glm.transformer.{PREFIX_ENCODER}0.weight"].numpy())
    assert (drawn[0] == drawn[1]).all() and (drawn[0] != drawn[2]).any()
    bound = (6 / (5 + 2 * 2 * 24)) ** 0.5
    assert drawn[0].shape == (5, 2 * 2 * 24) and 0.95 * bound < np.abs(drawn[0]).max() <= bound
    assert drawn[0].std() == pytest.approx(bound / 3**0.5, rel=0.1)


# -- packed examples


@pytest.mark.parametrize("scores", [1, 20, 1 << 19])
def test_blocks_leave_virtual_tokens_without_queries(monkeypatch, scores):
    monkeypatch.setattr(glm.modules.packing, "SCORES", scores)
    packing = Packing(np.arange(15), [(5, 3), (0, 4), (3, 0)]).with_prefix(2)
    assert packing.examples == [(7, 3), (2, 4), (5, 0)]
    places = [0, 1, *range(2, 10), 0, 1, *range(10, 14), 0, 1, *range(14, 17)]
    assert packing.places.tolist() == places
    rows = [row for blocks in packing.blocks() for rows, *_ in blocks for row in range(rows.start, rows.stop)]
    assert rows == [row for row, place in enumerate(places) if place >= 2]
    for blocks, start in zip(packing.blocks(), (0, 10, 16), strict=True):
        assert {keys.start for _, keys, _ in blocks} == {start}


def test_bounds_for_flashmask_describe_the_mask():
    """As tests/modules/test_attention.py; virtual tokens are seen by all of their example."""
    examples, P, start = [(5, 3), (0, 2), (4, 0)], 3, 0
    bounds = Packing(np.arange(14), examples).with_prefix(P).flashmask.numpy()[0, 0]  # [n, 2]
    n = len(bounds)
    expected = np.zeros((n, n), bool)
    for S, T in examples:
        end = start + P + S + T
        expected[start:end, start:end] = attention_mask([P + S], P + S, T)[0, 0]
        start = end
    rows = np.arange(n)[:, None]
    assert ((bounds[:, 1] <= rows) & (rows < bounds[:, 0])).tolist() == expected.tolist()


# -- decoding


def next_logits_by_full_forward(model, source, opening):
    """For `reference.beam_search`."""

    def next_logits(tokens):
        text = [*opening, *tokens]
        sizes = {"src_length": len(source), "tgt_length": len(text) + 1}
        example = build_example(source, [text], mask_ids={MASK}, sop=SOP, eop=EOP, pad=PAD, **sizes)
        ids, positions = (paddle.to_tensor(np.array([example[name]])) for name in ("input_ids", "position_ids"))
        with paddle.no_grad():
            return model(ids, positions, paddle.to_tensor([[[len(source), len(text) + 1]]]))[0, -1].numpy()

    return next_logits


@needs_bfloat16
def test_products_in_bfloat16_see_it_too(tiny_model):
    """Within bfloat16's rounding; the model's weights are frozen by then, which arranging them has to bear."""
    prompts, found = [GEOMETRY.prompt([CLS, *range(1, 9), MASK, EOS], opening=[5])], []
    for has_prefix, dtype in ((True, "float32"), (True, "bfloat16"), (False, "bfloat16")):
        model = tiny_model(seed=8, hidden_size=32, num_attention_heads=4)
        if has_prefix:
            put_prefix(model)
        prepare_decoding(model, dtype, "cpu")
        found.append(model.prefill(prompts)[0])
    exact, rounded, without = found
    error, effect = np.abs(rounded - exact).max(), np.abs(without - exact).max()
    assert error < 0.05 * np.abs(exact).max() and effect > 5 * error


@pytest.mark.parametrize("batch_size", [1, 2, 5])
@pytest.mark.parametrize("is_ready", [False, True])
@pytest.mark.parametrize("size", [{}, {"hidden_size": 2 * HEAD_SIZE, "num_attention_heads": 2}], ids=["24", "128"])
def test_beams_equal_full_forward_passes(tiny_model, batch_size, is_ready, size):
    """Eager, and made ready to decode on a CPU: compiled products, and for heads of 64 compiled attention."""
    random = np.random.default_rng(7)
    sources = [[CLS, *random.integers(30, size=length).tolist(), MASK, EOS] for length in (3, 9, 1, 6, 14)]
    openings = [[], [5, 6], [7], [], [3]]
    model, eager = tiny_model(seed=6, **size), tiny_model(seed=6, **size)
    for each in (model, eager):
        put_prefix(each, tokens=4)
        for (
            name,
            weight,
        ) in each.named_parameters():  # so that products are of the size they have in the narrower model
            if len(weight.shape) == 2 and PREFIX_ENCODER not in name:
                weight.set_value(weight * (24 / each.config.hidden_size) ** 0.5)
    if is_ready:
        prepare_decoding(model, "float32", "cpu")
    prompts = [GEOMETRY.prompt(source, opening=opening) for source, opening in zip(sources, openings, strict=True)]
    config = GenerationConfig(tgt_length=9, num_beams=3, num_return_sequences=3, no_repeat_ngram_size=2)
    found = dict(generate(model, prompts, config, end_token_id=EOP, banned_token_ids=BANNED, batch_size=batch_size))
    for place, (source, opening) in enumerate(zip(sources, openings, strict=True)):
        want = beam_search(
            next_logits_by_full_forward(eager, source, opening),
            vocab_size=40,
            num_beams=3,
            eop=EOP,
            banned=BANNED,
            max_length=9 - len(opening),
            length_penalty=config.length_penalty,
            no_repeat_ngram_size=2,
        )
        assert [hypothesis.tokens for hypothesis in found[place]] == [tokens for tokens, _ in want]
        for hypothesis, (_, score) in zip(found[place], want, strict=True):
            assert hypothesis.score == pytest.approx(score, abs=1e-4)
