"""Decoding against the references under settings and tables that nobody thought of: drawn, but the same each time."""

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from glm.generation.config import GenerationConfig
from glm.generation.search import generate
from reference.beam_search import beam_search, brute_force, greedy

STOPPING = {"true": True, "false": False, "never": "never"}
KEYS = 7  # prompts of each run
drawn = settings(
    deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck), print_blob=False
)


@st.composite
def tables(draw, vocab_size):
    """`table(key)(tokens)`, [V]: of any scale, peaked or flat, some tokens impossible, eop rare or frequent.

    Each value is a number nobody else has: where two sums tie, float32 and float64 need not choose the same.
    """
    seed = draw(st.integers(0, 2**32 - 1))
    scale = draw(st.sampled_from([0.3, 1.5, 4.0]))
    impossible = draw(st.sampled_from([0.0, 0.0, 0.2]))
    eop_bonus = draw(st.sampled_from([-4.0, 0.0, 0.0, 2.0]))
    eop = draw(st.integers(0, vocab_size - 1))

    def of_key(key):
        def next_logits(tokens):
            generator = np.random.default_rng([seed, key, len(tokens), *tokens])
            logits = generator.normal(scale=scale, size=vocab_size)
            logits[eop] += eop_bonus
            closed = generator.random(vocab_size) < impossible
            return logits if closed.all() else np.where(closed, -np.inf, logits)

        return next_logits

    return of_key, eop


@st.composite
def runs(draw, *, most_beams=5, most_length=7):
    """A table, prompts and settings: (table, eop, shapes of the prompts, batch size, config, banned ids)."""
    V = draw(st.integers(2, 7))
    table, eop = draw(tables(V))
    given_tokens = draw(st.lists(st.integers(0, 3), min_size=KEYS, max_size=KEYS))
    sources = draw(st.lists(st.integers(2, 9), min_size=KEYS, max_size=KEYS))
    length = draw(st.integers(1, most_length))  # of what is generated after the longest opening
    num_beams = draw(st.integers(1, most_beams))
    config = GenerationConfig(
        tgt_length=length + max(given_tokens),
        num_beams=num_beams,
        num_return_sequences=num_beams,
        length_penalty=draw(st.sampled_from([-0.7, 0.0, 0.7, 1.0, 2.5])),
        early_stopping=draw(st.sampled_from(list(STOPPING))) if num_beams > 1 else "false",
        min_tgt_length=draw(st.integers(0, length - 1)),
        no_repeat_ngram_size=draw(st.integers(0, 4)),
        repetition_penalty=draw(st.sampled_from([1.0, 1.0, 0.6, 1.8])),
    )
    banned = draw(st.sets(st.integers(0, V - 1), max_size=2))
    return V, table, eop, given_tokens, sources, draw(st.integers(1, KEYS + 1)), config, sorted(banned)


def assert_equal(got, want):
    assert [hypothesis.tokens for hypothesis in got] == [tokens for tokens, _ in want]
    np.testing.assert_allclose(
        [hypothesis.score for hypothesis in got], [score for _, score in want], rtol=1e-5, atol=1e-4
    )


def decode(table_model, table_prompts, in_order, run, **options):
    _, table, eop, given_tokens, sources, batch_size, config, banned = run
    prompts = table_prompts(range(KEYS), opening=[1 + number for number in given_tokens], source=sources)
    found = generate(
        table_model(table),
        prompts,
        config,
        end_token_id=eop,
        batch_size=batch_size,
        banned_token_ids=banned,
        **options,
    )
    return in_order(found)


def reference_options(run):
    """The same settings by the names of the reference, but for the length."""
    V, _, eop, _, _, _, config, banned = run
    return {
        "vocab_size": V,
        "eop": eop,
        "length_penalty": config.length_penalty,
        "min_length": config.min_tgt_length,
        "no_repeat_ngram_size": config.no_repeat_ngram_size,
        "banned": banned,
    }


@settings(drawn, max_examples=250)
@given(run=runs())
def test_any_search_equals_the_reference(table_model, table_prompts, in_order, run):
    _, table, _, given_tokens, _, _, config, _ = run
    got = decode(table_model, table_prompts, in_order, run)
    for key, number, hypotheses in zip(range(KEYS), given_tokens, got, strict=True):
        options = {**reference_options(run), "repetition_penalty": config.repetition_penalty}
        options["max_length"] = config.tgt_length - number
        if config.num_beams > 1:
            want = beam_search(
                table(key), num_beams=config.num_beams, early_stopping=STOPPING[config.early_stopping], **options
            )
        else:
            try:
                want = [greedy(table(key), **options)]
            except ValueError:  # the rules leave no token to choose
                want = []
        assert_equal(hypotheses, want)
        for hypothesis in hypotheses:
            n = len(hypothesis.tokens)
            assert len(hypothesis.token_scores) in (n, n + 1)
            total = hypothesis.score * max(n, 1) ** config.length_penalty
            assert sum(hypothesis.token_scores) == pytest.approx(total, rel=1e-5, abs=1e-4)


@settings(drawn, max_examples=80)
@given(run=runs(most_beams=1, most_length=3), data=st.data())
def test_any_search_with_beams_for_everything_is_brute_force(table_model, table_prompts, in_order, run, data):
    V, table, eop, given_tokens, sources, batch_size, config, banned = run
    texts = sum((V - 1) ** n for n in range(config.tgt_length + 1))
    assume(texts <= 400)
    config = GenerationConfig(
        tgt_length=config.tgt_length,
        num_beams=texts + 1,
        num_return_sequences=texts + 1,
        length_penalty=config.length_penalty,
        early_stopping=data.draw(st.sampled_from(list(STOPPING))),
        min_tgt_length=config.min_tgt_length,
        no_repeat_ngram_size=config.no_repeat_ngram_size,
    )
    run = (V, table, eop, given_tokens, sources, batch_size, config, banned)
    got = decode(table_model, table_prompts, in_order, run)
    for key, number, hypotheses in zip(range(KEYS), given_tokens, got, strict=True):
        want = brute_force(table(key), max_length=config.tgt_length - number, **reference_options(run))
        assert_equal(hypotheses, want)


@settings(drawn, max_examples=100)
@given(run=runs(most_length=4), data=st.data())
def test_any_closed_list_is_ranked_as_by_brute_force(table_model, table_prompts, in_order, run, data):
    V, table, eop, given_tokens, sources, batch_size, config, banned = run
    tokens = st.sampled_from([token for token in range(V) if token != eop])
    room = config.tgt_length - max(given_tokens) - 1  # that for each text and its eop
    assume(room)
    allowed = data.draw(st.sets(st.lists(tokens, min_size=1, max_size=room).map(tuple), min_size=1, max_size=8))
    beams = len(allowed) + 1  # enough that none is cut off: no more beginnings than texts
    config = GenerationConfig(
        tgt_length=config.tgt_length,
        num_beams=beams,
        num_return_sequences=beams,
        length_penalty=config.length_penalty,
        early_stopping=data.draw(st.sampled_from(list(STOPPING))),
        min_tgt_length=min(config.min_tgt_length, room),
        no_repeat_ngram_size=config.no_repeat_ngram_size,
    )
    run = (V, table, eop, given_tokens, sources, batch_size, config, banned)
    got = decode(table_model, table_prompts, in_order, run, allowed_outputs=sorted(allowed))
    for key, number, hypotheses in zip(range(KEYS), given_tokens, got, strict=True):
        if (V - 1) ** (config.tgt_length - number) > 1000:
            continue
        everything = brute_force(table(key), max_length=config.tgt_length - number, **reference_options(run))
        assert_equal(hypotheses, [(text, score) for text, score in everything if text in allowed])
