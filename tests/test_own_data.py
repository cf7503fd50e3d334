"""Own data in five minutes, as the README has it: a newcomer's files, Ctrl-C in the middle, the same command again."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TOKENIZER = "data/tokenizer/spm.model"
RIVERS, TOWNS = ["松江", "清河", "白水", "沙溪"], ["青石镇", "梅花村", "红叶谷", "金沙岛", "石桥市", "长乐城"]

pytestmark = pytest.mark.fault


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """Training and dev records of another shape than the bundled ones: tables with columns of their own, and an id."""
    folder = tmp_path_factory.mktemp("mine")
    draw = random.Random(7)
    for name, count in (("train.csv", 96), ("dev.csv", 8)):
        lines = ["Nr, Passage ,answer,Question"]
        for number in range(count):
            river, town, year = draw.choice(RIVERS), draw.choice(TOWNS), draw.randrange(1900, 2000)
            lines.append(f"{number},{town}在{river}边，建于{year}年。,{year}年,{town}建于哪一年？")
        (folder / name).write_text("\r\n".join(lines), encoding="utf-8-sig")
    return folder


def start(*words: object) -> subprocess.Popen:
    """A command as from the shell, which can be interrupted."""
    return subprocess.Popen(
        [sys.executable, *map(str, words)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        env={**os.environ, "COLUMNS": "200"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def finished(process: subprocess.Popen) -> str:
    said, _ = process.communicate(timeout=400)
    assert process.returncode == 0, said[-3000:]
    return said


def test_the_first_run_of_a_newcomer(files):
    train, dev, run = files / "train.csv", files / "dev.csv", files / "run"
    said = finished(start("-m", "glm", "check", train, dev, "--tokenizer_name_or_path", TOKENIZER))
    assert said.rstrip().endswith("problems") and said.count("lengths that fit all files: --src_length ") == 1
    assert "note:" in said and "byte order mark" in said and "96 rows read = 96 used + 0 refused" in said
    assert "source =  Passage" in said or "source = Passage" in said

    command = ["finetune_generation.py", "configs/finetune.json", "--train_file", train, "--dev_file", dev]
    command += ["--output_dir", run, "num_train_epochs=4", "--report_to", "none"]
    process = start(*command)
    deadline = time.monotonic() + 300
    while not (run / "metrics.jsonl").is_file():
        assert time.monotonic() < deadline and process.poll() is None, process.communicate()[0][-3000:]
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    stopped, _ = process.communicate(timeout=300)
    assert process.returncode == 130, stopped[-3000:]
    (kept,) = re.findall(r"stopped: (\S+/checkpoint-\d+) is saved, and the same command goes on from there", stopped)
    before = len((run / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    assert before < 24

    said = finished(start(*command))
    assert f"goes on from {kept}" in said and "overwrite_output_dir deletes" not in said
    assert json.loads((run / "done.json").read_text())["global_step"] == 24
    steps = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["step"] for row in steps if "loss" in row] == list(range(1, 25))  # 20 times a run at least
    assert "evaluation on the dev records" in said and "rouge-l (char)" in said
    assert said.count("bleu: nrefs:1|") == 1  # one signature of a family; all figures are in files
    at_end = said.rstrip().splitlines()[-2:]
    assert at_end[0].startswith(f"written: {run} (the model)") and "training.html" in at_end[0]
    assert at_end[1] == f"next: python predict.py --model_name_or_path {run} --test_file FILE"

    output = files / "predictions.jsonl"
    predict = ["predict.py", "--model_name_or_path", run, "--test_file", dev, "--output_file", output]
    said = finished(start(*predict, "--metrics_file", files / "metrics.json", "--report", files / "report"))
    assert "scores of 8 records" in said and "the first 5 records" in said and "report: " in said
    assert "gold question" in said
    (left,) = [line for line in said.splitlines() if line.startswith("written: ")]
    for file in (output, files / "metrics.json", files / "report" / "report.html"):
        assert str(file) in left and file.is_file()
    rows = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 8 and all("reference" in row and "error" not in row for row in rows)
    assert "建于哪一年" in said  # its own questions are on the screen
