"""What a run leaves can be published: nothing in it names the user's home or the machine. And it ends the same way,
whenever it was killed."""

import json
import os
import shutil
import socket
from pathlib import Path

import pytest

from tools.run_tools import logged, make_workspace, read_lines

SAVED = {"max_steps": 2, "save_strategy": "steps", "save_steps": 2}
EVALUATED = {"do_eval": True, "num_beams": 1, "max_bad_records": 1}
BINARY = (".png", ".safetensors", ".model")


@pytest.fixture
def home(tmp_path, monkeypatch, sentencepiece_file):
    """A workspace in the home of a user, with a bad record."""
    folder = tmp_path / "the-users-own-home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setattr("glm.runtime.environment.HOME", str(folder))
    workspace = make_workspace(folder, sentencepiece_file)
    with open(folder / "train.json", "a", encoding="utf-8") as file:
        file.write("bad\n")
    return workspace


def leaks(folder: Path, needles: list[str], *, binary: bool = False) -> list[tuple[str, str]]:
    found = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        data = path.read_bytes() if binary or path.suffix not in BINARY else b""
        found += [(str(path), needle) for needle in needles if needle.encode() in data or needle in path.name]
    return found


def test_nothing_names_the_user_or_the_machine(home, monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "the-users-machine")
    dev = {"dev_file": home.folder / "dev.json", **EVALUATED, "report_to": "visualdl"}
    base = home.finetune("runs/base", **SAVED, **dev)
    start = {"model_name_or_path": base, "tokenizer_name_or_path": None}
    lora = home.finetune("runs/lora", **SAVED, **dev, **start, lora=True)
    far = home.finetune("deep/down/prefix", **SAVED, **dev, **start, prefix_tuning=True, num_prefix_tokens=3)
    for model in (lora, lora / "checkpoint-2", far, far / "checkpoint-2"):
        out = home.folder / "out" / "rows.jsonl"
        options = {"output_file": out, "report": out.parent / "report", "metrics_file": out.with_suffix(".json")}
        home.predict(model_name_or_path=model, test_file=home.folder / "dev.json", overwrite_output=True, **options)
    names = [json.loads((folder / file).read_text())["base_model_name_or_path"]
             for folder, file in ((lora, "lora_config.json"), (far, "prefix_config.json"))]  # fmt: skip
    assert names == ["../base", "~/runs/base"]
    assert json.loads((lora / "finetune_config.json").read_text())["train_file"] == "~/train.json"
    assert "base_model:" not in (lora / "README.md").read_text(encoding="utf-8")  # of the hub
    for folder in ("runs", "deep", "out"):
        assert leaks(home.folder / folder, [str(home.folder), "the-users", os.uname().nodename + "/"]) == []


def test_what_is_made_of_a_run_names_nobody(home, monkeypatch):
    """Exports, merged models, int8, joined adapters, a teacher's texts, pages of files with refused rows, pretrained
    models."""
    from glm.__main__ import main as glm_main

    monkeypatch.setattr(socket, "gethostname", lambda: "the-users-machine")
    base = home.finetune("runs/base", max_steps=1, max_bad_records=1)
    start = {"model_name_or_path": base, "tokenizer_name_or_path": None}
    lora = home.finetune("runs/lora", max_steps=1, max_bad_records=1, lora=True, **start)
    made, bad = home.folder / "made", home.folder / "train.json"  # its last line is none
    glm_main(["merge", "--adapter", str(lora), "--output_dir", str(made / "merged")])
    for to in ("huggingface", "huggingface-bin", "paddlenlp", "megatron"):
        glm_main(["checkpoint", "export", str(made / "merged"), str(made / to), "--to", to])
    good = home.folder / "good.json"
    good.write_text("".join(bad.read_text(encoding="utf-8").splitlines(keepends=True)[:2]), encoding="utf-8")
    options = ["--train_file", str(good), "--output_file", str(made / "taught.json"), "--device", "cpu"]
    glm_main(["distill", "--teacher", str(made / "merged"), *options])
    rows = made / "rows.jsonl"
    options = {"output_file": rows, "report": made / "report", "metrics_file": made / "metrics.json"}
    home.predict(model_name_or_path=made / "merged", test_file=bad, num_beams=1, **options)
    assert "~/train.json, line 21: not JSON" in rows.read_text(encoding="utf-8")
    glm_main(["report", str(rows), "--output_dir", str(made / "page")])
    texts = home.folder / "texts.txt"
    texts.write_text("松江位于河的北岸。\n" * 40, encoding="utf-8")
    command = ["pretrain", "--train_data", str(texts), "--output_dir", str(made / "pretrained"), "--device", "cpu"]
    command += ["--model_name_or_path", str(home.folder / "model.json"), "--max_steps", "1", "--seq_length", "40"]
    glm_main([*command, "--tokenizer_name_or_path", str(home.tokenizer_file)])
    glm_main(["quantize", str(made / "merged"), "--output_dir", str(made / "quantized")])
    task = {"adapter_bottleneck": 4, "train_file": f"kind={good}"}
    kind = home.finetune("kind", max_steps=1, **start, **task)
    glm_main(["adapters", "join", str(kind), "--output_dir", str(made / "joined")])
    needles = [str(home.folder), "the-users", os.uname().nodename + "/"]
    assert leaks(made, needles, binary=True) == []


def test_a_published_configuration_repeats_the_run(home):
    first = home.finetune("runs/first", max_steps=2, max_bad_records=1)
    config = home.folder / "again.json"
    shutil.copy(first / "finetune_config.json", config)
    import finetune_generation

    finetune_generation.main([str(config), "--output_dir", str(home.folder / "runs" / "second")])
    assert logged(home.folder / "runs" / "second", "loss") == logged(first, "loss")


# -- the end


def timeless(folder: Path) -> list[dict]:
    """`metrics.jsonl` without times, speeds and memory."""
    timed = ("second", "runtime", "memory", "flos")
    rows = read_lines(folder / "metrics.jsonl")
    return [{name: value for name, value in row.items() if not any(part in name for part in timed)} for row in rows]


@pytest.mark.fault
@pytest.mark.parametrize("evaluates_last_step", [False, True])
@pytest.mark.parametrize("best", [False, True])
def test_a_late_kill_repeats_no_evaluation(workspace, evaluates_last_step, best):
    """Killed when all is written but `done.json`: the same command ends with the same log."""
    options = {**SAVED, **EVALUATED, "dev_file": workspace.folder / "dev.json"}
    if evaluates_last_step or best:
        options |= {"evaluation_strategy": "steps", "eval_steps": 1 if best else 2, "save_steps": 1 if best else 2}
    if best:
        options |= {"load_best_model_at_end": True, "metric_for_best_model": "loss", "greater_is_better": "false"}
        options["learning_rate"] = 1e-9 if evaluates_last_step else 5e-3
    name = f"late-{evaluates_last_step}-{best}"
    folder = workspace.finetune(name, **options)
    whole = timeless(folder)
    state = json.loads((folder / "trainer_state.json").read_text())
    assert [row["step"] for row in state["log_history"]] == [
        row["step"] for row in read_lines(folder / "metrics.jsonl")
    ]
    assert any("eval_loss" in row for row in state["log_history"])
    (folder / "done.json").unlink()
    workspace.finetune(name, **options)
    again = timeless(folder)
    assert [set(row) for row in again] == [set(row) for row in whole]
    for row, expected in zip(again, whole, strict=True):
        assert {k: v for k, v in row.items() if "train" not in k} == {
            k: v for k, v in expected.items() if "train" not in k
        }
