"""What a machine is, and what of it will surprise: each planted, and found."""

import json
import os
from types import SimpleNamespace

import pytest

from glm.__main__ import main
from glm.doctor import checks, machine
from glm.doctor.checks import Finding
from glm.errors import InputError, UsageError

CLEAN = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}


@pytest.fixture
def patch(monkeypatch):
    monkeypatch.setattr(machine, "WANTED_THREADS", None)
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: SimpleNamespace(free=100 << 30))
    monkeypatch.setattr(machine.psutil, "virtual_memory", lambda: SimpleNamespace(available=100 << 30, total=1 << 40))
    monkeypatch.setattr(machine.sys, "stdout", SimpleNamespace(encoding="utf-8", write=print))
    monkeypatch.setattr(machine.locale, "getpreferredencoding", lambda do_setlocale: "UTF-8")
    monkeypatch.setattr(machine, "HOME", os.path.expanduser("~"))
    return monkeypatch


def test_a_machine_without_surprises(patch):
    assert machine.surprises(CLEAN) == []


def set_threads(patch, number: int):
    patch.setattr(machine, "WANTED_THREADS", str(number))
    patch.setattr(machine, "cpu_threads", lambda: number)
    patch.setattr(machine.os, "sched_getaffinity", lambda _: {0, 1, 2, 3})


PLANTED = {
    "OMP_NUM_THREADS 2: 4 cores could be used": lambda patch: set_threads(patch, 2),
    "OMP_NUM_THREADS 9: more than the 4 cores": lambda patch: set_threads(patch, 9),
    "console gbk": lambda patch: patch.setattr(machine.sys, "stdout", SimpleNamespace(encoding="gbk")),
    "locale ansi_x3.4-1968": lambda patch: patch.setattr(
        machine.locale, "getpreferredencoding", lambda do_setlocale: "ANSI_X3.4-1968"
    ),
    "HOME: cannot be written to": lambda patch: patch.setattr(machine, "HOME", "/proc"),
    "memory: 1.0 GiB are free": lambda patch: patch.setattr(
        machine.psutil, "virtual_memory", lambda: SimpleNamespace(available=1 << 30)
    ),
    "disk: 2.0 GiB are free here": lambda patch: patch.setattr(
        machine.shutil, "disk_usage", lambda _: SimpleNamespace(free=2 << 30)
    ),
}
VARIABLES = {
    "CUDA_VISIBLE_DEVICES ''": {"CUDA_VISIBLE_DEVICES": ""},
    "CUDA_VISIBLE_DEVICES '-1'": {"CUDA_VISIBLE_DEVICES": "-1"},
    "PADDLE_TRAINERS_NUM 4": {"PADDLE_TRAINERS_NUM": "4"},
    "https_proxy: downloads": {"https_proxy": "http://p"},
    "HF_HUB_OFFLINE 1": {"HF_HUB_OFFLINE": "1"},
}


@pytest.mark.parametrize("line", PLANTED)
def test_what_is_planted_is_said(patch, line):
    PLANTED[line](patch)
    (found,) = machine.surprises(CLEAN)
    assert found.startswith(line)


@pytest.mark.parametrize("line", VARIABLES)
def test_variables_that_surprise(patch, line):
    (found,) = machine.surprises(CLEAN | VARIABLES[line])
    assert found.startswith(line)


def test_which_devices_are_hidden(patch):
    assert machine.surprises(CLEAN | {"CUDA_VISIBLE_DEVICES": "0,1"}) == []
    assert machine.surprises(CLEAN | {"CUDA_VISIBLE_DEVICES": "1"}) == []


# -- the command


def found(*wrong: str):
    """In place of the checks: one that was made, one that was not, and these wrong ones."""
    tolerances = {"losses": 0.1}
    return [
        Finding("float32", {"losses": 0.0}, tolerances),
        Finding("float16", {}, tolerances, "not tried: no GPU"),
        *(Finding(name, {"losses": float("inf")}, tolerances) for name in wrong),
    ]


@pytest.mark.parametrize("wrong", [(), ("recompute",)])
def test_the_table_the_file_and_the_exit_code(monkeypatch, tmp_path, capsys, wrong):
    monkeypatch.setattr(checks, "findings", lambda *_, **__: found(*wrong))
    file = tmp_path / "sub" / "doctor.json"
    assert main(["doctor", "--device", "cpu", "--output_file", str(file)]) == len(wrong)
    printed = capsys.readouterr().out
    assert "holds  float32: losses 0.0e+00 (at most 0.1)" in printed and "-      float16: not tried: no GPU" in printed
    assert ("wrong  recompute" in printed) == bool(wrong)
    written = json.loads(file.read_text(encoding="utf-8"))
    assert written["holds"] == (not wrong) and [check["holds"] for check in written["checks"]][:2] == [True, None]
    assert {"system", "Python", "processor", "memory"} <= written["machine"].keys()
    for secret in (os.getcwd(), os.path.expanduser("~"), str(tmp_path), os.uname().nodename):
        assert secret not in file.read_text(encoding="utf-8")
    with pytest.raises(InputError, match="exists; choose another name"):
        main(["doctor", "--output_file", str(file)])


def test_options_that_cannot_be(monkeypatch):
    monkeypatch.setattr(checks, "findings", lambda *_, **__: found())
    with pytest.raises(UsageError, match="tensor_parallel_degree 3: use 2"):
        main(["doctor", "--tensor_parallel_degree", "3"])
    with pytest.raises(UsageError, match="device tpu: use cpu"):
        main(["doctor", "--device", "tpu"])
