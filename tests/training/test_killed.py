"""A run that is killed and started again gives the losses of one that was not."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from tools.run_tools import arguments, logged, make_workspace

ROOT = Path(__file__).resolve().parent.parent.parent


def start(options: dict) -> subprocess.Popen:
    command = [sys.executable, str(ROOT / "finetune_generation.py"), *arguments(options)]
    # What it says is shown if the test fails. A shell that runs tests in the background has them ignore SIGINT.
    return subprocess.Popen(command, cwd=ROOT, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))


def test_sigkill_and_resume(tmp_path, sentencepiece_file):
    workspace = make_workspace(tmp_path, sentencepiece_file)
    options = {**workspace.options, "num_train_epochs": 60, "save_strategy": "steps", "save_steps": 20}
    whole = tmp_path / "whole"  # 300 steps; in a process of its own, with the threads of one
    assert start({**options, "output_dir": whole, "save_strategy": "no"}).wait(timeout=120) == 0

    killed = {**options, "output_dir": tmp_path / "killed"}
    process = start(killed)
    deadline = time.monotonic() + 60
    while not (tmp_path / "killed" / "checkpoint-40" / "manifest.json").is_file():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = len(logged(tmp_path / "killed", "loss"))
    assert 40 <= before < 300, "the run was over before it could be killed"

    assert start(killed).wait(timeout=120) == 0
    assert logged(tmp_path / "killed", "loss") == logged(whole, "loss")
    ours, theirs = load_file(tmp_path / "killed" / "model.safetensors"), load_file(whole / "model.safetensors")
    assert all((ours[name] == theirs[name]).all() for name in theirs)


def test_interruption_is_exit_code_130(tmp_path, sentencepiece_file):
    workspace = make_workspace(tmp_path, sentencepiece_file)
    process = start({**workspace.options, "num_train_epochs": 500, "output_dir": tmp_path / "interrupted"})
    deadline = time.monotonic() + 60
    while not (tmp_path / "interrupted" / "metrics.jsonl").is_file():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(timeout=60) == 130


pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX signals")
