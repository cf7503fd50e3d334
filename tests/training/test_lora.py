"""Runs with --lora: they train, resume, evaluate and predict as a full model does; and `python -m glm merge`."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file

from glm.commands import merge
from glm.errors import InputError, UsageError
from tools.run_tools import logged, read_lines

WHAT = {"lora": True, "lora_rank": 4, "lora_alpha": 16, "lora_dropout": 0.1, "lora_targets": "query_key_value|dense"}


@pytest.fixture(scope="module")
def lora(workspace, base):
    """An adapter of it, 6 steps, a checkpoint at each, evaluated at the end."""
    return workspace.finetune(
        "adapter",
        **WHAT,
        model_name_or_path=base,
        tokenizer_name_or_path=None,
        max_steps=6,
        learning_rate=2e-2,
        save_strategy="steps",
        save_steps=1,
        do_eval=True,
        dev_file=workspace.folder / "dev.json",
    )


def test_only_the_adapter_is_saved(lora):
    for folder in (lora, lora / "checkpoint-3"):
        assert not (folder / "model.safetensors").exists() and not list(folder.glob("model_state*"))
        weights = load_file(folder / "peft_model.safetensors")
        assert {name.rpartition(".")[2] for name in weights} == {"lora_A", "lora_B"} and len(weights) == 8
        assert all(np.abs(weight).max() > 0 for weight in weights.values())
    optimizer = (lora / "checkpoint-3" / "optimizer.safetensors").stat().st_size
    assert optimizer < 60_000  # two moments of some 4,000 numbers, not of 44,000


def test_loss_falls(workspace, base):
    run = workspace.finetune(
        "learning",
        lora=True,
        lora_targets="query_key_value|dense|dense_h_to_4h|dense_4h_to_h",
        model_name_or_path=base,
        tokenizer_name_or_path=None,
        attention_dropout_prob=0.0,
        embedding_dropout_prob=0.0,
        output_dropout_prob=0.0,
        per_device_train_batch_size=20,
        max_steps=30,
        learning_rate=1e-2,
    )
    losses = logged(run, "loss")  # each of all records
    assert losses[-1] < losses[0] - 0.1


@pytest.mark.parametrize("step", [3, 5])
def test_a_resumed_run_is_the_same_run(workspace, base, lora, step):
    run = workspace.finetune(
        f"resumed-{step}",
        **WHAT,
        model_name_or_path=base,
        tokenizer_name_or_path=None,
        max_steps=6,
        learning_rate=2e-2,
        resume_from_checkpoint=lora / f"checkpoint-{step}",
    )
    assert logged(run, "loss") == logged(lora, "loss")[step:]
    ours, theirs = (load_file(folder / "peft_model.safetensors") for folder in (run, lora))
    assert all((ours[name] == theirs[name]).all() for name in theirs)


def predict(workspace, model, name: str) -> list[dict]:
    output = workspace.folder / name
    workspace.predict(model_name_or_path=model, test_file=workspace.folder / "dev.json", output_file=output, show=0)
    return read_lines(output)


def test_prediction_is_what_evaluation_generated(workspace, lora, base):
    """Merged in prediction, apart in evaluation."""
    evaluated, predicted = read_lines(lora / "eval" / "step-6.jsonl"), predict(workspace, lora, "of-adapter")
    assert [row["id"] for row in evaluated] == [row["id"] for row in predicted]
    for ours, theirs in zip(predicted, evaluated, strict=True):
        assert ours["predictions"][0]["text"] == theirs["predictions"][0]["text"]
        assert ours["predictions"][0]["score"] == pytest.approx(theirs["predictions"][0]["score"], abs=1e-5)
    scores = [
        [row["predictions"][0]["score"] for row in rows] for rows in (predicted, predict(workspace, base, "of-base"))
    ]
    assert np.abs(np.subtract(*scores)).min() > 1e-3  # the adapter matters


def test_merged_by_command(workspace, lora, base, capsys):
    merged = workspace.folder / "merged"
    merge.main(["--adapter", str(lora), "--output_dir", str(merged)])
    assert capsys.readouterr().out == f"{merged}: the model of {lora}, the adapter merged in\n"
    assert set(load_file(merged / "model.safetensors")) == set(load_file(base / "model.safetensors"))
    assert not (merged / "lora_config.json").exists() and not merged.with_name(".merged.partial").exists()
    assert predict(workspace, merged, "merged.jsonl") == predict(workspace, lora, "again.jsonl")
    settings = json.loads((merged / "finetune_config.json").read_text(encoding="utf-8"))
    assert (settings["src_length"], settings["tgt_length"]) == (60, 30)
    with pytest.raises(InputError, match="exists; choose a new folder"):
        merge.main(["--adapter", str(lora), "--output_dir", str(merged)])


def test_what_cannot_be_merged(workspace, base, lora, tmp_path):
    with pytest.raises(InputError, match=r"the folder has no lora_config\.json"):
        merge.main(["--adapter", str(base), "--output_dir", str(tmp_path / "out")])
    moved = tmp_path / "adapter"
    shutil.copytree(lora, moved, ignore=shutil.ignore_patterns("checkpoint-*"))
    settings = json.loads((moved / "lora_config.json").read_text(encoding="utf-8"))
    settings["base_model_name_or_path"] = str(tmp_path / "gone")
    (moved / "lora_config.json").write_text(json.dumps(settings), encoding="utf-8")
    with pytest.raises(InputError, match=r"its model \(base_model_name_or_path\) is gone or has changed: .*gone"):
        merge.main(["--adapter", str(moved), "--output_dir", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_an_adapter_is_a_start_for_further_training(workspace, lora):
    run = workspace.finetune("further", model_name_or_path=lora, tokenizer_name_or_path=None, max_steps=1)
    assert (run / "model.safetensors").exists() and not (run / "lora_config.json").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lora_rank": 4}, "lora_rank 4: has no effect without --lora"),
        ({"lora": True}, r"lora True: model_name_or_path .*model\.json starts from random weights"),
        ({"lora": True, "lora_rank": 0}, "lora_rank 0: use 1 or more"),
        ({"lora": True, "lora_dropout": 1.0}, "lora_dropout 1.0: use 0 or more, and less than 1"),
    ],
)
def test_options_that_cannot_be_honoured(workspace, options, message):
    with pytest.raises(UsageError, match=message):
        workspace.finetune("never", **options)


def test_targets_that_no_layer_is(workspace, base):
    options = {"model_name_or_path": base, "tokenizer_name_or_path": None, "lora": True}
    with pytest.raises(UsageError, match=r"lora_targets query\|dense: join query_key_value, dense"):
        workspace.finetune("never", **options, lora_targets="query|dense")


def test_a_checkpoint_of_the_full_model_is_no_adapter(workspace, base):
    full = workspace.finetune("full", max_steps=1, save_strategy="steps", save_steps=1)
    with pytest.raises(InputError, match=r"there is no peft_model\.safetensors in it"):
        workspace.finetune(
            "mixed",
            **WHAT,
            model_name_or_path=base,
            max_steps=2,
            resume_from_checkpoint=full / "checkpoint-1",
            resume_with_changes=True,
        )
