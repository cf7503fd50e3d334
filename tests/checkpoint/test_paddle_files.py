"""Files of paddle.save: Paddle's own are read, Paddle reads ours."""

import os
import pickle

import numpy as np
import paddle
import pytest

from glm.checkpoint.paddle_files import read_paddle, write_paddle
from glm.checkpoint.tensors import LazyTensor
from glm.errors import InputError


@pytest.fixture
def state() -> dict[str, paddle.Tensor]:
    paddle.seed(3)
    values = paddle.randn([300, 20])
    return {
        "plain": values,
        "half": values.astype("float16"),
        "bf16": values.astype("bfloat16"),
        "turned": values.T,
        "scalar": paddle.to_tensor(2.5),
        "empty": paddle.zeros([0, 4]),
    }


def test_files_of_paddle_itself(tmp_path, state):
    paddle.save(state, str(tmp_path / "a.pdparams"))
    tensors = read_paddle(tmp_path / "a.pdparams")
    assert list(tensors) == list(state)
    for name, tensor in tensors.items():
        assert tensor.load().tobytes() == state[name].numpy().tobytes(), name
    assert [tensors[name].dtype for name in ("plain", "half", "bf16")] == ["float32", "float16", "bfloat16"]
    assert tensors["plain"].place is not None  # not read


def test_what_a_layer_saves(tmp_path):
    layer = paddle.nn.Linear(3, 4)
    paddle.save(layer.state_dict(), str(tmp_path / "a.pdparams"))
    tensors = read_paddle(tmp_path / "a.pdparams")
    assert {name: tensor.shape for name, tensor in tensors.items()} == {"weight": (3, 4), "bias": (4,)}


def test_paddle_reads_what_is_written(tmp_path, state):
    lazy = {
        name: LazyTensor(tuple(value.shape), str(value.dtype).split(".")[1], lambda value=value: value.numpy())
        for name, value in state.items()
    }
    write_paddle(tmp_path / "a.pdparams", lazy)
    loaded = paddle.load(str(tmp_path / "a.pdparams"))
    assert list(loaded) == list(state)
    for name, value in state.items():
        assert loaded[name].shape == value.shape and loaded[name].dtype == value.dtype
        assert loaded[name].numpy().tobytes() == value.numpy().tobytes(), name


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_file_that_calls_something_is_refused(tmp_path, protocol):
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'canary'}",)

    (tmp_path / "a.pdparams").write_bytes(pickle.dumps({"a": np.zeros(3), "b": Evil()}, protocol))
    with pytest.raises(InputError, match="refused, the file wants to call (posix|nt).system"):
        read_paddle(tmp_path / "a.pdparams")
    assert not (tmp_path / "canary").exists()
