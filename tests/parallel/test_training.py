"""The scripts over several processes do what they do in one: losses, gradient norms, weights, texts, checkpoints."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tools import rank_jobs
from tools.rank_tools import run_ranks
from tools.run_tools import Workspace, arguments, logged, make_workspace, read_lines

OPTIONS = {
    "attention_dropout_prob": 0.0,
    "embedding_dropout_prob": 0.0,
    "output_dropout_prob": 0.0,
    "max_steps": 20,
    "label_smoothing": 0.1,
    "max_grad_norm": 0.5,
    "learning_rate": 1e-3,
    "save_strategy": "steps",
    "save_steps": 10,
}
RECOMPUTED = {"recompute": True, "gradient_accumulation_steps": 2, "per_device_train_batch_size": 2}
STRATEGIES = {
    "greedy": {"num_beams": 1},
    "beams": {"num_beams": 3, "num_return_sequences": 2, "token_scores": True},
    "sampling": {"num_beams": 1, "select_topk": "false", "top_k": 20, "temperature": 1.3},
    "drawn-beams": {"num_beams": 2, "select_topk": "false", "top_p": 0.9},
}
long = pytest.mark.skipif(not os.environ.get("GLM_LONG_TESTS"), reason="four processes; set GLM_LONG_TESTS=1")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, sentencepiece_file) -> Workspace:
    return make_workspace(tmp_path_factory.mktemp("parallel"), sentencepiece_file)


def evaluated(workspace: Workspace) -> dict:
    return {"do_eval": True, "dev_file": workspace.folder / "dev.json"}


@pytest.fixture(scope="module")
def alone(workspace) -> Path:
    return workspace.finetune("alone", **OPTIONS, **evaluated(workspace))


def finetuning(workspace: Workspace, name: str, **options) -> tuple[str, list[str]]:
    """A run whose processes are told a folder each: only the first one's is to be written to."""
    settings = {**workspace.options, **OPTIONS, "output_dir": workspace.folder / f"{name}-of-{{rank}}", **options}
    return "finetune", list(arguments({key: value for key, value in settings.items() if value is not None}))


def prediction(workspace: Workspace, name: str, **options) -> tuple[str, list[str]]:
    settings = {"model_name_or_path": workspace.folder / "alone", "test_file": workspace.folder / "dev.json"}
    settings |= {"device": "cpu", "output_file": workspace.folder / f"{name}-of-{{rank}}.jsonl", **options}
    return "predict", list(arguments(settings))


@pytest.fixture(scope="module")
def pair(workspace, alone) -> Path:
    """Where the output of two processes lies: all that is asked of them, one after the other."""
    degree = {"tensor_parallel_degree": 2}
    plain = workspace.folder / "plain-of-0"
    run_ranks(
        rank_jobs.run_scripts,
        2,
        finetuning(workspace, "plain", **degree, **evaluated(workspace)),
        finetuning(workspace, "recomputed", **degree, **RECOMPUTED),
        finetuning(workspace, "replicas", per_device_train_batch_size=2),
        finetuning(workspace, "two from one", **degree, resume_from_checkpoint=alone / "checkpoint-10"),
        finetuning(workspace, "two from two", **degree, resume_from_checkpoint=plain / "checkpoint-10"),
        *(prediction(workspace, name, **degree, **options) for name, options in STRATEGIES.items()),
    )
    return workspace.folder


def assert_same(folder: Path, alone: Path, *, steps: int = 20) -> None:
    """Losses, rates and gradient norms of the last steps, weights, and the optimizer's state.

    AdamW divides by the gradient's size: where that is rounding alone, as of a key's bias, so is what is learnt.
    """
    for name in ("loss", "learning_rate", "gradient_norm"):
        ours, theirs = logged(folder, name), logged(alone, name)[-steps:]
        if name != "gradient_norm" or ours:  # it is not measured where gradients are sharded
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, err_msg=name)
    for file in ("model.safetensors", "checkpoint-20/model.safetensors", "checkpoint-20/optimizer.safetensors"):
        ours, theirs = load_file(folder / file), load_file(alone / file)
        assert set(ours) == set(theirs)
        for name, expected in theirs.items():
            if "query_key_value.bias" not in name:
                np.testing.assert_allclose(ours[name], expected, atol=1e-5, err_msg=f"{file}: {name}")


def assert_written_once(folder: Path) -> None:
    """The first process wrote, and no other."""
    files = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
    assert any("-of-0" in name for name in files)
    assert not [name for name in files if any(f"-of-{rank}" in name for rank in (1, 2, 3))]


@pytest.mark.parametrize("name", ["plain", "recomputed", "replicas"])
def test_twenty_steps(pair, alone, name):
    """Label smoothing and clipping in all; recompute and gradient accumulation; two whole models in place of one."""
    folder = pair / f"{name}-of-0"
    assert_same(folder, alone)
    assert len(logged(folder, "gradient_norm")) == 20
    assert "tensor_parallel_degree" not in json.loads((folder / "config.json").read_text())
    assert_written_once(pair)


def assert_same_texts(ours: list[dict], theirs: list[dict]) -> None:
    """Texts exactly, and scores but for rounding: two processes add up in another order than one, and in which order
    either does it is its processor's and its number of threads'. Their sixth digit behind the point is the last bit.
    """
    assert len(ours) == len(theirs) == 4
    for row, expected in zip(ours, theirs, strict=True):
        found, wanted = row.pop("predictions"), expected.pop("predictions")
        assert row == expected and [text["text"] for text in found] == [text["text"] for text in wanted]
        assert [text["score"] for text in found] == pytest.approx([text["score"] for text in wanted], abs=1e-5)


def test_evaluation(pair, alone):
    assert_same_texts(*(read_lines(folder / "eval" / "step-20.jsonl") for folder in (pair / "plain-of-0", alone)))
    figures = [json.loads((folder / "eval_results.json").read_text()) for folder in (pair / "plain-of-0", alone)]
    for name, value in figures[1].items():
        if "second" not in name and "runtime" not in name:
            assert figures[0][name] == pytest.approx(value, rel=1e-5), name


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_predictions(workspace, pair, strategy):
    """Texts and scores, drawn ones too."""
    one = workspace.folder / f"{strategy}-alone.jsonl"
    options = {"model_name_or_path": workspace.folder / "alone", "test_file": workspace.folder / "dev.json"}
    assert workspace.predict(**options, output_file=one, **STRATEGIES[strategy]) == 0
    ours, theirs = read_lines(pair / f"{strategy}-of-0.jsonl"), read_lines(one)
    assert_same_texts(ours, theirs)
    assert_written_once(pair)


@pytest.mark.parametrize("name", ["two from one", "two from two"])
def test_two_processes_go_on(pair, alone, name):
    assert_same(pair / f"{name}-of-0", alone, steps=10)


def test_one_process_goes_on_with_what_two_saved(workspace, pair, alone):
    folder = workspace.finetune(
        "one from two", **OPTIONS, resume_from_checkpoint=pair / "plain-of-0" / "checkpoint-10"
    )
    assert_same(folder, alone, steps=10)


def test_a_number_of_processes_that_does_not_divide_the_model(workspace):
    with pytest.raises(RuntimeError, match="InputError: tensor_parallel_degree 3: .* possible are 1, 2, 4\n"):
        run_ranks(rank_jobs.run_scripts, 3, finetuning(workspace, "three", tensor_parallel_degree=3))
    assert not list(workspace.folder.glob("three*/*"))


# -- four processes


@long
def test_four_processes_of_one_model(workspace, pair, alone):
    degree = {"tensor_parallel_degree": 4}
    saved = pair / "plain-of-0" / "checkpoint-10"
    run_ranks(
        rank_jobs.run_scripts,
        4,
        finetuning(workspace, "four", **degree),
        finetuning(workspace, "four recomputed", **degree, **RECOMPUTED),
        finetuning(workspace, "four from two", **degree, resume_from_checkpoint=saved),
    )
    assert_same(pair / "four-of-0", alone)
    assert_same(pair / "four recomputed-of-0", alone)
    assert_same(pair / "four from two-of-0", alone, steps=10)
    assert_written_once(pair)


@long
@pytest.mark.parametrize(
    "options", [{}, {"sharding": "stage1"}, {"sharding": "stage2"}], ids=["data", "stage1", "stage2"]
)
def test_two_replicas_of_a_split_model(workspace, alone, options):
    """Data parallel, or each with a part of the optimizer's state; what they save, others go on with, and back."""
    name = f"replicas-{'-'.join(options.values())}"
    options = {**options, "tensor_parallel_degree": 2, "per_device_train_batch_size": 2}
    goes_on = {"resume_with_changes": True, "resume_from_checkpoint": alone / "checkpoint-10"}
    run_ranks(
        rank_jobs.run_scripts,
        4,
        finetuning(workspace, name, **options),
        finetuning(workspace, f"{name} from one", **options, **goes_on),
    )
    assert_same(workspace.folder / f"{name}-of-0", alone)
    assert_same(workspace.folder / f"{name} from one-of-0", alone, steps=10)
    goes_on["resume_from_checkpoint"] = workspace.folder / f"{name}-of-0" / "checkpoint-10"
    assert_same(workspace.finetune(f"one from {name}", **OPTIONS, **goes_on), alone, steps=10)
    assert_written_once(workspace.folder)
