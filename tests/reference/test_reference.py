"""Self-checks of the reference implementations: small cases worked by hand, and second formulations."""

import math

import numpy as np
import pytest

from reference.beam_search import beam_search, brute_force, greedy
from reference.forward import forward, gelu, loss, softmax
from reference.geometry import build_example

# forward


def hand_model():
    """One layer, H = 2, N = 1, V = 3. With epsilon 9 a row whose two values differ by 8 is normalised to -+0.8."""
    layer = "glm.transformer.layers.0"
    weights = {
        "glm.word_embeddings.weight": [[8, 0], [0, 4], [1, 1]],
        "glm.transformer.position_embeddings.weight": [[0, 0], [0, 3]],
        "glm.transformer.block_position_embeddings.weight": [[0, 0], [0, 1]],
        f"{layer}.input_layernorm.weight": [1.25, 1.25],
        f"{layer}.input_layernorm.bias": [0, 0],
        f"{layer}.attention.dense.weight": [[0, 1], [2, 0]],
        f"{layer}.attention.dense.bias": [3, 0],
        f"{layer}.post_attention_layernorm.weight": [1.25, 2.5],
        f"{layer}.post_attention_layernorm.bias": [1, 0],
        f"{layer}.mlp.dense_h_to_4h.bias": np.zeros(8),
        f"{layer}.mlp.dense_4h_to_h.bias": [1, 2],
        "glm.transformer.final_layernorm.weight": [1, 2],
        "glm.transformer.final_layernorm.bias": [0, 1],
    }
    c = math.log(3) / (2 * math.sqrt(2))  # [c, -c] . [1, -1] / sqrt(2) is log(3) / 2
    weights[f"{layer}.attention.query_key_value.weight"] = [[c, 0, 1, 0, 0, 0.5], [0, c, 0, 1, 1, 1]]
    weights[f"{layer}.attention.query_key_value.bias"] = [0, 0, 0, 0, 2, -0.5]
    inner, outer = np.zeros((2, 8)), np.zeros((8, 2))
    inner[1, 0] = inner[0, 1] = 1
    outer[0, 0], outer[1, 1] = 1, 2
    weights[f"{layer}.mlp.dense_h_to_4h.weight"] = inner
    weights[f"{layer}.mlp.dense_4h_to_h.weight"] = outer
    return {name: np.array(value, dtype=np.float64) for name, value in weights.items()}


def random_model(*, num_layers, hidden_size, vocab_size, rows, seed):
    generator = np.random.default_rng(seed)
    shapes = {
        "word_embeddings.weight": (vocab_size, hidden_size),
        "transformer.position_embeddings.weight": (rows, hidden_size),
        "transformer.block_position_embeddings.weight": (rows, hidden_size),
        "transformer.final_layernorm.weight": (hidden_size,),
        "transformer.final_layernorm.bias": (hidden_size,),
    }
    for layer in range(num_layers):
        for name, size in {
            "attention.query_key_value": (hidden_size, 3 * hidden_size),
            "attention.dense": (hidden_size, hidden_size),
            "mlp.dense_h_to_4h": (hidden_size, 4 * hidden_size),
            "mlp.dense_4h_to_h": (4 * hidden_size, hidden_size),
        }.items():
            shapes[f"transformer.layers.{layer}.{name}.weight"] = size
            shapes[f"transformer.layers.{layer}.{name}.bias"] = size[1:]
        for name in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"transformer.layers.{layer}.{name}.weight"] = (hidden_size,)
            shapes[f"transformer.layers.{layer}.{name}.bias"] = (hidden_size,)
    return {f"glm.{name}": generator.normal(scale=0.7, size=shape) for name, shape in shapes.items()}


def einsum_forward(weights, input_ids, position_ids, attention_mask, *, num_layers, num_heads, epsilon, block):
    """The whole batch at once; hidden keys get -inf instead of -65504."""

    def linear(x, name):
        return np.einsum("blh,ho->blo", x, weights[f"{name}.weight"]) + weights[f"{name}.bias"]

    def norm(x, name):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + epsilon)
        return x * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    word = weights["glm.word_embeddings.weight"]
    x = word[input_ids] + weights["glm.transformer.position_embeddings.weight"][position_ids[:, 0]]
    if block:
        x = x + weights["glm.transformer.block_position_embeddings.weight"][position_ids[:, 1]]
    batch, length, hidden_size = x.shape
    for number in range(num_layers):
        layer = f"glm.transformer.layers.{number}"
        fused = linear(norm(x, f"{layer}.input_layernorm"), f"{layer}.attention.query_key_value")
        q, k, v = fused.reshape(batch, length, 3, num_heads, -1).transpose(2, 0, 3, 1, 4)  # 3 x [B, N, L, D]
        scores = np.einsum("bnid,bnjd->bnij", q, k) / np.sqrt(hidden_size / num_heads)
        scores = np.where(attention_mask == 1, scores, -np.inf)
        powers = np.exp(scores - scores.max(-1, keepdims=True))
        context = np.einsum("bnij,bnjd->bind", powers / powers.sum(-1, keepdims=True), v)  # [B, L, N, D]
        x = x + linear(context.reshape(batch, length, hidden_size), f"{layer}.attention.dense")
        inner = linear(norm(x, f"{layer}.post_attention_layernorm"), f"{layer}.mlp.dense_h_to_4h")
        # the tanh form of GELU is x * sigmoid(2u)
        inner = inner / (1 + np.exp(-2 * np.sqrt(2 / np.pi) * (inner + 0.044715 * inner**3)))
        x = x + linear(inner, f"{layer}.mlp.dense_4h_to_h")
    return np.einsum("blh,vh->blv", norm(x, "glm.transformer.final_layernorm"), word)


@pytest.mark.parametrize("attention_scale", [1.0, 8.0])
def test_forward_one_layer_by_hand(attention_scale):
    # embeddings [8, 0], [0, 8]; normalised [1, -1], [-1, 1]; values [1, -1], [3, 0]; token 0 sees itself only,
    # token 1 weighs 1/4 and 3/4: contexts [1, -1], [2.5, -.25]; dense [1, 1], [2.5, 2.5]; sums [9, 1], [2.5, 10.5];
    # normalised [2, -2], [0, 2]; with g = gelu(2) and gelu(-2) = g - 2 the MLP gives [g-1, 2+2g], [1+g, 2]
    g = 1.9545976940877752
    logits = forward(
        hand_model(),
        np.array([[0, 1]]),
        np.array([[[0, 1], [0, 1]]]),
        np.array([[[[1, 0], [1, 1]]]]),
        num_layers=1,
        num_attention_heads=1,
        layernorm_epsilon=9.0,
        attention_scale=attention_scale,
    )
    for place, (first, second) in enumerate([(8 + g, 3 + 2 * g), (3.5 + g, 12.5)]):
        half = (first - second) / 2
        n = half / math.sqrt(half**2 + 9)
        np.testing.assert_allclose(logits[0, place], [8 * n, 4 * (1 - 2 * n), 1 - n], atol=1e-12)


def test_forward_without_block_positions_ignores_row_1():
    # token 1 becomes [0, 7] instead of [0, 8]; with no layers: n = -3.5 / sqrt(3.5^2 + 9)
    call = {"num_layers": 0, "num_attention_heads": 1, "layernorm_epsilon": 9.0, "block_position_encoding": False}
    mask = np.ones((1, 1, 1, 1))
    logits = forward(hand_model(), np.array([[1]]), np.array([[[1]]]), mask, **call)
    n = -3.5 / math.sqrt(3.5**2 + 9)
    np.testing.assert_allclose(logits[0, 0], [8 * n, 4 * (1 - 2 * n), 1 - n], atol=1e-12)
    assert np.array_equal(logits, forward(hand_model(), np.array([[1]]), np.array([[[1], [9]]]), mask, **call))


@pytest.mark.parametrize("attention_scale", [1.0, 8.0])
@pytest.mark.parametrize("block", [True, False])
def test_forward_equals_einsum(block, attention_scale):
    generator = np.random.default_rng(3)
    weights = random_model(num_layers=2, hidden_size=12, vocab_size=11, rows=9, seed=4)
    input_ids = generator.integers(11, size=(3, 7))
    position_ids = generator.integers(9, size=(3, 2, 7))
    mask = np.maximum(generator.integers(2, size=(3, 1, 7, 7)), np.eye(7, dtype=int))
    got = forward(
        weights,
        input_ids,
        position_ids,
        mask,
        num_layers=2,
        num_attention_heads=3,
        attention_scale=attention_scale,
        block_position_encoding=block,
    )
    want = einsum_forward(weights, input_ids, position_ids, mask, num_layers=2, num_heads=3, epsilon=1e-5, block=block)
    assert got.dtype == np.float64 and got.shape == (3, 7, 11)
    np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-10)


def test_forward_of_worked_example_depends_on_what_it_may():
    weights = random_model(num_layers=2, hidden_size=8, vocab_size=12, rows=17, seed=5)
    source, span = [1, 2, 3, 4, 9, 5], [6, 7]

    def logits(source, span, src_length=8):
        example = build_example(
            source, [span], mask_ids={9}, sop=10, eop=11, pad=0, src_length=src_length, tgt_length=4
        )
        arrays = [np.array([example[name]]) for name in ("input_ids", "position_ids", "attention_mask")]
        return forward(weights, arrays[0], arrays[1], arrays[2][:, None], num_layers=2, num_attention_heads=2)[0]

    base = logits(source, span)
    other_t2 = logits(source, [6, 8])
    assert np.array_equal(base[:10], other_t2[:10]) and not np.allclose(base[10], other_t2[10])
    for place in (0, 1, 2, 3, 5):  # 4 is the mask
        other_source = logits(source[:place] + [8] + source[place + 1 :], span)
        assert all(not np.allclose(base[at], other_source[at]) for at in (8, 9, 10))
    np.testing.assert_allclose(logits(source, span, src_length=16)[16:19], base[8:11], atol=1e-12)


def test_gelu_and_softmax_values():
    np.testing.assert_allclose(gelu(np.array([-1.0, 0.0, 1.0, 2.0])), [-0.158808, 0.0, 0.841192, 1.954598], atol=1e-6)
    np.testing.assert_allclose(softmax(np.log([2.0, 1.0, 1.0]) + 1000), [0.5, 0.25, 0.25])


def test_forward_refuses_what_it_cannot_mean():
    ids, positions, mask = np.array([[0]]), np.zeros((1, 2, 1), dtype=int), np.ones((1, 1, 1, 1))
    with pytest.raises(ValueError, match="num_attention_heads=3"):
        forward(hand_model(), ids, positions, mask, num_layers=1, num_attention_heads=3)
    with pytest.raises(ValueError, match="attention_scale=0.5"):
        forward(hand_model(), ids, positions, mask, num_layers=1, num_attention_heads=1, attention_scale=0.5)
    with pytest.raises(ValueError, match="negative"):
        forward(hand_model(), ids - 1, positions, mask, num_layers=1, num_attention_heads=1)


def test_loss_by_hand():
    # -log p of (1/2, 1/4, 1/4) in units of log 2 is (1, 2, 2), its mean 5/3
    half, third = np.log([0.5, 0.25, 0.25]), np.zeros(3)
    logits = np.array([[half + 7, half], [third, half]])
    labels = np.array([[1, -100], [0, 0]])
    unit = math.log(2)
    assert loss(logits, labels) == pytest.approx((2 * unit + math.log(3) + unit) / 3)
    smooth = [0.9 * 2 * unit + 0.1 * 5 / 3 * unit, math.log(3), 0.9 * unit + 0.1 * 5 / 3 * unit]
    assert loss(logits, labels, 0.1) == pytest.approx(sum(smooth) / 3)
    with pytest.raises(ValueError, match="-100"):
        loss(logits, np.full((2, 2), -100))
    with pytest.raises(ValueError, match="label 3"):
        loss(logits, np.full((2, 2), 3))


# geometry

CLS, MASK, EOS, SOP, EOP, PAD = 100, 101, 102, 103, 104, 105
IDS = {"mask_ids": {MASK}, "sop": SOP, "eop": EOP, "pad": PAD}
WORKED = [CLS, 1, 2, 3, MASK, EOS]  # section 10: a b c are 1 2 3, t1 t2 are 11 12


def test_geometry_worked_example():
    example = build_example(WORKED, [[11, 12]], **IDS, src_length=8, tgt_length=4)
    assert example["input_ids"] == [CLS, 1, 2, 3, MASK, EOS, PAD, PAD, SOP, 11, 12, PAD]
    assert example["labels"] == [-100] * 8 + [11, 12, EOP, -100]
    assert example["position_ids"] == [[0, 1, 2, 3, 4, 5, 6, 7, 4, 4, 4, 4], [0] * 8 + [1, 2, 3, 4]]
    part_a = [1, 1, 1, 1, 1, 1, 0, 0]
    assert example["attention_mask"] == [part_a + [0, 0, 0, 0]] * 8 + [
        part_a + [1, 0, 0, 0],
        part_a + [1, 1, 0, 0],
        part_a + [1, 1, 1, 0],
        part_a + [1, 1, 1, 1],
    ]
    assert example["is_pad"] == [False] * 6 + [True] * 2 + [False] * 3 + [True]


def test_geometry_two_spans_as_in_the_papers_figure_2():
    # x1 .. x6 with [x3] and [x5 x6] masked, spans in order; the paper counts row 0 from 1
    example = build_example([1, MASK, 2, MASK], [[13], [15, 16]], **IDS, src_length=4, tgt_length=6)
    assert example["input_ids"] == [1, MASK, 2, MASK, SOP, 13, SOP, 15, 16, PAD]
    assert example["labels"] == [-100] * 4 + [13, EOP, 15, 16, EOP, -100]
    assert example["position_ids"] == [[0, 1, 2, 3, 1, 1, 3, 3, 3, 3], [0, 0, 0, 0, 1, 2, 1, 2, 3, 4]]
    assert example["attention_mask"][6] == [1, 1, 1, 1, 1, 1, 1, 0, 0, 0]  # the second sop sees the first span
    flat = build_example([1, MASK, 2, MASK], [[13], [15, 16]], **IDS, src_length=4, tgt_length=6, block_position=False)
    assert flat["position_ids"][1] == [0] * 4 + [1] * 6


@pytest.mark.parametrize(
    "tgt_length, part_b, labels",
    [(3, [SOP, 11, 12], [11, 12, EOP]), (2, [SOP, 11], [11, 12]), (1, [SOP], [11])],
)
def test_geometry_cut_loses_the_eop(tgt_length, part_b, labels):
    example = build_example(WORKED, [[11, 12]], **IDS, src_length=6, tgt_length=tgt_length)
    assert example["input_ids"][6:] == part_b and example["labels"][6:] == labels


def test_geometry_tells_pads_by_place_not_by_id():
    example = build_example(WORKED, [[EOS]], **{**IDS, "pad": EOS}, src_length=7, tgt_length=3)
    assert example["input_ids"] == WORKED + [EOS, SOP, EOS, EOS]
    assert example["attention_mask"][8] == [1] * 6 + [0, 1, 1, 0]
    assert example["labels"][7:] == [EOS, EOP, -100]


@pytest.mark.parametrize(
    "source, spans, src_length, tgt_length, message",
    [
        (WORKED, [[1]], 5, 4, "src_length=5"),
        (WORKED, [[1]], 8, 0, "tgt_length=0"),
        (WORKED, [[1], [2]], 8, 4, "1 masks in the source, 2 spans"),
        ([CLS, 1], [], 8, 4, "no mask"),
    ],
)
def test_geometry_refuses(source, spans, src_length, tgt_length, message):
    with pytest.raises(ValueError, match=message):
        build_example(source, spans, **IDS, src_length=src_length, tgt_length=tgt_length)


# decoding: V = 3, tokens 0 and 1, eop 2


def table_model(table):
    """A model from {tokens: probabilities}; the key None answers for all other tokens."""

    def next_logits(tokens):
        with np.errstate(divide="ignore"):  # probability 0 is log -inf
            return np.log(np.array(table.get(tokens, table.get(None))))

    return next_logits


FIRST_STEP_MISLEADS = table_model(
    {(): [0.5, 0.4, 0.1], (0,): [0.3, 0.3, 0.4], (1,): [0.05, 0.05, 0.9], None: [0.25, 0.25, 0.5]}
)
TABLE = {"vocab_size": 3, "eop": 2}


def assert_hypotheses(got, want):
    assert [tokens for tokens, _ in got] == [tokens for tokens, _ in want]
    np.testing.assert_allclose([score for _, score in got], [score for _, score in want], rtol=1e-12)


def test_brute_force_by_hand():
    log = math.log
    assert_hypotheses(
        brute_force(FIRST_STEP_MISLEADS, **TABLE, max_length=2, length_penalty=0.0),
        [
            ((1,), log(0.36)),
            ((0,), log(0.2)),
            ((0, 0), log(0.15)),
            ((0, 1), log(0.15)),
            ((), log(0.1)),
            ((1, 0), log(0.02)),
            ((1, 1), log(0.02)),
        ],
    )
    assert_hypotheses(
        brute_force(FIRST_STEP_MISLEADS, **TABLE, max_length=2, length_penalty=1.0)[:3],
        [((0, 0), log(0.15) / 2), ((0, 1), log(0.15) / 2), ((1,), log(0.36))],
    )


def test_brute_force_rules_by_hand():
    def tokens(**rules):
        results = brute_force(FIRST_STEP_MISLEADS, **TABLE, max_length=2, length_penalty=0.0, **rules)
        return [tokens for tokens, _ in results]

    assert tokens(min_length=1) == [(1,), (0,), (0, 0), (0, 1), (1, 0), (1, 1)]
    assert tokens(min_length=2) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert tokens(no_repeat_ngram_size=1) == [(1,), (0,), (0, 1), (), (1, 0)]
    assert tokens(no_repeat_ngram_size=2) == tokens()
    assert tokens(banned=(0,)) == [(1,), (), (1, 1)]
    assert tokens(banned=(2,)) == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_brute_force_is_complete():
    # without rules the probabilities of all sequences sum to 1
    results = brute_force(FIRST_STEP_MISLEADS, **TABLE, max_length=5, length_penalty=0.0)
    assert len(results) == 1 + 2 + 4 + 8 + 16 + 32
    assert sum(math.exp(score) for _, score in results) == pytest.approx(1.0)


def test_greedy_by_hand():
    log = math.log
    assert_hypotheses([greedy(FIRST_STEP_MISLEADS, **TABLE, max_length=2)], [((0,), log(0.2))])
    want = [((0, 0), log(0.15) / 2)]  # a tie of 0 and 1 once eop is out
    assert_hypotheses([greedy(FIRST_STEP_MISLEADS, **TABLE, max_length=2, length_penalty=1.0, min_length=2)], want)
    constant = table_model({None: [0.5, 0.3, 0.2]})
    want = [((0, 0, 1, 0), log(0.5 * 0.5 * 0.3 * 0.5 * 0.2))]
    assert_hypotheses([greedy(constant, **TABLE, max_length=9, no_repeat_ngram_size=2)], want)
    # 0 again would cost log 0.25 < log 0.3; the third step has 0.25, 0.09, 0.2
    want = [((0, 1, 0), log(0.5 * 0.3 * 0.25))]
    assert_hypotheses([greedy(constant, **TABLE, max_length=3, repetition_penalty=2.0)], want)
    with pytest.raises(ValueError, match="no token to choose after"):
        greedy(constant, **TABLE, max_length=3, no_repeat_ngram_size=1, banned=(2,))


def test_beam_search_by_hand():
    def search(**options):
        return beam_search(FIRST_STEP_MISLEADS, **TABLE, max_length=2, num_beams=2, **options)

    log = math.log
    finished = [((1,), log(0.36)), ((0,), log(0.2))]
    unfinished = [((0, 0), log(0.15) / 2), ((0, 1), log(0.15) / 2)]
    assert_hypotheses(search(), finished)
    assert_hypotheses(search(length_penalty=1.0), unfinished)  # not done, and the live beams join
    assert_hypotheses(search(length_penalty=1.0, early_stopping=True), finished)
    assert_hypotheses(search(length_penalty=1.0, early_stopping="never"), unfinished)


def test_beam_search_eop_counts_only_above_rank_k():
    model = table_model({None: [0.5, 0.1, 0.4]})
    one = beam_search(model, **TABLE, max_length=1, num_beams=1)
    assert_hypotheses(one, [((0,), math.log(0.5))])
    two = beam_search(model, **TABLE, max_length=1, num_beams=2)
    assert_hypotheses(two, [((0,), math.log(0.5)), ((), math.log(0.4))])


def test_beam_search_early_stopping_by_hand():
    # after step 1: worst log .5 = -.69, live log .3 = -1.2, which over 3 is -.40
    model = table_model({(): [0.3, 0.2, 0.5], None: [0.9, 0.05, 0.05]})
    options = {**TABLE, "max_length": 3, "num_beams": 1, "length_penalty": 1.0}
    assert_hypotheses(beam_search(model, **options), [((), math.log(0.5))])
    want = [((0, 0, 0), math.log(0.3 * 0.9 * 0.9) / 3)]
    assert_hypotheses(beam_search(model, **options, early_stopping="never"), want)
    negative = {**options, "length_penalty": -1.0}
    assert_hypotheses(beam_search(model, **negative, early_stopping="never"), [((), math.log(0.5))])


@pytest.mark.parametrize("early_stopping", [False, "never"])
@pytest.mark.parametrize("length_penalty", [0.0, -1.0])
def test_beam_search_a_better_hypothesis_displaces_a_worse_one(length_penalty, early_stopping):
    # step 1 finishes () with .3; step 2 finishes (1,) with .09 and has .4 and .06 alive: not done, even when the log
    # of .4 is doubled by the length penalty; step 3 finishes (0, 0) with .36
    model = table_model({(): [0.5, 0.2, 0.3], (0,): [0.8, 0.1, 0.1], (1,): [0.3, 0.25, 0.45], None: [0.05, 0.05, 0.9]})
    options = {"num_beams": 2, "length_penalty": length_penalty, "early_stopping": early_stopping}
    got = beam_search(model, **TABLE, max_length=3, **options)
    if length_penalty == 0:
        assert_hypotheses(got, [((0, 0), math.log(0.36)), ((), math.log(0.3))])
    else:
        assert_hypotheses(got, [((), math.log(0.3)), ((0, 0), math.log(0.36) * 2)])


def test_beam_search_is_done_on_a_tie_with_the_live_beams():
    asked = []

    def model(tokens):
        asked.append(tokens)
        return np.array([0.0, 0.0, -np.inf])

    got = beam_search(model, vocab_size=3, eop=0, max_length=3, num_beams=1)
    assert_hypotheses(got, [((), math.log(0.5))])
    assert asked == [()]


def test_beam_search_ties_go_to_the_lower_beam_then_the_lower_id():
    model = table_model({None: [0.5, 0.5, 0.0]})
    got = beam_search(model, **TABLE, max_length=2, num_beams=2)
    assert_hypotheses(got, [((0, 0), math.log(0.25)), ((0, 1), math.log(0.25))])


def test_beam_search_on_a_tie_the_earlier_hypothesis_stays():
    # () has 1/2 at step 1 and (0,) has 1/2 * 1 at step 2
    model = table_model({(): [0.5, 0.0, 0.5], None: [0.0, 0.0, 1.0]})
    got = beam_search(model, **TABLE, max_length=3, num_beams=2)
    assert_hypotheses(got, [((), math.log(0.5)), ((0,), math.log(0.5))])
    got = beam_search(model, **TABLE, max_length=3, num_beams=2, length_penalty=1.0)
    assert_hypotheses(got, [((), math.log(0.5)), ((0,), math.log(0.5))])
    # tie of 0 and eop at step 1: 0 has rank 0, so with one beam eop is too low
    assert_hypotheses(beam_search(model, **TABLE, max_length=3, num_beams=1), [((0,), math.log(0.5))])


def test_beam_search_rules_by_hand():
    constant = table_model({None: [0.5, 0.3, 0.2]})
    options = {**TABLE, "max_length": 3, "num_beams": 1, "early_stopping": True}
    want = [((0, 1, 0), math.log(0.5 * 0.3 * 0.25))]
    assert_hypotheses(beam_search(constant, **options, repetition_penalty=2.0), want)
    want = [((0, 1), math.log(0.5 * 0.3 * 0.2))]
    assert_hypotheses(beam_search(constant, **options, no_repeat_ngram_size=1), want)
    assert beam_search(constant, **options, no_repeat_ngram_size=1, banned=(2,)) == []
    certain = table_model({None: [0.9, 0.05, 0.05]})  # the penalty counts once, also for a token seen twice
    want = [((0, 0, 0), math.log(0.9 * 0.81 * 0.81))]
    assert_hypotheses(beam_search(certain, **options, repetition_penalty=2.0), want)
    with pytest.raises(ValueError, match="early_stopping='always'"):
        beam_search(constant, **{**options, "early_stopping": "always"})
    with pytest.raises(ValueError, match="num_beams=0"):
        beam_search(constant, **{**options, "num_beams": 0})
    with pytest.raises(ValueError, match="max_length=0"):
        beam_search(constant, **{**options, "max_length": 0})
    with pytest.raises(ValueError, match="vocab_size=4"):
        beam_search(constant, **{**options, "vocab_size": 4})


def random_table(seed, vocab_size=4):
    """Logits that depend on all tokens so far, the same on each call."""

    def next_logits(tokens):
        return np.random.default_rng([seed, *tokens, len(tokens)]).normal(scale=1.5, size=vocab_size)

    return next_logits


RULES = [
    {},
    {"min_length": 2},
    {"no_repeat_ngram_size": 1},
    {"no_repeat_ngram_size": 2, "banned": (1,)},
    {"min_length": 4, "banned": (0, 2)},
]


@pytest.mark.parametrize("early_stopping", [True, False, "never"])
@pytest.mark.parametrize("length_penalty", [-0.5, 0.0, 0.7, 2.0])
@pytest.mark.parametrize("rules", RULES)
def test_beam_search_with_a_beam_for_everything_is_brute_force(rules, length_penalty, early_stopping):
    # 121 sequences without rules: with 200 beams nothing is cut off and the search is never done early
    options = {"vocab_size": 4, "max_length": 4, "eop": 3, "length_penalty": length_penalty, **rules}
    for seed in range(2):
        want = brute_force(random_table(seed), **options)
        got = beam_search(random_table(seed), **options, num_beams=200, early_stopping=early_stopping)
        assert got == want


@pytest.mark.parametrize("rules", [*RULES, {"repetition_penalty": 1.5}])
def test_beam_search_with_one_beam_is_greedy(rules):
    for seed in range(20):
        for stopping in ({"early_stopping": True, "length_penalty": 0.7}, {"early_stopping": False}):
            options = {"vocab_size": 4, "max_length": 4, "eop": 3, **rules}
            penalty = {"length_penalty": stopping.get("length_penalty", 0.0)}
            try:
                want = [greedy(random_table(seed), **options, **penalty)]
            except ValueError:
                want = []
            assert beam_search(random_table(seed), **options, **stopping, num_beams=1) == want
