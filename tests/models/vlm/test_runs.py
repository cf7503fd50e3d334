"""Runs of a GPT-2 with VLM's tasks: adapters and their rows are trained, alone and together, and share batches."""

import json
import signal

import numpy as np
import pytest
from safetensors.numpy import load_file

import finetune_generation
from glm.checkpoint.convert import export_checkpoint
from glm.checkpoint.loading import find_family, load_config, load_model
from glm.errors import InputError, UsageError
from glm.models import registry
from glm.models.vlm.tokenization import TASKS
from tools.fault_tools import FaultServer, outcome
from tools.run_tools import Workspace, arguments, logged, read_lines, write_records
from tools.vlm_tools import write_tokenizer

NAMES = ("Alimentum", "Blue Spice", "Cocum", "Fitzbillies")
TABLE = "vlm.word_embeddings.weight"
HOW = {
    "tgt_length": 12,
    "src_length": 40,
    "num_beams": 1,
    "learning_rate": 0.01,
    "label_smoothing": 0.0,
    "max_steps": 4,
}
HOW |= {"adapter_bottleneck": 5, "tokenizer_name_or_path": None, "weight_decay": 0.0}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Workspace:
    """A GPT-2 as Hugging Face writes it, without rows for tags, and records of two tasks."""
    folder = tmp_path_factory.mktemp("vlm-runs")
    mt = [{"src": f"{name} is good .", "tgt": f"{name} ist gut ."} for name in NAMES] * 3
    nlg = [{"src": {"name": name, "area": "riverside"}, "tgt": f"{name} is by the river ."} for name in NAMES] * 3
    write_records(folder / "mt.json", mt)
    write_records(folder / "nlg.json", nlg)
    tokenizer = write_tokenizer(folder / "tokenizer", [row["src"] for row in mt] + [row["tgt"] for row in nlg])
    family = registry.find("vlm")
    words = family.open_tokenizer(tokenizer).words
    sizes = {"vocab_size": words, "hidden_size": 32, "num_layers": 2, "num_attention_heads": 2}
    config = family.config_class()(**sizes, max_position_embeddings=80)
    model = family.model_class()(config)
    model.save_pretrained(str(folder / "ours"), safe_serialization=True)
    family.save_tokenizer(family.open_tokenizer(tokenizer), folder / "ours")
    export_checkpoint(folder / "ours", folder / "gpt2", to="huggingface")
    return Workspace(folder, tokenizer)


def run(workspace, name: str, files: list[str], **options):
    given = {**workspace.options, **HOW, "model_name_or_path": workspace.folder / "gpt2", **options}
    given |= {"output_dir": workspace.folder / name, "train_file": None}
    finetune_generation.main(
        [*arguments({key: value for key, value in given.items() if value is not None}), "--train_file", *files]
    )
    return workspace.folder / name


@pytest.fixture(scope="module")
def single(workspace):
    return run(workspace, "mt", [str(workspace.folder / "mt.json")], task_name="mt")


@pytest.fixture(scope="module")
def joint(workspace):
    """Both tasks in every batch."""
    files = [f"{task}={workspace.folder / task}.json" for task in ("mt", "nlg")]
    return run(workspace, "joint", files, save_strategy="steps", save_steps=2)


def weights_of(folder) -> dict[str, np.ndarray]:
    family = find_family(str(folder))
    tokenizer = family.open_tokenizer(folder)
    model = load_model(family, str(folder), load_config(family, str(folder), tokenizer))
    return {name: weight.numpy() for name, weight in model.state_dict().items()}


def test_only_what_should_change_changes(workspace, single):
    """The adapter is new; of the word table the task's own four rows change, and every other number is the base's."""
    ours, theirs = weights_of(single), weights_of(workspace.folder / "gpt2")
    saved = load_file(single / "peft_model.safetensors")
    assert {name for name in ours if name not in theirs} == {name for name in saved if ".rows." not in name}
    tokenizer = registry.find("vlm").open_tokenizer(single)
    changed = np.flatnonzero((ours[TABLE] != theirs[TABLE]).any(axis=1))
    assert changed.tolist() == tokenizer.rows_of("mt") and len(changed) == 4
    assert all(np.array_equal(ours[name], theirs[name]) for name in theirs if name != TABLE)
    assert logged(single, "loss")[-1] < logged(single, "loss")[0]


def test_tasks_are_trained_together(workspace, joint):
    weights = load_file(joint / "peft_model.safetensors")
    assert {name.split(".adapters.")[1].split(".")[0] for name in weights if ".adapters." in name} == {"mt", "nlg"}
    assert {name.split(".rows.")[1] for name in weights if ".rows." in name} == {"mt", "nlg", "pad"}
    files = [f"{task}={workspace.folder / task}.json" for task in ("mt", "nlg")]
    again = run(workspace, "again", files, resume_from_checkpoint=joint / "checkpoint-2")
    resumed = load_file(again / "peft_model.safetensors")
    assert all(np.array_equal(resumed[name], weights[name]) for name in weights)


@pytest.mark.fault
def test_a_killed_run_goes_on(workspace):
    """Both tasks in every batch, killed in the middle of a step: equal in every bit, the optimizer's moments too."""
    files = [f"{task}={workspace.folder / task}.json" for task in ("mt", "nlg")]
    options = {**HOW, "model_name_or_path": workspace.folder / "gpt2", "train_file": files, "save_strategy": "steps"}
    server = FaultServer(workspace)
    try:
        assert server.run("whole", save_steps=1, **options) == 0, server.said()
        assert server.run("killed", "kill_at_step", 3, save_steps=1, **options) == -signal.SIGKILL, server.said()
        assert server.run("killed", save_steps=1, **options) == 0, server.said()
    finally:
        server.close()
    whole, killed = (outcome(workspace.folder / name, last=HOW["max_steps"]) for name in ("whole", "killed"))
    assert whole == killed


def test_tasks_share_batches(workspace, joint):
    """Each row as alone; no tag is ever written."""
    rows = [
        json.loads((workspace.folder / f"{task}.json").read_text().splitlines()[n])
        for n in (0, 1)
        for task in ("mt", "nlg")
    ]
    mixed = [{**row, "task": ("mt", "nlg")[place % 2]} for place, row in enumerate(rows)]
    mixed.append({"source": "Cocum is", "task": "qa"})
    write_records(workspace.folder / "mixed.json", mixed)
    options = {"adapters": joint, "model_name_or_path": workspace.folder / "gpt2", "show": 0, "overwrite_output": True}
    output = workspace.folder / "out.jsonl"
    workspace.predict(**options, test_file=workspace.folder / "mixed.json", output_file=output)
    together = read_lines(output)
    for place, record in enumerate(mixed[:-1]):
        write_records(workspace.folder / "one.json", [record])
        workspace.predict(**options, test_file=workspace.folder / "one.json", output_file=output)
        (alone,) = read_lines(output)
        assert together[place]["predictions"][0]["text"] == alone["predictions"][0]["text"]
        assert not any(tag in alone["predictions"][0]["text"] for tags in TASKS.values() for tag in tags.tokens)
        score = alone["predictions"][0]["score"]
        assert together[place]["predictions"][0]["score"] == pytest.approx(score, abs=1e-5)
    assert "qa is no task that is loaded; loaded are mt, nlg" in together[-1]["error"]


def test_what_is_refused(workspace, single):
    files = [str(workspace.folder / "mt.json")]
    with pytest.raises(UsageError, match="weight_decay 0.1: would move rows"):
        run(workspace, "refused", files, task_name="mt", weight_decay=0.1)
    with pytest.raises(UsageError, match="task_name title: VLM has the tasks mt, summarization"):
        run(workspace, "refused", files, task_name="title", template=None)
    options = {"test_file": workspace.folder / "nlg.json", "output_file": workspace.folder / "x", "task_name": "nlg"}
    with pytest.raises(InputError, match="task 4: the model has no adapter for it; it has those of 0"):
        workspace.predict(model_name_or_path=single, **options)
