"""Examples that join and leave a running batch, and texts that end at a token of the caller's choice."""

import itertools

import numpy as np
import pytest

from glm.errors import InputError
from glm.generation.config import GenerationConfig
from glm.generation.search import Decoding, build_decoder, generate
from glm.models.glm.geometry import BlankInfilling

EOP = 5


def options_of(number: int, **options) -> GenerationConfig:
    """Options that differ from example to example where they may within a batch."""
    own = {"tgt_length": (9, 12, 20)[number % 3], "length_penalty": (0.0, 0.7, 1.5)[number % 3]}
    own |= {"early_stopping": ("false", "never")[number % 2]} if options.get("num_beams", 1) > 1 else {}
    own |= {"generation_seed": number} if options.get("select_topk") is False else {}
    return GenerationConfig(**{"no_repeat_ngram_size": 0, **options, **own})


def joined(decoder, arrivals, searches, *, dropped=()):
    """Decodes searches, so many of which join before each step; hypotheses by the number of the search.

    Args:
        arrivals: numbers of searches that join before each step, 0 where none does.
        dropped: (step, number) of searches that nobody wants any more before a step.
    """
    decoding, found, waiting = Decoding(decoder), {}, list(searches)
    for step in itertools.count():
        arriving = arrivals[step] if step < len(arrivals) else 0
        done = decoding.join([waiting.pop(0) for _ in range(arriving)]) if arriving else []
        for when, number in dropped:
            if when == step:
                searches[number].done = True
        if decoding.unfinished:
            done += decoding.step()
        found |= {search.number: search.found for search in done}
        if not waiting and not decoding.unfinished:
            return found


ARRIVALS = [
    [1] * 8,
    [3, 0, 0, 1, 2, 0, 2],
    [1, 0, 0, 0, 7],
    [2, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5],
]
WAYS = [
    {"num_beams": 1},
    {"num_beams": 3, "num_return_sequences": 3},
    {"num_beams": 2, "select_topk": False, "top_k": 4, "repetition_penalty": 1.3},
]


@pytest.mark.parametrize("arrivals", ARRIVALS, ids=str)
@pytest.mark.parametrize("way", WAYS, ids=str)
def test_who_joins_is_decoded_as_if_alone(table_model, table_prompts, random_table, arrivals, way):
    model = table_model(random_table(6))
    prompts = table_prompts(range(8), opening=[1, 3, 2, 1, 2, 1, 3, 1], source=[2, 9, 4, 3, 12, 2, 2, 15])
    configs = [options_of(number, **way) for number in range(8)]
    decoder = build_decoder(model, configs[0], end_token_id=EOP)
    searches = [
        decoder.search(prompt, number=number, record_id=number, config=config)
        for number, (prompt, config) in enumerate(zip(prompts, configs, strict=True))
    ]
    found = joined(decoder, arrivals, searches)
    assert sorted(found) == list(range(8))
    for number, config in enumerate(configs):
        ((_, alone),) = generate(model, [prompts[number]], config, end_token_id=EOP, record_ids=[number])
        assert [text.tokens for text in found[number]] == [text.tokens for text in alone]
        assert [text.score for text in found[number]] == pytest.approx([text.score for text in alone], abs=1e-5)


@pytest.mark.parametrize("arrivals", ARRIVALS, ids=str)
def test_a_model_shows_who_joins_nothing_of_the_others(tiny_model, arrivals):
    """Prompts of growing and of shrinking length, a real cache, and no `eop`, so that slots fill up."""
    model = tiny_model()
    geometry = BlankInfilling(mask_token_ids=(32,), sop_token_id=34, eop_token_id=35)
    rng = np.random.default_rng(0)
    lengths = (3, 9, 4, 20, 2, 30, 8, 30)
    prompts = [geometry.prompt([31, *rng.integers(0, 30, length), 32, 33]) for length in lengths]
    config = GenerationConfig(num_beams=3, tgt_length=25, min_tgt_length=20, num_return_sequences=3)
    decoder = build_decoder(model, config, end_token_id=35)
    searches = [decoder.search(prompt, number=number, record_id=number) for number, prompt in enumerate(prompts)]
    found = joined(decoder, arrivals, searches)
    for number, prompt in enumerate(prompts):
        ((_, alone),) = generate(model, [prompt], config, end_token_id=35)
        assert [text.tokens for text in found[number]] == [text.tokens for text in alone]
        assert [text.score for text in found[number]] == pytest.approx([text.score for text in alone], abs=1e-4)


def test_who_is_dropped_leaves_and_changes_nothing(table_model, table_prompts, random_table):
    config = GenerationConfig(num_beams=2, tgt_length=15, min_tgt_length=14, no_repeat_ngram_size=0)
    prompts = table_prompts(range(6))
    model = table_model(random_table(6))
    decoder = build_decoder(model, config, end_token_id=EOP)
    searches = [decoder.search(prompt, number=number, record_id=number) for number, prompt in enumerate(prompts)]
    found = joined(decoder, [6], searches, dropped=[(3, 1), (3, 4), (7, 0)])
    assert sorted(found) == [2, 3, 5]
    assert model.sizes[2:4] == [6, 4] and model.sizes[-1] == 3
    for number in found:
        ((_, alone),) = generate(model, [prompts[number]], config, end_token_id=EOP)
        assert [text.tokens for text in found[number]] == [text.tokens for text in alone]


@pytest.mark.parametrize("length_penalty", [0.0, 0.7, 2.0])
def test_an_ending_token_by_brute_force(table_model, table_prompts, random_table, length_penalty):
    """Of 4 tokens 3 is `eop`, and 2 ends a text of which it is part; the beams hold everything."""
    V, length, stop, eop = 4, 4, 2, 3
    config = GenerationConfig(
        num_beams=200, num_return_sequences=200, tgt_length=length, length_penalty=length_penalty,
        no_repeat_ngram_size=0, early_stopping="never",
    )  # fmt: skip
    model = table_model(random_table(V))
    (prompt,) = table_prompts([7])
    decoder = build_decoder(model, config, end_token_id=eop)
    search = decoder.search(prompt, number=0, record_id=0, ends=lambda ids: ids[-1] == stop)
    found = joined(decoder, [1], [search])[0]

    def log_probability(text: tuple[int, ...]) -> float:
        total = 0.0
        for place, token in enumerate(text):
            logits = random_table(V)(7)(text[:place])
            total += logits[token] - np.log(np.exp(logits).sum())
        return total

    expected = {}
    for n in range(length + 1):
        for text in itertools.product(range(3), repeat=n):
            if stop in text[:-1]:
                continue
            if n and (text[-1] == stop or n == length):
                expected[text] = log_probability(text) / n**length_penalty
            elif n < length:
                expected[text] = log_probability((*text, eop)) / max(n, 1) ** length_penalty
    assert {text.tokens: pytest.approx(text.score, abs=1e-4) for text in found} == expected
    for text in found:
        ended_by_eop = stop not in text.tokens and len(text.tokens) < length
        assert len(text.token_scores) == len(text.tokens) + ended_by_eop
        assert sum(text.token_scores) / max(len(text.tokens), 1) ** length_penalty == pytest.approx(
            text.score, abs=1e-4
        )


def test_greedy_search_stops_at_the_ending_token(table_model, table_prompts):
    model = table_model(lambda key: lambda tokens: np.eye(6)[len(tokens) % 5] * 9)  # 0 1 2 3 4 0 1 ...
    config = GenerationConfig(num_beams=1, tgt_length=30, no_repeat_ngram_size=0)
    decoder = build_decoder(model, config, end_token_id=EOP)
    search = decoder.search(table_prompts([1])[0], number=0, record_id=0, ends=lambda ids: list(ids[-2:]) == [1, 2])
    assert [text.tokens for text in joined(decoder, [1], [search])[0]] == [(0, 1, 2)]
    assert model.steps == 2


def test_no_room_is_an_error_before_decoding(table_model, table_prompts, random_table):
    decoder = build_decoder(table_model(random_table(6)), GenerationConfig(num_beams=1), end_token_id=EOP)
    with pytest.raises(InputError, match="tgt_length 4: no room for 0 tokens .* after the 4 that are given"):
        config = GenerationConfig(num_beams=1, tgt_length=4)
        decoder.search(table_prompts([1], opening=5)[0], number=0, record_id=0, config=config)
