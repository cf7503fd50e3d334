"""GanLM's model: against a slow forward, its cache, its losses, what it draws."""

import itertools

import numpy as np
import paddle
import pytest

import glm.modules.stack
from glm.errors import UsageError
from glm.generation.config import GenerationConfig
from glm.generation.search import generate
from glm.models.ganlm import FAMILY
from glm.models.ganlm.configuration import GanLMConfig
from glm.models.ganlm.draws import draw_tokens
from glm.models.ganlm.geometry import Prompt
from glm.models.ganlm.losses import Batch
from glm.models.ganlm.modeling import GanLMForConditionalGeneration
from glm.models.ganlm.weights import STACKS
from glm.modules.decoding import prepare_decoding
from glm.training.parameters import freeze
from models.ganlm.golden import batch_of
from models.ganlm.slow_forward import SlowModel

EOS, PAD = 2, 1
SOURCES = [[5, 6, 7, 8, 9, 10, 11, EOS], [12, EOS], [20, 21, 22, 23, EOS]]
TARGETS = [[13, 14, 15], [16, 17, 18, 19, 16], [25]]
TEXT_IDS = 35
WIDE = {"hidden_size": 128, "num_attention_heads": 2, "mlp_size": 96}  # heads of 64, and products: compiled


def slow(model) -> SlowModel:
    weights = {name: weight.numpy().astype(np.float64) for name, weight in model.named_parameters()}
    return SlowModel(weights, model.config)


def padded(rows: list[list[int]]) -> np.ndarray:
    width = max(map(len, rows))
    return np.array([row + [PAD] * (width - len(row)) for row in rows])


def batch() -> dict[str, paddle.Tensor]:
    inputs, labels = [[EOS, *target] for target in TARGETS], [[*target, EOS] for target in TARGETS]
    found = batch_of(padded(SOURCES), padded(inputs), padded(labels))
    return found | {"text_ids": paddle.to_tensor([TEXT_IDS])}


@paddle.no_grad()
@pytest.mark.parametrize(
    "options",
    [{}, {"relative_buckets": 0}, {"relative_buckets": 8}, {"share_generator_discriminator": True}, WIDE],
    ids=["plain", "no bias", "8 buckets", "shared", "heads of 64"],
)
def test_logits_are_those_of_a_slow_forward(ganlm_model, options):
    model = ganlm_model(seed=3, **options)
    reference, tables = slow(model), batch()
    logits = model(tables["input_ids"], tables["segments"]).numpy()
    parts = Batch.of(tables["input_ids"], tables["segments"])
    x = np.array([token for target in TARGETS for token in [*target[::-1], EOS]])
    verdicts = model.judge(paddle.to_tensor(x), parts, model.encode(parts)).numpy()
    starts = np.cumsum([0, *map(len, TARGETS)]) + np.arange(len(TARGETS) + 1)
    for number, (source, target) in enumerate(zip(SOURCES, TARGETS, strict=True)):
        wanted = reference.logits(source, [EOS, *target])
        assert np.abs(logits[number, : len(target) + 1] - wanted).max() < 1e-4
        wanted = reference.judge(source, [*target[::-1], EOS])
        assert np.abs(verdicts[starts[number] : starts[number + 1]] - wanted).max() < 1e-4


def prompts(openings=((), (4, 4), ())) -> list[Prompt]:
    return [
        Prompt(np.array(source), np.array([EOS, *opening])) for source, opening in zip(SOURCES, openings, strict=True)
    ]


def decodable(model, is_wide: bool):
    if is_wide:
        prepare_decoding(model, "float32", "cpu")
        assert model.generator.compiled_blocks is not None
    return model


@pytest.mark.parametrize("is_wide", [False, True])
def test_steps_with_a_cache_are_one_forward(ganlm_model, is_wide):
    """Also after rows were reordered, examples left, came, and took the places of others."""
    model = ganlm_model(seed=4, **(WIDE if is_wide else {}))
    reference, (first, second, third) = slow(model), prompts()
    model = decodable(model, is_wide)
    logits, cache = model.prefill([first, third])
    texts = {"first": [[]], "third": [[]]}
    order, of = ["first", "third"], {"first": first, "second": second, "third": third}

    def check(found):
        for example, name in enumerate(order):
            prompt = of[name]
            for row, text in enumerate(texts[name]):
                wanted = reference.logits(prompt.source_ids.tolist(), [*prompt.opening_ids.tolist(), *text])[-1]
                assert np.abs(found[example, row] - wanted).max() < 2e-4, (name, row)

    def step(rows, random):
        tokens = random.integers(3, 30, (len(order), rows))
        numbers = np.array([len(texts[name][0]) for name in order])
        for example, name in enumerate(order):
            texts[name] = [[*text, int(t)] for text, t in zip(texts[name], tokens[example], strict=True)]
        check(model.step(tokens, numbers, cache))

    def reorder(beams):
        cache.reorder(np.array(beams))
        for name, beam in zip(order, beams, strict=True):
            texts[name] = [texts[name][row] for row in beam]

    random = np.random.default_rng(6)
    check(logits[:, None])
    reorder([[0, 0, 0], [0, 0, 0]])
    step(3, random)
    reorder([[2, 0, 1], [1, 1, 0]])
    step(3, random)
    new_logits, new = model.prefill([second])  # its source is shorter and its opening longer
    new.reorder(np.array([[0, 0, 0]]))
    cache.replace(np.array([0]), new)
    order[0], texts["second"] = "second", [[], [], []]
    step(3, random)
    new_logits, new = model.prefill([first])
    new.reorder(np.array([[0, 0, 0]]))
    cache.append(new)
    order.append("first")
    texts["first"] = [[], [], []]
    step(3, random)
    cache.keep(np.array([1, 2]))
    del order[0]
    reorder([[0, 0, 2], [2, 1, 0]])
    step(3, random)


@pytest.mark.parametrize("length_penalty", [-0.5, 0.0, 1.0, 2.0])
def test_a_beam_for_everything_under_fairseqs_rules_is_brute_force(ganlm_model, length_penalty):
    """Of a vocabulary of 4: eop is counted in the length, every text ends with it and none is empty."""
    model, most = ganlm_model(seed=5, vocab_size=4), 3
    reference = slow(model)
    sources = [[3, 0, EOS], [0, EOS], [3, 3, 0, 0, EOS]]
    texts = [text for n in range(1, most + 1) for text in itertools.product((0, 1, 3), repeat=n)]
    config = GenerationConfig(
        search_rules="fairseq",
        tgt_length=most + 1,
        num_beams=len(texts) + 1,
        num_return_sequences=len(texts) + 1,
        length_penalty=length_penalty,
        no_repeat_ngram_size=0,
    )
    found = generate(model, [Prompt(np.array(s), np.array([EOS])) for s in sources], config, end_token_id=EOS)
    for number, hypotheses in found:
        wanted = {}
        for text in texts:
            logits = reference.logits(sources[number], [EOS, *text])
            scores = logits - np.log(np.exp(logits).sum(1, keepdims=True))
            total = sum(scores[place, token] for place, token in enumerate([*text, EOS]))
            wanted[text] = total / (len(text) + 1) ** length_penalty
        assert {hypothesis.tokens for hypothesis in hypotheses} == set(texts)
        assert [h.score for h in hypotheses] == pytest.approx(sorted(wanted.values(), reverse=True), abs=1e-4)
        for hypothesis in hypotheses:
            assert hypothesis.score == pytest.approx(wanted[hypothesis.tokens], abs=1e-4)


# -- draws


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
def test_check_18_draws_follow_the_distribution(temperature):
    random, n, V = np.random.default_rng(7), 100_000, 300
    logits = random.normal(0, 1.5, V).astype(np.float32)
    logits[PAD] = 9.0  # likely, and never drawn
    gold = 17
    table = paddle.to_tensor(np.tile(logits, (n, 1)))
    x, r = draw_tokens(table, np.full(n, gold), temperature=temperature, seed=11)
    shares = np.exp(logits.astype(np.float64) / temperature)
    shares[PAD] = 0.0
    for drawn, forbidden in ((x, [PAD]), (r, [PAD, gold])):
        expected = shares.copy()
        expected[forbidden] = 0.0
        expected *= n / expected.sum()
        counts = np.bincount(drawn, minlength=V)
        assert not counts[forbidden].any()
        frequent = expected >= 5
        statistic = ((counts - expected)[frequent] ** 2 / expected[frequent]).sum()
        freedom = frequent.sum() - 1
        assert statistic < freedom + 5 * np.sqrt(2 * freedom)


def test_a_certain_label_is_drawn_and_never_the_second_time():
    logits = np.full((50, 200), -3.0, np.float32)
    logits[:, 5] = 400.0
    logits[:, 9] = 0.0
    x, r = draw_tokens(paddle.to_tensor(logits.copy()), np.full(50, 5), temperature=1.0, seed=2)
    assert (x == 5).all()
    assert (r != 5).all() and (r != PAD).all() and (r == 9).any()


def test_the_same_seed_draws_the_same():
    logits = np.random.default_rng(1).normal(0, 1, (40, 1000)).astype(np.float32)
    gold = np.arange(40) + 3
    runs = [draw_tokens(paddle.to_tensor(logits.copy()), gold, temperature=1.0, seed=seed) for seed in (4, 4, 5)]
    assert all((a == b).all() for a, b in zip(runs[0], runs[1], strict=True))
    assert (runs[0][0] != runs[2][0]).any()


# -- losses


def test_a_weight_of_zero_skips_its_work(ganlm_model, monkeypatch):
    model, calls = ganlm_model(), []
    for name in ("judge", "generate_from"):
        own = getattr(model, name)
        monkeypatch.setattr(model, name, lambda *a, own=own, name=name: calls.append(name) or own(*a))
    model.train()
    for weights, wanted in {
        (0.0, 0.0): ["generate_from"],
        (5.0, 0.0): ["generate_from", "judge"],
        (0.0, 1.0): ["generate_from", "judge", "generate_from"],
        (5.0, 1.0): ["generate_from", "judge", "generate_from"],
    }.items():
        calls.clear()
        model.weights = weights
        model(**batch()).backward()
        assert calls == wanted
        gradient = model.discriminator_head.out_proj.weight.grad
        assert (gradient is not None and bool(gradient.any())) == (weights[0] > 0)
        model.clear_gradients()


def test_a_batch_of_sentinels_has_no_discriminators_loss(ganlm_model):
    model = ganlm_model()
    model.train()
    model.weights = (5.0, 1.0)
    tables = batch() | {"text_ids": paddle.to_tensor([2])}  # no label is a word
    loss = model(**tables)
    assert np.isfinite(float(loss)) and "discriminator" not in model.terms
    assert float(loss) == pytest.approx((model.terms["generator"] + model.terms["inconsistency"]) / 12, rel=1e-5)


def test_training_draws_anew_with_each_seed_and_the_same_with_the_same(ganlm_model):
    model = ganlm_model(seed=8)
    model.train()
    model.weights = (5.0, 1.0)
    losses = []
    for seed in (1, 1, 2):
        paddle.seed(seed)
        losses.append(float(model(**batch())))
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize("weights", [(0.0, 0.0), (5.0, 1.0)], ids=["one pass", "three passes"])
@pytest.mark.parametrize("options", [{}, {"dtype": "float64"}, WIDE], ids=["plain", "float64", "heads of 64"])
def test_recompute_gives_the_same_loss_and_gradients(ganlm_model, options, weights, monkeypatch):
    """To the bit, with dropout, but for what several passes add to: they are summed in another order.

    The sum is the encoder's states' and the words'. A gradient comes through the encoder with its rounding many times
    as large, so that no bound in float32 tells it from an error; with one pass, and in float64, there is one.
    """
    calls, recompute = [], glm.modules.stack.recompute
    monkeypatch.setattr(glm.modules.stack, "recompute", lambda *args: calls.append(1) or recompute(*args))
    dropouts = ("embedding_dropout_prob", "attention_dropout_prob", "output_dropout_prob")
    model = ganlm_model(seed=4, **dict.fromkeys(dropouts, 0.2), **options)
    model.train()
    model.weights = weights

    def run(enabled: bool) -> tuple[float, dict[str, np.ndarray]]:
        for stack in model.stacks:
            stack.enable_recompute = enabled
        model.clear_gradients()
        paddle.seed(11)
        loss = model(**batch(), label_smoothing=0.1)
        loss.backward()
        found = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
        return float(loss), {name: gradient.numpy() for name, gradient in found.items()}

    plain_loss, plain = run(False)
    assert not calls
    again_loss, again = run(True)
    # Layers of the encoder, of the generator once or twice, of the discriminator.
    assert len(calls) == (2 + 2 * 2 + 1 if any(weights) else 2 + 2)
    assert again_loss == plain_loss and again.keys() == plain.keys()
    for name, gradient in plain.items():
        if not any(weights) or not name.startswith(("encoder", "word_embeddings")):
            np.testing.assert_array_equal(again[name], gradient, err_msg=name)
        elif gradient.dtype == np.float64:
            close = 1e-12 * np.abs(gradient).max()
            np.testing.assert_allclose(again[name], gradient, rtol=0, atol=close, err_msg=name)


@pytest.mark.parametrize("parts", ["encoder", "generator|discriminator", "embeddings"])
def test_frozen_parts_have_no_gradient_and_the_others_the_same(ganlm_model, parts):
    """With recompute, for which Paddle needs states that have a gradient."""

    def gradients(frozen: str | None) -> dict[str, np.ndarray]:
        model = ganlm_model(seed=4)
        model.train()
        model.weights = (5.0, 1.0)
        if frozen:
            freeze(FAMILY.weights, model, frozen, num_layers=0)
        for stack in model.stacks:
            stack.enable_recompute = bool(frozen)
        paddle.seed(11)
        model(**batch()).backward()
        return {name: weight.grad.numpy() for name, weight in model.named_parameters() if weight.grad is not None}

    whole, found = gradients(None), gradients(parts)
    gone = {"embeddings": {"word_embeddings"}, "encoder": {"encoder"}}
    gone = gone.get(parts, {"generator", "discriminator", "discriminator_head"})
    assert found.keys() == {name for name in whole if name.split(".")[0] not in gone} != whole.keys()
    for name, gradient in found.items():
        np.testing.assert_allclose(
            gradient, whole[name], rtol=1e-4, atol=1e-6 * np.abs(whole[name]).max(), err_msg=name
        )


def test_a_layer_by_number_cannot_be_frozen(ganlm_model):
    with pytest.raises(UsageError, match="freeze layers.0: .* embeddings, encoder, generator and discriminator by"):
        freeze(FAMILY.weights, ganlm_model(), "layers.0", num_layers=0)


def test_figures_are_means_over_labels_and_shares_of_judged_tokens():
    from glm.models.ganlm.losses import figures_of

    terms = {"items": 10, "judged": 8, "generator": 20.0, "discriminator": 5.0, "inconsistency": 30.0}
    terms |= {"tp": 1, "fp": 2, "tn": 3, "fn": 2, "wrong_judged_original": 1, "right_judged_replaced": 2}
    assert figures_of(terms) == {
        "generator_loss": 2.0,
        "discriminator_loss": 0.5,
        "inconsistency_loss": 3.0,
        "replace_rate": 5 / 8,
        "replace_accuracy": 3 / 5,
        "keep_accuracy": 1 / 3,
        "wrong_judged_original": 1 / 8,
        "right_judged_replaced": 2 / 8,
    }
    assert figures_of({"items": 4, "generator": 2.0}) == {"generator_loss": 0.5}


def test_mimetic_weights():
    """Queries like keys, to the source too, outputs that undo values, waves that go on behind the source's."""
    sizes = {"vocab_size": 900, "hidden_size": 64, "mlp_size": 96, "num_attention_heads": 4, "encoder_layers": 1}
    sizes |= {"generator_layers": 2, "discriminator_layers": 1, "max_source_positions": 40, "max_target_positions": 20}
    model = GanLMForConditionalGeneration(GanLMConfig(**sizes, mimetic_init=True))
    model.seed = 3
    model.draw_weights()
    found = {name: weight.numpy() for name, weight in model.named_parameters()}
    attentions = ["encoder.layers.0.self_attn."]
    attentions += [f"generator.layers.{layer}.{kind}_attn." for layer in range(2) for kind in ("self", "cross")]
    for prefix in [*attentions, "discriminator.layers.0.self_attn.", "discriminator.layers.0.cross_attn."]:
        parts = [weight for name, weight in found.items() if name.startswith(prefix) and weight.ndim == 2]
        queries, keys, values = np.split(np.concatenate(parts[:-1], axis=1), 3, axis=1)
        assert np.std(queries - keys) == pytest.approx(0.03 * np.sqrt(2), rel=0.1), prefix
        for head in np.split(queries, 4, axis=1):
            np.testing.assert_allclose(head.T @ head, 0.5 * np.eye(16), atol=0.3)
        np.testing.assert_allclose(values @ parts[-1], np.eye(64), atol=0.3)
    waves = {stack: found[f"{stack}.position_embeddings.weight"] / (0.06 * np.sqrt(2 * 64)) for stack in STACKS}
    for stack, row, place in (("encoder", 2, 2), ("encoder", 41, 41), ("generator", 2, 42), ("discriminator", 21, 61)):
        for pair in (0, 5, 31):
            angle = place / 100 ** (pair / 32)
            assert waves[stack][row, [pair, 32 + pair]] == pytest.approx([np.sin(angle), np.cos(angle)], abs=1e-4)
    assert np.std(found["word_embeddings.weight"]) == pytest.approx(0.06, rel=0.05)
    assert not found["word_embeddings.weight"][PAD].any()
