"""What compiled loops compute with, against NumPy in float64."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest
from numba import njit

import glm.cpu.loops
from glm.cpu.loops import _cache_folder, exponential, exponentiate, greatest, use_own_threads
from glm.cpu.vectors import dot_products, mixtures

_ten, _five = dot_products(10, 2), dot_products(5, 4)
_mix, _add = mixtures(5, 32), mixtures(5, 32, ahead=4096, add=True)


@njit
def dots(states, weight, output):
    for o in range(0, len(weight), 4):
        _five(states, weight, output, 0, o)
    for r in range(5, len(states), 10):
        for o in range(0, len(weight), 2):
            _ten(states, weight, output, r, o)


@njit
def mix(shares, values, length, sums, adds):
    for r in range(0, len(sums), 5):
        if adds:
            _add(shares, values, length, sums, r)
        else:
            _mix(shares, values, length, sums, r)


@njit
def exponentials(numbers):
    return np.array([exponential(number) for number in numbers])


def drawn(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("last", [0.0, 3.0, -50.0])
def test_shares_of_scores(last):
    """exp to a few units of the last place down to 2^-126, below which a share is as good as nothing."""
    scores = np.concatenate([np.linspace(-87, 0, 5000), [-200.0, -1e9]]).astype(np.float32) + np.float32(last)
    found = scores.copy()
    largest, total = exponentiate(found)
    want = np.exp(scores.astype(np.float64) - scores.max())
    np.testing.assert_allclose(found[:5000], want[:5000], rtol=8e-6)
    assert (found[5000:] < 2e-38).all()
    assert largest == scores.max() and total == pytest.approx(want.sum(), rel=1e-5)


@pytest.mark.parametrize(
    "numbers", [[0.0], [-0.0, -1.0], [-3.5, -3.25, -1e30], [1e-40, 2e-40], [5.0, np.inf, -np.inf]]
)
def test_the_greatest(numbers):
    for order in (numbers, numbers[::-1], [*numbers] * 30):
        assert greatest(np.array(order, np.float32)) == np.float32(max(numbers))


def test_the_greatest_of_many():
    for n in range(1, 200):
        numbers = drawn(n)
        assert greatest(numbers) == numbers.max() and greatest(-np.abs(numbers)) == -np.abs(numbers).min()


def test_ends_of_the_exponential():
    found = exponentials(np.array([0.0, 88.0, -87.0, 200.0, -200.0, np.inf, -np.inf, np.nan], np.float32))
    np.testing.assert_allclose(found[:3], np.exp([0.0, 88.0, -87.0]), rtol=8e-6)
    assert found[3] == found[5] == 2.0**127 * np.float32(1.0000001)
    assert found[4] == found[6] < 1.2e-38 and np.isnan(found[7])


@pytest.mark.parametrize("n", [1, 4, 5, 6, 14, 15, 16, 31])
@pytest.mark.parametrize(("inputs", "outputs"), [(16, 1), (48, 3), (64, 30)])
def test_dot_products_into_a_wider_table(n, inputs, outputs):
    """Rows of the output may have more room than there are outputs; it is left alone."""
    states, weight = drawn(n, inputs), drawn(outputs, inputs)
    table = np.full((n, outputs + 3), 7.0, np.float32)
    dots(states, weight, table)
    np.testing.assert_allclose(table[:, :outputs], states @ weight.T.astype(np.float64), atol=1e-4)
    assert (table[:, outputs:] == 7.0).all()


@pytest.mark.parametrize("n", [1, 4, 5, 6, 13])
@pytest.mark.parametrize("length", [0, 1, 17])
@pytest.mark.parametrize("adds", [False, True])
@pytest.mark.parametrize("turned", [False, True], ids=["rows", "columns"])
def test_mixtures(n, length, adds, turned):
    shares, values, sums = drawn(n, 20), drawn(20, 40), drawn(n, 35)
    before = sums.copy()
    mix(shares.T.copy().T if turned else shares, values, length, sums, adds)
    expected = shares[:, :length].astype(np.float64) @ values[:length, :32] + (before[:, :32] if adds else 0.0)
    np.testing.assert_allclose(sums[:, :32], expected, atol=1e-5)
    assert (sums[:, 32:] == before[:, 32:]).all()


def test_threads_are_those_of_products(monkeypatch):
    monkeypatch.setattr(glm.cpu.loops, "cpu_threads", lambda: 1)
    use_own_threads()
    assert numba.get_num_threads() == 1
    monkeypatch.undo()
    use_own_threads()
    assert numba.get_num_threads() == min(glm.cpu.loops.cpu_threads(), numba.config.NUMBA_NUM_THREADS)


PRODUCTS = """
import sys
import glm
import numpy as np
import paddle
from glm.cpu.arrays import openmp
from glm.cpu.loops import use_own_threads
from glm.runtime.device import prepare

def multiply(rows, inputs, outputs):
    random = np.random.default_rng(0)
    left, right = random.standard_normal((rows, inputs)), random.standard_normal((inputs, outputs))
    product = paddle.matmul(paddle.to_tensor(left, "float32"), paddle.to_tensor(right, "float32"))
    return hash(product.numpy().tobytes())

def state():
    products = [multiply(*shape) for shape in ((52, 2560, 32), (1, 4096, 64), (7, 999, 5), (300, 128, 512))]
    return products, openmp() and openmp().omp_get_max_threads()

prepare("cpu")
before = state()
use_own_threads()
sys.exit(before != state())
"""


@pytest.mark.parametrize("threads", ["1", "2", "3"])
def test_products_keep_their_threads_when_those_of_loops_start(threads):
    """On two cores or more a product of many inputs has other bits on two threads than on one."""
    environment = os.environ | {"OMP_NUM_THREADS": threads, "PYTHONPATH": str(Path(__file__).parents[2])}
    assert subprocess.run([sys.executable, "-c", PRODUCTS], env=environment).returncode == 0


# -- what is compiled is kept

STEP = """
import sys
import numpy as np
import paddle
from glm.models.glm.geometry import BlankInfilling
from glm.models.glm.configuration import GLMConfig
from glm.modules.decoding import prepare_decoding
from glm.models.glm.modeling import GLMForConditionalGeneration

config = GLMConfig(num_layers=2, hidden_size=int(sys.argv[1]), num_attention_heads=2, vocab_size=64)
model = GLMForConditionalGeneration(config)
model.eval()
ids = paddle.to_tensor([[3, 4, 60, 61]])
model(ids, paddle.zeros([1, 2, 4], "int64"), paddle.to_tensor([[[3, 1]]]))
print("numba" in sys.modules)
prepare_decoding(model, "float32", "cpu")
_, cache = model.prefill([BlankInfilling((60,), 61, 62).prompt([3, 4, 60])])
cache.reorder(np.zeros((1, 2), np.int64))
model.step(np.array([[5, 6]]), np.zeros(1, np.int64), cache)
"""


def run_step(folder: Path, hidden_size: int) -> str:
    environment = os.environ | {"NUMBA_CACHE_DIR": str(folder), "PYTHONPATH": str(Path(__file__).parents[2])}
    arguments = [sys.executable, "-c", STEP, str(hidden_size)]
    return subprocess.run(arguments, env=environment, check=True, capture_output=True, text=True).stdout


def run_loops(folder: Path, *order: str) -> dict[str, str]:
    tests = Path(__file__).parents[1]
    paths = {"NUMBA_CACHE_DIR": str(folder), "PYTHONPATH": os.pathsep.join([str(tests), str(tests.parent)])}
    arguments = [sys.executable, "-m", "tools.loops_in_order", *order]
    done = subprocess.run(arguments, env=os.environ | paths, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def check_second_process(folder: Path, *order: str, least: int) -> None:
    """It compiles nothing and computes the same, in whatever order loops are loaded.

    Each loop once brought copies of the functions it calls, compiled another time and adding up in another order;
    whose copies were taken depended on what had been compiled or loaded before.
    """
    first = run_loops(folder, *order)
    kept = {path: path.stat().st_mtime_ns for path in folder.rglob("*.nb?")}
    assert len([path for path in kept if path.suffix == ".nbc"]) > least
    for again in {order, order[::-1]}:
        assert run_loops(folder, *again) == first, again
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.nb?")} == kept


def test_a_second_process_compiles_nothing(tmp_path):
    check_second_process(tmp_path, "decode", least=5)


@pytest.mark.sweep
def test_a_second_process_computes_the_same(tmp_path):
    check_second_process(tmp_path, "train", "decode", least=10)


def test_a_model_of_other_heads_does_without_numba(tmp_path):
    assert run_step(tmp_path, 32).strip().endswith("False")


def test_where_it_is_kept(tmp_path, monkeypatch):
    """Beside the sources, under a name that changes with them; else among the user's caches; else nowhere."""
    sources = tmp_path / "sources"
    (sources / "__pycache__").mkdir(parents=True)
    (sources / "a.py").write_text("1")
    monkeypatch.setattr(glm.cpu.loops, "__file__", str(sources / "loops.py"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    first = _cache_folder()
    assert first.parent == sources / "__pycache__" and first.is_dir() and _cache_folder() == first
    (sources / "a.py").write_text("2")
    second = _cache_folder()
    assert second != first and second.parent == first.parent
    for blocked in (sources / "__pycache__" / second.name, tmp_path / "home"):
        if blocked.exists():
            blocked.rmdir()
        blocked.write_text("a file, where a folder cannot be made")
    assert _cache_folder() is None
    (tmp_path / "home").unlink()
    assert _cache_folder() == tmp_path / "home" / ".cache" / "glm" / second.name
