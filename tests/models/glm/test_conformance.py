"""The conformance checks of GLM's fact sheet (section 10), by their numbers; other tests go deeper into each.

Check 7 (learning rate) is tested with the schedule, check 8 (weights split over processes and merged) with tensor
parallelism.
"""

import math

import numpy as np
import paddle
import pytest

from glm.errors import InputError
from glm.generation.config import GenerationConfig
from glm.generation.search import generate
from glm.models.glm.geometry import BlankInfilling
from glm.models.glm.paddlenlp_tokenizer import GLMTokenizer
from glm.modules.loss import smoothed_cross_entropy
from glm.modules.packing import Packing
from reference.beam_search import beam_search
from reference.forward import forward
from reference.geometry import build_example

CLS, MASK, EOS, SOP, EOP, PAD = 31, 32, 33, 34, 35, 36
COMMANDS = (CLS, MASK, EOS, SOP, PAD)
GEOMETRY = BlankInfilling(mask_token_ids=(MASK,), sop_token_id=SOP, eop_token_id=EOP)
WORKED = [CLS, 1, 2, 3, MASK, EOS]  # the worked example: a b c are 1 2 3, t1 t2 are 11 12
SOURCES = [WORKED, [CLS, MASK, 4, 5, 6, 7, EOS], [CLS, 8, 9, MASK]]


def inputs(source, spans, *, padding=0):
    """ids, positions and segments of one example, and so much padding behind it."""
    example = GEOMETRY.example(source, spans, tgt_length=20)
    ids = np.concatenate([source, example.target_ids, [PAD] * padding])
    positions = np.concatenate([GEOMETRY.source_positions(len(source)), example.target_position_ids], axis=1)
    positions = np.pad(positions, [(0, 0), (0, padding)])
    segments = [[[len(source), len(example.target_ids)]]]
    return [paddle.to_tensor(np.asarray(part, dtype="int64")) for part in (ids[None], positions[None], segments)]


def states_and_logits(model, source, spans):
    with paddle.no_grad():
        ids, positions, segments = inputs(source, spans)
        states = model.glm(ids, positions, Packing.of(segments.numpy(), ids.shape[1]))
        return states.numpy(), model.head.logits(states).numpy()


def texts(model, *, banned=COMMANDS, **options):
    options = {"no_repeat_ngram_size": 0, **options}
    options.setdefault("num_return_sequences", options["num_beams"])
    found = generate(
        model,
        [GEOMETRY.prompt(source) for source in SOURCES],
        GenerationConfig(**options),
        end_token_id=EOP,
        banned_token_ids=banned,
    )
    return [[hypothesis.tokens for hypothesis in hypotheses] for _, hypotheses in sorted(found)]


def test_check_01_who_depends_on_whom(tiny_model):
    model = tiny_model(seed=30)
    states, logits = states_and_logits(model, WORKED, [[11, 12]])
    _, changed = states_and_logits(model, WORKED, [[11, 13]])  # another t2
    assert np.array_equal(changed[6:8], logits[6:8])  # sop and t1 do not see it
    assert np.abs(changed[8] - logits[8]).max() > 1e-3

    for place in (0, 1, 2, 3, 5):  # any token of Part A but the mask
        other = WORKED[:place] + [20] + WORKED[place + 1 :]
        _, changed = states_and_logits(model, other, [[11, 12]])
        assert (np.abs(changed[6:] - logits[6:]).max(axis=1) > 1e-4).all(), place

    for span in ([13, 12], [11, 13], [13, 14]):  # any token of Part B
        changed, _ = states_and_logits(model, WORKED, [span])
        assert np.array_equal(changed[:6], states[:6])


def test_check_02_padding_has_no_effect(tiny_model):
    model = tiny_model(seed=31)
    _, want = states_and_logits(model, WORKED, [[11, 12]])
    for padding in (0, 1, 10):
        with paddle.no_grad():
            got = model(*inputs(WORKED, [[11, 12]], padding=padding))[0].numpy()
        np.testing.assert_allclose(got[: len(want)], want, rtol=0, atol=1e-5)

    # in THUDM/GLM, where padding behind the source is seen, it has
    def seen(padding):
        return states_and_logits(model, WORKED + [PAD] * padding, [[11, 12]])[1][-3:]

    assert np.abs(seen(10) - seen(2)).max() > 1e-3


def test_check_03_cached_decoding_equals_full_recomputation(tiny_model):
    model = tiny_model(seed=32)
    generator = np.random.default_rng(0)
    for B in (1, 2, 3):
        sources = SOURCES[:B]
        prompts = [GEOMETRY.prompt(source) for source in sources]
        logits, cache = model.prefill(prompts)
        spans = [[] for _ in range(B)]
        for step in range(12):
            want = [
                states_and_logits(model, source, [span])[1][-1] for source, span in zip(sources, spans, strict=True)
            ]
            np.testing.assert_allclose(logits.reshape([B, -1]), want, rtol=0, atol=1e-5)
            tokens = generator.integers(30, size=(B, 1))
            for span, token in zip(spans, tokens[:, 0], strict=True):
                span.append(int(token))
            logits = model.step(tokens, np.full(B, step), cache)


def test_check_04_attention_scale_has_no_effect(tiny_model):
    _, want = states_and_logits(tiny_model(seed=33, attention_scale=1.0), WORKED, [[11, 12]])
    _, got = states_and_logits(tiny_model(seed=33, attention_scale=8.0), WORKED, [[11, 12]])
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-5)


def test_check_05_one_beam_is_greedy(tiny_model):
    model = tiny_model(seed=34)
    found = texts(model, num_beams=1, length_penalty=0.0, tgt_length=9)
    for source, (text,) in zip(SOURCES, found, strict=True):
        greedy = []
        while len(greedy) < 9:
            _, logits = states_and_logits(model, source, [greedy])
            logits[-1, list(COMMANDS)] = -np.inf
            if logits[-1].argmax() == EOP:
                break
            greedy.append(int(logits[-1].argmax()))
        assert text == tuple(greedy)


def test_check_05_one_step_of_k_beams_is_the_best_k(tiny_model):
    model = tiny_model(seed=35)
    found = texts(model, num_beams=5, length_penalty=0.0, tgt_length=1)
    for source, beams in zip(SOURCES, found, strict=True):
        _, logits = states_and_logits(model, source, [[]])
        logits[-1, list(COMMANDS)] = -np.inf
        best = np.argsort(-logits[-1])[:5].tolist()
        # if eop is among the best five it takes part as the empty text, else nothing but single tokens
        assert set(beams) <= {(token,) for token in np.argsort(-logits[-1])[:6].tolist()} | {()}
        assert beams[0] == (() if best[0] == EOP else (best[0],))
        assert (() in beams) == (EOP in best)


@pytest.mark.parametrize("num_beams", [1, 4])
def test_check_05_minimum_length_and_no_repeats(tiny_model, num_beams):
    model = tiny_model(seed=36)
    for size, least in [(1, 3), (2, 6), (3, 12)]:
        found = texts(model, num_beams=num_beams, tgt_length=16, min_tgt_length=least, no_repeat_ngram_size=size)
        for text in (text for beams in found for text in beams):
            grams = [text[start : start + size] for start in range(len(text) - size + 1)]
            assert len(set(grams)) == len(grams)
            assert least <= len(text) <= 16
            assert EOP not in text


def test_check_06_label_smoothing():
    p = np.array([[0.5, 0.25, 0.125, 0.125], [0.1, 0.2, 0.3, 0.4]])
    labels = [1, 3]
    cross_entropy = -(math.log(0.25) + math.log(0.4)) / 2
    for e in (0.0, 0.1, 0.4):
        got = smoothed_cross_entropy(
            paddle.to_tensor(np.log(p), dtype="float32"), paddle.eye(4), paddle.to_tensor(labels), label_smoothing=e
        )
        want = (1 - e) * cross_entropy + e * -np.log(p).mean()
        assert float(got) == pytest.approx(want, abs=1e-6)
        if e == 0:
            assert float(got) == pytest.approx(cross_entropy, abs=1e-6)


def test_check_09_second_blank_sees_the_first_ones_text(tiny_model):
    model = tiny_model(seed=37)
    source = [CLS, 1, MASK, 2, MASK, EOS]
    example = GEOMETRY.example(source, [[11, 12], [13]], tgt_length=20)
    assert example.target_position_ids.tolist() == [[2, 2, 2, 4, 4], [1, 2, 3, 1, 2]]
    _, logits = states_and_logits(model, source, [[11, 12], [13]])
    for first in ([14, 12], [11, 14]):
        _, changed = states_and_logits(model, source, [first, [13]])
        assert (np.abs(changed[9:] - logits[9:]).max(axis=1) > 1e-4).all()  # second sop, 13
    _, changed = states_and_logits(model, source, [[11, 12], [14]])
    assert np.array_equal(changed[6:10], logits[6:10])  # and the first does not see the second


def second_blank_logits(model, source, first, second, *, opening=0):
    """Logits after each token of the second span, from its first `opening` tokens on, by prefill and steps."""
    prompt = GEOMETRY.prompt(source, filled=[first], opening=second[:opening])
    logits, cache = model.prefill([prompt])
    found = [logits[0]]
    for number, token in enumerate(second[opening:]):
        found.append(model.step(np.array([[token]]), np.array([number]), cache)[0, 0])
    return np.array(found)


@pytest.mark.parametrize("opening", [0, 2])
def test_check_09_second_blank_is_decoded_as_the_reference_reads_it(tiny_model, opening):
    model = tiny_model(seed=37)
    source, first, second = [CLS, 1, MASK, 2, MASK, 3, EOS], [11, 12, 13], [14, 15, 16, 17]
    weights = {name: value.numpy() for name, value in model.state_dict().items()}

    def by_reference(first):
        example = build_example(
            source, [first, second], mask_ids={MASK}, sop=SOP, eop=EOP, pad=PAD, src_length=9, tgt_length=9
        )
        arrays = (np.array([example[name]]) for name in ("input_ids", "position_ids"))
        mask = np.array(example["attention_mask"])[None, None]
        return forward(weights, *arrays, mask, num_layers=2, num_attention_heads=3)[0, -5:]  # sop and four tokens

    want = by_reference(first)
    got = second_blank_logits(model, source, first, second, opening=opening)
    np.testing.assert_allclose(got, want[opening:], rtol=0, atol=1e-5)
    other = [11, 18, 13]
    changed = second_blank_logits(model, source, other, second, opening=opening)
    np.testing.assert_allclose(changed, by_reference(other)[opening:], rtol=0, atol=1e-5)
    assert (np.abs(changed - got).max(axis=1) > 1e-4).all()


@pytest.mark.parametrize("num_beams", [1, 3])
def test_check_09_text_of_the_second_blank_is_the_reference_searchs(tiny_model, num_beams):
    model = tiny_model(seed=39)
    source, firsts = [CLS, 1, MASK, 2, MASK, 3, EOS], [[11, 12, 13], [], [14]]
    config = GenerationConfig(
        tgt_length=6, num_beams=num_beams, num_return_sequences=num_beams, no_repeat_ngram_size=0
    )
    prompts = [GEOMETRY.prompt(source, filled=[first], opening=[5]) for first in firsts]
    found = dict(generate(model, prompts, config, end_token_id=EOP, banned_token_ids=COMMANDS, batch_size=2))
    for place, first in enumerate(firsts):

        def next_logits(tokens, first=first):
            return states_and_logits(model, source, [first, [5, *tokens]])[1][-1]

        want = beam_search(
            next_logits,
            vocab_size=40,
            max_length=5,
            eop=EOP,
            num_beams=num_beams,
            length_penalty=0.7,
            early_stopping=num_beams == 1,
            banned=COMMANDS,
        )
        assert [hypothesis.tokens for hypothesis in found[place]] == [tokens for tokens, _ in want]
        got = [hypothesis.score for hypothesis in found[place]]
        np.testing.assert_allclose(got, [score for _, score in want], rtol=0, atol=1e-4)


def test_check_10_a_row_equal_to_that_of_eop_is_never_generated(tiny_model):
    # as rows 50007 (eop) and 50009 (gMASK) of glm-10b-chinese
    twin = 37
    model = tiny_model(seed=38, vocab_size=40)
    table = model.glm.word_embeddings.weight.numpy().copy()
    table[twin] = table[EOP] = 3 * table[EOP]  # both likely
    model.glm.word_embeddings.weight.set_value(table)
    _, logits = states_and_logits(model, WORKED, [[11, 12]])
    np.testing.assert_allclose(logits[:, twin], logits[:, EOP], rtol=0, atol=1e-5)
    for options in ({"num_beams": 5}, {"num_beams": 5, "select_topk": False}):
        free = texts(model, tgt_length=8, **options)
        assert any(twin in text for beams in free for text in beams)  # it would come
        found = texts(model, tgt_length=8, banned=(*COMMANDS, twin), **options)
        assert not any(twin in text for beams in found for text in beams)
        assert sum(len(beams) for beams in found) == 15


def test_check_11_tokenizer_is_the_same_after_save_and_reload(tokenizer, sentences, tmp_path):
    tokenizer.save_pretrained(str(tmp_path))
    reloaded = GLMTokenizer.from_pretrained(str(tmp_path))
    for text in [*sentences, "春天[gMASK]石桥<|startofpiece|>", "  两个 空格 "]:
        ids = tokenizer(text)["input_ids"]
        assert reloaded(text)["input_ids"] == ids
        assert reloaded.decode(ids) == tokenizer.decode(ids)
        assert reloaded.encode_text(text) == tokenizer.encode_text(text)
        assert reloaded.decode_ids(ids) == tokenizer.decode_ids(ids)


@pytest.mark.parametrize(
    "options, named",
    [
        ({"select_topk": True, "temperature": 0.9}, "temperature 0.9"),
        ({"select_topk": True, "top_k": 40}, "top_k 40"),
        ({"select_topk": True, "top_p": 0.9}, "top_p 0.9"),
        ({"select_topk": True, "generation_seed": 1}, "generation_seed 1"),
        ({"num_beams": 1, "early_stopping": "true"}, "early_stopping true"),
        ({"num_beams": 1, "num_return_sequences": 2}, "num_return_sequences 2"),
        ({"tgt_length": 55, "min_tgt_length": 55}, "min_tgt_length 55"),
    ],
)
def test_check_12_an_option_without_effect_is_an_error(options, named):
    with pytest.raises(InputError, match=f"^{named}: "):
        GenerationConfig(**options)
