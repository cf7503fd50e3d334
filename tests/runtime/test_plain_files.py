"""What is no file in a file's place: an error in a moment, not a wait for ever."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from glm.checkpoint.safetensors_files import read_safetensors
from glm.checkpoint.tokenizers import load_tokenizer
from glm.commands.check import main as check
from glm.commands.compare import main as compare
from glm.commands.score import main as score
from glm.data.formats import read_rows
from glm.data.store import content_digest
from glm.errors import InputError
from glm.models.glm import FAMILY as GLM

pytestmark = pytest.mark.fault


def bound(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(path))  # a socket's path has to be short


ODD: dict[str, Callable[[Path], None]] = {
    "pipe": os.mkfifo,
    "socket": bound,
    "device": lambda path: path.symlink_to("/dev/zero"),
}


@pytest.fixture(params=ODD)
def make(request, tmp_path, monkeypatch):
    """A function: something odd of this name."""
    monkeypatch.chdir(tmp_path)

    def make(name: str) -> Path:
        ODD[request.param](tmp_path / name)
        return tmp_path / name

    return make


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.csv", "a.tsv", "a.parquet", "a.json.gz", "a.txt", "a"])
def test_data(make, name):
    path = make(name)
    for read in (read_rows, content_digest):
        with pytest.raises(InputError, match=f"{name}: is a pipe or a device; write what comes out of it into a file"):
            list(read(path))


def test_verbs(make, sentencepiece_file):
    path = str(make("a.jsonl"))
    tokenizer = ["--tokenizer_name_or_path", str(sentencepiece_file)]
    for verb, argv in ((check, [path, *tokenizer]), (score, [path]), (compare, [path, path])):
        with pytest.raises(InputError, match="a.jsonl: is a pipe or a device"):
            verb(argv)
    with pytest.raises(InputError, match="a.jsonl: is a pipe or a device"):
        check([path, "--corpus", *tokenizer])


def test_parts_of_a_template(make, sentencepiece_file):
    argv = ["--tokenizer_name_or_path", str(sentencepiece_file), "--template", str(make("t.json"))]
    with pytest.raises(InputError, match=r"template .*t.json"):
        check(["data.json", *argv])


def test_a_file_that_breaks(tmp_path):
    """As on a disk with errors: reading it fails, and the text of that names no file."""
    (tmp_path / "w.safetensors").symlink_to("/proc/self/mem")
    with pytest.raises(InputError, match="w.safetensors: cannot be read"):
        read_safetensors(tmp_path / "w.safetensors")


def test_a_tokenizer_beyond_all_bounds(tmp_path):
    with open(tmp_path / "spm.model", "wb") as file:
        file.truncate(60 << 30)
    with pytest.raises(InputError, match="spm.model: 64,424,509,440 bytes, too many for a file of a tokenizer"):
        load_tokenizer(GLM, str(tmp_path / "spm.model"))
    with open(tmp_path / GLM.tokenizer_files[0], "wb") as file:
        file.truncate(60 << 30)
    with pytest.raises(InputError, match="too many for a file of a tokenizer"):
        load_tokenizer(GLM, str(tmp_path))
