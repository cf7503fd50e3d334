"""Runs with --prefix_tuning: they train, resume, evaluate and predict as a full model does; nothing can be merged."""

import json
import os
import shutil

import numpy as np
import pytest
from paddlenlp.peft import PrefixConfig
from safetensors.numpy import load_file

from glm.commands import checkpoint, memory, merge
from glm.errors import InputError, UsageError
from tools.run_tools import logged, read_lines, write_records

WHAT = {"prefix_tuning": True, "num_prefix_tokens": 5}
NUMBERS = 5 * 2 * 2 * 32  # keys and values of 5 tokens in 2 layers of 32


def of_prefix(base, **options) -> dict:
    """What the runs of prefixes here share."""
    start = {"model_name_or_path": base, "tokenizer_name_or_path": None, "max_steps": 6, "learning_rate": 5e-2}
    return {**WHAT, **start, **options}


@pytest.fixture(scope="module")
def prefix(workspace, base):
    """A prefix of it, 6 steps, a checkpoint at each, evaluated at the end."""
    options = {"save_strategy": "steps", "save_steps": 1, "do_eval": True, "dev_file": workspace.folder / "dev.json"}
    return workspace.finetune("prefix", **of_prefix(base, **options))


def weights_of(folder) -> dict[str, np.ndarray]:
    return load_file(folder / "peft_model.safetensors")


def assert_same_weights(ours, theirs) -> None:
    ours, theirs = weights_of(ours), weights_of(theirs)
    assert set(ours) == set(theirs) and all((ours[name] == theirs[name]).all() for name in theirs)


# -- training


def test_only_the_prefix_is_saved(prefix, base):
    drawn = None
    for folder in (prefix / "checkpoint-1", prefix / "checkpoint-3", prefix):
        assert not (folder / "model.safetensors").exists() and not list(folder.glob("model_state*"))
        weights = weights_of(folder)
        assert set(weights) == {"0.weight"} and weights["0.weight"].shape == (5, NUMBERS // 5)
        assert drawn is None or (weights["0.weight"] != drawn).mean() > 0.99  # all of it has moved
        drawn = weights["0.weight"]
    optimizer = load_file(prefix / "checkpoint-3" / "optimizer.safetensors")
    assert {tensor.size for tensor in optimizer.values()} == {NUMBERS, 1} and len(optimizer) == 4


def test_paddlenlp_reads_the_settings(prefix, base):
    theirs = PrefixConfig.from_pretrained(str(prefix))
    assert (theirs.num_prefix_tokens, theirs.num_hidden_layers, theirs.num_attention_heads) == (5, 2, 4)
    assert (theirs.hidden_size, theirs.prefix_projection, theirs.dtype) == (32, False, "float32")
    settings = json.loads((prefix / "prefix_config.json").read_text(encoding="utf-8"))
    assert settings["base_model_name_or_path"] == os.path.relpath(base, prefix)
    options = json.loads((prefix / "finetune_config.json").read_text(encoding="utf-8"))
    assert {name: options[name] for name in options if "prefix" in name or "lora" in name} == {
        "lora": False,
        "prefix_tuning": True,
        "num_prefix_tokens": 5,
        "prefix_projection": False,
    }


@pytest.mark.parametrize(("projection", "rate"), [(False, 0.5), (True, 0.05)])
def test_another_question_is_learnt(workspace, base, projection, rate):
    """Than the one the model knows; through a projection at a lower rate."""
    records = [row | {"question": "在哪里？有多少人口？"} for row in read_lines(workspace.folder / "train.json")]
    write_records(workspace.folder / "other.json", records)
    options = {"attention_dropout_prob": 0.0, "embedding_dropout_prob": 0.0, "output_dropout_prob": 0.0}
    if projection:
        options["prefix_projection"] = True
    options |= {"per_device_train_batch_size": 20, "max_steps": 40, "learning_rate": rate}
    options["train_file"] = workspace.folder / "other.json"
    run = workspace.finetune(f"learning-{projection}", **of_prefix(base, **options))
    losses = logged(run, "loss")  # each of all records
    assert losses[-1] < losses[0] - 0.5
    assert len(weights_of(run)) == (5 if projection else 1)


@pytest.mark.parametrize("step", [3, 5])
def test_a_resumed_run_is_the_same_run(workspace, base, prefix, step):
    options = of_prefix(base, resume_from_checkpoint=prefix / f"checkpoint-{step}")
    run = workspace.finetune(f"resumed-{step}", **options)
    assert logged(run, "loss") == logged(prefix, "loss")[step:]
    assert_same_weights(run, prefix)


def test_a_resumed_run_with_projection_is_the_same_run(workspace, base):
    options = of_prefix(base, prefix_projection=True, max_steps=4, save_strategy="steps", save_steps=2)
    whole = workspace.finetune("projected", **options)
    run = workspace.finetune("projected-2", **options, resume_from_checkpoint=whole / "checkpoint-2")
    assert logged(run, "loss") == logged(whole, "loss")[2:]
    assert_same_weights(run, whole)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"num_prefix_tokens": 6}, "num_prefix_tokens: 5 then, 6 now"),
        ({"prefix_projection": True}, "prefix_projection"),
    ],
)
def test_other_settings_are_another_run(workspace, base, prefix, option, message):
    options = of_prefix(base, resume_from_checkpoint=prefix / "checkpoint-3", **option)
    with pytest.raises(InputError, match=f"the run is another one now .*{message}"):
        workspace.finetune("never", **options)


def test_ways_of_training_that_learn_the_same(workspace, base):
    """Packed rows, batches accumulated, and activations computed twice."""
    plain = {"attention_dropout_prob": 0.0, "embedding_dropout_prob": 0.0, "output_dropout_prob": 0.0, "max_steps": 3}
    want = weights_of(workspace.finetune("plain", **of_prefix(base, **plain)))["0.weight"]
    accumulated = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    ways = {"packed": {"packing": True}, "accumulated": accumulated, "recomputed": {"recompute": True}}
    for name, way in ways.items():
        got = weights_of(workspace.finetune(name, **of_prefix(base, **plain, **way)))["0.weight"]
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-4, err_msg=name)


# -- what is made of the folder


def predict(workspace, model, name: str, **options) -> list[dict]:
    output = workspace.folder / name
    workspace.predict(
        model_name_or_path=model, test_file=workspace.folder / "dev.json", output_file=output, show=0, **options
    )
    return read_lines(output)


def scores(rows: list[dict]) -> list[float]:
    return [row["predictions"][0]["score"] for row in rows]


@pytest.mark.parametrize("size", [1, 3, 16])
def test_prediction_is_what_evaluation_generated(workspace, prefix, base, size):
    evaluated = read_lines(prefix / "eval" / "step-6.jsonl")
    predicted = predict(workspace, prefix, f"of-prefix-{size}", per_device_eval_batch_size=size)
    assert [row["id"] for row in evaluated] == [row["id"] for row in predicted]
    for ours, theirs in zip(predicted, evaluated, strict=True):
        assert ours["predictions"][0]["text"] == theirs["predictions"][0]["text"]
    assert scores(predicted) == pytest.approx(scores(evaluated), abs=1e-5)
    of_base = predict(workspace, base, f"of-base-{size}", per_device_eval_batch_size=size)
    assert np.abs(np.subtract(scores(predicted), scores(of_base))).min() > 1e-3  # the prefix matters


def test_evaluation_of_the_folder(workspace, prefix):
    options = {"model_name_or_path": prefix, "tokenizer_name_or_path": None, "do_train": None, "train_file": None}
    run = workspace.finetune("evaluated", **options, do_eval=True, dev_file=workspace.folder / "dev.json")
    ours, theirs = (json.loads((folder / "eval_results.json").read_text(encoding="utf-8")) for folder in (run, prefix))
    assert ours["eval_loss"] == pytest.approx(theirs["eval_loss"], abs=1e-6)
    assert ours["eval_rouge-l (char)"] == pytest.approx(theirs["eval_rouge-l (char)"])


def test_blanks_are_filled(workspace, prefix, base, capsys):
    filled = []
    for model in (prefix, base):
        workspace.predict(model_name_or_path=model, fill="松江位于[MASK]，人口[MASK]。", tgt_length=12)
        (row,) = map(json.loads, capsys.readouterr().out.splitlines())
        filled.append(row)
    assert filled[0] != filled[1]


def test_a_moved_model_is_named(workspace, prefix, tmp_path):
    moved = tmp_path / "prefix"
    shutil.copytree(prefix, moved, ignore=shutil.ignore_patterns("checkpoint-*"))
    settings = json.loads((moved / "prefix_config.json").read_text(encoding="utf-8"))
    settings["base_model_name_or_path"] = str(tmp_path / "gone")
    (moved / "prefix_config.json").write_text(json.dumps(settings), encoding="utf-8")
    with pytest.raises(InputError, match=r"its model \(base_model_name_or_path\) is gone or has changed: .*gone"):
        predict(workspace, moved, "never.jsonl")


def test_what_a_prefix_is_no_good_for(workspace, prefix, base, tmp_path, capsys):
    with pytest.raises(InputError, match="a prefix is keys and values of its own, which no weight of a model"):
        merge.main(["--adapter", str(prefix), "--output_dir", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()
    for command in (lambda: checkpoint.main(["inspect", str(prefix)]), lambda: memory.main([str(prefix)])):
        with pytest.raises(InputError, match="a prefix without its model; give the folder of its model"):
            command()
    for options in ({}, {"lora": True}, WHAT):
        with pytest.raises(InputError, match=f"is a prefix, and training starts from a model; give its model, {base}"):
            workspace.finetune("never", **{"model_name_or_path": prefix, "tokenizer_name_or_path": None, **options})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_prefix_tokens": 4}, "num_prefix_tokens 4: has no effect without --prefix_tuning"),
        ({"lora": True, "prefix_projection": True}, "prefix_projection True: has no effect without --prefix_tuning"),
        ({**WHAT, "lora_rank": 4}, "lora_rank 4: has no effect without --lora"),
        ({**WHAT, "lora": True}, "prefix_tuning True: not beside lora True; leave one of them out"),
        (WHAT, r"prefix_tuning True: model_name_or_path .*model\.json starts from random weights"),
        ({**WHAT, "num_prefix_tokens": 0}, "num_prefix_tokens 0: use 1 or more"),
        ({**WHAT, "do_train": None, "do_eval": True, "train_file": None}, "prefix_tuning True: has no effect without"),
        (
            {**WHAT, "model_name_or_path": "trained", "freeze": "embeddings"},
            "freeze embeddings: has no effect with --prefix_tuning; leave it out",
        ),
        (
            {**WHAT, "model_name_or_path": "trained", "layerwise_lr_decay": 0.9},
            "layerwise_lr_decay 0.9: has no effect with --prefix_tuning; leave it out",
        ),
    ],
)
def test_options_that_cannot_be_honoured(workspace, options, message):
    with pytest.raises(UsageError, match=message):
        workspace.finetune("never", **options)


def test_a_checkpoint_of_another_kind_is_no_prefix(workspace, base):
    start = {"model_name_or_path": base, "tokenizer_name_or_path": None}
    start |= {"save_strategy": "steps", "save_steps": 1, "max_steps": 1}
    full = workspace.finetune("full", **start)
    lora = workspace.finetune("lora", **start, lora=True)
    for folder, message in ((full, r"there is no peft_model\.safetensors in it"), (lora, "is of another adapter")):
        options = {"resume_from_checkpoint": folder / "checkpoint-1", "resume_with_changes": True, "max_steps": 2}
        with pytest.raises(InputError, match=message):
            workspace.finetune("mixed", **of_prefix(base, **options))
