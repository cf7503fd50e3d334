"""Pickles: plain values and tensors come through, nothing is called, nothing grows without bound."""

import collections
import os
import pickle
import struct
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from glm.checkpoint.pickled_values import NumpyArray, tensors_in
from glm.checkpoint.pickles import LONGEST, Window, read_pickle
from glm.checkpoint.tensors import CORRUPT, reading
from glm.errors import InputError


def read(path: Path, content: bytes):
    path.write_bytes(content)
    with path.open("rb") as file, reading(path, "pickle"):
        return read_pickle(Window(file, path))


@pytest.fixture
def file(tmp_path) -> Path:
    return tmp_path / "file.pkl"


PLAIN = {
    "numbers": [0, 1, -1, 255, 256, 65536, -(2**31), 2**31, 2**63, -(2**100), 1.5, -0.0, float("inf")],
    "texts": ("", "问题", "a" * 300, b"bytes"),
    "nested": {"a": {"b": [None, True, False, ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4))]}, 3: [], "same": {}},
}


@pytest.mark.parametrize("protocol", range(2, 6))
def test_plain_values_come_through(file, protocol):
    assert read(file, pickle.dumps(PLAIN, protocol)) == PLAIN


@pytest.mark.parametrize("protocol", range(2, 5))
def test_shared_values_ordered_dicts_sets_and_scalars(file, protocol):
    shared = ["x"]
    tree = {"one": shared, "two": shared, "ordered": collections.OrderedDict(b=1, a=2), "rate": np.float64(0.25)}
    found = read(file, pickle.dumps(tree, protocol))
    assert found == {"one": ["x"], "two": ["x"], "ordered": {"b": 1, "a": 2}, "rate": 0.25}
    assert list(found["ordered"]) == ["b", "a"]


@pytest.mark.parametrize("protocol", range(2, 5))
@pytest.mark.parametrize("dtype", ["<f4", "<f2", "<f8", "<i8", "<u2", "|u1", "|b1"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_of_every_layout(file, protocol, dtype, order):
    array = np.asarray(np.random.default_rng(0).integers(0, 2, (3, 4, 5)), dtype=dtype, order=order)
    tensors = tensors_in(read(file, pickle.dumps({"a": array}, protocol)), file)
    assert tensors["a"].shape == (3, 4, 5) and (tensors["a"].load() == array).all()


@pytest.mark.parametrize("order", ["C", "F"])
def test_large_arrays_are_not_read_until_they_are_wanted(file, order):
    array = np.asarray(np.random.default_rng(0).normal(size=(500, 700)), order=order)
    content = pickle.dumps({"a": array, "empty": np.zeros((0, 3))}, 4)
    file.write_bytes(content)
    tracemalloc.start()
    try:
        with file.open("rb") as stream:
            tensors = tensors_in(read_pickle(Window(stream, file)), file)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 200_000 < array.nbytes
    assert (tensors["a"].load() == array).all() and tensors["empty"].load().shape == (0, 3)


# -- hostile files


class Call:
    """Pickles as a call of anything."""

    def __init__(self, function, *arguments, state=None):
        self.made = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.made


CALLS = [
    ("os", "system", ("touch CANARY",)),
    ("builtins", "eval", ("open('CANARY', 'w')",)),
    ("builtins", "exec", ("open('CANARY', 'w')",)),
    ("builtins", "getattr", ("", "join")),
    ("builtins", "open", ("CANARY", "w")),
    ("builtins", "__import__", ("os",)),
    ("builtins", "map", (len, ["x"])),
    ("builtins", "bytearray", (10**9,)),
    ("builtins", "print", ("x",)),
    ("os", "unlink", ("CANARY",)),
    ("subprocess", "Popen", ("touch CANARY",)),
    ("pickle", "loads", (b"",)),
    ("importlib", "import_module", ("os",)),
    ("functools", "partial", (len,)),
    ("operator", "attrgetter", ("x",)),
    ("pathlib", "Path", ("CANARY",)),
    ("numpy", "load", ("CANARY",)),
    ("numpy", "zeros", (10**9,)),
    ("numpy", "fromfile", ("CANARY",)),
    ("collections", "Counter", ("x",)),
    ("collections", "defaultdict", (list,)),
    ("copyreg", "_reconstructor", (object, object, None)),
    ("types", "CodeType", ()),
    ("socket", "create_connection", (("localhost", 1),)),
    ("shutil", "rmtree", ("CANARY",)),
]


def named(module: str, name: str, arguments: tuple, protocol: int) -> bytes:
    """A dict with a call in it, written opcode by opcode: picklers refuse to write some of them."""
    if protocol >= 4:
        function = b"".join(b"\x8c" + bytes([len(text)]) + text.encode() for text in (module, name)) + b"\x93"
    else:
        function = f"c{module}\n{name}\n".encode()
    values = b"".join(pickle.dumps(value, 2)[2:-1] for value in arguments if isinstance(value, str | int | bytes))
    return bytes([0x80, protocol]) + b"}X\x01\x00\x00\x00a" + function + b"(" + values + b"tRs."


@pytest.mark.fault
@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize(("module", "name", "arguments"), CALLS, ids=lambda value: str(value)[:20])
def test_nothing_is_called(tmp_path, monkeypatch, file, module, name, arguments, protocol):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as caught:
        read(file, named(module, name, arguments, protocol))
    assert f"refused, the file wants to call {module}.{name};" in str(caught.value) and str(file) in str(caught.value)
    assert not Path("CANARY").exists()


@pytest.mark.parametrize("protocol", range(6))
def test_what_picklers_write_of_a_call_is_refused(tmp_path, monkeypatch, file, protocol):
    """Each of these Python's own unpickler would carry out."""
    monkeypatch.chdir(tmp_path)
    for evil in (Call(os.system, "touch CANARY"), [Call(eval, "1")], {"a": {"b": (Call(print, 1),)}}):
        with pytest.raises(InputError, match="refused"):
            read(file, pickle.dumps(evil, protocol))
    assert not Path("CANARY").exists()


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_objects_are_refused(file, protocol):
    for thing in (
        Path("x"),
        pytest,
        ValueError("x"),
        slice(1),
        range(3),
        1j,
        frozenset([1]),
        bytearray(b"x"),
        object(),
    ):
        try:
            content = pickle.dumps(thing, protocol)
        except TypeError:  # a module cannot be pickled at all
            continue
        with pytest.raises(InputError, match="refused"):
            read(file, content)


def test_an_array_of_objects_is_refused(file):
    array = np.array([Call(os.system, "true"), 1], dtype=object)
    with pytest.raises(InputError):
        tensors_in(read(file, pickle.dumps({"a": array}, 4)), file)


@pytest.mark.parametrize(
    "content",
    [
        b"(S'touch CANARY'\nios\nsystem\n.",  # INST
        b"(cos\nsystem\nS'x'\no.",  # OBJ
        b"\x80\x02cos\nsystem\n)\x81.",  # NEWOBJ
        b"\x80\x02ctorch\nFloatStorage\n)\x81.",  # NEWOBJ of an allowed name
        b"\x80\x02ctorch\nFloatStorage\n)R.",  # a call of what only stands for itself
        b"\x80\x02\x82\x01.",  # EXT1
        b"\x80\x02}X\x01\x00\x00\x00ab.",  # BUILD with a text
        b"\x80\x02]}b.",  # BUILD of a list
    ],
)
def test_other_ways_to_make_objects_are_refused(file, content):
    with pytest.raises(InputError):
        read(file, content)


def test_a_call_behind_the_end_is_never_reached(file):
    assert read(file, pickle.dumps(1, 2) + b"cos\nsystem\n(X\x01\x00\x00\x00ltR.") == 1


def laughs(depth: int) -> bytes:
    """A tuple of two, of two, of two … with 2 ** depth leaves, in a few bytes."""
    return b"\x80\x02]" + b"q\x00h\x00h\x00\x86" * depth


@pytest.mark.fault
@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02}" + laughs(200)[2:] + b"Ns.",  # as a key: its hash would take forever
        laughs(200) + b"0}b.",
        b"\x80\x02]r\xff\xff\xff\xff.",  # a memo index of 4 billion is only a key
        b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"x.",  # bytes without end
        b"\x80\x04\x8d" + struct.pack("<Q", 2**40) + b"x.",  # a text without end
        b"\x80\x02\x8b" + struct.pack("<i", -5) + b"x.",  # a number of negative length
        b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b"x.",
        b"\x80\x02X" + struct.pack("<I", LONGEST + 1) + b"x" * (LONGEST + 1) + b".",  # a text too long to be a name
        b"\x80\x02I" + b"9" * 5000 + b"\n.",
        b"\x80\x02" + b"]" * 50_000 + b".",  # too many opcodes
        b"\x80\x02h\x05.",  # nothing there
        b"\x80\x02\x86.",
        b"\x80\x02t.",
        b"\x80\x02.",
        b"",
        b"\xff" * 100,
        b"no pickle",
    ],
    ids=range(17),
)
def test_bombs_end_soon_and_in_little_memory(file, content, monkeypatch):
    monkeypatch.setattr("glm.checkpoint.pickles.MOST_OPCODES", 40_000)
    start = time.perf_counter()
    tracemalloc.start()
    try:
        with pytest.raises(InputError):
            tensors_in(read(file, content), file)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < (1 << 24) and time.perf_counter() - start < 20


def test_texts_and_numbers_have_a_limit_together(file, monkeypatch):
    monkeypatch.setattr("glm.checkpoint.pickles.MOST_READ", 100_000)
    text = pickle.dumps("x" * 8000, 2)[2:-1]
    assert read(file, b"\x80\x02(" + text * 10 + b"l.") == ["x" * 8000] * 10
    with pytest.raises(InputError, match="more than 100000 bytes"):
        read(file, b"\x80\x02(" + text * 14 + b"l.")


@pytest.mark.parametrize(
    "state",
    [
        (1, (2, -3), "f4", False, b"x" * 24),
        (1, (2, 3), "f4", False, b"x" * 23),
        (1, (2, 3), "f4", False, b"x" * 28),
        (1, (2**40, 2**40), "f4", False, b"x" * 24),
        (1, (2, 3.0), "f4", False, b"x" * 24),
        (1, (1,) * 9 + (6,), "f4", False, b"x" * 24),
        (1, [2, 3], "f4", False, b"x" * 24),
        (1, (2, 3), "O8", False, b"x" * 48),
        (1, (2, 3), "S4", False, b"x" * 24),
    ],
)
@pytest.mark.parametrize("far", [False, True])
def test_arrays_that_lie_about_their_size(file, state, far):
    class Type:
        name = state[2]

    array = NumpyArray()
    content = state[4]
    if far:
        with file.open("wb") as stream:
            stream.write(b"\x8e" + struct.pack("<Q", 10_000) + bytes(10_000))
        with file.open("rb") as stream:
            content = Window(stream, file, 9).read(10_000)
    array.state = (state[0], state[1], Type, state[3], content)
    with pytest.raises(CORRUPT):
        array.lazy()


def test_big_endian_arrays_are_refused(file):
    array = np.arange(3, dtype=">f4")
    with pytest.raises(InputError, match="state of a NumpyType"):
        read(file, pickle.dumps(array, 4))


def test_a_state_dict_of_something_else(file):
    for tree, reason in (([1], "holds a list"), ({"a": 1}, "a is a int"), ({1: np.zeros(2)}, "1 is a NumpyArray")):
        with pytest.raises(InputError, match=reason):
            tensors_in(read(file, pickle.dumps(tree, 2)), file)
