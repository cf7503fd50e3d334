"""Attention of training: the hand-written form against Paddle's operators, whatever the size of its blocks."""

from types import SimpleNamespace

import numpy as np
import paddle
import pytest

import glm.cpu.arrays
import glm.modules.packing
from glm.models.glm.geometry import attention_mask
from glm.modules.attention import TwoPartAttention, has_flashmask
from tools.attention_tools import assert_as_by_operators, packing

N, H = 4, 32


@pytest.mark.parametrize("examples", [[(9, 5)], [(7, 0), (0, 6), (3, 2)], [(40, 23), (5, 11), (1, 1)]])
@pytest.mark.parametrize("scores", [1, 20, 300, 1 << 19])
@pytest.mark.parametrize("threads", [False, True])
def test_blocks_of_queries_and_groups_of_heads(examples, scores, threads, monkeypatch):
    monkeypatch.setattr(glm.modules.packing, "SCORES", scores)
    monkeypatch.setattr(glm.modules.attention, "MIN_PARALLEL_SIZE", 0 if threads else 1 << 30)
    monkeypatch.setattr(glm.cpu.arrays, "cpu_threads", lambda: 2)
    assert_as_by_operators(TwoPartAttention.apply, examples, N, H, atol=2e-6)


def test_no_score_of_the_future_is_computed():
    """Blocks of Part B end where their own last query stands; Part A's are as wide as Part A."""
    (blocks,) = packing((600, 2000)).blocks()
    assert sum(rows.stop - rows.start for rows, *_ in blocks) == 2600
    for rows, keys, own_past in blocks:
        assert keys == slice(0, rows.stop if own_past else 600)
        assert (rows.stop - rows.start) * (keys.stop - keys.start) <= glm.modules.packing.SCORES
        assert own_past == (rows.start >= 600)


def test_jobs_cover_every_head_of_every_example_once(monkeypatch):
    monkeypatch.setattr(glm.modules.packing, "SCORES", 250)
    jobs = packing((6, 4), (2, 3), (20, 20)).jobs(N)
    assert [number for number, *_ in jobs] == list(range(len(jobs)))
    covered = [(blocks[0][0].start, head) for _, heads, blocks in jobs for head in range(N)[heads]]
    assert sorted(covered) == [(start, head) for start in (0, 10, 15) for head in range(N)]
    assert len(jobs) == 2 + 1 + 4  # two heads at a time, all, one


@pytest.mark.parametrize("threads", [False, True])
def test_gradient_under_dropout_is_that_of_the_function_drawn(threads, monkeypatch):
    """Against finite differences of the same draw, in float64."""
    monkeypatch.setattr(glm.modules.attention, "MIN_PARALLEL_SIZE", 0 if threads else 1 << 30)
    random = np.random.default_rng(1)
    start, slope = random.normal(size=(9, 3 * H)), random.normal(size=(9, H))

    def value(numbers) -> paddle.Tensor:
        paddle.seed(5)
        return (TwoPartAttention.apply(numbers, packing((4, 2), (1, 2)), N, 0.3) * paddle.to_tensor(slope)).sum()

    projected = paddle.to_tensor(start, stop_gradient=False)
    value(projected).backward()
    direction = random.normal(size=start.shape)
    ends = [float(value(paddle.to_tensor(start + step * direction))) for step in (1e-5, -1e-5)]
    assert (projected.grad.numpy() * direction).sum() == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-6)


def test_bounds_for_flashmask_describe_the_mask():
    """A column is seen by the rows from the second number up to the first; held against who sees whom."""
    parts = packing((5, 3), (0, 2), (4, 0), (1, 1))
    bounds = parts.flashmask.numpy()[0, 0]  # [n, 2]
    n, start = len(bounds), 0
    expected = np.zeros((n, n), bool)
    for S, T in ((5, 3), (0, 2), (4, 0), (1, 1)):
        end = start + S + T
        expected[start:end, start:end] = attention_mask([S], S, T)[0, 0]
        start = end
    rows = np.arange(n)[:, None]
    assert ((bounds[:, 1] <= rows) & (rows < bounds[:, 0])).tolist() == expected.tolist()


class Projected:
    """What `has_flashmask` asks of a tensor."""

    def __init__(self, dtype, on_gpu=True):
        self.dtype = dtype
        self.place = SimpleNamespace(is_gpu_place=lambda: on_gpu)


@pytest.mark.parametrize(
    ("dtype", "on_gpu", "capability", "head_size", "expected"),
    [
        (paddle.float16, True, (8, 0), 64, True),
        (paddle.bfloat16, True, (9, 0), 256, True),
        (paddle.float32, True, (8, 0), 64, False),
        (paddle.float16, False, (8, 0), 64, False),
        (paddle.float16, True, (7, 5), 64, False),
        (paddle.float16, True, (8, 0), 60, False),
        (paddle.float16, True, (8, 0), 264, False),
    ],
)
def test_when_flashmask_can_be_used(dtype, on_gpu, capability, head_size, expected, monkeypatch):
    monkeypatch.setattr(paddle.device.cuda, "get_device_capability", lambda: capability)
    assert has_flashmask(Projected(dtype, on_gpu), head_size) is expected
