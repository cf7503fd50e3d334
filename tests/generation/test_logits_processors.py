"""Each decoding rule against a small table worked by hand and a plain loop; the order of the rules."""

import numpy as np
import pytest

from glm.errors import InputError
from glm.generation.config import GenerationConfig
from glm.generation.logits_processors import (
    NO_TOKEN,
    AllowedOutputs,
    BannedTokens,
    MinLength,
    NoRepeatNGram,
    RepetitionPenalty,
    build_logits_processors,
)

INF = float("inf")


def apply(processor, generated, scores):
    """The scores after a rule; `generated` are rows of one length, or of several, then padded in front."""
    length = max(map(len, generated))
    table = np.array([[NO_TOKEN] * (length - len(row)) + list(row) for row in generated], dtype=np.int64)
    table = table.reshape(len(scores), length)
    before = table.copy()
    scores, again = np.array(scores, dtype="float32"), np.array(scores, dtype="float32")
    assert processor(table, scores) is None  # in place
    assert np.array_equal(table, before)
    # what stands further in front changes nothing
    more = np.pad(before, [(0, 0), (3, 0)], constant_values=NO_TOKEN)
    processor(more, again)
    assert np.array_equal(again, scores)
    return scores


def test_repetition_penalty_by_hand():
    scores = [[-1.0, -2.0, -3.0, -4.0], [-1.0, -2.0, -3.0, -INF]]
    # row 0 has 1 twice and 3: each counts once; row 1 has 3, which stays impossible, and 0
    want = [[-1.0, -3.0, -3.0, -6.0], [-1.5, -2.0, -3.0, -INF]]
    assert np.array_equal(apply(RepetitionPenalty(1.5), [[1, 3, 1], [3, 0, 0]], scores), np.float32(want))
    assert np.array_equal(apply(RepetitionPenalty(1.5), [[], []], scores), np.float32(scores))
    # rows of several lengths; the last token of the vocabulary is not taken for the padding
    want = [[-1.0, -3.0, -3.0, -4.0], [-1.0, -2.0, -3.0, -INF]]
    assert np.array_equal(apply(RepetitionPenalty(1.5), [[1], []], scores), np.float32(want))
    want = [[-1.0, -3.0, -3.0, -4.0], [-1.0, -2.0, -4.5, -INF]]
    assert np.array_equal(apply(RepetitionPenalty(1.5), [[1], [2, 2, 2]], scores), np.float32(want))


def test_banned_tokens_by_hand():
    scores = [[-1.0, -2.0, -3.0], [-4.0, -5.0, -6.0]]
    want = [[-INF, -2.0, -INF], [-INF, -5.0, -INF]]
    for generated in ([[], []], [[0, 1], [2, 2]]):
        assert np.array_equal(apply(BannedTokens([0, 2]), generated, scores), np.float32(want))


def test_min_length_by_hand():
    scores = [[-1.0, -2.0, -3.0], [-4.0, -5.0, -6.0]]
    want = [[-1.0, -2.0, -INF], [-4.0, -5.0, -INF]]
    rule = MinLength(2, end_token_id=2)
    assert np.array_equal(apply(rule, [[], []], scores), np.float32(want))
    assert np.array_equal(apply(rule, [[0], [1]], scores), np.float32(want))
    assert np.array_equal(apply(rule, [[0, 0], [1, 0]], scores), np.float32(scores))
    assert np.array_equal(apply(rule, [[0, 0, 0], [1, 0, 0]], scores), np.float32(scores))
    # each row by its own length
    assert np.array_equal(apply(rule, [[0], [1, 0, 0]], scores), np.float32([want[0], scores[1]]))
    assert np.array_equal(apply(rule, [[0, 1], [1]], scores), np.float32([scores[0], want[1]]))
    assert np.array_equal(apply(rule, [[0, 1], []], scores), np.float32([scores[0], want[1]]))


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
        (1, [[2], [0, 3, 0]], [[2], [0, 3]]),  # rows of several lengths
        (2, [[0], [1, 2, 1]], [[], [2]]),
        (2, [[], [1, 1]], [[], [1]]),
        (3, [[1], [0, 1, 2, 0, 1]], [[], [2]]),
        (3, [[0, 0, 0], [0, 1, 2, 0, 1]], [[0], [2]]),
        (3, [[0, 1], [0, 1, 2, 0, 1]], [[], [2]]),
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
        for shortest in {length, 0}:  # rows of one length, and of many
            generated = [
                generator.integers(3, size=generator.integers(shortest, length + 1)).tolist() for _ in range(6)
            ] + [generator.integers(3, size=length).tolist()]
            scores = generator.normal(size=(7, 5)).astype("float32")
            want = scores.copy()
            for row, text in enumerate(generated):
                grams = {tuple(text[start : start + size]) for start in range(len(text) - size + 1)}
                for token in range(5):
                    if len(text) >= size - 1 and tuple([*text[len(text) - size + 1 :], token][-size:]) in grams:
                        want[row, token] = -INF
            assert np.array_equal(apply(NoRepeatNGram(size), generated, scores), want)


def test_allowed_outputs_by_hand():
    eop = 3
    rule = AllowedOutputs([(0, 1), (0, 1, 2), (0, 2), (1,), (1,)], eop)
    row = [-1.0, -2.0, -3.0, -4.0]
    for text, allowed in [
        ((), {0, 1}),
        ((0,), {1, 2}),
        ((0, 1), {2, eop}),
        ((0, 1, 2), {eop}),
        ((0, 2), {eop}),
        ((1,), {eop}),
        ((2,), set()),  # no beginning of any
        ((1, eop), set()),  # and nothing follows the end
        ((0, 1, 2, 0), set()),
    ]:
        want = np.float32([value if token in allowed else -INF for token, value in enumerate(row)])
        assert np.array_equal(apply(rule, [text], [row])[0], want), text
        both = apply(rule, [(0,), text], [row, row])  # each row by its own text
        assert np.array_equal(both, [np.float32([-INF, -2.0, -3.0, -INF]), want])


def test_what_other_rules_forbid_stays_forbidden():
    scores = np.float32([[-INF, -2.0, -3.0, -INF]])
    AllowedOutputs([(0,), (1,)], 3)(np.zeros((1, 0), dtype=np.int64), scores)
    assert scores.tolist() == [[-INF, -2.0, -INF, -INF]]


def test_allowed_outputs_equal_a_plain_search_of_the_list():
    generator = np.random.default_rng(0)
    eop, V = 4, 6
    for _ in range(20):
        outputs = [
            tuple(generator.integers(eop, size=generator.integers(1, 5)).tolist())
            for _ in range(generator.integers(1, 9))
        ]
        texts = [output[:end] for output in outputs for end in range(len(output) + 1)]
        texts += [tuple(generator.integers(eop, size=2).tolist()) for _ in range(5)]
        scores = generator.normal(size=(len(texts), V)).astype("float32")
        got = apply(AllowedOutputs(outputs, eop), texts, scores)
        for row, text in enumerate(texts):
            allowed = {(*output, eop)[len(text)] for output in outputs if (*output, eop)[: len(text)] == text}
            assert np.array_equal(got[row], np.where(np.isin(np.arange(V), list(allowed)), scores[row], -INF))


def test_an_empty_output_is_an_error():
    with pytest.raises(InputError, match="is empty"):
        AllowedOutputs([(1,), ()], 3)


def test_rules_are_those_of_the_config_in_order():
    def names(**options):
        config = GenerationConfig(**{"no_repeat_ngram_size": 0, **options})
        banned = [1] if options.get("tgt_length") else []
        allowed = [(1, 2)] if options.get("num_beams") else []
        rules = build_logits_processors(config, end_token_id=3, banned_token_ids=banned, allowed_outputs=allowed)
        return [type(rule) for rule in rules]

    assert names() == []
    assert names(no_repeat_ngram_size=3) == [NoRepeatNGram]
    assert names(min_tgt_length=2) == [MinLength]
    assert names(repetition_penalty=0.9) == [RepetitionPenalty]
    assert names(tgt_length=50) == [BannedTokens]
    assert names(num_beams=5) == [AllowedOutputs]
    everything = names(tgt_length=50, no_repeat_ngram_size=3, min_tgt_length=2, repetition_penalty=2.0, num_beams=5)
    assert everything == [RepetitionPenalty, BannedTokens, MinLength, NoRepeatNGram, AllowedOutputs]


def test_rules_get_their_options():
    config = GenerationConfig(min_tgt_length=2, no_repeat_ngram_size=2, repetition_penalty=3.0)
    rules = build_logits_processors(config, end_token_id=3, banned_token_ids=[2])
    for length, want in [
        (0, [-1.0, -2.0, -INF, -INF, -5.0]),
        (1, [-3.0, -2.0, -INF, -INF, -5.0]),
        (3, [-3.0, -INF, -INF, -4.0, -5.0]),  # after 0 1 0
    ]:
        scores = np.float32([[-1.0, -2.0, -3.0, -4.0, -5.0]])
        for rule in rules:
            rule(np.array([[0, 1, 0]])[:, :length], scores)
        assert scores.tolist() == [want]
