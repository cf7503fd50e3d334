"""Adapters beside a model that is split over two processes: trained and predicted with as in one."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from tools import rank_jobs
from tools.rank_tools import run_ranks
from tools.run_tools import Workspace, arguments, logged, make_workspace, read_lines, write_records

STEPS = 6
HOW = {"learning_rate": 1e-2, "tokenizer_name_or_path": None, "max_steps": STEPS}
HOW |= dict.fromkeys(("attention_dropout_prob", "embedding_dropout_prob", "output_dropout_prob"), 0.0)
LORA = {"lora": True, "lora_rank": 3, "lora_targets": "query_key_value|dense|dense_h_to_4h|dense_4h_to_h"}
SAVES = {"save_strategy": "steps", "save_steps": 3}
RESIDUAL, LORA = {"adapter_bottleneck": 6} | SAVES, LORA | SAVES
DEGREE = {"tensor_parallel_degree": 2}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, sentencepiece_file) -> Workspace:
    return make_workspace(tmp_path_factory.mktemp("split"), sentencepiece_file)


@pytest.fixture(scope="module")
def base(workspace):
    return workspace.finetune("base", max_steps=15, learning_rate=1e-2)


@pytest.fixture(scope="module")
def alone(workspace, base):
    """Adapters that one process has trained, by name."""
    kinds = {"residual": RESIDUAL, "low": LORA}
    return {name: workspace.finetune(name, **HOW, **kind, model_name_or_path=base) for name, kind in kinds.items()}


def mixed(workspace, alone) -> dict:
    """Options of a prediction of records of both tasks and of none."""
    rows = read_lines(workspace.folder / "dev.json")
    tasks = ["residual", "low", None, "low"]
    records = [{**rows[n % len(rows)], **({"task": task} if task else {})} for n, task in enumerate(tasks)]
    write_records(workspace.folder / "mixed.json", records)
    adapters = ",".join(f"{name}={folder}" for name, folder in alone.items())
    return {"test_file": workspace.folder / "mixed.json", "adapters": adapters, "num_beams": 3, "token_scores": True}


@pytest.fixture(scope="module")
def pair(workspace, base, alone):
    """Where the output of two processes lies: all that is asked of them, one after the other."""

    def command(script: str, **options) -> tuple[str, list[str]]:
        return script, list(arguments({name: value for name, value in options.items() if value is not None}))

    def finetuning(name: str, **options) -> tuple[str, list[str]]:
        settings = {**workspace.options, **HOW, **DEGREE, "model_name_or_path": base, **options}
        return command("finetune", **settings, output_dir=workspace.folder / f"{name}-of-{{rank}}")

    output = workspace.folder / "mixed-of-{rank}.jsonl"
    asked = {"model_name_or_path": base, "device": "cpu", "output_file": output, **DEGREE, **mixed(workspace, alone)}
    run_ranks(
        rank_jobs.run_scripts,
        2,
        finetuning("residual", **RESIDUAL),
        finetuning("residual on", **RESIDUAL, resume_from_checkpoint=workspace.folder / "residual-of-0/checkpoint-3"),
        finetuning("low", **LORA),
        finetuning("low on", **LORA, resume_from_checkpoint=workspace.folder / "low-of-0/checkpoint-3"),
        command("predict", **asked),
    )
    return workspace.folder


@pytest.mark.parametrize(("suffix", "steps"), [("", STEPS), (" on", 3)])
@pytest.mark.parametrize("kind", ["residual", "low"])
def test_an_adapter_is_trained(pair, alone, kind, suffix, steps):
    """Losses and whole weights are those of one process, and of a residual one the digests of the whole base."""
    folder = pair / f"{kind}{suffix}-of-0"
    for figure in ("loss", "gradient_norm"):
        ours, theirs = logged(folder, figure), logged(alone[kind], figure)[-steps:]
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, err_msg=figure)
    ours, theirs = (load_file(path / "peft_model.safetensors") for path in (folder, alone[kind]))
    assert set(ours) == set(theirs)
    for weight, expected in theirs.items():
        np.testing.assert_allclose(ours[weight], expected, atol=1e-5, err_msg=weight)
    if kind == "residual":
        configs = [json.loads((path / "bottleneck_config.json").read_text()) for path in (folder, alone[kind])]
        assert configs[0]["base_tensors"] == configs[1]["base_tensors"]
    of_second = (pair / f"{kind}{suffix}-of-1").rglob("*")
    assert not [path for path in of_second if path.is_file()]  # the first process wrote alone


def test_a_mixed_batch_is_predicted(workspace, pair, base, alone):
    """A residual adapter, LoRA and the base itself in one batch of two processes: as in one."""
    output = workspace.folder / "mixed.jsonl"
    workspace.predict(model_name_or_path=base, output_file=output, **mixed(workspace, alone))
    ours, theirs = read_lines(pair / "mixed-of-0.jsonl"), read_lines(output)
    assert len(ours) == len(theirs) == 4
    for row, expected in zip(ours, theirs, strict=True):
        (one, *_), (other, *_) = row["predictions"], expected["predictions"]
        assert one["text"] == other["text"]
        scores = [[score for _, score in found["token_scores"]] for found in (one, other)]
        np.testing.assert_allclose(*scores, rtol=0, atol=1e-5)
    means = [np.mean([score for _, score in row["predictions"][0]["token_scores"]]) for row in theirs]
    assert len({round(mean, 4) for mean in means[:3]}) == 3  # the three differ
