"""The seam, proven by a family that is no transformer (`family.py`): registered here, and nothing else changes for it.

It trains, goes on after SIGKILL, is evaluated, predicts, serves, and is inspected; what it cannot do is an error.
"""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from itertools import product
from pathlib import Path

import pytest

from glm.commands import check as check_command
from glm.commands import checkpoint as checkpoint_command
from glm.commands import memory as memory_command
from glm.commands import show as show_command
from glm.errors import InputError, UsageError
from glm.models import registry
from glm.models.protocol import ABILITIES
from tools.run_tools import Workspace, logged, read_lines, write_records

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
LETTERS = "甲乙丙丁"
TASK = {"template": "{source}[gMASK]", "src_length": 12, "tgt_length": 5}


@pytest.fixture(scope="module", autouse=True)
def registered():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry.FAMILIES, "gru", "stranger.family")
        yield


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Workspace:
    """A task of copying: all texts of three of four letters; every eighth is looked at."""
    folder = tmp_path_factory.mktemp("stranger")
    (folder / "characters.txt").write_text(LETTERS, encoding="utf-8")
    (folder / "model.json").write_text(json.dumps({"model_type": "gru", "hidden_size": 64}), encoding="utf-8")
    texts = ["".join(letters) for letters in product(LETTERS, repeat=3)]
    records = [{"source": text, "target": text} for text in texts]
    write_records(folder / "train.json", records)
    write_records(folder / "dev.json", records[::8])
    return Workspace(folder, folder / "characters.txt")


COPY = {"per_device_train_batch_size": 32, "learning_rate": 0.01, "label_smoothing": 0.0, "max_steps": 300, **TASK}


@pytest.fixture(scope="module")
def copier(workspace) -> Path:
    """The folder of a run that has learnt to copy, evaluated by beam search."""
    return workspace.finetune("copier", **COPY, do_eval=True, dev_file=workspace.folder / "dev.json", num_beams=3)


def test_it_is_small():
    lines = (HERE / "family.py").read_text(encoding="utf-8").splitlines()
    assert sum(bool(line.strip()) for line in lines) <= 150
    others = [
        path for path in (ROOT / "glm").rglob("*.py") if re.search(r"stranger|\bGRU\b|\"gru\"", path.read_text())
    ]
    assert others == []


def test_it_learns_to_copy(copier):
    losses = logged(copier, "loss")
    assert losses[0] > 1.0 and losses[-1] < 0.05
    rows = read_lines(copier / "eval" / "step-300.jsonl")
    assert len(rows) == 8 and all(row["predictions"][0]["text"] == row["source"] for row in rows)
    assert json.loads((copier / "eval_results.json").read_text())["eval_exact match"] == 100.0


def test_it_learns_the_bundled_data(workspace):
    characters = sorted(
        {character for line in (ROOT / "data" / "train.json").open(encoding="utf-8") for character in line}
    )
    (workspace.folder / "all.txt").write_text("".join(characters), encoding="utf-8")
    options = {"train_file": ROOT / "data" / "train.json", "tokenizer_name_or_path": workspace.folder / "all.txt"}
    options |= {"src_length": 120, "tgt_length": 60, "max_steps": 30, "per_device_train_batch_size": 16}
    losses = logged(workspace.finetune("bundled", **options), "loss")
    assert losses[-1] < losses[0] - 1.0


def test_it_goes_on_after_sigkill(workspace):
    """Killed at the begin of step 7, behind a checkpoint at step 5: the weights of the end are equal in every byte."""
    options = workspace.options | {**COPY, "max_steps": 10, "save_strategy": "steps", "save_steps": 5}
    killed, whole = (workspace.folder / name for name in ("killed", "whole"))
    assert run("finetune", 7, options | {"output_dir": killed}).returncode == -signal.SIGKILL
    assert (killed / "checkpoint-5").is_dir() and not (killed / "model.safetensors").exists()
    for folder in (killed, whole):
        done = run("finetune", -1, options | {"output_dir": folder})
        assert done.returncode == 0, done.stderr
    assert (killed / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def run(script: str, step: int, options: dict) -> subprocess.CompletedProcess:
    command = [sys.executable, str(HERE / "run.py"), script, str(step), *flags(options)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def flags(options: dict) -> list[str]:
    return [f"--{name}" if value is True else f"--{name}={value}" for name, value in options.items()]


@pytest.mark.parametrize("num_beams", [1, 4])
def test_it_predicts_and_scores(workspace, copier, tmp_path, num_beams):
    files = {"output_file": tmp_path / "o.jsonl", "metrics_file": tmp_path / "m.json", "num_beams": num_beams}
    code = workspace.predict(model_name_or_path=copier, test_file=workspace.folder / "dev.json", **files)
    rows = read_lines(files["output_file"])
    assert code == 0 and [row["predictions"][0]["text"] for row in rows] == [row["reference"] for row in rows]
    assert json.loads(files["metrics_file"].read_text())["exact match"] == 100.0


def test_it_answers_requests(copier):
    command = [sys.executable, str(HERE / "run.py"), "predict", "-1", "--serve", "--port=0", "--device=cpu"]
    server = subprocess.Popen([*command, f"--model_name_or_path={copier}"], stderr=subprocess.PIPE, text=True)
    try:
        said, address = [], None
        for line in iter(server.stderr.readline, ""):
            said.append(line)
            if address := re.search(r"http://[\d.]+:\d+", line):
                break
        assert address, "".join(said)
        address = address[0]
        body = json.dumps({"records": [{"source": "丙甲丁"}]}).encode()
        request = urllib.request.Request(f"{address}/generate", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            (row,) = json.load(answer)["rows"]
        assert row["predictions"][0]["text"] == "丙甲丁"
    finally:
        server.send_signal(signal.SIGINT)
        server.communicate(timeout=60)


def test_it_is_named_by_inspect(copier, capsys):
    assert checkpoint_command.main(["inspect", str(copier)]) == 0
    assert "family         gru\n" in capsys.readouterr().out


def test_it_comes_back_from_every_format(copier, tmp_path, capsys):
    for format in ("huggingface", "huggingface-bin", "paddlenlp"):
        checkpoint_command.main(["export", str(copier), str(tmp_path / format), "--to", format])
        checkpoint_command.main(["import", str(tmp_path / format), str(tmp_path / f"{format}-back")])
        assert (tmp_path / f"{format}-back" / "model.safetensors").stat().st_size > 0
        checkpoint_command.main(["inspect", str(tmp_path / f"{format}-back")])
    assert capsys.readouterr().out.count("family         gru\n") == 3


def test_records_are_checked_and_shown(workspace, copier, capsys):
    assert check_command.main([str(workspace.folder / "dev.json"), "--tokenizer_name_or_path", str(copier)]) == 0
    arguments = [str(workspace.folder / "dev.json"), "--line", "2", "--tokenizer_name_or_path", str(copier)]
    assert show_command.main(arguments) == 0
    assert "training and prediction are laid out alike" in capsys.readouterr().out


ON = {
    "fill": "甲[MASK]",
    "fill_file": "f.txt",
    "no_block_position": True,
    "freeze": "embeddings",
    "layerwise_lr_decay": 0.9,
    "recompute": True,
    "recompute_layers": 1,
    "tensor_parallel_degree": 2,
    "lora": True,
    "prefix_tuning": True,
    "packing": True,
    "fp16": True,
    "bf16": True,
    "decode_dtype": "bfloat16",
}
ON |= dict.fromkeys(("attention_dropout_prob", "embedding_dropout_prob", "output_dropout_prob"), 0.1)


@pytest.mark.parametrize("option", sorted({name for options in ABILITIES.values() for name in options}))
def test_what_it_cannot_do_is_an_error(option):
    """Every option that asks for an ability, whatever its value: the message names option and family."""
    value = ON.get(option, "something")
    with pytest.raises(UsageError, match=rf"^{option} .*: GRU cannot do this .*leave it out"):
        registry.find("gru").check_options({option: value})


@pytest.mark.parametrize("options", [{"lora": True}, {"packing": True}, {"attention_dropout_prob": 0.1}])
def test_training_says_what_it_cannot_do(workspace, copier, options):
    (name,) = options
    with pytest.raises(UsageError, match=f"^{name} .*: GRU cannot do this"):
        workspace.finetune("refused", **COPY, model_name_or_path=copier, **options)


@pytest.mark.parametrize("options", [{"fill": "甲[MASK]"}, {"decode_dtype": "bfloat16"}])
def test_prediction_says_what_it_cannot_do(workspace, copier, options):
    (name,) = options
    rest = {} if "fill" in options else {"test_file": workspace.folder / "dev.json"}
    with pytest.raises(UsageError, match=f"^{name} .*: GRU cannot do this"):
        workspace.predict(model_name_or_path=copier, **options, **rest)


def test_a_blank_that_is_not_last_is_an_error(workspace):
    with pytest.raises(InputError, match=r"GRU writes behind its source; put \[gMASK\] last"):
        workspace.finetune("middle", **COPY | {"template": "{source}[gMASK]。"})


def test_there_is_no_forecast_of_its_memory(copier):
    with pytest.raises(InputError, match="there is no forecast of memory for GRU"):
        memory_command.main([str(copier)])


def test_a_folder_that_fits_two_families(copier, tmp_path, tokenizer):
    folder = tmp_path / "two"
    folder.mkdir()
    (folder / "characters.txt").write_text(LETTERS, encoding="utf-8")
    tokenizer.save_pretrained(str(folder))
    with pytest.raises(InputError, match=rf"{folder}: has .*\(glm\) and .*\(gru\); say which .* \(model_type\)"):
        registry.of_model(str(folder))
    assert os.path.isdir(copier) and registry.of_model(str(copier)).name == "gru"
