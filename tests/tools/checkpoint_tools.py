"""Small model folders for tests, and files in `torch.save`'s format, written by Python's own pickler.

Nothing here uses the product's readers or writers: weights are NumPy arrays in Paddle's layout under the toolkit's
names, bfloat16 as uint16.
"""

import contextlib
import io
import json
import pickle
import struct
import sys
import types
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import TensorSpec, serialize_file

TINY = {
    "num_layers": 2,
    "vocab_size": 48,
    "hidden_size": 24,
    "num_attention_heads": 12,
    "max_sequence_length": 9,
    "block_position_encoding": True,
}
ITEM = {"float32": "<f4", "float16": "<f2", "bfloat16": "<u2", "float64": "<f8", "int64": "<i8", "uint8": "|u1"}
TORCH_STORAGE = {
    "float32": "FloatStorage",
    "float16": "HalfStorage",
    "bfloat16": "BFloat16Storage",
    "float64": "DoubleStorage",
    "int64": "LongStorage",
    "uint8": "ByteStorage",
}
LINEAR = ("query_key_value.weight", "attention.dense.weight", "h_to_4h.weight", "4h_to_h.weight")

Arrays = dict[str, np.ndarray]


def tiny_weights(*, dtype: str = "float16", seed: int = 0, **sizes) -> Arrays:
    """Random weights of `TINY`, in which no two numbers have the same bits."""
    config = {**TINY, **sizes}
    H, V, rows = config["hidden_size"], config["vocab_size"], config["max_sequence_length"]
    shapes = {"word_embeddings.weight": (V, H)}
    if config["block_position_encoding"]:
        shapes["transformer.position_embeddings.weight"] = (rows + 1, H)
        shapes["transformer.block_position_embeddings.weight"] = (rows + 1, H)
    else:
        shapes["transformer.position_embeddings.weight"] = (rows, H)
    for layer in range(config["num_layers"]):
        at = f"transformer.layers.{layer}."
        for norm in ("input_layernorm", "post_attention_layernorm"):
            shapes |= {f"{at}{norm}.weight": (H,), f"{at}{norm}.bias": (H,)}
        for linear, inner, outer in (
            ("attention.query_key_value", H, 3 * H),
            ("attention.dense", H, H),
            ("mlp.dense_h_to_4h", H, 4 * H),
            ("mlp.dense_4h_to_h", 4 * H, H),
        ):
            shapes |= {f"{at}{linear}.weight": (inner, outer), f"{at}{linear}.bias": (outer,)}
    shapes |= {"transformer.final_layernorm.weight": (H,), "transformer.final_layernorm.bias": (H,)}
    generator = np.random.default_rng(seed)
    item = np.dtype(ITEM[dtype])
    draw = {
        "<u2": lambda shape: generator.integers(0, 0x7F00, shape),
        "<f2": lambda shape: generator.normal(size=shape),
        "<f4": lambda shape: generator.normal(size=shape),
    }[item.str]
    return {f"glm.{name}": draw(shape).astype(item) for name, shape in shapes.items()}


def as_torch(weights: Arrays, *, prefix: str = "") -> Arrays:
    """Transposes linear weights to PyTorch's [out, in] and drops `glm.` from names."""
    return {
        prefix + name.removeprefix("glm."): np.ascontiguousarray(array.T) if name.endswith(LINEAR) else array
        for name, array in weights.items()
    }


def megatron_rank(weights: Arrays, rank: int, degree: int) -> Arrays:
    """Returns a rank's part of weights stored as [out, in], by the rules of THUDM/GLM's change_mp.py."""

    def part(array: np.ndarray, axis: int) -> np.ndarray:
        size = array.shape[axis] // degree
        return np.take(array, range(rank * size, (rank + 1) * size), axis=axis)

    parts = {}
    for name, array in weights.items():
        if "query_key_value" in name:
            third = len(array) // 3
            array = np.concatenate([part(array[start : start + third], 0) for start in (0, third, 2 * third)])
        elif name.startswith("word_embeddings") or "dense_h_to_4h" in name:
            array = part(array, 0)
        elif array.ndim == 2 and "position_embeddings" not in name:
            array = part(array, 1)
        parts[name] = array
    return parts


# -- folders


def write_glm(folder: Path, weights: Arrays, *, dtype: str = "float16", **config) -> Path:
    """Writes a model folder of the toolkit with the safetensors library."""
    folder.mkdir(parents=True)
    write_safetensors(folder / "model.safetensors", weights, dtype=dtype)
    write_config(folder, **config)
    return folder


def write_safetensors(path: Path, weights: Arrays, *, dtype: str, framework: str = "np") -> None:
    """Writes with the library, which takes bfloat16 only as a pointer."""
    tensors = {
        name: TensorSpec(dtype=dtype, shape=array.shape, data_ptr=array.ctypes.data, data_len=array.nbytes)
        for name, array in weights.items()
    }
    serialize_file(tensors, str(path), {"format": framework})
    path.chmod(0o644)  # the library makes it readable by its owner only


def write_config(folder: Path, **changes) -> None:
    (folder / "config.json").write_text(json.dumps({**TINY, **changes}), encoding="utf-8")


def write_megatron(folder: Path, weights: Arrays, *, degree: int, dtype: str = "float16", tracker: str = "latest"):
    """Writes a folder as THUDM/GLM's training does: rank files with the state of training beside the weights."""
    (folder / "1000").mkdir(parents=True)
    (folder / tracker).write_text("1000\n")
    for rank in range(degree):
        state = {
            "module": OrderedDict(megatron_rank(as_torch(weights), rank, degree)),
            "iteration": 1000,
            "random_rng_state": (3, tuple(range(625)), None),
            "np_rng_state": ("MT19937", np.arange(624, dtype=np.uint32), 5, 0, 0.0),
            "skipped": {"scale": 1.5, "names": ["a", "b"]},
        }
        write_torch(folder / "1000" / f"mp_rank_{rank:02}_model_states.pt", state, dtype=dtype)
    return folder


def snapshot(folder: Path) -> dict[str, bytes]:
    """Returns every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# -- files of torch.save


class Tensor:
    """A tensor for the pickler: contiguous numbers of a storage, or sizes that a test makes up."""

    def __init__(self, array: np.ndarray, dtype: str, **claims: Any):
        self.array, self.dtype, self.claims = array, dtype, claims


@contextlib.contextmanager
def _torch_names() -> Iterator[types.ModuleType]:
    """Adds modules with torch's names, because the pickler looks up the names that it writes."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    torch._utils = utils

    def _rebuild_tensor_v2(*arguments):
        raise NotImplementedError

    _rebuild_tensor_v2.__module__, _rebuild_tensor_v2.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2
    for name in TORCH_STORAGE.values():
        setattr(torch, name, type(name, (), {"__module__": "torch"}))
    before = {name: sys.modules.get(name) for name in ("torch", "torch._utils")}
    sys.modules |= {"torch": torch, "torch._utils": utils}
    try:
        yield torch
    finally:
        for name, module in before.items():
            sys.modules.pop(name)
            if module is not None:
                sys.modules[name] = module


class _Storage:
    def __init__(self, kind: type, key: str, count: int):
        self.kind, self.key, self.count = kind, key, count


class _Pickler(pickle.Pickler):
    def __init__(self, file, torch, dtype: str, *, legacy: bool):
        super().__init__(file, protocol=2)
        self.torch, self.dtype, self.legacy = torch, dtype, legacy
        self.stored: list[np.ndarray] = []

    def persistent_id(self, value):
        if isinstance(value, _Storage):
            view = (None,) if self.legacy else ()
            return ("storage", value.kind, value.key, "cpu", value.count, *view)
        return None

    def reducer_override(self, value):
        if isinstance(value, np.ndarray) and value.dtype != np.uint32:
            value = Tensor(value, self.dtype)
        if not isinstance(value, Tensor):
            return NotImplemented
        claims = {
            "count": value.array.size,
            "offset": 0,
            "shape": value.array.shape,
            "strides": tuple(int(np.prod(value.array.shape[axis + 1 :])) for axis in range(value.array.ndim)),
            "key": str(len(self.stored)),
            **value.claims,
        }
        self.stored.append(value.array)
        storage = _Storage(getattr(self.torch, TORCH_STORAGE[value.dtype]), claims["key"], claims["count"])
        arguments = (storage, claims["offset"], claims["shape"], claims["strides"], False, OrderedDict())
        return self.torch._utils._rebuild_tensor_v2, arguments


def write_torch(path: Path, tree: Any, *, dtype: str = "float16", legacy: bool = False, **zip_changes) -> None:
    """Writes a file as `torch.save` does; arrays and `Tensor` become tensors of one dtype.

    Args:
        zip_changes: `compression` of members, `extra` members, `order` of the bytes.
    """
    pickled = io.BytesIO()
    with _torch_names() as torch:
        pickler = _Pickler(pickled, torch, dtype, legacy=legacy)
        pickler.dump(tree)
    stored = [np.ascontiguousarray(array) for array in pickler.stored]
    if legacy:
        _write_legacy(path, pickled.getvalue(), stored)
        return
    with zipfile.ZipFile(path, "w", zip_changes.get("compression", zipfile.ZIP_STORED)) as archive:
        archive.writestr("archive/data.pkl", pickled.getvalue())
        archive.writestr("archive/byteorder", zip_changes.get("order", "little"))
        for key, array in enumerate(stored):
            archive.writestr(f"archive/data/{key}", array.tobytes())
        for name, content in zip_changes.get("extra", {}).items():
            archive.writestr(name, content)
        archive.writestr("archive/version", "3\n")


def _write_legacy(path: Path, pickled: bytes, stored: list[np.ndarray]) -> None:
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    with path.open("wb") as file:
        for value in (0x1950A86A20F9469CFC6C, 1001, system):
            file.write(pickle.dumps(value, protocol=2))
        file.write(pickled)
        file.write(pickle.dumps([str(key) for key in range(len(stored))], protocol=2))
        for array in stored:
            file.write(struct.pack("<q", array.size) + array.tobytes())
