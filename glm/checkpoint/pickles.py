"""Pickles, read without running them: what calls anything but the builders of tensors is refused.

The opcodes are decoded by `pickletools` and carried out here, on plain Python values. Python's own unpickler would not
do: it reads every byte of a checkpoint into memory, and gives a table of any length to whoever names a large index.
"""

import math
import os
import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from glm.checkpoint.tensors import ITEMS, LazyTensor, Place, check_sizes, shown, tensor_of_file
from glm.errors import InputError

LONGEST = 8192  # bytes of a text or a number; what is longer can only be the numbers of a tensor and is not read
MOST_READ = 1 << 26  # bytes of texts and numbers
MOST_OPCODES = 1_000_000  # glm-10b with its optimizer has about 100,000

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


class Window:
    """A part of an open file as a stream; long reads give a `Place` instead of bytes."""

    def __init__(self, file: BinaryIO, path: Path, start: int = 0, end: int | None = None):
        self.file, self.path = file, path
        self.end = os.fstat(file.fileno()).st_size if end is None else end
        self.left = MOST_READ
        file.seek(start)

    def tell(self) -> int:
        return self.file.tell()

    def read(self, length: int) -> "bytes | UnreadBytes":
        start = self.file.tell()
        if length < 0 or start + length > self.end:
            raise EOFError("the file ends within a value")
        if length > LONGEST:
            self.file.seek(length, os.SEEK_CUR)
            return UnreadBytes(Place(self.path, start, start + length))
        return self._counted(self.file.read(length))

    def readline(self) -> bytes:
        return self._counted(self.file.readline(min(LONGEST, self.end - self.file.tell())))

    def _counted(self, content: bytes) -> bytes:
        self.left -= len(content)
        if self.left < 0:
            raise ValueError(f"more than {MOST_READ} bytes of texts and numbers")
        return content


@dataclass(frozen=True)
class UnreadBytes:
    """Bytes that were passed over."""

    place: Place

    def __len__(self) -> int:
        return self.place.end - self.place.start


@dataclass
class Storage:
    """Numbers in a row, of which torch's tensors are parts; legacy files say only later where they are."""

    dtype: str
    count: int
    place: Place | None = None


@dataclass(frozen=True)
class TorchTensor:
    """A part of a storage."""

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
    """An array; what it consists of comes after it was made."""

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
    """A dtype by its short name; of the rest of it only little-endian order is allowed."""

    name: str


@dataclass(frozen=True)
class Global:
    """Something that a pickle names: its builder, or for a storage type and `ndarray`, which only stand for
    themselves, none."""

    name: str
    build: Callable[..., Any] | None = None


def _ordered_dict(items: list | tuple = ()) -> dict:
    return {_key(name): value for name, value in items}


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
    "_codecs.encode": _encoded,  # how protocol 2 writes bytes
    **{f"torch.{name}": None for name in STORAGE_DTYPES},
    **{f"{module}.set": _tuple for module in ("builtins", "__builtin__")},
    **{
        f"numpy.{core}.multiarray.{name}": builder
        for core in ("core", "_core")
        for name, builder in (("_reconstruct", lambda kind, shape, code: NumpyArray()), ("scalar", _scalar))
    },
}

PLAIN = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
# Opcodes whose argument is the value itself.
ARGUMENT = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8"),
}
EMPTY = {"EMPTY_DICT": dict, "EMPTY_LIST": list}


def read_pickle(window: Window, persistent: Callable[[Any], Storage] | None = None) -> Any:
    """The value of the pickle that begins at the window's position; tensors are `TorchTensor` or `NumpyArray`.

    Args:
        persistent: the storage that a persistent id stands for.

    Raises:
        InputError: it calls, or would make, anything that is not allowed; the text names it.
        Exception: any of `tensors.CORRUPT` if it is no pickle.
    """
    machine = _Machine(window, persistent)
    for number, (opcode, argument, _) in enumerate(pickletools.genops(window)):
        if number > MOST_OPCODES:
            raise ValueError(f"more than {MOST_OPCODES} opcodes")
        machine.carry_out(opcode.name, argument)
    return machine.stack.pop()


class _Machine:
    """The pickle machine: a stack, the marks on it, and the memo."""

    def __init__(self, window: Window, persistent: Callable[[Any], Storage] | None):
        self.path = window.path
        self.persistent = persistent
        self.stack: list = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def carry_out(self, name: str, argument: Any) -> None:
        if name in ARGUMENT:
            self.stack.append(argument)
        elif name in PLAIN:
            self.stack.append(PLAIN[name])
        elif name in EMPTY:
            self.stack.append(EMPTY[name]())
        elif hasattr(self, f"do_{name}"):
            getattr(self, f"do_{name}")(argument)
        elif name in ("INST", "EXT1", "EXT2", "EXT4"):
            self.refuse(str(argument))
        else:
            raise InputError(f"{self.path}: refused, the opcode {name} has no place in a checkpoint")

    def refuse(self, wanted: str) -> None:
        raise InputError(
            f"{self.path}: refused, the file wants to call {shown(wanted.replace(' ', '.'))}; only tensors, numbers, "
            "texts, dicts and lists are read"
        )

    def since_mark(self) -> list:
        place = self.marks.pop()
        items = self.stack[place:]
        del self.stack[place:]
        return items

    # -- structure

    def do_PROTO(self, argument):
        pass

    do_FRAME = do_STOP = do_PROTO

    def do_MARK(self, argument):
        self.marks.append(len(self.stack))

    def do_POP(self, argument):
        self.stack.pop()

    def do_BINPUT(self, index):
        self.memo[index] = self.stack[-1]

    do_LONG_BINPUT = do_PUT = do_BINPUT

    def do_MEMOIZE(self, argument):
        self.memo[len(self.memo)] = self.stack[-1]

    def do_BINGET(self, index):
        self.stack.append(self.memo[index])

    do_LONG_BINGET = do_GET = do_BINGET

    # -- containers

    def do_TUPLE(self, argument):
        self.stack.append(tuple(self.since_mark()))

    def do_TUPLE1(self, argument):
        self.stack[-1:] = [(self.stack[-1],)]

    def do_TUPLE2(self, argument):
        self.stack[-2:] = [(self.stack[-2], self.stack[-1])]

    def do_TUPLE3(self, argument):
        self.stack[-3:] = [(self.stack[-3], self.stack[-2], self.stack[-1])]

    def do_LIST(self, argument):
        self.stack.append(self.since_mark())

    def do_DICT(self, argument):
        items = self.since_mark()
        self.stack.append({_key(name): value for name, value in zip(items[::2], items[1::2], strict=True)})

    def do_APPEND(self, argument):
        value = self.stack.pop()
        self._top(list).append(value)

    def do_APPENDS(self, argument):
        values = self.since_mark()
        self._top(list).extend(values)

    def do_SETITEM(self, argument):
        value, name = self.stack.pop(), self.stack.pop()
        self._top(dict)[_key(name)] = value

    def do_SETITEMS(self, argument):
        items = self.since_mark()
        self._top(dict).update({_key(name): value for name, value in zip(items[::2], items[1::2], strict=True)})

    def _top(self, kind: type) -> Any:
        if type(self.stack[-1]) is not kind:
            raise ValueError(f"items are added to something that is no {kind.__name__}")
        return self.stack[-1]

    # -- what a pickle may name and make

    def do_GLOBAL(self, argument):
        name = argument.replace(" ", ".", 1)
        if name not in ALLOWED:
            self.refuse(name)
        self.stack.append(Global(name, ALLOWED[name]))

    def do_STACK_GLOBAL(self, argument):
        name, module = self.stack.pop(), self.stack.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise ValueError("a name that is no text")
        self.do_GLOBAL(f"{module} {name}")

    def do_REDUCE(self, argument):
        arguments, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, Global) or not isinstance(arguments, tuple):
            raise ValueError("a call of something that is no function")
        if function.build is None:
            self.refuse(function.name)
        self.stack.append(function.build(*arguments))

    def do_BUILD(self, argument):
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, NumpyArray) and isinstance(state, tuple) and len(state) == 5:
            target.state = state
        elif isinstance(target, NumpyType) and isinstance(state, tuple) and state[1] in ("<", "|"):
            pass
        elif type(target) is dict and isinstance(state, dict):
            pass  # attributes of an OrderedDict: torch keeps version numbers of modules there
        else:
            raise InputError(f"{self.path}: refused, the file sets the state of a {type(target).__name__}")

    def do_BINPERSID(self, argument):
        if self.persistent is None:
            raise ValueError("a persistent id")
        self.stack.append(self.persistent(self.stack.pop()))


def _key(name: Any) -> Any:
    """A key of a dict: plain values only, for the hash of nested tuples can take forever."""
    if not isinstance(name, str | int | float | None):
        raise ValueError(f"a {type(name).__name__} as a key")
    return name


def tensors_in(tree: Any, path: Path) -> dict[str, LazyTensor]:
    """The tensors of a state dict.

    Raises:
        InputError: it is no dict of names to tensors.
    """
    if not isinstance(tree, dict):
        raise InputError(f"{path}: holds a {type(tree).__name__}, not a dict of tensors")
    for name, value in tree.items():
        if not isinstance(name, str) or not isinstance(value, TorchTensor | NumpyArray):
            raise InputError(f"{path}: {shown(str(name))} is a {type(value).__name__}, not a tensor")
    return {name: value.lazy() for name, value in tree.items()}
