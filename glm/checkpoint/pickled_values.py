"""Values that a pickle with weights may contain besides plain ones: tensors of torch and NumPy, and their
constructors."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from glm.checkpoint.tensors import ITEMS, LazyTensor, Place, check_sizes, tensor_of_file
from glm.errors import InputError, shown

NUMPY_DTYPES = {ITEMS[name].str[1:]: name for name in ITEMS if name != "bfloat16"}
STORAGE_DTYPES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}


@dataclass(frozen=True)
class UnreadBytes:
    """Bytes that were skipped."""

    place: Place

    def __len__(self) -> int:
        return self.place.end - self.place.start


@dataclass
class Storage:
    """The memory that torch's tensors are views of; legacy files give its place only later."""

    dtype: str
    count: int
    place: Place | None = None


@dataclass(frozen=True)
class TorchTensor:
    """A view of a storage."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def lazy(self) -> LazyTensor:
        if self.storage.place is None:
            raise ValueError("a storage is missing")
        return tensor_of_file(
            self.storage.place, shape=self.shape, dtype=self.storage.dtype, offset=self.offset, strides=self.strides
        )


@dataclass
class NumpyArray:
    """An array; its shape and bytes are set after it was made."""

    state: tuple = field(default=())

    def lazy(self) -> LazyTensor:
        _, shape, dtype, fortran, content = self.state
        dtype = NUMPY_DTYPES[dtype.name]
        check_sizes(shape)
        if isinstance(content, UnreadBytes):
            strides = tuple(math.prod(shape[:axis]) for axis in range(len(shape))) if fortran else None
            tensor = tensor_of_file(content.place, shape=shape, dtype=dtype, strides=strides)
        else:
            numbers = np.frombuffer(content, ITEMS[dtype]).reshape(shape, order="F" if fortran else "C")
            tensor = LazyTensor(shape, dtype, lambda: numbers)
        if tensor.nbytes != len(content):
            raise ValueError(f"an array of {tensor.nbytes} bytes is given {len(content)}")
        return tensor


@dataclass
class NumpyType:
    """A dtype by its short name; only little-endian order is allowed."""

    name: str


@dataclass
class Settings:
    """An `argparse.Namespace`; its attributes are set after it was made."""

    values: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Global:
    """A global that a pickle names, with its builder; none for a storage type or `ndarray`, which are only markers."""

    name: str
    build: Callable[..., Any] | None = None


def _ordered_dict(items: list | tuple = ()) -> dict:
    return {checked_key(name): value for name, value in items}


def _scalar(dtype: NumpyType, content: bytes) -> int | float:
    return np.frombuffer(content, ITEMS[NUMPY_DTYPES[dtype.name]], count=1)[0].item()


def _torch_tensor(storage, offset, shape, strides, requires_grad, hooks, metadata=None) -> TorchTensor:
    if not isinstance(storage, Storage):
        raise ValueError("a tensor without storage")
    return TorchTensor(storage, offset, _tuple(shape), _tuple(strides))


def _encoded(text: str, encoding: str) -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise ValueError(f"bytes in the encoding {shown(encoding)}")
    return text.encode("latin-1")


def _tuple(items: tuple | list = ()) -> tuple:
    if not isinstance(items, tuple | list):
        raise ValueError("a tuple is expected")
    return tuple(items)


ALLOWED = {
    "collections.OrderedDict": _ordered_dict,
    "torch.Size": _tuple,
    "torch._utils._rebuild_tensor_v2": _torch_tensor,
    "torch._utils._rebuild_parameter": lambda tensor, requires_grad, hooks: tensor,
    "numpy.ndarray": None,
    "numpy.dtype": lambda name, align=False, copy=True: NumpyType(name),
    "argparse.Namespace": Settings,  # how fairseq keeps the options of a run
    "_codecs.encode": _encoded,  # how protocol 2 writes bytes
    **{f"torch.{name}": None for name in STORAGE_DTYPES},
    **{f"{module}.set": _tuple for module in ("builtins", "__builtin__")},
    **{
        f"numpy.{core}.multiarray.{name}": builder
        for core in ("core", "_core")
        for name, builder in (("_reconstruct", lambda kind, shape, code: NumpyArray()), ("scalar", _scalar))
    },
}


def checked_key(name: Any) -> Any:
    """Checks a key of a dict: plain values only, because hashing nested tuples can take forever."""
    if not isinstance(name, str | int | float | None):
        raise ValueError(f"a {type(name).__name__} as a key")
    return name


def tensors_in(tree: Any, path: Path) -> dict[str, LazyTensor]:
    """Returns the tensors of a state dict.

    Raises:
        InputError: it is no dict of names to tensors.
    """
    if not isinstance(tree, dict):
        raise InputError(f"{path}: holds a {type(tree).__name__}, not a dict of tensors")
    for name, value in tree.items():
        if not isinstance(name, str) or not isinstance(value, TorchTensor | NumpyArray):
            raise InputError(f"{path}: {shown(str(name))} is a {type(value).__name__}, not a tensor")
    return {name: value.lazy() for name, value in tree.items()}
