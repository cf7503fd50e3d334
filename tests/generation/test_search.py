"""Decoding against brute force, textbook beam search and greedy search, over tables of numbers and a real model."""

import itertools

import numpy as np
import paddle
import pytest

from glm.blank_infilling import BlankInfilling, PromptBatch
from glm.generation.config import GenerationConfig
from glm.generation.search import ExampleSearch, generate
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


def search(model, prompts, *, eop, banned=(), **options):
    options = {"no_repeat_ngram_size": 0, **options}
    options.setdefault("num_return_sequences", options["num_beams"])
    config = GenerationConfig(**options)
    return generate(model, prompts, config, eop_token_id=eop, banned_token_ids=banned)


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
    table_model, table_prompts, random_table, V, length, length_penalty, early_stopping
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
def test_beam_search_equals_reference(table_model, table_prompts, random_table, num_beams, early_stopping, rules):
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
def test_one_beam_is_greedy(table_model, table_prompts, random_table, length_penalty, rules):
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


def test_one_beam_stops_at_its_first_eop_though_more_might_score_better(table_model, table_prompts):
    # after eop at -0.69, (0,) could still reach a mean of -0.46
    def certain(key):
        return lambda tokens: np.log([0.3, 0.2, 0.5] if not tokens else [0.9, 0.05, 0.05])

    options = {"eop": 2, "tgt_length": 3, "length_penalty": 1.0}
    (got,) = search(table_model(certain), table_prompts([1]), num_beams=1, **options)
    assert_equal(got, [((), np.log(0.5))])
    (got,) = search(table_model(certain), table_prompts([1]), num_beams=2, early_stopping="never", **options)
    assert_equal(got[:1], [((0, 0, 0), np.log(0.3 * 0.9 * 0.9) / 3)])


@pytest.mark.parametrize("num_beams", [1, 3])
def test_batch_equals_single_runs(table_model, table_prompts, random_table, num_beams):
    table, keys = random_table(5), list(range(20))
    options = {"eop": 0, "tgt_length": 8, "num_beams": num_beams}
    together = search(table_model(table), table_prompts(keys), **options)
    for key, hypotheses in zip(keys, together, strict=True):
        (alone,) = search(table_model(table), table_prompts([key]), **options)
        assert_same(hypotheses, alone)


def test_constraints_hold_in_every_hypothesis(table_model, table_prompts, random_table):
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


def test_eop_is_excluded_from_length_but_not_from_sum(table_model, table_prompts):
    def constant(key):
        return lambda tokens: np.log([0.6, 0.4]) if len(tokens) < 2 else np.log([0.1, 0.9])

    (got,) = search(table_model(constant), table_prompts([0]), eop=1, tgt_length=3, num_beams=1, length_penalty=0.7)
    assert_equal(got, [((0, 0), np.log(0.6 * 0.6 * 0.9) / 2**0.7)])


def test_decoding_stops_when_all_examples_are_done(table_model, table_prompts):
    # example n ends after n tokens
    def ends(key):
        return lambda tokens: np.array([5.0, 0.0]) if len(tokens) < key else np.array([0.0, 5.0])

    for keys, steps in [([0], 0), ([0, 3, 1], 3), ([2, 2], 2), ([50], 7)]:
        model = table_model(ends)
        got = search(model, table_prompts(keys), eop=1, tgt_length=8, num_beams=1)
        assert [len(hypotheses[0].tokens) for hypotheses in got] == [min(key, 8) for key in keys]
        assert model.steps == steps


@pytest.mark.parametrize("opening", [1, 3, 6])
def test_opening_counts_for_the_target_length_and_for_no_rule(table_model, table_prompts, random_table, opening):
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


def test_no_room_after_the_opening_is_an_error(table_model, table_prompts, random_table):
    options = {"eop": 4, "num_beams": 1}
    model = table_model(random_table(5))
    assert search(model, table_prompts([1], opening=5), tgt_length=5, **options)
    with pytest.raises(ValueError, match="tgt_length 4: no room for min_tgt_length 0 tokens after the opening's 4"):
        search(model, table_prompts([1], opening=5), tgt_length=4, **options)


def test_num_return_sequences_are_the_best(table_model, table_prompts, random_table):
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


def test_nothing_left_to_choose_gives_no_hypothesis(table_model, table_prompts, random_table):
    for num_beams in (1, 3):
        options = {"eop": 2, "tgt_length": 5, "num_beams": num_beams}
        got = search(table_model(random_table(3)), table_prompts([1, 2]), banned=(0, 1, 2), **options)
        assert got == [[], []]


def test_example_search_keeps_the_best_and_the_earlier_of_equals():
    examples = ExampleSearch(GenerationConfig(num_beams=2, length_penalty=1.0), max_length=10)
    examples.add([1, 1], -2.0)  # score -1
    examples.add([2], -1.0)  # -1 too
    examples.add([3], -1.5)
    examples.add([4, 4, 4], -3.0)  # -1, but later
    assert [hypothesis.tokens for hypothesis in examples.hypotheses] == [(1, 1), (2,)]
    examples.add([5, 5], -1.0)
    assert [(hypothesis.tokens, hypothesis.score) for hypothesis in examples.hypotheses] == [
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
    examples = ExampleSearch(config, max_length=10)
    examples.add([1], -0.5)
    examples.check_done(best_live, 2)
    assert examples.done == (best_live == -np.inf)  # with one hypothesis of two it never is
    examples.add([2], -1.0)
    examples.check_done(best_live, 2)
    assert examples.done == done


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


def prompts_of(sources, *, width=0, opening=()):
    width = max(width, *map(len, sources))
    return PromptBatch(
        geometry=GEOMETRY,
        source_ids=np.array([source + [EOS] * (width - len(source)) for source in sources]),
        source_lengths=np.array([len(source) for source in sources]),
        places=np.array([source.index(MASK) for source in sources]),
        opening_ids=np.array([SOP, *opening]),
    )


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
        ids, positions, mask = (
            paddle.to_tensor([example[name]]) for name in ("input_ids", "position_ids", "attention_mask")
        )
        with paddle.no_grad():
            return model(ids, positions, mask.unsqueeze(1))[0, -1].numpy()

    return next_logits


@pytest.mark.parametrize("opening", [(), (20, 21, 22)], ids=["", "opening"])
@pytest.mark.parametrize("num_beams", [1, 3])
def test_real_model_equals_reference_search_over_full_forwards(tiny_model, num_beams, opening):
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
def test_real_model_does_not_depend_on_batch_padding_or_order(tiny_model, num_beams):
    model = tiny_model(seed=21)
    options = {"eop": EOP, "banned": BANNED, "tgt_length": 20, "num_beams": num_beams, "no_repeat_ngram_size": 3}
    single = [search(model, prompts_of([source]), **options)[0] for source in SOURCES]
    assert len({hypotheses[0].tokens for hypotheses in single}) == 4
    for width in (12, 13, 31):
        batch = search(model, prompts_of(SOURCES, width=width), **options)
        for got, want in zip(batch, single, strict=True):
            assert_same(got, want)
    for order in itertools.islice(itertools.permutations(range(4)), 5, None, 6):
        batch = search(model, prompts_of([SOURCES[place] for place in order]), **options)
        for got, place in zip(batch, order, strict=True):
            assert_same(got, single[place])


@pytest.mark.parametrize("num_beams", [1, 4])
def test_real_model_constraints_hold(tiny_model, num_beams):
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


@pytest.mark.parametrize("select_topk", [True, False])
def test_finished_examples_leave_the_batch(table_model, table_prompts, random_table, select_topk):
    """Example n ends after n tokens: the batch shrinks on the way, and each result is that of a run by itself."""

    def next_logits(key):
        table = random_table(6)(key)

        def logits(tokens):
            return table(tokens) + np.where(np.arange(6) == 5, 50.0 if len(tokens) >= key else -50.0, 0.0)

        return logits

    sizes = []

    class Counted(table_model):
        def step(self, tokens, position_ids, cache):
            sizes.append(len(tokens))
            return super().step(tokens, position_ids, cache)

    keys = list(range(1, 9))
    config = GenerationConfig(
        num_beams=2, num_return_sequences=2, tgt_length=12, select_topk=select_topk, no_repeat_ngram_size=0
    )
    together = generate(Counted(next_logits), table_prompts(keys), config, eop_token_id=5, record_ids=keys)
    assert sizes == sorted(sizes, reverse=True) and sizes[0] == 8 and sizes[-1] <= 2
    for key, hypotheses in zip(keys, together, strict=True):
        alone = generate(table_model(next_logits), table_prompts([key]), config, eop_token_id=5, record_ids=[key])[0]
        assert [hypothesis.tokens for hypothesis in hypotheses] == [hypothesis.tokens for hypothesis in alone]
        np.testing.assert_allclose(
            [hypothesis.score for hypothesis in hypotheses], [hypothesis.score for hypothesis in alone], atol=1e-5
        )
        assert len(hypotheses[0].tokens) == key
