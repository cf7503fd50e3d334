"""A model split over two and four processes computes what one process does: losses, gradients, logits, decoding."""

import numpy as np
import pytest

from tools import rank_jobs
from tools.rank_tools import run_ranks

SETTINGS = {
    "num_layers": 2,
    "vocab_size": 48,
    "hidden_size": 16,
    "num_attention_heads": 4,
    "max_sequence_length": 40,
    "embedding_dropout_prob": 0.0,
    "attention_dropout_prob": 0.0,
    "output_dropout_prob": 0.0,
}
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


def random_weights(seed: int = 3) -> dict[str, np.ndarray]:
    """Of N(0, 0.2), biases too: nothing is hidden behind a zero."""
    generator = np.random.default_rng(seed)
    model = rank_jobs.new_model(SETTINGS, 1)
    return {
        name: generator.normal(float(name.endswith("layernorm.weight")), 0.2, weight.shape).astype("float32")
        for name, weight in model.named_parameters()
    }


def random_batch(seed: int = 4) -> dict[str, np.ndarray]:
    """Two rows with three examples and padding."""
    generator = np.random.default_rng(seed)
    segments = np.array([[[5, 4], [3, 2]], [[7, 3], [0, 0]]])
    L = 16
    labels = np.full([2, L], -100)
    labels[0, 5:9], labels[0, 12:14], labels[1, 7:10] = (generator.integers(0, 48, n) for n in (4, 2, 3))
    return {
        "input_ids": generator.integers(0, 48, [2, L]),
        "position_ids": generator.integers(0, 40, [2, 2, L]),
        "segments": segments,
        "labels": labels,
    }


PROMPTS = [[9, 1, 11, 12], [13, 14, 15, 1, 16, 17]]


@pytest.fixture(scope="module")
def alone():
    return rank_jobs.check_model(1, SETTINGS, random_weights(), random_batch(), PROMPTS)


@pytest.fixture(scope="module", params=[2, 4])
def ranks(request):
    degree = request.param
    return run_ranks(rank_jobs.check_model, degree, degree, SETTINGS, random_weights(), random_batch(), PROMPTS)


def assert_close(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray], **tolerance):
    assert list(ours) == list(theirs)
    for name in theirs:
        np.testing.assert_allclose(ours[name], theirs[name], err_msg=name, **tolerance)


def test_random_weights_do_not_depend_on_the_degree(alone, ranks):
    drawn = rank_jobs.merged([rank["random weights"] for rank in ranks])
    assert_close(drawn, alone["random weights"], rtol=0, atol=0)


def test_split_weights_are_marked_for_the_gradient_norm(alone, ranks):
    """fleet adds up the squares of these over the ranks, and of no others."""
    whole = alone["random weights"]
    split = sorted(name for name, part in ranks[0]["random weights"].items() if part.shape != whole[name].shape)
    assert alone["distributed"] == []
    assert all(rank["distributed"] == split for rank in ranks)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("recompute", [False, True])
def test_loss_and_gradients(alone, ranks, recompute, smoothing):
    case = f"recompute {recompute}, smoothing {smoothing}"
    loss, gradients = alone[case]
    assert [rank[case][0] for rank in ranks] == pytest.approx([loss] * len(ranks), rel=1e-6)
    assert_close(rank_jobs.merged([rank[case][1] for rank in ranks]), gradients, **CLOSE)


def test_gradients_of_what_every_rank_holds_are_equal_on_all(ranks):
    first, *others = (rank["recompute False, smoothing 0.1"][1] for rank in ranks)
    for name in set(first) - set(ranks[0]["distributed"]):
        assert all((other[name] == first[name]).all() for other in others), name


def test_gathered_logits_keep_their_gradient(alone, ranks):
    for rank in ranks:
        np.testing.assert_allclose(rank["logits"], alone["logits"], **CLOSE)
    gradients = rank_jobs.merged([rank["gradients of logits"] for rank in ranks])
    assert_close(gradients, alone["gradients of logits"], **CLOSE)


def test_decoding_sees_the_same_logits_on_every_rank(alone, ranks):
    for first, later in (rank["decoding"] for rank in ranks):
        np.testing.assert_allclose(first, alone["decoding"][0], **CLOSE)
        np.testing.assert_allclose(later, alone["decoding"][1], **CLOSE)
        assert (first == ranks[0]["decoding"][0]).all() and (later == ranks[0]["decoding"][1]).all()


def test_dropout_is_shared_where_activations_are_and_own_where_they_are_split():
    settings = SETTINGS | {f"{kind}_dropout_prob": 0.3 for kind in ("embedding", "attention", "output")}
    first, second = run_ranks(rank_jobs.check_dropout, 2, 2, settings, random_batch())
    for ours, theirs in zip(first["replicated"], second["replicated"], strict=True):
        assert (ours == theirs).all() and 0.2 < (ours == 0).mean() < 0.4
    assert (first["replicated"][0] != first["replicated"][1]).any()
    assert (first["split"][0] != second["split"][0]).any()
    for rank in (first, second):  # what recompute computes again, it computes with the same dropout
        for once, again in zip(rank["recompute False"], rank["recompute True"], strict=True):
            np.testing.assert_allclose(once, again, **CLOSE)
    assert first["recompute False"][0] == second["recompute False"][0]
    assert (first["after"][0] == second["after"][0]).all()
