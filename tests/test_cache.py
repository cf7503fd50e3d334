"""The key/value cache: what it shows to whom, and cached decoding against full forward passes."""

import numpy as np
import paddle
import pytest

from glm.blank_infilling import BlankInfilling
from glm.cache import KVCache
from reference.geometry import build_example

CLS, MASK, EOS, SOP, EOP, PAD = 31, 32, 33, 34, 35, 36
GEOMETRY = BlankInfilling(mask_token_ids=(MASK,), sop_token_id=SOP, eop_token_id=EOP)
SOURCES = [
    [CLS, 1, 2, 3, MASK, EOS],
    [CLS, MASK, 4, 5, 6, 7, 9, 8, EOS],
    [CLS, 10, MASK],
]


def full_logits(model, sources, texts):
    """Logits [n, V] after `texts` (all of one length) by one forward pass over everything, without a cache."""
    examples = [
        build_example(
            source,
            [list(text)],
            mask_ids={MASK},
            sop=SOP,
            eop=EOP,
            pad=PAD,
            src_length=max(map(len, sources)),
            tgt_length=len(text) + 1,
        )
        for source, text in zip(sources, texts, strict=True)
    ]
    ids, positions, mask = (
        paddle.to_tensor(np.array([example[name] for example in examples]))
        for name in ("input_ids", "position_ids", "attention_mask")
    )
    with paddle.no_grad():
        return model(ids, positions, mask.unsqueeze(1))[:, -1].numpy()


def span_positions(start, length):
    return np.stack([GEOMETRY.span_positions(source.index(MASK), start, length) for source in SOURCES])


def prefill(model, opening, *, width=12, pad=PAD):
    """Prefill of SOURCES, padded on the right to `width` (more than the longest needs)."""
    ids = np.full((len(SOURCES), width), pad)
    for row, source in enumerate(SOURCES):
        ids[row, : len(source)] = source
    return model.prefill(
        ids,
        np.broadcast_to(GEOMETRY.source_positions(width), (len(SOURCES), 2, width)),
        np.array([len(source) for source in SOURCES]),
        np.broadcast_to(opening, (len(SOURCES), len(opening))),
        span_positions(0, len(opening)),
    )


def decode_and_compare(model, rows_of_step, *, opening=(), seed=0):
    """Continues random rows with random tokens and compares each step with full forward passes."""
    generator = np.random.default_rng(seed)
    B = len(SOURCES)
    logits, cache = prefill(model, [SOP, *opening])
    np.testing.assert_allclose(logits.numpy(), full_logits(model, SOURCES, [opening] * B), rtol=0, atol=1e-5)
    texts = [[tuple(opening)] for _ in range(B)]  # [B][R], what each row holds
    for step, R in enumerate(rows_of_step):
        beam_idx = generator.integers(len(texts[0]), size=(B, R))
        tokens = generator.integers(30, size=(B, R))
        cache.reorder(beam_idx)
        texts = [[texts[b][beam_idx[b, row]] + (int(tokens[b, row]),) for row in range(R)] for b in range(B)]
        positions = np.repeat(span_positions(1 + len(opening) + step, 1), R, axis=2)
        got = model.step(tokens, positions, cache).numpy()  # [B, R, V]
        sources = [source for source in SOURCES for _ in range(R)]
        want = full_logits(model, sources, [text for rows in texts for text in rows]).reshape(got.shape)
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-5, err_msg=f"step {step}")
    return cache


@pytest.mark.parametrize("attention_scale", [1.0, 8.0])
@pytest.mark.parametrize("R", [1, 4])
def test_cached_decoding_equals_full_forward(tiny_model, R, attention_scale):
    steps = 36 if R == 4 else 70
    cache = decode_and_compare(tiny_model(attention_scale=attention_scale), [R] * steps)
    assert 1 + R * steps > KVCache.FIRST_CAPACITY and cache.capacity > KVCache.FIRST_CAPACITY


@pytest.mark.parametrize("block_position_encoding", [True, False])
def test_number_of_rows_may_change(tiny_model, block_position_encoding):
    model = tiny_model(seed=1, block_position_encoding=block_position_encoding)
    decode_and_compare(model, [1, 5, 2, 2, 7, 1, 3, 3], opening=(3, 4), seed=1)


def test_room_is_made_at_each_step_if_need_be(tiny_model, monkeypatch):
    monkeypatch.setattr(KVCache, "FIRST_CAPACITY", 1)
    cache = decode_and_compare(tiny_model(seed=2), [3, 3, 9, 3, 3, 3], opening=(5,), seed=2)
    assert cache.capacity == 32  # 2 for the opening, then doubled until 26 fit


def test_opening_longer_than_the_first_capacity(tiny_model, monkeypatch):
    monkeypatch.setattr(KVCache, "FIRST_CAPACITY", 4)
    decode_and_compare(tiny_model(seed=3), [2, 2], opening=(1, 2, 3, 4, 5, 6, 7), seed=3)


def test_opening_equals_its_tokens_one_by_one(tiny_model):
    model = tiny_model(seed=4)
    opening = [5, 6, 7, 6]
    want, _ = prefill(model, [SOP, *opening])
    logits, cache = prefill(model, [SOP])
    for place, token in enumerate(opening, start=1):
        cache.reorder(np.zeros((3, 1), dtype=np.int64))
        logits = model.step(np.full((3, 1), token), span_positions(place, 1), cache)
    np.testing.assert_allclose(logits[:, 0].numpy(), want.numpy(), rtol=0, atol=1e-5)


def test_source_padding_is_never_seen(tiny_model):
    model = tiny_model(seed=5)
    results = []
    for options in ({"width": 9}, {"width": 30}, {"pad": 20}):
        logits, cache = prefill(model, [SOP, 5], **options)
        cache.reorder(np.zeros((3, 2), dtype=np.int64))
        step = model.step(np.array([[1, 2]] * 3), np.repeat(span_positions(2, 1), 2, axis=2), cache)
        results.append((logits.numpy(), step.numpy()))
    for logits, step in results[1:]:
        np.testing.assert_allclose(logits, results[0][0], rtol=0, atol=1e-5)
        np.testing.assert_allclose(step, results[0][1], rtol=0, atol=1e-5)


def test_recompute_plays_no_part_in_decoding(tiny_model):
    model = tiny_model(seed=7)
    model.train()
    model.glm.transformer.enable_recompute = True
    decode_and_compare(model, [2, 2], opening=(3,))


def test_who_sees_which_slot_by_hand():
    cache = KVCache(1, np.array([[True, True], [True, False]]))
    own = np.zeros((2, 3, 2 + KVCache.FIRST_CAPACITY), dtype=int)
    own[0, :, :2] = 1
    own[1, :, :1] = 1
    own[:, :, 2:5] = np.tri(3)
    assert np.array_equal(cache.open_step(3, causal=True), own)  # an opening of three tokens: slots 0, 1, 2

    cache.reorder(np.array([[2], [2]]))  # its last token, twice continued
    cache.reorder(np.array([[0, 0], [0, 0]]))
    seen = cache.open_step(2)[:, :, 2:9].astype(int)
    assert seen.tolist() == [[[1, 1, 1, 1, 0, 0, 0], [1, 1, 1, 0, 1, 0, 0]]] * 2

    cache.reorder(np.array([[1, 0], [1, 1]]))  # example 0 swaps its rows, example 1 continues the second twice
    seen = cache.open_step(2)[:, :, 2:9].astype(int)
    assert seen.tolist() == [
        [[1, 1, 1, 0, 1, 1, 0], [1, 1, 1, 1, 0, 0, 1]],
        [[1, 1, 1, 0, 1, 1, 0], [1, 1, 1, 0, 1, 0, 1]],
    ]


def test_unfilled_slots_are_never_seen(tiny_model):
    model = tiny_model(seed=6)
    _, cache = prefill(model, [SOP])
    first = model.step(np.full((3, 1), 4), span_positions(1, 1), cache).numpy()
    _, other = prefill(model, [SOP])
    for layer in other.layers:
        for slots in layer.slots:
            slots[:, :, 1:] = 1e3  # rubbish in slots that no token has filled
    again = model.step(np.full((3, 1), 4), span_positions(1, 1), other).numpy()
    np.testing.assert_allclose(again, first, rtol=0, atol=1e-6)


def test_examples_that_leave_do_not_change_the_others(tiny_model):
    """The same steps for all three examples, and for two of them after the first has left."""
    model = tiny_model()
    (_, everyone), (_, some) = prefill(model, [SOP]), prefill(model, [SOP])
    going = np.array([2, 0])
    for step in range(5):
        tokens = np.array([[1, 2], [3, 4], [5, 6]]) + step
        positions = np.repeat(span_positions(1 + step, 1), 2, axis=2)
        beam_idx = np.array([[0, 0], [0, 0], [0, 0]]) if step == 0 else np.array([[1, 0], [0, 0], [1, 1]])
        everyone.reorder(beam_idx)
        want = model.step(tokens, positions, everyone).numpy()
        if step < 2:
            some.reorder(beam_idx)
            model.step(tokens, positions, some)
            continue
        if step == 2:
            some.keep(going)
        some.reorder(beam_idx[going])
        got = model.step(tokens[going], positions[going], some).numpy()
        np.testing.assert_allclose(got, want[going], rtol=0, atol=1e-5)
