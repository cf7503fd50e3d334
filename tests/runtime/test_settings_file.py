"""Settings of a file that anybody may have written: data against a schema, and errors that are safe to print."""

import json
import os
import tracemalloc
from typing import Annotated, Literal

import pytest
from pydantic import ConfigDict, Field

from glm.errors import InputError, shown
from glm.runtime.settings_file import MOST_BYTES, MOST_DEPTH, Settings, read_object, read_settings


class Schema(Settings):
    size: Annotated[int, Field(ge=1, le=100)] = 1
    rate: float = 0.5
    kind: Literal["a", "b"] = "a"
    names: list[str] = []
    is_on: bool = False


class Open(Schema):
    model_config = ConfigDict(extra="ignore")


@pytest.fixture
def write(tmp_path):
    def put(content):
        path = tmp_path / "settings.json"
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        path.write_bytes(data)
        return path

    return put


def test_what_is_there_and_what_is_not(write):
    found = read_settings(write({"size": 7, "rate": 1, "names": ["x"]}), Schema)
    assert found == Schema(size=7, rate=1.0, names=["x"])
    assert found.model_dump(exclude_unset=True) == {"size": 7, "rate": 1.0, "names": ["x"]}
    assert read_settings(write(b"\xef\xbb\xbf{}"), Schema) == Schema()
    assert read_settings(write({"other": [1], "size": 2}), Open).model_dump(exclude_unset=True) == {"size": 2}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"size": "7"}, 'size "7": has to be a valid integer'),
        ({"size": 7.0}, "size 7.0: has to be a valid integer"),
        ({"size": True}, "size true: has to be a valid integer"),
        ({"size": None}, "size null: has to be a valid integer"),
        ({"size": [7]}, "size [7]: has to be a valid integer"),
        ({"size": 0}, "size 0: has to be greater than or equal to 1"),
        ({"size": 101}, "size 101: has to be less than or equal to 100"),
        ({"rate": "1"}, 'rate "1": has to be a valid number'),
        ({"kind": "c"}, "kind \"c\": has to be 'a' or 'b'"),
        ({"kind": ["a", "--output_file=x"]}, "kind [\"a\", \"--output_file=x\"]: has to be 'a' or 'b'"),
        ({"names": ["x", 3]}, "names.1 3: has to be a valid string"),
        ({"is_on": 1}, "is_on 1: has to be a valid boolean"),
        ({"sise": 1}, "unknown entry sise"),
    ],
)
def test_a_deviation_is_named(write, content, message):
    path = write(content)
    with pytest.raises(InputError) as error:
        read_settings(path, Schema)
    assert str(error.value) == f"{path}: {message}"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "cannot be read as JSON (Expecting value"),
        (b"{", "cannot be read as JSON (Expecting property name"),
        (b'{"size": 1} x', "cannot be read as JSON (Extra data"),
        (b"[1]", "a JSON object is expected"),
        (b'{"rate": NaN}', "cannot be read as JSON (NaN is no number of JSON)"),
        (b'{"rate": -Infinity}', "cannot be read as JSON (-Infinity is no number of JSON)"),
        (b'{"rate": 1e999}', "has to be a finite number"),
        (b'{"size": ' + b"9" * 5000 + b"}", "cannot be read as JSON (a number of too many digits)"),
        (b'{"size": 1, "size": 2}', "cannot be read as JSON (size is in it twice)"),
        (b'{"names": ["\xff"]}', "cannot be read as JSON (not UTF-8 (byte 12)"),
        (b'{"names": ["\\ud800"]}', "cannot be read as JSON ('utf-8' codec can't encode character '\\ud800'"),
        (b'{"\\ud800": 1}', "cannot be read as JSON ('utf-8' codec can't encode"),
        (b"[" * 100_000, f"cannot be read as JSON (nested more than {MOST_DEPTH} deep)"),
        (b'{"a":' * 60_000 + b"1" + b"}" * 60_000, f"cannot be read as JSON (nested more than {MOST_DEPTH} deep)"),
        (b"version https://git-lfs.github.com/spec/v1", "a pointer of Git LFS"),
        (b" <!DOCTYPE html>", "a web page"),
        (b"{}" + b" " * MOST_BYTES, f"has more than {MOST_BYTES} bytes"),
    ],
)
def test_no_settings(write, data, message):
    path = write(data)
    with pytest.raises(InputError) as error:
        read_settings(path, Schema)
    assert str(error.value).startswith(f"{path}: ") and message in str(error.value)
    assert len(str(error.value)) < 500 and str(error.value).isprintable()


def test_no_pipe_and_no_device(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name, reason in {"pipe": "not a plain file", "zero": "not a plain file", "gone": "No such file"}.items():
        with pytest.raises(InputError, match=f"{name}: cannot be read as JSON .*{reason}"):
            read_object(tmp_path / name)


def test_messages_are_safe_to_print(write):
    hostile = {"\x1b]0;title\x07" + "x" * 10_000: 1, "size": "\x1b[2J\u202e\n" + "中" * 10_000}
    path = write(hostile)
    with pytest.raises(InputError) as error:
        read_settings(path, Schema)
    lines = str(error.value).split("\n")
    assert len(lines) == 2 and all(line.isprintable() and len(line) < 400 for line in lines)
    assert any("\\x1b[2J\\u202e" in line or "\\u001b[2J\\u202e" in line for line in lines)
    assert shown("a\tb\nc\x7f问", kept="\n") == "a\\tb\nc\\x7f问"


def test_the_largest_file_takes_little_memory(write):
    path = write(b'{"a":[' + b"{}," * ((MOST_BYTES - 20) // 3) + b"{}]}")
    tracemalloc.start()
    with pytest.raises(InputError, match="unknown entry a"):
        read_settings(path, Schema)
    assert tracemalloc.get_traced_memory()[1] < 128 << 20
    tracemalloc.stop()
