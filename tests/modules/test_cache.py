"""The key/value cache: what it shows to whom, and cached decoding against full forward passes."""

import numpy as np
import paddle
import pytest

from glm.cpu.arrays import HEAD_SIZE
from glm.cpu.step_attention import CompiledLayerCache
from glm.models.glm.geometry import BlankInfilling
from glm.modules.cache import KVCache, LayerCache, visible
from reference.geometry import build_example
from tools.prefix_tools import put_prefix

CLS, MASK, EOS, SOP, EOP, PAD = 31, 32, 33, 34, 35, 36
GEOMETRY = BlankInfilling(mask_token_ids=(MASK,), sop_token_id=SOP, eop_token_id=EOP)
SOURCES = [
    [CLS, 1, 2, 3, MASK, EOS],
    [CLS, MASK, 4, 5, 6, 7, 9, 8, EOS],
    [CLS, 10, MASK],
]


def full_logits(model, sources, texts):
    """Logits [n, V] after `texts` by forward passes over everything, without a cache."""
    logits = []
    for source, text in zip(sources, texts, strict=True):
        example = build_example(
            source,
            [list(text)],
            mask_ids={MASK},
            sop=SOP,
            eop=EOP,
            pad=PAD,
            src_length=len(source),
            tgt_length=len(text) + 1,
        )
        ids, positions = (paddle.to_tensor(np.array([example[name]])) for name in ("input_ids", "position_ids"))
        with paddle.no_grad():
            logits.append(model(ids, positions, paddle.to_tensor([[[len(source), len(text) + 1]]]))[0, -1].numpy())
    return np.array(logits)


def opened(cache):
    """Opens a step: what each row sees."""
    cache.open_step(cache.ancestors.shape[1])
    return visible(cache.lengths, cache.width, cache.ancestors, cache.capacity)


def prompt_of(source, opening=()):
    return GEOMETRY.prompt(source, opening=opening)


@pytest.fixture(params=[LayerCache, CompiledLayerCache])
def decoder(tiny_model, request):
    """As `tiny_model`, with either cache; that of compiled attention wants heads of its size."""
    if request.param is LayerCache:
        return tiny_model

    def make(**options):
        model = tiny_model(**options, hidden_size=2 * HEAD_SIZE, num_attention_heads=2)
        for parameter in model.parameters():
            if len(parameter.shape) == 2:  # so that products are of the size they have in the narrower model
                parameter.set_value(parameter * (24 / (2 * HEAD_SIZE)) ** 0.5)
        model.glm.transformer.layer_cache = CompiledLayerCache
        return model

    return make


class Run:
    """A decoding run next to the texts it ought to hold, each step compared with full forward passes."""

    def __init__(self, model, sources, openings):
        self.model = model
        self.prompts = [prompt_of(source, opening) for source, opening in zip(sources, openings, strict=True)]
        self.texts = [[tuple(opening)] for opening in openings]  # [B][R], what each row holds
        logits, self.cache = model.prefill(self.prompts)
        np.testing.assert_allclose(logits, full_logits(model, sources, openings), rtol=0, atol=1e-5)

    def reorder(self, beam_idx):
        self.cache.reorder(beam_idx)
        self.texts = [[rows[row] for row in order] for rows, order in zip(self.texts, beam_idx, strict=True)]

    def keep(self, examples):
        self.cache.keep(examples)
        self.texts, self.prompts = ([part[place] for place in examples] for part in (self.texts, self.prompts))

    def replace(self, places, other):
        self.cache.replace(places, other.cache)
        for index, place in enumerate(places):
            self.texts[place], self.prompts[place] = other.texts[index], other.prompts[index]

    def append(self, other):
        self.cache.append(other.cache)
        self.texts, self.prompts = self.texts + other.texts, self.prompts + other.prompts

    def step(self, tokens):
        B, R = tokens.shape
        numbers = [len(rows[0]) - prompt.given for prompt, rows in zip(self.prompts, self.texts, strict=True)]
        self.texts = [
            [row + (int(token),) for row, token in zip(rows, new, strict=True)]
            for rows, new in zip(self.texts, tokens, strict=True)
        ]
        got = self.model.step(tokens, np.array(numbers), self.cache)  # [B, R, V]
        sources = [prompt.source_ids.tolist() for prompt in self.prompts for _ in range(R)]
        want = full_logits(self.model, sources, [text for rows in self.texts for text in rows]).reshape(got.shape)
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-5)
        return got

    def random_step(self, generator, R, *, trunk=False):
        """Continues random rows (with `trunk` one and the same) with random tokens."""
        B, before = len(self.texts), len(self.texts[0])
        beam_idx = generator.integers(before, size=(B, R))
        self.reorder(np.repeat(beam_idx[:, :1], R, axis=1) if trunk else beam_idx)
        return self.step(generator.integers(30, size=(B, R)))


def decode_and_compare(model, rows_of_step, *, openings=((), (), ()), seed=0, trunk=False):
    generator = np.random.default_rng(seed)
    run = Run(model, SOURCES, openings)
    for R in rows_of_step:
        run.random_step(generator, R, trunk=trunk)
    return run.cache


@pytest.mark.parametrize("attention_scale", [1.0, 8.0])
@pytest.mark.parametrize("R", [1, 4])
def test_cached_decoding_equals_full_forward(decoder, R, attention_scale):
    steps = 36 if R == 4 else 70
    cache = decode_and_compare(decoder(attention_scale=attention_scale), [R] * steps)
    assert R * steps > KVCache.ROOM and cache.capacity > KVCache.ROOM


@pytest.mark.parametrize("block_position_encoding", [True, False])
def test_number_of_rows_may_change(decoder, block_position_encoding):
    model = decoder(seed=1, block_position_encoding=block_position_encoding)
    decode_and_compare(model, [1, 5, 2, 2, 7, 1, 3, 3], openings=[(3, 4), (), (7,)], seed=1)


# -- room


@pytest.mark.parametrize("room", [1, 2, 7])
@pytest.mark.parametrize("trunk", [True, False])
def test_room_is_made_at_each_step_if_need_be(decoder, monkeypatch, room, trunk):
    monkeypatch.setattr(KVCache, "ROOM", room)
    for rows in ([3] * 12, [1, 3, 3, 9, 3, 1, 1, 4, 4]):
        decode_and_compare(decoder(seed=2), rows, openings=[(5,), (), (6, 7)], seed=2, trunk=trunk)


@pytest.mark.parametrize("room", [1, 7, KVCache.ROOM])
def test_slots_that_nobody_sees_are_given_back(tiny_model, monkeypatch, room):
    monkeypatch.setattr(KVCache, "ROOM", room)
    R, steps = 4, 50
    _, cache = tiny_model(num_layers=1).prefill([prompt_of(source) for source in SOURCES])
    generator = np.random.default_rng(0)
    keys = paddle.zeros([3, 3, R, 8])
    cache.reorder(np.zeros((3, R), dtype=np.int64))
    for step in range(steps):
        seen = opened(cache)
        cache.layers[0].extend(keys, keys, cache.start)
        assert seen.shape == (3, R, cache.width + cache.capacity)
        assert cache.layers[0].slots[0].shape == [3, 3, cache.capacity, 8]
        # a trunk of `step` tokens and R leaves, and half as much again
        needed = step + 2 * R
        assert cache.capacity <= needed + max(room, needed // 2, R)
        assert (seen[:, :, cache.width :].sum(axis=2) == step + 1).all()
        cache.reorder(np.repeat(generator.integers(R, size=(3, 1)), R, axis=1))
    assert cache.capacity < 0.7 * R * steps  # fewer than were written


def test_room_grows_with_what_is_in_use(tiny_model, monkeypatch):
    monkeypatch.setattr(KVCache, "ROOM", 2)
    _, cache = tiny_model(num_layers=1).prefill([prompt_of(SOURCES[0])])
    moves = []
    collect = cache._collect
    monkeypatch.setattr(cache, "_collect", lambda rows: moves.append(1) or collect(rows))
    for _ in range(100):
        opened(cache)
        cache.layers[0].extend(paddle.zeros([1, 3, 1, 8]), paddle.zeros([1, 3, 1, 8]), cache.start)
    assert len(moves) < 15  # copied a few times, not every other step


def test_what_is_moved_keeps_its_order_and_its_values(monkeypatch):
    """By hand: room for two; each token's key is a number."""
    monkeypatch.setattr(KVCache, "ROOM", 2)
    prompt = paddle.zeros([2, 1, 1, 1])
    cache = KVCache([LayerCache((prompt, prompt))], np.array([1, 1]), [None, None])
    number = iter(range(1, 100))

    def step():
        """What each row sees of the slots, as the numbers in them."""
        seen = opened(cache)[:, :, 1:]
        B, R, _ = seen.shape
        new = np.array([[next(number) for _ in range(R)] for _ in range(B)], dtype="float32")[:, None, :, None]
        _, (keys, values) = cache.layers[0].extend(paddle.to_tensor(new), paddle.to_tensor(-new), cache.start)
        assert np.array_equal(keys.numpy(), -values.numpy())
        return [[keys.numpy()[b, 0, seen[b, row], 0].astype(int).tolist() for row in range(R)] for b in range(B)]

    assert step() == [[[1]], [[2]]] and cache.capacity == 2
    cache.reorder(np.array([[0, 0], [0, 0]]))
    assert step() == [[[1, 3], [1, 4]], [[2, 5], [2, 6]]] and cache.capacity == 1 + 2
    cache.reorder(np.array([[1, 1], [1, 0]]))  # example 0 leaves 3, example 1 keeps all
    assert step() == [[[1, 4, 7], [1, 4, 8]], [[2, 6, 9], [2, 5, 10]]] and cache.capacity == 3 + 2
    cache.reorder(np.array([[1, 1], [0, 0]]))
    assert step() == [[[1, 4, 8, 11], [1, 4, 8, 12]], [[2, 6, 9, 13], [2, 6, 9, 14]]] and cache.capacity == 3 + 2
    assert np.array_equal(cache.layers[0].slots[0][0, 0, :3, 0].numpy(), [1, 4, 8])


# -- openings and pads


def test_opening_equals_its_tokens_one_by_one(decoder):
    model = decoder(seed=4)
    opening = [5, 6, 7, 6]
    want, _ = model.prefill([prompt_of(source, opening) for source in SOURCES])
    prompts = [prompt_of(source) for source in SOURCES]
    logits, cache = model.prefill(prompts)
    for number, token in enumerate(opening):
        cache.reorder(np.zeros((3, 1), dtype=np.int64))
        logits = model.step(np.full((3, 1), token), np.full(3, number), cache)
    np.testing.assert_allclose(logits[:, 0], want, rtol=0, atol=1e-5)


def test_padding_behind_a_prompt_is_never_seen(decoder):
    model = decoder(seed=5)
    results = []
    for rubbish in (0.0, 1e3):
        run = Run(model, SOURCES, [(5,), (), (6, 7, 8)])
        widths = [len(prompt) for prompt in run.prompts]
        assert len(set(widths)) == 3
        for layer in run.cache.layers:
            for part in layer.prompt:
                for example, width in enumerate(widths):
                    part[example, :, width:] = rubbish
        run.reorder(np.zeros((3, 2), dtype=np.int64))
        results.append(run.step(np.array([[1, 2]] * 3)))
    np.testing.assert_allclose(results[1], results[0], rtol=0, atol=1e-6)


def test_recompute_plays_no_part_in_decoding(tiny_model):
    model = tiny_model(seed=7)
    model.train()
    model.glm.transformer.enable_recompute = True
    decode_and_compare(model, [2, 2], openings=[(3,), (), (4,)])


def cache_by_hand(*lengths):
    prompt = paddle.zeros([len(lengths), 1, max(lengths), 1])
    return KVCache([LayerCache((prompt, prompt))], np.array(lengths), [None] * len(lengths))


def test_who_sees_which_slot_by_hand():
    cache = cache_by_hand(2, 1)
    prompt = np.zeros((2, 1, 2 + KVCache.ROOM), dtype=int)
    prompt[0, :, :2] = prompt[1, :, :1] = 1
    prompt[:, :, 2] = 1
    seen = opened(cache)
    assert seen.dtype == bool and np.array_equal(seen, prompt)

    cache.reorder(np.array([[0, 0], [0, 0]]))  # the token, twice continued
    seen = opened(cache).astype(int)
    assert seen[:, :, 2:7].tolist() == [[[1, 1, 0, 0, 0], [1, 0, 1, 0, 0]]] * 2
    assert seen[:, :, :2].tolist() == [[[1, 1], [1, 1]], [[1, 0], [1, 0]]]

    cache.reorder(np.array([[1, 0], [1, 1]]))  # example 0 swaps its rows, example 1 continues the second twice
    seen = opened(cache)[:, :, 2:7].astype(int)
    assert seen.tolist() == [[[1, 0, 1, 1, 0], [1, 1, 0, 0, 1]], [[1, 0, 1, 1, 0], [1, 0, 1, 0, 1]]]

    other = cache_by_hand(2)
    other.reorder(np.array([[0, 0]]))
    cache.replace(np.array([1]), other)  # a new example has nobody before it
    seen = opened(cache).astype(int)
    assert seen[:, :, 2:9].tolist() == [
        [[1, 0, 1, 1, 0, 1, 0], [1, 1, 0, 0, 1, 0, 1]],
        [[0, 0, 0, 0, 0, 1, 0], [0, 0, 0, 0, 0, 0, 1]],
    ]
    assert (seen[:, :, :2] == 1).all()


def test_unfilled_slots_are_never_seen(decoder):
    model = decoder(seed=6)
    results = []
    for rubbish in (0.0, 1e3):
        run = Run(model, SOURCES, [()] * 3)
        run.reorder(np.zeros((3, 2), dtype=np.int64))
        run.step(np.full((3, 2), 4))
        for layer in run.cache.layers:
            for slots in layer.slots:
                slots[:, :, 2:] = rubbish  # in slots that no token has filled
        results.append(run.step(np.full((3, 2), 5)))
    np.testing.assert_allclose(results[1], results[0], rtol=0, atol=1e-6)


# -- examples that leave and come


def test_examples_that_leave_do_not_change_the_others(decoder):
    """The same steps for all three examples, and for two of them after the first has left."""
    model = decoder()
    everyone, some = (Run(model, SOURCES, [(), (8,), ()]) for _ in range(2))
    going = np.array([2, 0])
    for step in range(5):
        tokens = np.array([[1, 2], [3, 4], [5, 6]]) + step
        beam_idx = np.array([[0, 0], [0, 0], [0, 0]]) if step == 0 else np.array([[1, 0], [0, 0], [1, 1]])
        everyone.reorder(beam_idx)
        want = everyone.step(tokens)
        if step < 2:
            some.reorder(beam_idx)
            some.step(tokens)
            continue
        if step == 2:
            some.keep(going)
            assert some.cache.width == len(SOURCES[0]) + 1  # the longest is gone
            assert list(some.cache.layers[0].prompt[0].shape[::2]) == [2, some.cache.width]
        some.reorder(beam_idx[going])
        np.testing.assert_allclose(some.step(tokens[going]), want[going], rtol=0, atol=1e-5)


LONG = [[CLS, *range(1, 21), MASK, EOS], [CLS, *range(5, 22), MASK, EOS], [CLS, MASK, *range(3, 18), EOS]]


@pytest.mark.parametrize("room", [1, 2, 7, KVCache.ROOM])
@pytest.mark.parametrize("before", [1, 3, 8])
def test_examples_that_come_are_decoded_as_by_themselves(decoder, monkeypatch, room, before):
    """Every step of `Run` is compared with full forward passes: those who stay, and those who come."""
    monkeypatch.setattr(KVCache, "ROOM", room)
    model, generator, R = decoder(seed=8), np.random.default_rng(8), 3
    run = Run(model, LONG, [(1, 2), (), (3,)])
    for _ in range(before):
        run.random_step(generator, R)
    for places, sources, openings in [
        ([1], [SOURCES[1]], [(9, 9)]),
        ([2, 0], [SOURCES[0], SOURCES[1]], [(), (7,)]),
        ([0, 1, 2], SOURCES, [(), (4, 4), ()]),
        ([2], [SOURCES[2]], [()]),
    ]:
        other = Run(model, sources, openings)
        other.reorder(np.zeros((len(sources), R), dtype=np.int64))
        run.replace(np.array(places), other)
        for _ in range(3):
            run.random_step(generator, R)
    run.keep(np.array([2, 1]))
    run.random_step(generator, R)


@pytest.mark.parametrize("room", [1, 7, KVCache.ROOM])
def test_examples_that_join_are_decoded_as_by_themselves(decoder, monkeypatch, room):
    """Longer and shorter ones, before the first step and later."""
    monkeypatch.setattr(KVCache, "ROOM", room)
    model, generator, R = decoder(seed=8), np.random.default_rng(8), 3
    run = Run(model, [SOURCES[0]], [(1, 2)])
    run.append(Run(model, [SOURCES[1]], [()]))
    for sources, openings in [([LONG[0]], [(9, 9)]), ([SOURCES[2], LONG[1]], [(), (7,)])]:
        for _ in range(3):
            run.random_step(generator, R)
        other = Run(model, sources, openings)
        other.reorder(np.zeros((len(sources), R), dtype=np.int64))
        run.append(other)
    for _ in range(3):
        run.random_step(generator, R)


def test_prompts_are_made_narrower_once_a_quarter_is_free(tiny_model):
    model = tiny_model(num_layers=1)
    cases = [(20, 16, 20), (20, 15, 15), (20, 14, 14), (16, 13, 16), (16, 12, 12)]
    for long, short, width in cases:  # of the prompt that goes, of the one that comes
        sources = [[CLS, *[1] * (length - 4), MASK, EOS] for length in (long, 6, short)]
        run = Run(model, sources[:2], [(), ()])
        other = Run(model, sources[2:], [()])
        assert run.cache.width == long
        run.replace(np.array([0]), other)
        assert run.cache.width == width and run.cache.layers[0].prompt[0].shape == [2, 3, width, 8]
        run.random_step(np.random.default_rng(0), 1)


def test_slots_of_those_who_left_are_given_back(decoder, monkeypatch):
    """Places that are used again and again need no more slots than one text does."""
    monkeypatch.setattr(KVCache, "ROOM", 4)
    model, generator = decoder(num_layers=1), np.random.default_rng(0)
    run = Run(model, SOURCES, [()] * 3)
    for _ in range(10):
        for _ in range(4):
            run.random_step(generator, 2)
        other = Run(model, SOURCES, [()] * 3)
        other.reorder(np.zeros((3, 2), dtype=np.int64))
        run.replace(np.arange(3), other)
    assert run.cache.capacity <= 16  # 80 were written


def test_examples_with_a_prefix_come_and_leave(decoder):
    """Each prompt begins with its virtual tokens, in the cache of others too."""
    model, generator, R = decoder(seed=11), np.random.default_rng(11), 2
    put_prefix(model, tokens=5)
    run = Run(model, [SOURCES[0], LONG[0], SOURCES[2]], [(1, 2), (), (3,)])
    assert run.cache.lengths.tolist() == [5 + len(prompt) for prompt in run.prompts]
    run.random_step(generator, R)
    for join, sources in ((lambda other: run.replace(np.array([1]), other), [LONG[1]]), (run.append, SOURCES[1:])):
        other = Run(model, sources, [()] * len(sources))
        other.reorder(np.zeros((len(sources), R), dtype=np.int64))
        join(other)
        run.random_step(generator, R)
    run.keep(np.array([4, 0, 2]))
    run.random_step(generator, R)


@pytest.mark.parametrize("num_layers", [1, 3])
def test_packed_prompts_equal_each_by_itself(decoder, num_layers):
    model = decoder(seed=9, num_layers=num_layers)
    sources = [*SOURCES, LONG[0], SOURCES[2], LONG[2]]
    openings = [(), (5, 6), (), (7,), (8, 9, 10), ()]
    prompts = [prompt_of(source, opening) for source, opening in zip(sources, openings, strict=True)]
    together, cache = model.prefill(prompts)
    assert together.dtype == np.float32 and together.shape == (6, 40)
    assert cache.lengths.tolist() == [len(prompt) for prompt in prompts] and cache.width == max(map(len, prompts))
    for place, prompt in enumerate(prompts):
        alone, own = model.prefill([prompt])
        np.testing.assert_allclose(together[place], alone[0], rtol=0, atol=1e-5)
        for layer, own_layer in zip(cache.layers, own.layers, strict=True):
            for part, own_part in zip(layer.prompt, own_layer.prompt, strict=True):
                got = np.asarray(part[place])  # [N, L, D]
                np.testing.assert_allclose(got[:, : len(prompt)], np.asarray(own_part[0]), rtol=0, atol=1e-5)
                assert (got[:, len(prompt) :] == 0).all()
