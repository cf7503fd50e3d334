"""Reads pickles without executing them: a pickle that calls anything but constructors of tensors is refused.

`pickletools` decodes the opcodes, and they are carried out here on plain Python values. Python's own unpickler cannot
be
used: it reads every byte of a file into memory, and allocates a memo of any length for a large index.
"""

import os
import pickle
import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from glm.checkpoint.pickled_values import (
    ALLOWED,
    Global,
    NumpyArray,
    NumpyType,
    Settings,
    Storage,
    UnreadBytes,
    checked_key,
)
from glm.checkpoint.tensors import Place
from glm.errors import InputError, shown

LONGEST = 8192  # bytes of a string or an integer; anything longer can only be a tensor's data and is not read
MOST_READ = 1 << 26  # bytes of strings and numbers
MOST_OPCODES = 1_000_000  # glm-10b with its optimizer has about 100,000


class Window:
    """A part of an open file as a stream; long reads return a `Place` in place of bytes."""

    def __init__(self, file: BinaryIO, path: Path, start: int = 0, end: int | None = None):
        self.file, self.path = file, path
        self.end = os.fstat(file.fileno()).st_size if end is None else end
        self.left = MOST_READ
        file.seek(start)

    def tell(self) -> int:
        return self.file.tell()

    def read(self, length: int) -> bytes | UnreadBytes:
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
            raise ValueError(f"more than {MOST_READ} bytes of strings and numbers")
        return content


PLAIN = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
# Opcodes whose argument is the value itself.
ARGUMENT = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8"),
}
EMPTY = {"EMPTY_DICT": dict, "EMPTY_LIST": list}


def read_pickle(window: Window, persistent: Callable[[Any], Storage] | None = None) -> Any:
    """Reads the pickle at the window's position; tensors are `TorchTensor` or `NumpyArray`.

    Args:
        persistent: returns the storage of a persistent id.

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
            raise InputError(f"{self.path}: refused, the opcode {name} has no place in a file of weights")

    def refuse(self, wanted: str) -> None:
        raise InputError(
            f"{self.path}: refused, the file wants to call {shown(wanted.replace(' ', '.'))}; only tensors, numbers, "
            "strings, dicts and lists are read"
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
        self.stack.append({checked_key(name): value for name, value in zip(items[::2], items[1::2], strict=True)})

    def do_APPEND(self, argument):
        value = self.stack.pop()
        self._top(list).append(value)

    def do_APPENDS(self, argument):
        values = self.since_mark()
        self._top(list).extend(values)

    def do_SETITEM(self, argument):
        value, name = self.stack.pop(), self.stack.pop()
        self._top(dict)[checked_key(name)] = value

    def do_SETITEMS(self, argument):
        items = self.since_mark()
        self._top(dict).update({checked_key(name): value for name, value in zip(items[::2], items[1::2], strict=True)})

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

    def do_NEWOBJ(self, argument):
        arguments, kind = self.stack.pop(), self.stack.pop()
        if not isinstance(kind, Global) or kind.build is not Settings or arguments != ():
            self.refuse(getattr(kind, "name", "something that is no class"))
        self.stack.append(Settings())

    def do_BUILD(self, argument):
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, NumpyArray) and isinstance(state, tuple) and len(state) == 5:
            target.state = state
        elif isinstance(target, NumpyType) and isinstance(state, tuple) and state[1] in ("<", "|"):
            pass
        elif isinstance(target, Settings) and isinstance(state, dict):
            target.values = {checked_key(name): value for name, value in state.items()}
        elif type(target) is dict and isinstance(state, dict):
            pass  # attributes of an OrderedDict: torch keeps version numbers of modules there
        else:
            raise InputError(f"{self.path}: refused, the file sets the state of a {type(target).__name__}")

    def do_BINPERSID(self, argument):
        if self.persistent is None:
            raise ValueError("a persistent id")
        self.stack.append(self.persistent(self.stack.pop()))


def plain(value: Any) -> bytes:
    """Returns the opcodes that make a string, a number or a tuple of these."""
    return pickle.dumps(value, protocol=2)[2:-1]  # without the protocol before and STOP behind
