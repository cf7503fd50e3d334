"""Helpers of the CPU kernels, against arithmetic."""

from pathlib import Path

import numpy as np
import paddle
import pytest

import glm.cpu.arrays
from glm.cpu.arrays import empty, scale_in_place, squared_norms, view, zeros_apart
from glm.runtime.device import prepare


@pytest.fixture(autouse=True, params=[1, 2], ids=["one thread", "two threads"])
def threads(request, monkeypatch):
    """Small arrays too, in blocks of 16 numbers."""
    monkeypatch.setattr(glm.cpu.arrays, "MIN_PARALLEL_SIZE", 0)
    monkeypatch.setattr(glm.cpu.arrays, "BLOCK", 16)
    monkeypatch.setattr(glm.cpu.arrays, "cpu_threads", lambda: request.param)
    glm.cpu.arrays._pool.cache_clear()
    yield
    glm.cpu.arrays._pool.cache_clear()


def numbers(*shape: int, seed: int = 0) -> paddle.Tensor:
    return paddle.to_tensor(np.random.default_rng(seed).normal(1.0, 2.0, shape))  # float64


def test_norms_and_scaling():
    table, single = numbers(9, 6), numbers(4)
    wanted = [(table.numpy() ** 2).sum(), (single.numpy() ** 2).sum()]
    np.testing.assert_allclose(squared_norms([table, single]), wanted, rtol=1e-12)
    before = table.numpy()
    scale_in_place(table, 0.5)
    np.testing.assert_array_equal(table.numpy(), before * 0.5)


@pytest.mark.parametrize("shape", [[3, 5], [1216, 1024], [1, 300_001]])
def test_an_empty_tensor(shape):
    tensor = empty(shape)
    assert tensor.shape == shape and tensor.dtype == paddle.float32 and tensor.stop_gradient
    view(tensor)[:] = 2.0
    assert float(tensor.sum()) == pytest.approx(2.0 * np.prod(shape)) and tensor.data_ptr() % 64 == 0


def test_the_block_of_a_large_tensor_serves_the_next_of_its_size():
    prepare("cpu")  # after which freed memory stays in the heap
    pairs = [(empty([1216, 3072]), np.ones(400_000)) for _ in range(4)]
    found, between = {tensor.data_ptr() for tensor, _ in pairs}, [array for _, array in pairs]
    del pairs
    again = [empty([1216, 3072]) for _ in range(4)]
    assert {tensor.data_ptr() for tensor in again} == found and len(between) == 4


def test_zeros_apart_are_zeros_in_blocks_that_serve_again(monkeypatch):
    """A block serves any array of at least half its size; one that is too small is given back to the system."""
    monkeypatch.setattr(glm.cpu.arrays, "_free_blocks", free := [])
    before = resident()
    table = zeros_apart((64, 1 << 20))
    assert not table.any() and table.flags.writeable and not free
    table[:] = 1.0
    assert resident() - before > 0.9 * table.nbytes
    part = table[3:, :7]
    del table
    assert not free  # a view keeps the block
    del part
    (block,) = free
    again = zeros_apart((40, 1 << 20))
    assert not free and not again.any() and resident() - before < 64.1 * (1 << 22)
    del again
    assert free == [block]
    del block
    larger = zeros_apart((65, 1 << 20))
    assert not free and not larger.any() and resident() - before < 65.1 * (1 << 22)
    assert zeros_apart((2, 3)).tolist() == [[0.0] * 3] * 2 and not free


def resident() -> int:
    """Bytes of this process that are in memory."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmRSS")).split()[1])


def test_a_view_is_the_tensors_own_memory():
    tensor = numbers(2, 3)
    view(tensor)[1, 2] = 17.0
    assert float(tensor[1, 2]) == 17.0
    assert view(paddle.empty([0, 3])).shape == (0, 3) and view(paddle.to_tensor(2.0)).shape == ()
    assert view(paddle.to_tensor([1, 2])).dtype == np.int64


def test_threads_of_products_wait_actively(monkeypatch):
    openmp = glm.cpu.arrays.openmp()
    if openmp is None:
        pytest.skip("this build of Paddle brings no OpenMP runtime")
    before = openmp.kmp_get_blocktime()
    try:
        openmp.kmp_set_blocktime(0)
        monkeypatch.setattr(glm.cpu.arrays, "WANTED_BLOCKTIME", "17")  # the user's word stands
        glm.cpu.arrays.wait_actively()
        assert openmp.kmp_get_blocktime() == 0
        monkeypatch.setattr(glm.cpu.arrays, "WANTED_BLOCKTIME", None)
        glm.cpu.arrays.wait_actively()
        assert openmp.kmp_get_blocktime() == 200
    finally:
        openmp.kmp_set_blocktime(before)
