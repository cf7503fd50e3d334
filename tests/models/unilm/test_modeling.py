"""The model in NumPy terms: rows of several examples and of both kinds, padding, prefill and steps, random weights."""

import numpy as np
import paddle
import pytest

from glm.models.unilm.configuration import UniLMConfig
from glm.models.unilm.geometry import BIDIRECTIONAL, LEFT_TO_RIGHT, RIGHT_TO_LEFT, SEQ2SEQ, attention_mask, in_task
from glm.models.unilm.modeling import UniLMForConditionalGeneration
from glm.modules.block import Attention
from glm.modules.decoding import prepare_decoding
from glm.modules.packing import Packing
from tools.unilm_tools import geometry_of, random_model, tensors

MASK, SEP = 4, 3


class Ids:
    special_ids = {}
    vocab_size, mask_token_id, sep_token_id, cls_token_id = 25, MASK, SEP, 2


GEOMETRY = geometry_of(Ids(), objective="pseudo_masked")


def pair(seed: int, source: int = 6, target: int = 4):
    random = np.random.default_rng(seed)
    return [2, *random.integers(5, 25, source).tolist(), SEP], random.integers(5, 25, target).tolist()


def example(seed: int, **lengths):
    return GEOMETRY.example(*pair(seed, **lengths), tgt_length=50)


def row_of(task: int, seed: int, length: int = 9):
    ids, _ = pair(seed, source=length)
    return in_task(task, ids, 4)


def logits_of(model, rows, width: int) -> np.ndarray:
    batch = GEOMETRY.collate(rows, width, 0)
    names = [name for name in batch if name not in ("labels", "order")]
    return model(**tensors({name: batch[name] for name in names})).numpy()


@pytest.mark.parametrize("options", [{}, {"new_pos_ids": True, "relax_projection": 4}, {"hidden_size": 128}])
def test_examples_of_a_row_and_of_a_batch_are_blind_to_each_other(options):
    """Of all tasks, with twins and without: each as it is alone."""
    options = {"num_attention_heads": 2 if "hidden_size" in options else 3, **options}
    model = random_model(**options)
    examples = [
        example(0),
        row_of(BIDIRECTIONAL, 1),
        row_of(RIGHT_TO_LEFT, 2),
        example(3, source=2, target=7),
        row_of(LEFT_TO_RIGHT, 4, length=5),
        row_of(SEQ2SEQ, 5),
    ]
    rows = [examples[:2], examples[2:5], examples[5:]]
    together = logits_of(model, rows, 50)
    for number, row in enumerate(rows):
        start = 0
        for item in row:
            alone = logits_of(model, [[item]], len(item))[0]
            np.testing.assert_allclose(together[number, start : start + len(item)], alone, rtol=0, atol=1e-5)
            start += len(item)
        assert (together[number, start:] == 0).all()


@pytest.mark.parametrize("heads", [2, 4])
def test_attention_of_three_parts_is_that_of_the_dense_mask(heads):
    """Against softmax over every pair of tokens, with what is hidden left out; heads of 64 and of 32."""
    options = random_model(hidden_size=128, num_attention_heads=heads).config.block
    attention = Attention(options)
    parts = np.array([[[5, 4, 4], [3, 6, 6]], [[7, 2, 0], [2, 3, 1]]])
    packing = Packing.of(parts, 40)
    projected = np.random.default_rng(0).normal(size=(len(packing.places), 384)).astype("float32")
    found = attention(paddle.to_tensor(projected), packing).numpy()
    start, places = 0, {int(place): number for number, place in enumerate(packing.places)}
    for row in range(2):
        start = row * 40
        for a, b, c in parts[row]:
            own = [places[start + place] for place in range(a + b + c)]
            query, keys, values = np.split(projected[own].astype("float64"), 3, axis=1)
            sees, expected = attention_mask(a, b, c), np.zeros_like(query)
            for head in np.split(np.arange(128), heads):
                scores = query[:, head] @ keys[:, head].T / np.sqrt(len(head))
                weights = np.where(sees, np.exp(scores - scores.max(1, keepdims=True)), 0)
                expected[:, head] = weights / weights.sum(1, keepdims=True) @ values[:, head]
            np.testing.assert_allclose(found[own], expected, rtol=0, atol=1e-5)
            start += a + b + c


def test_more_twins_than_tokens_are_refused():
    with pytest.raises(ValueError, match="do not fit"):
        Packing.of(np.array([[[3, 2, 3]]]), 20)


@pytest.mark.parametrize("hidden", [24, 128], ids=["any heads", "heads of 64"])
@pytest.mark.parametrize("prepared", [False, True], ids=["as trained", "arranged"])
def test_prefill_and_steps_equal_one_forward(hidden, prepared):
    """Logits of every [MASK] of pseudo-masked examples, found step by step with two rows each, after the cache was
    reordered, examples left, took the place of others and were added."""
    model = random_model(hidden_size=hidden, num_attention_heads=3 if hidden == 24 else 2)
    pairs = [pair(seed, source=3 + seed, target=5) for seed in range(4)]
    expected = []
    for source, target in pairs:
        item = GEOMETRY.example(source, target, tgt_length=50)
        expected.append(logits_of(model, [[item]], len(item))[0, -6:])
    if prepared:
        prepare_decoding(model, "float32", "cpu")
    prompts = [GEOMETRY.prompt(source) for source, _ in pairs]

    def step(number: list[int], chosen: list[int], cache, row: int) -> None:
        """Reads the next token of each example in `row`, another one in the other row, and compares."""
        tokens = np.array([[pairs[e][1][n], 7][:: 1 if row == 0 else -1] for e, n in zip(chosen, number, strict=True)])
        logits = model.step(tokens, np.array(number), cache)
        for place, (e, n) in enumerate(zip(chosen, number, strict=True)):
            np.testing.assert_allclose(logits[place, row], expected[e][n + 1], rtol=0, atol=2e-5)

    logits, cache = model.prefill(prompts[:2])
    for place in range(2):
        np.testing.assert_allclose(logits[place], expected[place][0], rtol=0, atol=2e-5)
    cache.reorder(np.zeros((2, 2), dtype=np.int64))
    step([0, 0], [0, 1], cache, row=0)
    cache.reorder(np.array([[1, 0], [1, 0]]))
    step([1, 1], [0, 1], cache, row=1)
    _, more = model.prefill(prompts[2:3])
    cache.append(more)
    cache.reorder(np.array([[1, 1], [1, 1], [0, 0]]))
    step([2, 2, 0], [0, 1, 2], cache, row=0)
    cache.keep(np.array([1, 2]))
    cache.reorder(np.zeros((2, 2), dtype=np.int64))
    step([3, 1], [1, 2], cache, row=1)
    _, other = model.prefill(prompts[:1])
    cache.replace([0], other)
    cache.reorder(np.array([[0, 0], [1, 1]]))
    step([0, 2], [0, 2], cache, row=0)


def test_an_opening_is_read_with_the_source():
    """The first logits behind an opening are those of the [MASK] that training has there."""
    model = random_model()
    source, target = pair(1)
    item = GEOMETRY.example(source, target, tgt_length=50)
    expected = logits_of(model, [[item]], len(item))[0, -len(target) - 1 :]
    prompt = GEOMETRY.prompt(source, opening=target[:2])
    logits, cache = model.prefill([prompt])
    np.testing.assert_allclose(logits[0], expected[2], rtol=0, atol=1e-5)
    step = model.step(np.array([[target[2]]]), np.array([0]), cache)
    np.testing.assert_allclose(step[0, 0], expected[3], rtol=0, atol=1e-5)


def test_random_weights():
    """N(0, 0.02), biases 0, LayerNorms 1 and 0; of the pretraining script's model the linears that end in a sum are
    smaller from layer to layer."""
    sizes = {"vocab_size": 500, "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
    paddle.seed(3)
    for pretrains in (False, True):
        model = UniLMForConditionalGeneration(UniLMConfig(**sizes, intermediate_size=256, new_pos_ids=pretrains))
        weights = {name: weight.numpy() for name, weight in model.named_parameters()}
        for layer in range(3):
            for name in ("attention.dense", "mlp.dense_4h_to_h"):
                std = 0.02 / np.sqrt(2 * (layer + 1)) if pretrains else 0.02
                assert weights[f"unilm.encoder.layers.{layer}.{name}.weight"].std() == pytest.approx(std, rel=0.05)
        assert weights["unilm.word_embeddings.weight"].std() == pytest.approx(0.02, rel=0.05)
        assert all((weight == 0).all() for name, weight in weights.items() if name.endswith("bias"))
        norms = [weight for name, weight in weights.items() if name.endswith("layernorm.weight")]
        assert norms and all((weight == 1).all() for weight in norms)


def test_loss_is_a_mean_over_the_tokens_of_all_batches():
    """`num_items` of all batches: two batches add up to the one of both."""
    model = random_model()
    rows = [[example(seed)] for seed in range(4)]
    batches = [GEOMETRY.collate(part, 40, 0) for part in (rows, rows[:1], rows[1:])]
    items = int((batches[0]["labels"] != -100).sum())
    whole, *parts = (float(model(**tensors(batch), num_items=items)) for batch in batches)
    assert sum(parts) == pytest.approx(whole, abs=1e-5)


def test_the_same_seed_epoch_and_index_draw_the_same():
    masked = geometry_of(Ids(), objective="masked", mask_prob=0.5)
    source, target = pair(2, target=12)
    streams = [np.random.default_rng([7, epoch, 5]) for epoch in (1, 1, 2)]
    one, two, other = (masked.example(source, target, tgt_length=50, random=stream) for stream in streams)
    assert (one.input_ids == two.input_ids).all() and (one.labels == two.labels).all()
    assert (one.labels != other.labels).any()
    clean = masked.example(source, target, tgt_length=50)
    assert clean.parts == (8, 13, 13) and (clean.input_ids[-13:] == MASK).all()


def test_a_corrupted_past_is_seen_and_what_is_predicted_is_not():
    """`target_mask_prob`: part of the past is replaced, every token is still a label."""
    corrupted = geometry_of(Ids(), objective="pseudo_masked", target_mask_prob=0.5)
    source, target = pair(2, target=20)
    found = corrupted.example(source, target, tgt_length=50, random=np.random.default_rng(0))
    clean = corrupted.example(source, target, tgt_length=50)
    assert (found.labels == clean.labels).all()
    changed = (found.input_ids != clean.input_ids).sum()
    assert 5 <= changed <= 10
    assert (found.input_ids[:8] == clean.input_ids[:8]).all()  # the source


def test_options_of_a_configuration():
    from glm.errors import InputError

    for options, message in (
        ({"hidden_size": 30, "num_attention_heads": 4}, "hidden_size 30"),
        ({"hidden_act": "relu"}, "hidden_act relu"),
        ({"relax_projection": 3}, "relax_projection 3"),
        ({"type_vocab_size": 2}, "type_vocab_size 2: there are 6 segment types"),
        ({"sentence_order": True}, "sentence_order True: needs pooler"),
    ):
        with pytest.raises(InputError, match=message):
            UniLMConfig(**options)
    config = UniLMConfig(output_dropout_prob=0.3, attention_dropout_prob=0.2)
    assert (config.hidden_dropout_prob, config.attention_probs_dropout_prob) == (0.3, 0.2)
    assert config.embedding_dropout_prob == 0.3


def test_mimetic_weights():
    """Queries like keys, outputs that undo values, waves for positions, an identity before the words."""
    sizes = {"vocab_size": 400, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = UniLMForConditionalGeneration(UniLMConfig(**sizes, initializer_range=0.02, mimetic_init=True))
    model.seed = 3
    model.draw_weights()
    found = {name: weight.numpy() for name, weight in model.named_parameters()}
    for layer in range(2):
        prefix = f"unilm.encoder.layers.{layer}.attention."
        queries, keys, values = np.split(found[f"{prefix}query_key_value.weight"], 3, axis=1)
        assert np.std(queries - keys) == pytest.approx(0.01 * np.sqrt(2), rel=0.1)
        for head in np.split(queries, 4, axis=1):
            np.testing.assert_allclose(head.T @ head, 0.5 * np.eye(16), atol=0.08)
        np.testing.assert_allclose(values @ found[f"{prefix}dense.weight"], np.eye(64), atol=0.09)
    positions = found["unilm.encoder.position_embeddings.weight"] / (0.02 * np.sqrt(2))
    for place, pair in ((0, 0), (1, 0), (37, 5), (159, 31)):
        angle = place / 100 ** (pair / 32)
        assert positions[place, [pair, 32 + pair]] == pytest.approx([np.sin(angle), np.cos(angle)], abs=1e-4)
    np.testing.assert_allclose(found["lm_head.dense.weight"], np.eye(64), atol=0.06)
    assert np.std(found["unilm.word_embeddings.weight"]) == pytest.approx(0.02, rel=0.05)
