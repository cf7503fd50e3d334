"""Decoding under UniLM's rule, against brute force over every text; samples that are independent and differ."""

import itertools
import math

import numpy as np
import pytest

from glm.errors import InputError
from glm.generation.config import GenerationConfig
from glm.generation.logits_processors import FORBIDDEN, NoRepeatNGram
from glm.generation.search import generate
from glm.modules.decoding import prepare_decoding
from glm.prediction.writer import ignored_ids
from tools.unilm_tools import geometry_of, random_model, tensors, write_vocabulary

WORDS, END = 4, 2  # of a vocabulary so small that every text can be scored


class FewWords:
    """A tokenizer of four ids; the last two are [SEP] and [MASK], both of which a text may hold but for its end."""

    special_ids = {}
    vocab_size, cls_token_id, sep_token_id, mask_token_id, end_token_id = WORDS, 0, END, 3, END


GEOMETRY = geometry_of(FewWords())


def model_of(**options):
    return random_model(vocab_size=WORDS, **options)


@pytest.fixture(params=[24, 128], ids=["any heads", "heads of 64"])
def model(request):
    """As a model is decoded: weights arranged, attention compiled where heads are of 64."""
    return model_of(hidden_size=request.param, num_attention_heads=3 if request.param == 24 else 2)


SOURCES = [[0, 1, 3, END], [0, 3, END], [0, 1, 1, 0, 3, END]]


def step_scores(model, source: list[int], text: tuple[int, ...]) -> list[float]:
    """The log-probability of each token of a text, by one forward over the pseudo-masked example."""
    span = text[:-1] if text[-1] == END else text
    example = GEOMETRY.example(source, list(span), tgt_length=100)
    S, T, _ = example.parts
    names = ("input_ids", "position_ids", "segment_ids", "parts", "tasks")
    batch = GEOMETRY.collate([[example]], len(example), 0)
    logits = model(**tensors({name: batch[name] for name in names})).numpy()[0, S + T :].astype("float64")
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return [log_p[place, token] for place, token in enumerate(text)]


def every_text(length: int) -> list[tuple[int, ...]]:
    """Texts that end, and those that the limit cuts."""
    others = [token for token in range(WORDS) if token != END]
    ended = [(*text, END) for n in range(length) for text in itertools.product(others, repeat=n)]
    return ended + list(itertools.product(others, repeat=length))


@pytest.mark.parametrize("length_penalty", [0.0, 0.7, 2.0])
def test_wide_beam_search_equals_brute_force(model, length_penalty):
    """With as many beams as there are texts nothing is pruned: the ranking of all of them is the rule's."""
    length = 2
    texts = every_text(length)
    config = GenerationConfig(
        tgt_length=length,
        num_beams=len(texts),
        num_return_sequences=len(texts),
        length_penalty=length_penalty,
        no_repeat_ngram_size=0,
    )
    expected = []
    for source in SOURCES:
        totals = {text: sum(step_scores(model, source, text)) for text in texts}
        ranked = [(total / ((5 + len(text)) / 6) ** length_penalty, text) for text, total in totals.items()]
        expected.append(sorted(ranked, reverse=True))
    prepare_decoding(model, "float32", "cpu")
    prompts = [GEOMETRY.prompt(source) for source in SOURCES]
    found = dict(generate(model, prompts, config, end_token_id=END, batch_size=2))
    for number, ranked in enumerate(expected):
        assert len(found[number]) == len(texts)
        np.testing.assert_allclose([h.score for h in found[number]], [score for score, _ in ranked], atol=5e-5)
        for hypothesis, (score, _) in zip(found[number], ranked, strict=True):
            text = hypothesis.tokens + ((END,) if len(hypothesis.token_scores) > len(hypothesis.tokens) else ())
            assert next(other for other, candidate in ranked if candidate == text) == pytest.approx(score, abs=5e-5)


def search_by_hand(model, source, *, K: int, length: int, length_penalty: float) -> list[tuple]:
    """UniLM's beam search written out: K candidates a step, of which the ended are not continued; then all ranked."""
    live, finished = [(0.0, ())], []
    for _ in range(length):
        candidates = [
            (total + step_scores(model, source, (*text, token))[-1], (*text, token))
            for total, text in live
            for token in range(WORDS)
        ]
        best = sorted(candidates, reverse=True)[:K]
        finished += [item for item in best if item[1][-1] == END]
        live = [item for item in best if item[1][-1] != END]
        if not live:
            break
    ranked = [(total / ((5 + len(text)) / 6) ** length_penalty, text) for total, text in finished + live]
    return sorted(ranked, reverse=True)[:K]


@pytest.mark.parametrize("K", [1, 2, 3])
@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
def test_narrow_beam_search_equals_the_rule_written_out(K, length_penalty):
    for seed in range(2):
        model = model_of(seed=seed, num_hidden_layers=1)
        config = GenerationConfig(
            tgt_length=4, num_beams=K, num_return_sequences=K, length_penalty=length_penalty, no_repeat_ngram_size=0
        )
        found = dict(generate(model, [GEOMETRY.prompt(source) for source in SOURCES], config, end_token_id=END))
        for number, source in enumerate(SOURCES):
            expected = search_by_hand(model, source, K=K, length=4, length_penalty=length_penalty)
            assert [h.score for h in found[number]] == pytest.approx([score for score, _ in expected], abs=5e-5)
            assert [h.tokens for h in found[number]] == [tuple(t for t in text if t != END) for _, text in expected]


def test_the_rule_of_the_model_and_the_rule_of_the_user():
    """The model's own by default; the user's goes before it, and gives GLM's other scores."""
    model, config = model_of(), {"tgt_length": 6, "num_beams": 3, "no_repeat_ngram_size": 0, "length_penalty": 1.0}
    prompts = [GEOMETRY.prompt(source) for source in SOURCES]

    def scores(model, **options):
        found = generate(model, prompts, GenerationConfig(**config, **options), end_token_id=END)
        return {number: [h.score for h in hypotheses] for number, hypotheses in found}

    assert scores(model) == scores(model, finished_rule="unilm") != scores(model, finished_rule="glm")
    assert scores(model_of(finished_rule="glm")) == scores(model, finished_rule="glm")
    with pytest.raises(InputError, match="early_stopping true: has no effect with finished_rule unilm"):
        scores(model, early_stopping="true")
    with pytest.raises(InputError, match="finished_rule 'best': use glm or unilm"):
        model_of(finished_rule="best")


def samples(model, *, seed: int, count: int, **options) -> list:
    config = GenerationConfig(
        tgt_length=4,
        num_beams=count,
        num_return_sequences=count,
        select_topk=False,
        no_repeat_ngram_size=0,
        generation_seed=seed,
        **options,
    )
    ((_, found),) = generate(model, [GEOMETRY.prompt(SOURCES[0])], config, end_token_id=END)
    return found


def test_samples_differ_and_score_what_they_are():
    model = model_of()
    found = samples(model, seed=3, count=8)
    assert len(found) == 8 and len({h.tokens for h in found}) == 8
    for hypothesis in found:
        ended = len(hypothesis.token_scores) > len(hypothesis.tokens)
        text = hypothesis.tokens + ((END,) if ended else ())
        assert hypothesis.token_scores == pytest.approx(step_scores(model, SOURCES[0], text), abs=1e-4)


def test_samples_have_the_probabilities_of_texts():
    """First texts of 400 seeds: each within four standard errors of its probability."""
    model, draws = model_of(), 400
    drawn: dict[tuple[int, ...], int] = {}
    config = {"tgt_length": 2, "num_beams": 1, "select_topk": False, "no_repeat_ngram_size": 0}
    prompts = [GEOMETRY.prompt(SOURCES[0])] * draws
    for _, (hypothesis,) in generate(model, prompts, GenerationConfig(**config), end_token_id=END, batch_size=draws):
        ended = len(hypothesis.token_scores) > len(hypothesis.tokens)
        text = hypothesis.tokens + ((END,) if ended else ())
        drawn[text] = drawn.get(text, 0) + 1
    for text in every_text(2):
        p = math.exp(sum(step_scores(model, SOURCES[0], text)))
        error = math.sqrt(p * (1 - p) / draws)
        assert abs(drawn.get(text, 0) / draws - p) <= 4 * error, text


def test_samples_do_not_depend_on_the_batch():
    model = model_of()
    config = GenerationConfig(tgt_length=5, num_beams=3, num_return_sequences=3, select_topk=False, top_p=0.9)
    prompts = [GEOMETRY.prompt(source) for source in SOURCES]
    together = dict(generate(model, prompts, config, end_token_id=END, batch_size=3))
    for number, prompt in enumerate(prompts):
        ((_, alone),) = generate(model, [prompt], config, end_token_id=END, record_ids=[number])
        assert [h.tokens for h in alone] == [h.tokens for h in together[number]]


def test_fewer_texts_than_asked_where_there_are_no_more():
    """Of the likeliest token alone there is one text, however often it is drawn."""
    assert len(samples(model_of(), seed=1, count=4, top_k=1)) == 1


def test_words_that_the_ban_leaves_alone():
    generated = np.array([[5, 6, 7, 5, 6], [5, 9, 7, 5, 9], [5, 6, 9, 5, 6]])
    scores = np.zeros((3, 12))
    NoRepeatNGram(3, [9])(generated, scores)
    assert [np.flatnonzero(row == FORBIDDEN).tolist() for row in scores] == [[7], [], []]


def test_ignored_words_by_name(tmp_path):
    from glm.models.unilm.tokenization import WordPieceTokenizer

    tokenizer = WordPieceTokenizer(write_vocabulary(tmp_path / "vocab.txt", ["。", ".", "的"]))
    assert ignored_ids("。|.|[sep]", tokenizer) == [5, 6, tokenizer.sep_token_id]
    assert ignored_ids(None, tokenizer) == []
    with pytest.raises(InputError, match="no_repeat_ignore 的的: '的的' is no single token"):
        ignored_ids("的的", tokenizer)
