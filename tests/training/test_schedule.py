"""The learning rate: conformance check 7 of the fact sheet (step 0, end of warm-up, last step), values by hand."""

import math

import pytest

from glm.training.schedule import decay_factor, decaying_schedule


def factors(steps, *, warmup: int = 10, total: int = 110, ratio: float = 0.1, **options) -> list[float]:
    return [decay_factor(step, warmup_steps=warmup, total_steps=total, decay_ratio=ratio, **options) for step in steps]


@pytest.mark.parametrize("shape", ["linear", "cosine", "polynomial"])
@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.5, 1.0])
def test_conformance_7(shape, ratio):
    start, peak, end = factors([0, 10, 110], shape=shape, ratio=ratio)
    assert start == 0.0
    assert peak == 1.0
    assert end == pytest.approx(ratio, abs=1e-12)


@pytest.mark.parametrize(
    ("shape", "step", "expected"),
    [
        # warm-up: t / w
        ("linear", 1, 0.1),
        ("linear", 7, 0.7),
        ("cosine", 3, 0.3),
        # linear: 1 - (1 - r) (t - w) / (N - w)
        ("linear", 35, 0.775),
        ("linear", 60, 0.55),
        ("linear", 109, 0.109),
        # cosine: r ((cos(pi p) + 1) (1/r - 1) / 2 + 1), p = (t - w) / (N - w)
        ("cosine", 35, 0.1 + 0.9 * (1 + math.sqrt(0.5)) / 2),
        ("cosine", 60, 0.55),
        ("cosine", 85, 0.1 + 0.9 * (1 - math.sqrt(0.5)) / 2),
    ],
)
def test_by_hand(shape, step, expected):
    assert factors([step], shape=shape) == [pytest.approx(expected, rel=1e-12)]


@pytest.mark.parametrize("step", range(10, 111, 7))
def test_formulas_of_the_fact_sheet(step):
    """THUDM/GLM's AnnealingLR, written as there."""
    r, p = 0.25, (step - 10) / 100
    assert factors([step], shape="linear", ratio=r) == [pytest.approx(1 - (1 - r) * p)]
    cosine = r * ((math.cos(math.pi * p) + 1) * (1 / r - 1) / 2 + 1)
    assert factors([step], shape="cosine", ratio=r) == [pytest.approx(cosine)]


@pytest.mark.parametrize(
    ("power", "step", "expected"),
    [(2.0, 60, 0.1 + 0.9 * 0.25), (2.0, 35, 0.1 + 0.9 * 0.5625), (0.5, 85, 0.1 + 0.9 * 0.5), (1.0, 35, 0.775)],
)
def test_polynomial_by_hand(power, step, expected):
    assert factors([step], shape="polynomial", power=power) == [pytest.approx(expected, rel=1e-12)]


def test_inverse_square_root_by_hand():
    """Peak at the end of the warmup, a half at four times as many steps, a third at nine; never below the ratio."""
    steps = [0, 5, 10, 40, 90, 160, 1000, 5000]
    assert factors(steps, shape="inverse_sqrt", ratio=0.25) == pytest.approx(
        [0, 0.5, 1, 1 / 2, 1 / 3, 0.25, 0.25, 0.25]
    )
    assert factors([1000], shape="inverse_sqrt", ratio=0.0) == [pytest.approx(0.1)]


@pytest.mark.parametrize("shape", ["constant", "constant_with_warmup"])
def test_constant_after_its_warmup(shape):
    assert factors([0, 5, 10, 60, 110, 500], shape=shape, ratio=1.0) == [0.0, 0.5, 1.0, 1.0, 1.0, 1.0]
    assert factors([0, 1], shape=shape, ratio=1.0, warmup=0) == [1.0, 1.0]


@pytest.mark.parametrize("shape", ["linear", "cosine"])
def test_stays_at_its_end(shape):
    assert factors([111, 500], shape=shape, ratio=0.3) == pytest.approx([0.3, 0.3])


@pytest.mark.parametrize("shape", ["linear", "cosine"])
def test_without_warmup(shape):
    start, end = factors([0, 110], shape=shape, warmup=0)
    assert (start, end) == (1.0, pytest.approx(0.1))


@pytest.mark.parametrize("shape", ["linear", "cosine"])
def test_warmup_as_long_as_the_run(shape):
    assert factors([0, 55, 110], shape=shape, warmup=110, total=110) == [0.0, 0.5, 1.0]
    assert factors([0], shape=shape, warmup=0, total=0) == [1.0]


@pytest.mark.parametrize("shape", ["linear", "cosine"])
def test_rises_and_falls(shape):
    values = factors(range(111), shape=shape)
    assert all(a < b for a, b in zip(values[:10], values[1:11], strict=True))
    assert all(a > b for a, b in zip(values[10:-1], values[11:], strict=True))


def test_paddle_scheduler():
    """`last_lr` after n calls of `step` is the rate of step n."""
    schedule = decaying_schedule(3e-5, warmup_steps=4, total_steps=12, decay_ratio=0.1, shape="linear")
    rates = []
    for _ in range(13):
        rates.append(schedule.get_lr())
        schedule.step()
    expected = [3e-5 * f for f in factors(range(13), shape="linear", warmup=4, total=12)]
    assert rates == pytest.approx(expected, rel=1e-12)
    assert (rates[0], rates[4], rates[12]) == (0.0, 3e-5, pytest.approx(3e-6))


def test_paddle_scheduler_resumes():
    options = {"warmup_steps": 4, "total_steps": 12, "decay_ratio": 0.1, "shape": "cosine"}
    first, second = decaying_schedule(1.0, **options), decaying_schedule(1.0, **options)
    for _ in range(6):
        first.step()
    second.set_state_dict(first.state_dict())
    first.step()
    second.step()
    assert first.get_lr() == second.get_lr() == pytest.approx(factors([7], shape="cosine", warmup=4, total=12)[0])
