"""Runs of `finetune_generation.py` over several processes are the run of one: losses, gradient norms, weights."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

import rank_jobs
from rank_tools import run_ranks
from run_tools import Workspace, arguments, logged, make_workspace, read_lines

OPTIONS = {
    "attention_dropout_prob": 0.0,
    "embedding_dropout_prob": 0.0,
    "output_dropout_prob": 0.0,
    "max_steps": 20,
    "label_smoothing": 0.1,
    "max_grad_norm": 0.5,
    "learning_rate": 1e-3,
}
FULL = {"recompute": True, "gradient_accumulation_steps": 2, "per_device_train_batch_size": 2}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, sentencepiece_file) -> Workspace:
    return make_workspace(tmp_path_factory.mktemp("parallel"), sentencepiece_file)


@pytest.fixture(scope="module")
def alone(workspace):
    return workspace.finetune("alone", **OPTIONS)


def run(workspace: Workspace, name: str, processes: int, **options) -> list[str]:
    """The command line of a run."""
    settings = {**workspace.options, **OPTIONS, "output_dir": workspace.folder / name, **options}
    return list(arguments({key: value for key, value in settings.items() if value is not None}))


def assert_same(run_folder, alone):
    """AdamW divides by the gradient's size: where that is rounding alone, as of a key's bias, so is what is learnt."""
    np.testing.assert_allclose(logged(run_folder, "loss"), logged(alone, "loss"), rtol=1e-5)
    ours, theirs = load_file(run_folder / "model.safetensors"), load_file(alone / "model.safetensors")
    assert set(ours) == set(theirs)
    for name in theirs:
        if not name.endswith("query_key_value.bias"):
            np.testing.assert_allclose(ours[name], theirs[name], atol=1e-5, err_msg=name)


@pytest.mark.parametrize("degree", [2, 4])
def test_twenty_steps_of_every_degree_are_the_same(workspace, alone, degree):
    """Plain, and with recompute and gradient accumulation; label smoothing and clipping in both."""
    commands = [
        run(workspace, f"{name}-{degree}", degree, tensor_parallel_degree=degree, **options)
        for name, options in (("plain", {}), ("full", FULL))
    ]
    run_ranks(rank_jobs.finetune, degree, *commands)
    for name in ("plain", "full"):
        folder = workspace.folder / f"{name}-{degree}"
        assert_same(folder, alone)
        np.testing.assert_allclose(logged(folder, "gradient_norm"), logged(alone, "gradient_norm"), rtol=1e-5)
        assert "tensor_parallel_degree" not in json.loads((folder / "config.json").read_text())


@pytest.mark.parametrize(
    "options", [{}, {"sharding": "stage1"}, {"sharding": "stage2"}], ids=["data", "stage1", "stage2"]
)
def test_data_parallel_and_sharded(workspace, alone, options):
    """Two replicas, or two shards of the optimizer's state, of a model that is split over two processes."""
    name = f"replicas-{'-'.join(options.values())}"
    command = run(workspace, name, 4, tensor_parallel_degree=2, per_device_train_batch_size=2, **options)
    run_ranks(rank_jobs.finetune, 4, command)
    assert_same(workspace.folder / name, alone)


STRATEGIES = {
    "greedy": {"num_beams": 1},
    "beams": {"num_beams": 3, "num_return_sequences": 2, "token_scores": True},
    "sampling": {"num_beams": 1, "select_topk": "false", "top_k": 20, "temperature": 1.3},
    "drawn-beams": {"num_beams": 2, "select_topk": "false", "top_p": 0.9},
}


def test_predictions_of_several_processes_are_those_of_one(workspace, alone):
    """Texts and scores, all strategies; the first process writes them, and the others nothing."""

    def command(name: str, where: str, **options) -> list[str]:
        settings = {"model_name_or_path": alone, "test_file": workspace.folder / "dev.json", "device": "cpu"}
        return list(arguments(settings | {"output_file": workspace.folder / f"{where}-{name}.jsonl", **options}))

    for name, options in STRATEGIES.items():
        assert workspace.predict(**{"model_name_or_path": alone, "test_file": workspace.folder / "dev.json"},
                                 output_file=workspace.folder / f"one-{name}.jsonl", **options) == 0  # fmt: skip
    run_ranks(
        rank_jobs.predict_texts,
        2,
        *(command(name, "two", tensor_parallel_degree=2, **options) for name, options in STRATEGIES.items()),
    )
    for name in STRATEGIES:
        one, two = (read_lines(workspace.folder / f"{where}-{name}.jsonl") for where in ("one", "two"))
        assert len(one) == len(two) == 4
        for ours, theirs in zip(two, one, strict=True):
            assert [text["text"] for text in ours["predictions"]] == [text["text"] for text in theirs["predictions"]]
            scores = [[text["score"] for text in row["predictions"]] for row in (ours, theirs)]
            assert scores[0] == pytest.approx(scores[1], abs=1e-5)


def test_what_two_processes_saved_one_process_goes_on_with(workspace, alone):
    """The final model is whole, whoever wrote it, and is split again when it is loaded."""
    run_ranks(
        rank_jobs.finetune,
        2,
        run(workspace, "again", 2, tensor_parallel_degree=2, model_name_or_path=alone, max_steps=3),
    )
    again = workspace.finetune("again-alone", **{**OPTIONS, "max_steps": 3}, model_name_or_path=alone)
    np.testing.assert_allclose(logged(workspace.folder / "again", "loss"), logged(again, "loss"), rtol=1e-5)
