"""Files of torch.save: what Python's own pickler wrote in torch's name is read, hostile ones are refused, and torch
itself reads ours (opt-in)."""

import struct
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from glm.checkpoint import torch_files
from glm.checkpoint.pickled_values import tensors_in
from glm.checkpoint.tensors import LazyTensor
from glm.checkpoint.torch_files import read_torch
from glm.errors import InputError
from tools.checkpoint_tools import Tensor, write_torch

DTYPES = {"float32": "<f4", "float16": "<f2", "bfloat16": "<u2", "float64": "<f8", "int64": "<i8", "uint8": "|u1"}


@pytest.fixture
def file(tmp_path) -> Path:
    return tmp_path / "file.bin"


def numbers(*shape: int, dtype: str = "<f4") -> np.ndarray:
    return np.random.default_rng(1).integers(0, 200, shape).astype(dtype)


def read(path: Path) -> dict[str, LazyTensor]:
    return tensors_in(read_torch(path), path)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_tensors_come_through(file, dtype, legacy):
    arrays = {"a": numbers(3, 5, dtype=DTYPES[dtype]), "b.c": numbers(7, dtype=DTYPES[dtype])}
    write_torch(file, OrderedDict(arrays), dtype=dtype, legacy=legacy)
    tensors = read(file)
    assert list(tensors) == ["a", "b.c"]
    for name, tensor in tensors.items():
        assert (tensor.dtype, tensor.shape) == (dtype, arrays[name].shape)
        assert (tensor.load() == arrays[name]).all()


@pytest.mark.parametrize("legacy", [False, True])
def test_views_and_transposed_tensors(file, legacy):
    array = numbers(4, 6)
    tree = {
        "turned": Tensor(array, "float32", shape=(6, 4), strides=(1, 6)),
        "rows": Tensor(array, "float32", shape=(2, 6), strides=(6, 1), offset=12),
        "column": Tensor(array, "float32", shape=(4,), strides=(6,), offset=5),
    }
    write_torch(file, tree, legacy=legacy)
    tensors = read(file)
    assert (tensors["turned"].load() == array.T).all()
    assert (tensors["rows"].load() == array[2:]).all()
    assert (tensors["column"].load() == array[:, 5]).all()


def test_the_state_of_training_beside_the_weights(file):
    state = {"module": {"a": numbers(2)}, "rng": ("MT19937", np.arange(624, dtype=np.uint32)), "lr": np.float64(0.5)}
    write_torch(file, state, dtype="float32")
    tree = read_torch(file)
    assert (tree["module"]["a"].lazy().load() == numbers(2)).all()
    assert (tree["rng"][1].lazy().load() == np.arange(624)).all() and tree["lr"] == 0.5


CLAIMS = [
    {"count": 6},  # more or fewer items than the storage has
    {"count": 4},
    {"count": -5},
    {"count": 2**62},
    {"shape": (6,)},
    {"shape": (-5,)},
    {"shape": (2**40, 2**40), "strides": (1, 1)},
    {"shape": (5,), "strides": (0,)},  # one number that claims to be many
    {"shape": (10**12,), "strides": (0,)},
    {"shape": (5,), "strides": (-1,), "offset": 4},
    {"shape": (2, 2), "strides": (1, 1)},  # items that share numbers
    {"shape": (5,), "strides": (1, 1)},
    {"offset": 1},
    {"offset": -1},
    {"key": "7"},
    {"key": "../../etc/passwd"},
    {"shape": (1,) * 9 + (5,), "strides": (1,) * 10},
]


@pytest.mark.fault
@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("claims", CLAIMS, ids=str)
def test_tensors_that_lie_about_themselves(file, claims, legacy):
    write_torch(file, {"a": Tensor(numbers(5), "float32", **claims)}, legacy=legacy)
    with pytest.raises(InputError, match=str(file)):
        with torch_files.reading(file, "PyTorch file"):
            read(file)


@pytest.mark.fault
def test_compressed_members_are_refused(file):
    write_torch(file, {"a": np.zeros(1 << 20, "<f4")}, dtype="float32", compression=zipfile.ZIP_DEFLATED)
    assert file.stat().st_size < 10_000
    with pytest.raises(InputError, match="compressed or encrypted"):
        read(file)


def test_encrypted_members_are_refused(file):
    write_torch(file, {"a": numbers(3)}, dtype="float32")
    content = bytearray(file.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    file.write_bytes(content)
    with pytest.raises(InputError, match="compressed or encrypted"):
        read(file)


@pytest.mark.fault
def test_overlapping_members_are_refused(file):
    write_torch(file, {"a": numbers(50), "b": numbers(50)}, dtype="float32")
    content = bytearray(file.read_bytes())
    entries = [place for place in range(len(content)) if content[place : place + 4] == b"PK\x01\x02"]
    first, second = entries[2], entries[3]  # the two storages
    content[second + 42 : second + 46] = content[first + 42 : first + 46]
    file.write_bytes(content)
    with pytest.raises(InputError, match="members overlap"):
        read(file)


def test_members_beyond_the_end_are_refused(file):
    write_torch(file, {"a": numbers(50)}, dtype="float32")
    content = bytearray(file.read_bytes())
    entry = [place for place in range(len(content)) if content[place : place + 4] == b"PK\x01\x02"][2]
    content[entry + 20 : entry + 28] = struct.pack("<II", 2**31, 2**31)
    file.write_bytes(content)
    with pytest.raises(InputError, match="not where the directory says"):
        read(file)


@pytest.mark.fault
def test_a_directory_of_a_million_members_is_refused(file, monkeypatch):
    monkeypatch.setattr(torch_files, "DIRECTORY_LIMIT", 20_000)
    write_torch(file, {"a": numbers(3)}, dtype="float32", extra={f"archive/{number}": "" for number in range(1000)})
    with pytest.raises(InputError, match="a directory of [0-9]+ bytes"):
        read(file)


def test_big_endian_files_are_refused(file):
    write_torch(file, {"a": numbers(3)}, dtype="float32", order="big")
    with pytest.raises(InputError, match="little-endian"):
        read(file)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("extra", ["archive/data.pkl", "other/data.pkl", "archive/data/0"])
def test_two_answers_to_one_question_are_refused(file, extra):
    write_torch(file, {"a": numbers(3)}, dtype="float32", extra={extra: "x"})
    with pytest.raises(InputError):
        read(file)


def test_other_files_are_refused(file):
    for content in (b"", b"PK\x03\x04", b"hello", b"\x80\x02K\x01.", bytes(100)):
        file.write_bytes(content)
        with pytest.raises(InputError, match=str(file)):
            read(file)


# -- PyTorch itself

WRITE = """
import sys, torch
torch.manual_seed(0)
x = torch.randn(300, 40)
tree = {"plain": x, "half": x.half(), "bf16": x.bfloat16(), "turned": x.t(), "rows": x[7:9],
        "scalar": torch.tensor(3.5), "empty": torch.zeros(0, 3), "parameter": torch.nn.Parameter(x[:2].clone())}
module = torch.nn.Linear(4, 3)
tree |= module.state_dict()
torch.save(tree, sys.argv[1], _use_new_zipfile_serialization=sys.argv[2] == "True")
import numpy
numpy.savez(sys.argv[3], **{k: (v.detach().view(torch.int16) if v.dtype == torch.bfloat16 else v.detach()).numpy()
                            for k, v in tree.items()})
"""


@pytest.mark.parametrize("new", [True, False])
def test_files_of_torch_itself(torch_python, file, new):
    arrays = file.with_suffix(".npz")
    torch_python(WRITE, file, new, arrays)
    tensors = read(file)
    expected = np.load(arrays)
    assert set(tensors) == set(expected) and tensors["bf16"].dtype == "bfloat16"
    for name, tensor in tensors.items():
        assert tensor.load().tobytes() == expected[name].tobytes(), name


READ = """
import sys, torch, numpy
tree = torch.load(sys.argv[1], weights_only=True, mmap=sys.argv[2] == "True")
assert tree["n"] == 7 and tree["inner"]["flag"] is True
arrays = {k: (v.view(torch.int16) if v.dtype == torch.bfloat16 else v).numpy() for k, v in tree["inner"].items()
          if k != "flag"}
numpy.savez(sys.argv[3], **arrays)
"""


@pytest.mark.parametrize("mmap", [False, True])
def test_torch_reads_what_is_written(torch_python, file, mmap):
    arrays = {
        "f4": (numbers(300, 40), "float32"),
        "f2": (numbers(3, dtype="<f2"), "float16"),
        "b2": (numbers(3, 3, dtype="<u2"), "bfloat16"),
        "none": (numbers(0, 3), "float32"),
        "scalar": (np.array(3.5), "float64"),
    }
    lazy = {name: LazyTensor(array.shape, dtype, lambda array=array: array) for name, (array, dtype) in arrays.items()}
    torch_files.write_torch(file, {"n": 7, "inner": {**lazy, "flag": True}})
    found = file.with_suffix(".npz")
    torch_python(READ, file, mmap, found)
    loaded = np.load(found)
    for name, (array, _) in arrays.items():
        assert loaded[name].shape == array.shape and loaded[name].tobytes() == array.tobytes(), name
