"""Clipping against Paddle's own."""

import numpy as np
import paddle
import pytest

from glm.training.clip import GlobalNormClip


def pairs(*gradients):
    weights = [paddle.create_parameter(list(part.shape), "float32") for part in gradients]
    return [(weight, paddle.to_tensor(part)) for weight, part in zip(weights, gradients, strict=True)]


@pytest.mark.parametrize("limit", [0.5, 5.0, 1e4])
def test_equals_paddles(limit):
    random = np.random.default_rng(0)
    gradients = [random.normal(size=shape).astype("float32") for shape in ((300, 200), (70,), (5, 4, 3))]
    (_, *want), (_, *got) = (
        zip(*clip(limit)(pairs(*gradients)), strict=True) for clip in (paddle.nn.ClipGradByGlobalNorm, GlobalNormClip)
    )
    for ours, paddles in zip(got[0], want[0], strict=True):
        np.testing.assert_allclose(ours.numpy(), paddles.numpy(), rtol=1e-6)


def test_by_hand_and_in_place():
    found = pairs(np.float32([3.0, 0.0]), np.float32([[4.0]]))
    before = [gradient.data_ptr() for _, gradient in found]
    clipped = [gradient for _, gradient in GlobalNormClip(1.0)(found)]
    assert [gradient.numpy().tolist() for gradient in clipped] == [[pytest.approx(0.6), 0.0], [[pytest.approx(0.8)]]]
    assert [gradient.data_ptr() for gradient in clipped] == before


def test_what_is_within_the_limit_stays_bit_for_bit():
    gradient = np.float32([[0.1, -0.2], [0.3, 0.7]])
    ((_, got),) = GlobalNormClip(1.0)(pairs(gradient))
    assert got.numpy().tobytes() == gradient.tobytes()


def test_weights_without_gradient_or_not_to_be_clipped():
    (first, first_gradient), (second, second_gradient) = pairs(np.float32([30.0]), np.float32([4.0]))
    first.need_clip = False
    GlobalNormClip(1.0)([(first, first_gradient), (second, second_gradient), (second, None)])
    assert (float(first_gradient), float(second_gradient)) == (30.0, 1.0)
