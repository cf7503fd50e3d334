"""Tensors in files, read lazily, so that models pass through memory one tensor at a time."""

import contextlib
import math
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from tqdm import tqdm

from glm.errors import InputError, shown
from glm.runtime.settings_file import stand_in

# NumPy has no bfloat16: values are held as their 16 bits.
ITEMS = {
    "float64": np.dtype("<f8"),
    "float32": np.dtype("<f4"),
    "float16": np.dtype("<f2"),
    "bfloat16": np.dtype("<u2"),
    "int64": np.dtype("<i8"),
    "int32": np.dtype("<i4"),
    "int16": np.dtype("<i2"),
    "int8": np.dtype("<i1"),
    "uint64": np.dtype("<u8"),
    "uint32": np.dtype("<u4"),
    "uint16": np.dtype("<u2"),
    "uint8": np.dtype("<u1"),
    "bool": np.dtype("?"),
}
WEIGHT_DTYPES = ("float64", "float32", "float16", "bfloat16")
CHUNK = 1 << 24  # bytes written at a time
MOST_AXES = 8
LARGEST = 1 << 48  # largest size of an axis

# Exceptions that reading a corrupt file can raise in NumPy, struct, zipfile, safetensors and our own readers.
CORRUPT = (
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    EOFError,
    NotImplementedError,
    RuntimeError,
    AssertionError,
    struct.error,
    zipfile.BadZipFile,
    SafetensorError,
)


@dataclass(frozen=True)
class Place:
    """A range of bytes in a file: a tensor, or the storage that it is part of."""

    path: Path
    start: int
    end: int


@dataclass(frozen=True)
class LazyTensor:
    """A tensor's metadata, and how to read it.

    Attributes:
        shape: any rank.
        dtype: a key of `ITEMS`.
        load: the numbers [shape], bfloat16 as uint16; may be a read-only view of a file.
        place: the bytes of the file it is taken from; None if it is made of several.
    """

    shape: tuple[int, ...]
    dtype: str
    load: Callable[[], np.ndarray]
    place: Place | None = None

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * ITEMS[self.dtype].itemsize

    def transposed(self) -> "LazyTensor":
        """Returns the tensor with its axes reversed."""
        return LazyTensor(self.shape[::-1], self.dtype, lambda: self.load().T, self.place)

    def float32(self) -> np.ndarray:
        """Returns a weight's numbers in float32 [shape]."""
        numbers = self.load()
        if self.dtype == "bfloat16":
            return (numbers.astype(np.uint32) << 16).view(np.float32)
        return numbers.astype(np.float32, copy=False)


def tensor_of_file(
    storage: Place, *, shape: tuple[int, ...], dtype: str, offset: int = 0, strides: tuple[int, ...] | None = None
) -> LazyTensor:
    """Makes a lazy tensor of numbers in a file.

    Args:
        storage: bytes of which the tensor is a part.
        offset: number of items in the storage before the tensor's first.
        strides: items from one index to the next, for each axis; None if the numbers lie row by row.

    Raises:
        ValueError: a negative size, or the tensor is not within its storage.
    """
    check_sizes(shape)
    strides = row_by_row(shape) if strides is None else strides
    check_sizes(strides)
    check_sizes((offset,))
    if len(strides) != len(shape):
        raise ValueError(f"{len(shape)} sizes, but {len(strides)} strides")
    item = ITEMS[dtype]
    count = math.prod(shape)
    span = 1 + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True)) if count else 0
    start = storage.start + offset * item.itemsize
    # With a stride of 0 a few bytes could claim any size; no weight has one.
    if start + span * item.itemsize > storage.end or count > span:
        raise ValueError(f"a tensor of {count} numbers does not fit into its storage")

    def load() -> np.ndarray:
        if not count:
            return np.zeros(shape, item)
        numbers = np.memmap(storage.path, mode="r", dtype=np.uint8, offset=start, shape=span * item.itemsize)
        return np.ndarray(shape, item, buffer=numbers, strides=[stride * item.itemsize for stride in strides])

    return LazyTensor(shape, dtype, load, Place(storage.path, start, start + span * item.itemsize))


def check_sizes(sizes: tuple[int, ...]) -> None:
    """Raises ValueError if these cannot be a tensor's axes, or its strides."""
    if not isinstance(sizes, tuple) or len(sizes) > MOST_AXES:
        raise ValueError(f"the sizes of a tensor are no tuple, or more than {MOST_AXES}")
    if not all(type(size) is int and 0 <= size <= LARGEST for size in sizes):
        raise ValueError("a size is negative, too large or no number")


def row_by_row(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the strides, in items, of row-major order."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def check_no_overlap(tensors: Mapping[str, LazyTensor]) -> None:
    """Raises InputError if two of the tensors share bytes of a file."""
    placed = ((tensor.place, name) for name, tensor in tensors.items() if tensor.place and tensor.nbytes)
    ordered = sorted(placed, key=lambda pair: (str(pair[0].path), pair[0].start))
    for (place, name), (following, other) in zip(ordered, ordered[1:], strict=False):
        if place.path == following.path and following.start < place.end:
            raise InputError(f"{place.path}: the bytes of {shown(name)} and {shown(other)} overlap")


def with_rows(tensor: LazyTensor, rows: int, std: float = 0.0) -> LazyTensor:
    """Resizes a table: takes its first rows, and adds rows from N(0, std), the same ones each time."""
    if not tensor.shape or tensor.shape[0] == rows:
        return tensor

    def load() -> np.ndarray:
        numbers = tensor.load()[:rows]
        new = np.random.default_rng(rows).normal(0.0, std, (rows - len(numbers), *numbers.shape[1:]))
        return np.concatenate([numbers, new.astype(numbers.dtype)])

    return LazyTensor((rows, *tensor.shape[1:]), tensor.dtype, load)


def same_numbers(one: LazyTensor, other: LazyTensor) -> bool:
    """Whether two tensors hold the same numbers: they share a file's bytes, or their values are equal."""
    if (one.shape, one.dtype) != (other.shape, other.dtype):
        return False
    return (one.place is not None and one.place == other.place) or bool(np.array_equal(one.load(), other.load()))


@contextlib.contextmanager
def reading(path: Path, kind: str) -> Iterator[None]:
    """Converts what a corrupt file raises to an InputError that names the file."""
    try:
        yield
    except InputError:
        raise
    except (RecursionError, MemoryError) as error:
        raise InputError(f"{path}: not a readable {kind} (nested too deeply or too large)") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    except CORRUPT as error:
        with path.open("rb") as file:
            reason = stand_in(file.read(100)) or shown(str(error), 300) or type(error).__name__
        raise InputError(f"{path}: not a readable {kind} ({reason})") from error


def chunks(tensor: LazyTensor) -> Iterator[memoryview]:
    """Yields the bytes of a tensor, row by row."""
    numbers = np.ascontiguousarray(tensor.load()).reshape(-1).view(np.uint8)
    for start in range(0, numbers.size, CHUNK):
        yield numbers[start : start + CHUNK].data


def with_progress(tensors: Mapping[str, LazyTensor], title: str) -> Iterator[tuple[str, LazyTensor]]:
    """Iterates over tensors with a progress bar of their bytes on standard error, if that is a terminal."""
    total = sum(tensor.nbytes for tensor in tensors.values())
    with tqdm(total=total, desc=title, unit="B", unit_scale=True, disable=None) as bar:
        for name, tensor in tensors.items():
            yield name, tensor
            bar.update(tensor.nbytes)
