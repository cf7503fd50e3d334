"""What is learnt of candidates, against values worked out in NumPy and by finite differences."""

import numpy as np
import paddle
import pytest

from glm.training.choice_loss import FLOOR, HIDDEN, candidate_scores, choice_losses


def by_hand(scores, right, loss_func):
    """The loss of one question with one right candidate."""
    total = np.log(np.exp(scores).sum())
    wrong = np.delete(scores, right)
    return {
        "cross_entropy": total - scores[right],
        "hinge": np.maximum(0, 1 + scores - scores[right]).sum() - 1,
        "generative": -scores[right],
        "mix": total - 2 * scores[right],
        "adapet": np.maximum(wrong, FLOOR).sum() - scores[right],
    }[loss_func]


@pytest.mark.parametrize("loss_func", ["cross_entropy", "hinge", "generative", "mix", "adapet"])
def test_losses_by_hand(loss_func):
    scores = np.array([[-1.0, -2.5, -0.5], [-3.0, -1.0, HIDDEN], [-30.0, -4.0, -2.0]])
    right = np.array([[0, 1, 0], [1, 0, 0], [0, 0, 1]])
    found = choice_losses(paddle.to_tensor(scores), right, loss_func).numpy()
    want = [
        by_hand(row[row > HIDDEN], int(np.argmax(gold)), loss_func) for row, gold in zip(scores, right, strict=True)
    ]
    np.testing.assert_allclose(found, want, rtol=0, atol=1e-9)


def test_any_of_several_right_candidates_will_do():
    scores = paddle.to_tensor(np.array([[-1.0, -2.0, -3.0]]))
    shares = np.exp([-1.0, -2.0, -3.0]) / np.exp([-1.0, -2.0, -3.0]).sum()
    (found,) = choice_losses(scores, np.array([[1, 0, 1]]), "cross_entropy").numpy()
    assert found == pytest.approx(-np.log(shares[0] + shares[2]))


def log_softmax(table):
    return table - np.log(np.exp(table).sum(-1, keepdims=True))


def test_scores_of_single_pieces_are_log_probabilities():
    logits = np.random.default_rng(0).normal(size=(2, 9))
    ids = np.array([[3, 5, 0], [1, 8, 2]])
    rows = np.array([[0, 0, -1], [1, 1, 1]])
    labels = np.array([[-100, 3], [8, -100]])
    found = candidate_scores(paddle.to_tensor(logits), labels, ids, rows).numpy()
    want = np.take_along_axis(log_softmax(logits), ids, axis=1)
    np.testing.assert_allclose(found[rows >= 0], want[rows >= 0], atol=1e-12)
    assert found[0, 2] == HIDDEN


@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
def test_scores_of_several_pieces_are_their_sums(length_penalty):
    labels = np.array([[-100, 3, 4], [-100, -100, 5], [1, 2, 6]])  # three rows: of 2, 1 and 3 tokens
    logits = np.random.default_rng(1).normal(size=(6, 9))
    flat = log_softmax(logits)[np.arange(6), [3, 4, 5, 1, 2, 6]]
    sums = np.array([flat[:2].sum(), flat[2], flat[3:].sum()]) / np.array([2.0, 1.0, 3.0]) ** length_penalty
    rows = np.array([[0, 1], [2, -1]])
    found = candidate_scores(
        paddle.to_tensor(logits), labels, np.zeros((2, 0), np.int64), rows, length_penalty
    ).numpy()
    np.testing.assert_allclose(found, [[sums[0], sums[1]], [sums[2], HIDDEN]], rtol=1e-6)


@pytest.mark.parametrize("loss_func", ["cross_entropy", "hinge", "generative", "mix", "adapet"])
def test_gradients_are_those_of_finite_differences(loss_func):
    random = np.random.default_rng(2)
    logits = paddle.to_tensor(random.normal(size=(5, 7)), stop_gradient=False)
    labels = np.array([[-100, 3, 4], [-100, -100, 5], [-100, 2, 6]])
    rows, right = np.array([[0, 1], [2, -1]]), np.array([[0, 1], [1, 0]])

    def loss(table):
        scores = candidate_scores(table, labels, np.zeros((2, 0), np.int64), rows)
        return choice_losses(scores, right, loss_func).sum()

    loss(logits).backward()
    direction, step = random.normal(size=(5, 7)), 1e-5
    ahead, behind = (float(loss(paddle.to_tensor(logits.numpy() + sign * step * direction))) for sign in (1, -1))
    assert float((logits.grad.numpy() * direction).sum()) == pytest.approx((ahead - behind) / (2 * step), abs=1e-4)
