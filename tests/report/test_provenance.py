"""The command, versions and settings that a page names."""

import shlex
from importlib.metadata import version

from glm.report import provenance
from glm.report.provenance import Provenance, command_of


def test_a_command_that_a_shell_takes(monkeypatch):
    monkeypatch.delenv("PADDLE_TRAINERS_NUM", raising=False)
    argv = ["--fill", "扬州 [MASK] $HOME", "--output_file", "it's.jsonl"]
    assert shlex.split(command_of("predict.py", argv)) == ["python", "predict.py", *argv]


def test_the_command_of_several_processes(monkeypatch):
    monkeypatch.setenv("PADDLE_TRAINERS_NUM", "2")
    assert command_of("a.py", ["-x"]) == "python -m paddle.distributed.launch a.py -x"


def test_versions(monkeypatch):
    found = Provenance("", {}, "gpu:1").versions()
    assert found["paddlenlp"] == version("paddlenlp") and "paddlepaddle-gpu" not in found
    assert found["machine"].endswith("device gpu:1")
    monkeypatch.setattr(provenance.subprocess, "run", lambda *_, **__: (_ for _ in ()).throw(FileNotFoundError))
    assert Provenance("", {}, "cpu").versions()["this toolkit"] == "not a git checkout"
