"""Lines of a text file: ended by line feeds alone, of a size that is known, and never of a pipe."""

import os

import pytest

from glm.errors import InputError
from glm.runtime.text_lines import read_lines


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        ("a\nb\n", ["a", "b"]),
        ("a\r\n\r\nb", ["a", "", "b"]),
        ("\ufeffa\u2028b\x85c\x0bd\n", ["a\u2028b\x85c\x0bd"]),
        ("a\rb\n\n", ["a\rb", ""]),
        ("", []),
    ],
)
def test_only_a_line_feed_ends_a_line(tmp_path, data, lines):
    (tmp_path / "a.txt").write_bytes(data.encode())
    assert read_lines(tmp_path / "a.txt") == lines


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"a\nb\xff\n", r"a\.txt, line 2: not UTF-8 \(byte 2\)"),
        (b"a" * 101, "has more than 100 bytes, too many to be read as text"),
        (b"version https://git-lfs.github.com/spec/v1", "a pointer of Git LFS"),
    ],
)
def test_what_is_no_such_file(tmp_path, data, message):
    (tmp_path / "a.txt").write_bytes(data)
    with pytest.raises(InputError, match=message):
        read_lines(tmp_path / "a.txt", most_bytes=100)


def test_neither_a_pipe_nor_a_device_is_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero", tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError, match="cannot be read as text"):
            read_lines(tmp_path / path)
