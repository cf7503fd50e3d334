"""Decoding against brute force, textbook beam search and greedy search, over tables of numbers and a real model."""

import itertools
import random

import numpy as np
import paddle
import pytest

from glm.errors import InputError
from glm.generation.config import GenerationConfig
from glm.generation.search import Batch, ExampleSearch, generate
from glm.models.glm.geometry import BlankInfilling
from reference.beam_search import beam_search, brute_force, greedy
from reference.geometry import build_example

STOPPING = {"true": True, "false": False, "never": "never"}
RULES = [  # ours, and the same for the reference
    ({}, {}),
    ({"min_tgt_length": 2}, {"min_length": 2}),
    ({"no_repeat_ngram_size": 1}, {"no_repeat_ngram_size": 1}),
    ({"no_repeat_ngram_size": 2}, {"no_repeat_ngram_size": 2}),
    ({"repetition_penalty": 1.7}, {"repetition_penalty": 1.7}),
    ({"repetition_penalty": 0.6, "banned": (0, 3)}, {"repetition_penalty": 0.6, "banned": (0, 3)}),
    (
        {"min_tgt_length": 3, "no_repeat_ngram_size": 2, "banned": (1,)},
        {"min_length": 3, "no_repeat_ngram_size": 2, "banned": (1,)},
    ),
]
RULE_IDS = ["none", "min", "1-gram", "2-gram", "penalty", "bonus-banned", "all"]


@pytest.fixture(scope="module")
def search(in_order):
    """`search(model, prompts, eop=…, option=…)`: all hypotheses of each prompt, in the order of the prompts."""

    def run(model, prompts, *, eop, banned=(), allowed=(), batch_size=16, record_ids=None, **options):
        options = {"no_repeat_ngram_size": 0, **options}
        options.setdefault("num_return_sequences", options["num_beams"])
        found = generate(
            model,
            prompts,
            GenerationConfig(**options),
            end_token_id=eop,
            batch_size=batch_size,
            banned_token_ids=banned,
            allowed_outputs=allowed,
            record_ids=record_ids,
        )
        return in_order(found)

    return run


def assert_equal(got, want):
    """Hypotheses of one example against the reference's (tokens, score) pairs."""
    assert [hypothesis.tokens for hypothesis in got] == [tokens for tokens, _ in want]
    np.testing.assert_allclose(
        [hypothesis.score for hypothesis in got], [score for _, score in want], rtol=0, atol=1e-4
    )


def assert_same(got, want):
    assert_equal(got, [(hypothesis.tokens, hypothesis.score) for hypothesis in want])


# -- tables


@pytest.mark.parametrize("early_stopping", STOPPING)
@pytest.mark.parametrize("length_penalty", [-0.5, 0.0, 0.7, 1.0, 2.0])
@pytest.mark.parametrize("V, length", [(4, 5), (5, 4)])
def test_a_beam_for_everything_is_brute_force(
    search, table_model, table_prompts, random_table, V, length, length_penalty, early_stopping
):
    table, keys, eop = random_table(V), [1, 2, 3], V - 1
    everything = sum((V - 1) ** n for n in range(length + 1))  # 364 or 341 texts
    got = search(
        table_model(table),
        table_prompts(keys),
        eop=eop,
        tgt_length=length,
        num_beams=everything + 1,
        length_penalty=length_penalty,
        early_stopping=early_stopping,
    )
    for key, hypotheses in zip(keys, got, strict=True):
        want = brute_force(table(key), vocab_size=V, max_length=length, eop=eop, length_penalty=length_penalty)
        assert len(want) == everything
        assert_equal(hypotheses, want)


@pytest.mark.parametrize("rules", RULES, ids=RULE_IDS)
@pytest.mark.parametrize("early_stopping", STOPPING)
@pytest.mark.parametrize("num_beams", [2, 3, 4, 5])
def test_beam_search_equals_reference(
    search, table_model, table_prompts, random_table, num_beams, early_stopping, rules
):
    ours, theirs = rules
    V, length, eop = 6, 7, 4
    table, keys = random_table(V), list(range(10, 22))
    for length_penalty in (-0.7, 0.0, 0.7, 2.0):
        got = search(
            table_model(table),
            table_prompts(keys),
            eop=eop,
            tgt_length=length,
            num_beams=num_beams,
            length_penalty=length_penalty,
            early_stopping=early_stopping,
            **ours,
        )
        for key, hypotheses in zip(keys, got, strict=True):
            want = beam_search(
                table(key),
                vocab_size=V,
                max_length=length,
                eop=eop,
                num_beams=num_beams,
                length_penalty=length_penalty,
                early_stopping=STOPPING[early_stopping],
                **theirs,
            )
            assert_equal(hypotheses, want)


@pytest.mark.parametrize("rules", RULES, ids=RULE_IDS)
@pytest.mark.parametrize("length_penalty", [0.0, 0.7])
def test_one_beam_is_greedy(search, table_model, table_prompts, random_table, length_penalty, rules):
    ours, theirs = rules
    V, length, eop = 6, 9, 2
    table, keys = random_table(V), list(range(40, 100))
    got = search(
        table_model(table),
        table_prompts(keys),
        eop=eop,
        tgt_length=length,
        num_beams=1,
        length_penalty=length_penalty,
        **ours,
    )
    lengths = set()
    for key, hypotheses in zip(keys, got, strict=True):
        options = {"vocab_size": V, "max_length": length, "eop": eop, "length_penalty": length_penalty}
        try:
            want = [greedy(table(key), **options, **theirs)]
        except ValueError:  # the rules leave no token to choose
            want = []
        assert_equal(hypotheses, want)
        lengths |= {len(hypothesis.tokens) for hypothesis in hypotheses}
    assert len(lengths) > 3  # texts of many lengths were in one batch


def test_one_beam_stops_at_its_first_eop_though_more_might_score_better(search, table_model, table_prompts):
    # after eop at -0.69, (0,) could still reach a mean of -0.46
    def certain(key):
        return lambda tokens: np.log([0.3, 0.2, 0.5] if not tokens else [0.9, 0.05, 0.05])

    options = {"eop": 2, "tgt_length": 3, "length_penalty": 1.0}
    (got,) = search(table_model(certain), table_prompts([1]), num_beams=1, **options)
    assert_equal(got, [((), np.log(0.5))])
    (got,) = search(table_model(certain), table_prompts([1]), num_beams=2, early_stopping="never", **options)
    assert_equal(got[:1], [((0, 0, 0), np.log(0.3 * 0.9 * 0.9) / 3)])


@pytest.mark.parametrize("num_beams", [1, 3])
def test_batch_equals_single_runs(search, table_model, table_prompts, random_table, num_beams):
    table, keys = random_table(5), list(range(20))
    options = {"eop": 0, "tgt_length": 8, "num_beams": num_beams}
    together = search(table_model(table), table_prompts(keys), **options)
    for key, hypotheses in zip(keys, together, strict=True):
        (alone,) = search(table_model(table), table_prompts([key]), **options)
        assert_same(hypotheses, alone)


def test_constraints_hold_in_every_hypothesis(search, table_model, table_prompts, random_table):
    eop, sop = 3, 5
    keys = list(range(30))
    for num_beams, size, least in [(1, 2, 4), (4, 2, 4), (4, 3, 6), (2, 1, 2)]:
        got = search(
            table_model(random_table(6)),
            table_prompts(keys),
            eop=eop,
            banned=(sop,),
            tgt_length=12,
            num_beams=num_beams,
            no_repeat_ngram_size=size,
            min_tgt_length=least,
        )
        texts = [hypothesis.tokens for hypotheses in got for hypothesis in hypotheses]
        assert len(texts) > len(keys) * num_beams / 2
        for text in texts:
            grams = [text[start : start + size] for start in range(len(text) - size + 1)]
            assert len(set(grams)) == len(grams)
            assert least <= len(text) <= 12
            assert eop not in text and sop not in text
        assert min(map(len, texts)) == least  # the bound is met


def test_eop_is_excluded_from_length_but_not_from_sum(search, table_model, table_prompts):
    def constant(key):
        return lambda tokens: np.log([0.6, 0.4]) if len(tokens) < 2 else np.log([0.1, 0.9])

    (got,) = search(table_model(constant), table_prompts([0]), eop=1, tgt_length=3, num_beams=1, length_penalty=0.7)
    assert_equal(got, [((0, 0), np.log(0.6 * 0.6 * 0.9) / 2**0.7)])


def test_decoding_stops_when_all_examples_are_done(search, table_model, table_prompts):
    # example n ends after n tokens
    def ends(key):
        return lambda tokens: np.array([5.0, 0.0]) if len(tokens) < key else np.array([0.0, 5.0])

    for keys, steps in [([0], 0), ([0, 3, 1], 3), ([2, 2], 2), ([50], 7)]:
        model = table_model(ends)
        got = search(model, table_prompts(keys), eop=1, tgt_length=8, num_beams=1)
        assert [len(hypotheses[0].tokens) for hypotheses in got] == [min(key, 8) for key in keys]
        assert model.steps == steps and len(model.prefilled) == 1


@pytest.mark.parametrize("opening", [1, 3, 6])
def test_opening_counts_for_the_target_length_and_for_no_rule(
    search, table_model, table_prompts, random_table, opening
):
    # table prompts open with sop 0 0 ...; the result neither holds them nor is kept from repeating them
    table, V, eop = random_table(5), 5, 4
    got = search(
        table_model(table),
        table_prompts([7, 8], opening=opening),
        eop=eop,
        tgt_length=8,
        num_beams=3,
        no_repeat_ngram_size=1,
        min_tgt_length=2,
    )
    for key, hypotheses in zip([7, 8], got, strict=True):
        want = beam_search(
            table(key),
            vocab_size=V,
            max_length=8 - (opening - 1),
            eop=eop,
            num_beams=3,
            length_penalty=0.7,
            no_repeat_ngram_size=1,
            min_length=2,
        )
        assert_equal(hypotheses, want)


def test_no_room_after_the_opening_is_an_error(search, table_model, table_prompts, random_table):
    options = {"eop": 4, "num_beams": 1}
    model = table_model(random_table(5))
    assert search(model, table_prompts([1], opening=5), tgt_length=5, **options)
    assert search(model, table_prompts([1], opening=5), tgt_length=7, min_tgt_length=2, **options)
    model = table_model(random_table(5))
    with pytest.raises(ValueError, match="tgt_length 4: no room for 0 tokens .* after the 4 that are giv"):
        search(model, table_prompts([1, 2], opening=[1, 5]), tgt_length=4, **options)
    with pytest.raises(ValueError, match="tgt_length 6: no room for 2 tokens .* after the 4 that are giv"):
        search(model, table_prompts([1, 2], opening=[1, 5]), tgt_length=6, min_tgt_length=2, batch_size=1, **options)
    assert not model.prefilled  # all prompts are looked at before the first is read


def test_num_return_sequences_are_the_best(search, table_model, table_prompts, random_table):
    prompts, options = table_prompts([1, 2, 3]), {"eop": 4, "tgt_length": 6, "num_beams": 4}
    everything = search(table_model(random_table(5)), prompts, **options)
    for hypotheses in everything:
        assert len(hypotheses) == 4
        assert [hypothesis.score for hypothesis in hypotheses] == sorted(
            (hypothesis.score for hypothesis in hypotheses), reverse=True
        )
    for count in (1, 2, 3):
        got = search(table_model(random_table(5)), prompts, num_return_sequences=count, **options)
        assert got == [hypotheses[:count] for hypotheses in everything]


def test_nothing_left_to_choose_gives_no_hypothesis(search, table_model, table_prompts, random_table):
    for num_beams in (1, 3):
        options = {"eop": 2, "tgt_length": 5, "num_beams": num_beams}
        got = search(table_model(random_table(3)), table_prompts([1, 2]), banned=(0, 1, 2), **options)
        assert got == [[], []]


def new_search(config, **options):
    return ExampleSearch(prompt=None, config=config, number=0, max_length=10, **options)


def add(example, *texts):
    for tokens, total in texts:
        example.add(np.array(tokens), np.zeros(len(tokens)), total)


def test_example_search_keeps_the_best_and_the_earlier_of_equals():
    example = new_search(GenerationConfig(num_beams=2, length_penalty=1.0))
    add(example, ([1, 1], -2.0), ([2], -1.0), ([3], -1.5))  # scores -1, -1, -1.5
    add(example, ([4, 4, 4], -3.0))  # -1, but later
    assert [hypothesis.tokens for hypothesis in example.hypotheses] == [(1, 1), (2,)]
    add(example, ([5, 5], -1.0))
    assert [(hypothesis.tokens, hypothesis.score) for hypothesis in example.hypotheses] == [
        ((5, 5), -0.5),
        ((1, 1), -1.0),
    ]


@pytest.mark.parametrize(
    "early_stopping, length_penalty, best_live, done",
    [
        ("true", 1.0, -0.1, True),
        ("false", 1.0, -1.9, False),  # -1.9 / 2 beats -1
        ("false", 1.0, -2.0, True),  # a tie is done
        ("never", 1.0, -2.0, False),  # -2 / 10 could still beat -1
        ("never", 1.0, -9.9, False),
        ("never", 1.0, -10.0, True),
        ("never", 0.0, -1.1, True),
        ("never", 0.0, -0.9, False),
        ("never", -1.0, -0.4, False),  # doubled at the present length, -0.8
        ("never", -1.0, -0.6, True),
        ("false", 0.0, -np.inf, True),
    ],
)
def test_when_an_example_is_done(early_stopping, length_penalty, best_live, done):
    config = GenerationConfig(num_beams=2, length_penalty=length_penalty, early_stopping=early_stopping)
    example = new_search(config)
    example.length = 2
    add(example, ([1], -0.5))
    example.check_done(best_live)
    assert example.done == (best_live == -np.inf)  # with one hypothesis of two it never is
    add(example, ([2], -1.0))
    example.check_done(best_live)
    assert example.done == done


# -- a real model

CLS, MASK, EOS, SOP, EOP = 31, 32, 33, 34, 35
BANNED = (CLS, MASK, EOS, SOP)
GEOMETRY = BlankInfilling(mask_token_ids=(MASK,), sop_token_id=SOP, eop_token_id=EOP)
SOURCES = [
    [CLS, 1, 2, 3, MASK, EOS],
    [CLS, MASK, 4, 5, 6, 7, 9, 8, EOS],
    [CLS, 10, MASK],
    [CLS, 11, 12, 13, 14, MASK, 15, 16, 17, 18, 19, EOS],
]


def prompts_of(sources, *, opening=()):
    return [GEOMETRY.prompt(source, opening=opening) for source in sources]


def next_logits_by_full_forward(model, source, opening):
    def next_logits(tokens):
        text = [*opening, *tokens]
        example = build_example(
            source,
            [text],
            mask_ids={MASK},
            sop=SOP,
            eop=EOP,
            pad=EOS,
            src_length=len(source),
            tgt_length=len(text) + 1,
        )
        ids, positions = (paddle.to_tensor([example[name]]) for name in ("input_ids", "position_ids"))
        with paddle.no_grad():
            return model(ids, positions, paddle.to_tensor([[[len(source), len(text) + 1]]]))[0, -1].numpy()

    return next_logits


@pytest.mark.parametrize("opening", [(), (20, 21, 22)], ids=["", "opening"])
@pytest.mark.parametrize("num_beams", [1, 3])
def test_real_model_equals_reference_search_over_full_forwards(search, tiny_model, num_beams, opening):
    model = tiny_model(seed=20)
    got = search(
        model,
        prompts_of(SOURCES, opening=opening),
        eop=EOP,
        banned=BANNED,
        tgt_length=10,
        num_beams=num_beams,
        no_repeat_ngram_size=2,
        min_tgt_length=2,
    )
    for source, hypotheses in zip(SOURCES, got, strict=True):
        options = {
            "vocab_size": 40,
            "max_length": 10 - len(opening),
            "eop": EOP,
            "length_penalty": 0.7,
            "no_repeat_ngram_size": 2,
            "min_length": 2,
            "banned": BANNED,
        }
        next_logits = next_logits_by_full_forward(model, source, opening)
        want = [greedy(next_logits, **options)]
        if num_beams > 1:
            want = beam_search(next_logits, num_beams=num_beams, **options)
        assert_equal(hypotheses, want)


@pytest.mark.parametrize("num_beams", [1, 4])
def test_real_model_does_not_depend_on_the_batch_or_its_order(search, tiny_model, num_beams):
    model = tiny_model(seed=21)
    options = {"eop": EOP, "banned": BANNED, "tgt_length": 20, "num_beams": num_beams, "no_repeat_ngram_size": 3}
    single = [search(model, prompts_of([source]), **options)[0] for source in SOURCES]
    assert len({hypotheses[0].tokens for hypotheses in single}) == 4
    for order in itertools.islice(itertools.permutations(range(4)), 5, None, 6):
        batch = search(model, prompts_of([SOURCES[place] for place in order]), **options)
        for got, place in zip(batch, order, strict=True):
            assert_same(got, single[place])


@pytest.mark.parametrize("num_beams", [1, 4])
def test_real_model_constraints_hold(search, tiny_model, num_beams):
    model = tiny_model(seed=22)
    free = search(
        model, prompts_of(SOURCES), eop=EOP, tgt_length=24, num_beams=num_beams, banned=BANNED, length_penalty=0.0
    )
    got = search(
        model,
        prompts_of(SOURCES),
        eop=EOP,
        banned=BANNED,
        tgt_length=24,
        num_beams=num_beams,
        no_repeat_ngram_size=2,
        min_tgt_length=9,
        length_penalty=0.0,
    )
    for hypothesis in itertools.chain(*got):
        pairs = list(zip(hypothesis.tokens, hypothesis.tokens[1:], strict=False))
        assert len(set(pairs)) == len(pairs)
        assert 9 <= len(hypothesis.tokens) <= 24
        assert not {EOP, *BANNED} & set(hypothesis.tokens)
    texts = [hypothesis.tokens for hypothesis in itertools.chain(*free)]
    pairs = [list(zip(text, text[1:], strict=False)) for text in texts]
    assert any(len(text) < 9 for text in texts) or any(len(set(of)) < len(of) for of in pairs)  # the rules did work


# -- places in the batch


def ends_after_key_tokens(key):
    """A table of 6: the text ends (5 is eop) after `key` tokens, all but certainly."""
    table = np.random.default_rng(key).normal(size=6)
    return lambda tokens: table + np.where(np.arange(6) == 5, 50.0 if len(tokens) >= key else -50.0, 0.0)


@pytest.fixture
def counted(table_model):
    """A table model that counts in each step how many examples are still at work, see `ends_after_key_tokens`."""

    class Counted(table_model):
        def __init__(self):
            super().__init__(ends_after_key_tokens)
            self.live = []

        def step(self, tokens, numbers, cache):
            self.live.append(
                sum(
                    len(rows[0]) < prompt.source_ids[0] for rows, prompt in zip(cache.rows, cache.prompts, strict=True)
                )
            )
            return super().step(tokens, numbers, cache)

    return Counted


@pytest.mark.parametrize("select_topk", [True, False])
def test_finished_examples_leave_the_batch(search, table_prompts, counted, select_topk):
    """Example n ends after n tokens: the batch shrinks on the way, and each result is that of a run by itself."""
    keys = list(range(1, 9))
    options = {"eop": 5, "num_beams": 2, "tgt_length": 12, "select_topk": select_topk}
    model = counted()
    together = search(model, table_prompts(keys), record_ids=keys, **options)
    assert model.sizes == sorted(model.sizes, reverse=True) and model.sizes[0] == 8 and model.sizes[-1] <= 2
    for key, hypotheses in zip(keys, together, strict=True):
        (alone,) = search(counted(), table_prompts([key]), record_ids=[key], **options)
        assert_same(hypotheses, alone)
        assert len(hypotheses[0].tokens) == key


@pytest.mark.parametrize("num_beams", [1, 2])
@pytest.mark.parametrize("batch_size", [2, 3, 4, 7])
def test_waiting_examples_take_the_places_of_finished_ones(search, table_prompts, counted, batch_size, num_beams):
    keys = [1, 9, 2, 2, 7, 1, 3, 8, 0, 1, 4, 9, 1, 2, 0, 6, 2, 9, 1, 1]
    model = counted()
    got = search(
        model, table_prompts(keys), eop=5, tgt_length=12, num_beams=num_beams, batch_size=batch_size, length_penalty=0
    )
    assert [len(hypotheses[0].tokens) for hypotheses in got] == keys
    assert sum(map(len, model.prefilled)) == len(keys) and len(model.prefilled[0]) == batch_size
    batches = [keys[start : start + batch_size] for start in range(0, len(keys), batch_size)]
    static = sum(map(max, batches))  # steps, if each batch waited for its longest text
    assert model.steps < 0.8 * static
    # as long as any wait, the batch is full; no more than a quarter idles, but for texts that end with their first eop
    full = next(place for place, size in enumerate([*model.sizes, 0]) if size < batch_size)
    assert model.sizes[:full] == [batch_size] * full and full > model.steps / 2
    shares = [live / size for live, size in zip(model.live, model.sizes, strict=True)]
    assert sum(share > 0.75 for share in shares) > 0.75 * len(shares)
    assert all(live > 0 for live in model.live)


def test_freed_places_are_filled_at_the_next_step(search, table_prompts, counted):
    # by hand: four places; a step gives each text one token, and the texts of 1 end with the first
    keys = [6, 6, 6, 1, 1, 1, 3]
    model = counted()
    search(model, table_prompts(keys), eop=5, tgt_length=12, num_beams=1, batch_size=4)
    assert [[int(prompt.source_ids[0]) for prompt in prompts] for prompts in model.prefilled] == [
        [6, 6, 6, 1],
        [1],
        [1],
        [3],
    ]
    # step 4 to 6 are those of 3; at 6 all end together
    assert model.sizes == [4] * 6 and model.live == [4] * 6 and model.steps == 6


def test_two_finished_of_seven_are_left_where_they_are_one_more_is_not(search, table_prompts, counted):
    # 5 of 7 at work is less than 0.75 of them, 6 of 7 more: the first text to end leaves its place idle
    model = counted()
    search(model, table_prompts([8, 8, 8, 8, 8, 2, 1, 7, 7]), eop=5, tgt_length=12, num_beams=1, batch_size=7)
    assert [len(prompts) for prompts in model.prefilled] == [7, 2]
    assert model.live[:4] == [7, 6, 7, 7] and model.sizes[:4] == [7, 7, 7, 7]


@pytest.mark.parametrize("num_beams", [1, 2])
def test_nothing_is_drawn_for_examples_that_are_done(search, table_prompts, counted, monkeypatch, num_beams):
    import glm.generation.search

    draws, random_stream = [], glm.generation.search.random_stream

    class Stream:
        def __init__(self, stream):
            self.stream = stream

        def gumbel(self, size):
            draws.append(size)
            return self.stream.gumbel(size=size)

    monkeypatch.setattr(glm.generation.search, "random_stream", lambda *args: Stream(random_stream(*args)))
    model = counted()
    search(
        model,
        table_prompts([9, 9, 9, 9, 1]),
        eop=5,
        tgt_length=12,
        num_beams=num_beams,
        select_topk=False,
        early_stopping="true" if num_beams > 1 else "false",
    )
    assert model.sizes == [5] * 9 and model.live == [5] + [4] * 8  # the fifth stays, idle
    assert len(draws) == 5 + sum(model.live)  # once at prefill, once in each step


def test_longest_prompts_come_first_and_of_equals_the_first(search, table_model, table_prompts, random_table):
    model = table_model(random_table(5))
    lengths = {1: (2, 3), 2: (7, 1), 3: (3, 5), 4: (2, 2), 5: (5, 3), 6: (2, 3)}  # of source and opening
    sources, openings = zip(*lengths.values(), strict=True)
    prompts = table_prompts(list(lengths), source=sources, opening=openings)
    search(model, prompts, eop=4, tgt_length=9, num_beams=2, batch_size=2)
    order = [int(prompt.source_ids[0]) for prefilled in model.prefilled for prompt in prefilled]
    assert order == [2, 3, 5, 1, 6, 4]


def test_results_come_as_soon_as_they_are_there(table_prompts, counted):
    model = counted()
    config = GenerationConfig(tgt_length=12, num_beams=1, no_repeat_ngram_size=0)
    found = generate(model, table_prompts([9, 2, 4, 0, 1]), config, end_token_id=5, batch_size=4)
    assert model.steps == 0 and not model.prefilled  # nothing happens before it is asked for
    arrived = [(place, model.steps) for place, _ in found]
    assert arrived == [(3, 0), (4, 1), (1, 2), (2, 4), (0, 9)]


def test_no_prompts(table_model, random_table):
    assert list(generate(table_model(random_table(3)), [], GenerationConfig(), end_token_id=2)) == []


MODES = {
    "greedy": {"num_beams": 1},
    "greedy-min-2-gram": {"num_beams": 1, "min_tgt_length": 3, "no_repeat_ngram_size": 2},
    "beams": {"num_beams": 3},
    "beams-stop": {"num_beams": 3, "early_stopping": "true", "length_penalty": 1.3},
    "beams-never": {"num_beams": 2, "early_stopping": "never", "repetition_penalty": 1.4},
    "beams-min-3-gram": {"num_beams": 4, "min_tgt_length": 4, "no_repeat_ngram_size": 3, "length_penalty": -0.5},
    "drawn": {"num_beams": 1, "select_topk": False},
    "drawn-beams": {"num_beams": 3, "select_topk": False, "top_k": 4, "min_tgt_length": 2, "temperature": 1.3},
}
SIZES = (1, 2, 3, 5, 16)


def assert_batches_change_nothing(search, model, prompts, **options):
    """Every size of batch and some orders of the prompts against each prompt by itself."""
    records = [100 + 7 * number for number in range(len(prompts))]
    alone = [
        search(model, [prompt], record_ids=[record], **options)[0]
        for prompt, record in zip(prompts, records, strict=True)
    ]
    assert len({hypotheses[0].tokens for hypotheses in alone if hypotheses}) > len(prompts) / 2
    order, shuffle = list(range(len(prompts))), random.Random(3).shuffle
    for batch_size in SIZES:
        got = search(
            model,
            [prompts[place] for place in order],
            batch_size=batch_size,
            record_ids=[records[place] for place in order],
            **options,
        )
        for hypotheses, place in zip(got, order, strict=True):
            assert_same(hypotheses, alone[place])
            for hypothesis, other in zip(hypotheses, alone[place], strict=True):
                np.testing.assert_allclose(hypothesis.token_scores, other.token_scores, rtol=0, atol=1e-4)
        shuffle(order)


@pytest.mark.parametrize("mode", MODES)
def test_texts_and_scores_do_not_depend_on_the_batch(search, table_model, table_prompts, random_table, mode):
    generator = np.random.default_rng(5)
    count = 23
    prompts = table_prompts(
        generator.integers(1000, size=count).tolist(),
        source=generator.integers(2, 9, size=count).tolist(),
        opening=generator.integers(1, 5, size=count).tolist(),
    )
    model = table_model(random_table(6))
    assert_batches_change_nothing(search, model, prompts, eop=4, tgt_length=10, banned=(2,), **MODES[mode])


@pytest.mark.parametrize("mode", MODES)
def test_real_models_texts_do_not_depend_on_the_batch(search, tiny_model, mode):
    model = tiny_model(seed=23)
    generator = np.random.default_rng(6)
    prompts = []
    for length, given in [(2, 0), (14, 2), (5, 4), (9, 0), (3, 1), (14, 0), (7, 3), (4, 0), (11, 1), (6, 0), (25, 2)]:
        source = generator.integers(30, size=length)
        source[generator.integers(length)] = MASK
        prompts.append(GEOMETRY.prompt([CLS, *source, EOS], opening=generator.integers(30, size=given).tolist()))
    assert_batches_change_nothing(search, model, prompts, eop=EOP, tgt_length=12, banned=BANNED, **MODES[mode])


def test_a_batch_by_hand():
    """Beams continued, examples replaced: texts stand at the right, and columns that nobody needs are cut off."""

    class NoCache:
        def __init__(self):
            self.calls = []

        def reorder(self, beam_idx):
            self.calls.append(("reorder", beam_idx.tolist()))

        def keep(self, examples):
            self.calls.append(("keep", examples.tolist()))

        def replace(self, places, other):
            self.calls.append(("replace", places.tolist(), other))

    def batch_of(*lengths):
        config = GenerationConfig(num_beams=2)
        searches = [new_search(config) for _ in lengths]
        for search, length in zip(searches, lengths, strict=True):
            search.length = length
        return Batch(searches, NoCache())

    batch = batch_of(3, 3, 3)
    for step, beam_idx in enumerate([[[0, 0]] * 3, [[1, 0], [0, 1], [0, 0]], [[0, 1], [1, 1], [1, 0]]]):
        tokens = 10 * (step + 1) + np.arange(6).reshape(3, 2)
        batch.extend(np.array(beam_idx), tokens, np.float32(tokens / 2), np.float32(tokens))
    assert batch.tokens.tolist() == [
        [[11, 20, 30], [10, 21, 31]],
        [[13, 23, 32], [13, 23, 33]],
        [[14, 25, 34], [14, 24, 35]],
    ]
    assert np.array_equal(batch.token_scores, np.float32(batch.tokens / 2))
    assert batch.sums.tolist() == [[30, 31], [32, 33], [34, 35]]

    other = batch_of(1, 1)
    other.extend(np.zeros((2, 2), dtype=np.int64), np.array([[1, 2], [3, 4]]), *np.float32([[[5, 6], [7, 8]]] * 2))
    batch.replace(np.array([2, 0]), other)
    assert batch.searches[2] is other.searches[0] and batch.searches[0] is other.searches[1]
    assert batch.tokens.tolist() == [
        [[-1, -1, 3], [-1, -1, 4]],
        [[13, 23, 32], [13, 23, 33]],
        [[-1, -1, 1], [-1, -1, 2]],
    ]
    assert batch.token_scores[:, :, 2].tolist() == [[7, 8], [16, 16.5], [5, 6]]
    assert (batch.token_scores[[0, 2], :, :2] == 0).all() and batch.sums.tolist() == [[7, 8], [32, 33], [5, 6]]
    assert [part.tolist() for part in batch.text(0, 1)] == [[4], [8]]
    assert [part.tolist() for part in batch.text(1, 0)] == [[13, 23, 32], [6.5, 11.5, 16]]
    assert batch.cache.calls[-1] == ("replace", [2, 0], other.cache)

    third = batch_of(1)
    third.extend(np.zeros((1, 2), dtype=np.int64), np.array([[8, 9]]), *np.float32([[[1, 1]]] * 2))
    batch.replace(np.array([1]), third)  # no text of more than one token is left
    assert batch.tokens.tolist() == [[[3], [4]], [[8], [9]], [[1], [2]]]
    assert batch.token_scores.shape == (3, 2, 1)
    batch.keep(np.array([2, 1]))
    assert batch.tokens.tolist() == [[[1], [2]], [[8], [9]]] and batch.sums.tolist() == [[5, 6], [1, 1]]
    assert batch.searches == [other.searches[0], third.searches[0]] and batch.cache.calls[-1] == ("keep", [2, 1])


# -- scores of tokens


def assert_token_scores(hypotheses, next_logits, *, eop, length_penalty, max_length, penalty=1.0):
    for hypothesis in hypotheses:
        tokens = hypothesis.tokens
        chosen = tokens if len(tokens) == max_length else (*tokens, eop)
        want = []
        for place, token in enumerate(chosen):
            logits = np.asarray(next_logits(chosen[:place]), dtype=np.float64)
            log_p = logits[token] - logits.max() - np.log(np.exp(logits - logits.max()).sum())
            want.append(log_p * penalty if token in chosen[:place] else log_p)
        np.testing.assert_allclose(hypothesis.token_scores, want, rtol=0, atol=1e-4)
        assert len(hypothesis.token_scores) == len(chosen)
        total = sum(hypothesis.token_scores)
        assert total == pytest.approx(hypothesis.score * max(len(tokens), 1) ** length_penalty, abs=1e-4)


@pytest.mark.parametrize("batch_size", [3, 16])
@pytest.mark.parametrize(
    "mode", ["greedy", "beams", "beams-stop", "beams-never", "beams-min-3-gram", "greedy-min-2-gram", "drawn"]
)
def test_token_scores_are_the_models(search, table_model, table_prompts, random_table, mode, batch_size):
    table, keys, options = random_table(6), list(range(200, 215)), {"length_penalty": 0.7, **MODES[mode]}
    given = [0, 2, 1] * 5
    model = table_model(table)
    prompts = table_prompts(keys, opening=[1 + number for number in given])
    got = search(model, prompts, eop=4, tgt_length=8, batch_size=batch_size, **options)
    lengths = set()
    for key, number, hypotheses in zip(keys, given, got, strict=True):
        # of the rules only the penalty of repeats changes a probability; the others forbid
        assert_token_scores(
            hypotheses,
            table(key),
            eop=4,
            length_penalty=options["length_penalty"],
            max_length=8 - number,
            penalty=options.get("repetition_penalty", 1.0),
        )
        lengths |= {(len(hypothesis.tokens), len(hypothesis.token_scores)) for hypothesis in hypotheses}
    assert any(scores == tokens for tokens, scores in lengths)  # cut at the end, without eop
    assert any(scores == tokens + 1 for tokens, scores in lengths)


@pytest.mark.parametrize("num_beams", [1, 3])
def test_real_models_token_scores(search, tiny_model, num_beams):
    model = tiny_model(seed=24)
    opening = (20, 21)
    got = search(
        model,
        prompts_of(SOURCES, opening=opening),
        eop=EOP,
        banned=BANNED,
        tgt_length=9,
        num_beams=num_beams,
        batch_size=2,
    )
    for source, hypotheses in zip(SOURCES, got, strict=True):
        next_logits = next_logits_by_full_forward(model, source, opening)
        assert_token_scores(hypotheses, next_logits, eop=EOP, length_penalty=0.7, max_length=7)


# -- a closed list of outputs


@pytest.mark.parametrize("length_penalty", [0.0, 0.7])
def test_allowed_outputs_are_ranked_as_by_brute_force(
    search, table_model, table_prompts, random_table, length_penalty
):
    table, keys, eop = random_table(5), [1, 2, 3], 4
    allowed = [(0,), (0, 1), (0, 1, 2), (3, 3), (2, 0, 0), (1,)]
    options = {"eop": eop, "tgt_length": 4, "length_penalty": length_penalty}
    got = search(table_model(table), table_prompts(keys), allowed=allowed, num_beams=6, **options)
    for key, hypotheses in zip(keys, got, strict=True):
        everything = brute_force(table(key), vocab_size=5, max_length=4, eop=eop, length_penalty=length_penalty)
        want = [(tokens, score) for tokens, score in everything if tokens in allowed]
        assert len(want) == 6
        assert_equal(hypotheses, want)
        assert_token_scores(hypotheses, table(key), eop=eop, length_penalty=length_penalty, max_length=4)


@pytest.mark.parametrize("mode", MODES)
def test_nothing_but_allowed_outputs_is_generated(search, table_model, table_prompts, random_table, mode):
    allowed = [(0, 1, 2), (0, 1, 2, 3), (3, 0, 1, 2), (1, 2, 0, 3, 3), (0, 3, 1), (2, 1, 0, 3)]
    keys = list(range(30))
    prompts = table_prompts(keys, opening=[1, 3, 2] * 10)
    got = search(
        table_model(random_table(5)), prompts, eop=4, tgt_length=9, allowed=allowed, batch_size=4, **MODES[mode]
    )
    texts = {hypothesis.tokens for hypotheses in got for hypothesis in hypotheses}
    assert texts <= set(allowed) and len(texts) > 3


# -- a model that fails


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("num_beams", [1, 3])
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_logits_that_are_no_numbers_are_an_error(search, table_model, table_prompts, random_table, num_beams, value):
    def breaks_after_two_tokens(key):
        table = random_table(5)(key)
        return lambda tokens: np.where(np.arange(5) == 3, value if len(tokens) == 2 else 0.0, table(tokens))

    def next_logits(key):
        return breaks_after_two_tokens(key) if key == 2 else random_table(5)(key)

    options = {"eop": 4, "num_beams": num_beams}
    assert len(search(table_model(next_logits), table_prompts([1, 2, 3]), tgt_length=2, **options)) == 3
    options |= {"tgt_length": 6, "min_tgt_length": 4}
    assert len(search(table_model(next_logits), table_prompts([1, 3]), **options)) == 2
    for keys in ([2], [1, 2, 3]):  # one example of several is enough
        with pytest.raises(InputError, match="^the model's output is not a number: its weights are damaged"):
            search(table_model(next_logits), table_prompts(keys), **options)


def test_rules_before_the_softmax_give_others_the_forbidden_share(table_model, table_prompts):
    """By hand: of probabilities .5 .3 .2 the first is forbidden, which leaves .6 and .4."""
    logits = np.log(np.array([0.5, 0.3, 0.2]))
    scores = {}
    for order in ("after_softmax", "before_softmax"):
        config = GenerationConfig(num_beams=1, tgt_length=1, length_penalty=0.0, processor_order=order)
        model = table_model(lambda key: lambda tokens: logits)
        ((_, (found,)),) = generate(model, table_prompts([1]), config, end_token_id=2, banned_token_ids=[0])
        assert found.tokens == (1,)
        scores[order] = found.score
    assert scores["after_softmax"] == pytest.approx(np.log(0.3))
    assert scores["before_softmax"] == pytest.approx(np.log(0.6))


def test_rules_before_the_softmax_may_leave_nothing(table_model, table_prompts, random_table):
    """Allowed outputs forbid all but a few tokens: beams that have none end, and nothing turns into NaN."""
    config = GenerationConfig(num_beams=3, tgt_length=5, no_repeat_ngram_size=0, processor_order="before_softmax")
    model = table_model(random_table(6))
    options = {"end_token_id": 5, "allowed_outputs": [[1, 2], [3]]}
    found = dict(generate(model, table_prompts([1, 2]), config, **options))
    assert all(hypotheses[0].tokens in ((1, 2), (3,)) and hypotheses[0].score <= 0 for hypotheses in found.values())
