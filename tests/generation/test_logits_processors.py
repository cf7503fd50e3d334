"""Each decoding rule against a small table worked by hand and a plain loop; the order of the rules."""

import numpy as np
import paddle
import pytest

from glm.generation.config import GenerationConfig
from glm.generation.logits_processors import (
    BannedTokens,
    MinLength,
    NoRepeatNGram,
    RepetitionPenalty,
    build_logits_processors,
)

INF = float("inf")


def apply(processor, generated, scores):
    generated = np.array(generated, dtype=np.int64).reshape(len(scores), -1)
    before = np.array(scores, dtype="float32")
    tensor = paddle.to_tensor(before)
    result = processor(generated, tensor)
    assert np.array_equal(tensor.numpy(), before)  # what came in is left alone
    return result.numpy()


def test_repetition_penalty_by_hand():
    scores = [[-1.0, -2.0, -3.0, -4.0], [-1.0, -2.0, -3.0, -INF]]
    # row 0 has 1 twice and 3: each counts once; row 1 has 3, which stays impossible, and 0
    want = [[-1.0, -3.0, -3.0, -6.0], [-1.5, -2.0, -3.0, -INF]]
    assert np.array_equal(apply(RepetitionPenalty(1.5), [[1, 3, 1], [3, 0, 0]], scores), np.float32(want))
    assert np.array_equal(apply(RepetitionPenalty(1.5), [[], []], scores), np.float32(scores))


def test_banned_tokens_by_hand():
    scores = [[-1.0, -2.0, -3.0], [-4.0, -5.0, -6.0]]
    want = [[-INF, -2.0, -INF], [-INF, -5.0, -INF]]
    for generated in ([[], []], [[0, 1], [2, 2]]):
        assert np.array_equal(apply(BannedTokens([0, 2]), generated, scores), np.float32(want))


def test_min_length_by_hand():
    scores = [[-1.0, -2.0, -3.0], [-4.0, -5.0, -6.0]]
    want = [[-1.0, -2.0, -INF], [-4.0, -5.0, -INF]]
    rule = MinLength(2, eop_token_id=2)
    assert np.array_equal(apply(rule, [[], []], scores), np.float32(want))
    assert np.array_equal(apply(rule, [[0], [1]], scores), np.float32(want))
    assert np.array_equal(apply(rule, [[0, 0], [1, 0]], scores), np.float32(scores))
    assert np.array_equal(apply(rule, [[0, 0, 0], [1, 0, 0]], scores), np.float32(scores))


@pytest.mark.parametrize(
    "size, generated, forbidden",
    [
        (1, [[0, 2], [1, 1]], [[0, 2], [1]]),
        (2, [[0, 1, 0], [2, 2, 2]], [[1], [2]]),
        (2, [[0, 1, 2], [0, 1, 0]], [[], [1]]),  # row 0: nothing has followed 2 yet
        (2, [[0, 1, 0, 2, 0], [3, 0, 1, 2, 3]], [[1, 2], [0]]),
        (3, [[0, 1, 2, 0, 1], [0, 1, 2, 1, 0]], [[2], []]),
        (3, [[1, 1, 1], [0, 0, 1]], [[1], []]),
        (3, [[1, 1], [0, 0]], [[], []]),  # too short for any repeat
        (4, [[0, 1, 2, 3, 0, 1, 2], [0, 1, 2, 3, 3, 1, 2]], [[3], []]),
    ],
)
def test_no_repeat_ngram_by_hand(size, generated, forbidden):
    scores = np.arange(8.0).reshape(2, 4) - 9
    want = scores.copy()
    for row, tokens in enumerate(forbidden):
        want[row, tokens] = -INF
    assert np.array_equal(apply(NoRepeatNGram(size), generated, scores), np.float32(want))


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_no_repeat_ngram_equals_a_plain_loop(size):
    generator = np.random.default_rng(size)
    for length in range(12):
        generated = generator.integers(3, size=(7, length))
        scores = generator.normal(size=(7, 5)).astype("float32")
        want = scores.copy()
        for row in range(7):
            text = generated[row].tolist()
            grams = {tuple(text[start : start + size]) for start in range(length - size + 1)}
            for token in range(5):
                if length >= size - 1 and tuple([*text[length - size + 1 :], token][-size:]) in grams:
                    want[row, token] = -INF
        assert np.array_equal(apply(NoRepeatNGram(size), generated, scores), want)


def test_rules_are_those_of_the_config_in_order():
    def names(**options):
        config = GenerationConfig(**{"no_repeat_ngram_size": 0, **options})
        banned = [1] if options.get("tgt_length") else []
        rules = build_logits_processors(config, eop_token_id=3, banned_token_ids=banned)
        return [type(rule) for rule in rules]

    assert names() == []
    assert names(no_repeat_ngram_size=3) == [NoRepeatNGram]
    assert names(min_tgt_length=2) == [MinLength]
    assert names(repetition_penalty=0.9) == [RepetitionPenalty]
    assert names(tgt_length=50) == [BannedTokens]
    everything = names(tgt_length=50, no_repeat_ngram_size=3, min_tgt_length=2, repetition_penalty=2.0)
    assert everything == [RepetitionPenalty, BannedTokens, MinLength, NoRepeatNGram]


def test_rules_get_their_options():
    config = GenerationConfig(min_tgt_length=2, no_repeat_ngram_size=2, repetition_penalty=3.0)
    rules = build_logits_processors(config, eop_token_id=3, banned_token_ids=[2])
    scores = paddle.to_tensor([[-1.0, -2.0, -3.0, -4.0, -5.0]])
    for length, want in [
        (0, [-1.0, -2.0, -INF, -INF, -5.0]),
        (1, [-3.0, -2.0, -INF, -INF, -5.0]),
        (3, [-3.0, -INF, -INF, -4.0, -5.0]),  # after 0 1 0
    ]:
        result = scores
        for rule in rules:
            result = rule(np.array([[0, 1, 0]])[:, :length], result)
        assert result.numpy().tolist() == [want]
