"""Runs with --adapter_bottleneck: what should change changes and nothing else, they resume to the bit, and predict."""

import asyncio
import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from glm.checkpoint.loading import find_family, load_config, load_model
from glm.checkpoint.tokenizers import load_tokenizer
from glm.commands import adapters, distill
from glm.errors import InputError, UsageError
from glm.options.predict import parse_predict_arguments
from glm.serving.schemas import GenerateRequest
from glm.serving.server import build_service
from tools.run_tools import logged, read_lines, write_records

WHAT = {"adapter_bottleneck": 6, "learning_rate": 2e-2, "tokenizer_name_or_path": None, "max_steps": 6}


@pytest.fixture(scope="module")
def adapter(workspace, base):
    """An adapter of it, 6 steps, a checkpoint at each, evaluated at the end."""
    dev = {"do_eval": True, "dev_file": workspace.folder / "dev.json"}
    return workspace.finetune(
        "bottleneck", **WHAT, **dev, model_name_or_path=base, save_strategy="steps", save_steps=1
    )


@pytest.fixture(scope="module")
def two(workspace, base):
    """Two tasks that are trained together, each with a file and an adapter of its own."""
    titles = [{"context": f"{n}号文章", "answer": f"{n}", "question": f"标题{n}"} for n in range(20)]
    write_records(workspace.folder / "titles.json", titles)
    options = {**workspace.options, **WHAT, "model_name_or_path": base, "output_dir": workspace.folder / "two"}
    files = [f"qg={workspace.folder / 'train.json'}", f"title={workspace.folder / 'titles.json'}"]
    import finetune_generation
    from tools.run_tools import arguments

    given = {name: value for name, value in options.items() if value is not None and name != "train_file"}
    finetune_generation.main([*arguments(given), "--train_file", *files])
    return workspace.folder / "two"


def loaded(folder):
    family = find_family(str(folder))
    tokenizer = load_tokenizer(family, str(folder))
    return load_model(family, str(folder), load_config(family, str(folder), tokenizer))


def test_only_the_adapter_is_saved(adapter):
    for folder in (adapter, adapter / "checkpoint-3"):
        assert not (folder / "model.safetensors").exists() and not list(folder.glob("model_state*"))
        weights = load_file(folder / "peft_model.safetensors")
        assert len(weights) == 2 * 6 and all(".adapters.dureader_qg." in name for name in weights)
        assert sum(weight.size for weight in weights.values()) == 2 * (2 * 32 * 6 + 6 + 3 * 32)


def test_nothing_else_changes(adapter, base):
    """Every number of the model is the base's, to the bit."""
    ours, theirs = loaded(adapter).state_dict(), loaded(base).state_dict()
    assert {name for name in ours if name not in theirs} == set(load_file(adapter / "peft_model.safetensors"))
    for name, weight in theirs.items():
        assert np.array_equal(ours[name].numpy(), weight.numpy()), name


@pytest.mark.parametrize("step", [3, 5])
def test_a_resumed_run_is_the_same_run(workspace, base, adapter, step):
    how = {**WHAT, "model_name_or_path": base, "resume_from_checkpoint": adapter / f"checkpoint-{step}"}
    run = workspace.finetune(f"bottleneck-{step}", **how)
    assert logged(run, "loss") == logged(adapter, "loss")[step:]
    ours, theirs = (load_file(folder / "peft_model.safetensors") for folder in (run, adapter))
    assert all((ours[name] == theirs[name]).all() for name in theirs)


def predict(workspace, model, name: str, **options) -> list[dict]:
    output = workspace.folder / name
    options = {"test_file": workspace.folder / "dev.json", "show": 0, **options}
    workspace.predict(model_name_or_path=model, output_file=output, **options)
    return read_lines(output)


def test_it_begins_as_the_base_model(workspace, base):
    """Up is 0: before the first step nothing differs in a bit."""
    start = workspace.finetune("untrained", **WHAT | {"learning_rate": 1e-30, "max_steps": 1}, model_name_or_path=base)
    rows = predict(workspace, start, "untrained.jsonl"), predict(workspace, base, "untouched.jsonl")
    assert [row["predictions"] for row in rows[0]] == [row["predictions"] for row in rows[1]]


def test_prediction_is_what_evaluation_generated(workspace, adapter, base):
    evaluated, predicted = read_lines(adapter / "eval" / "step-6.jsonl"), predict(workspace, adapter, "b.jsonl")
    for ours, theirs in zip(predicted, evaluated, strict=True):
        assert ours["predictions"][0]["text"] == theirs["predictions"][0]["text"]
        assert ours["predictions"][0]["score"] == pytest.approx(theirs["predictions"][0]["score"], abs=1e-5)
    scores = [[row["predictions"][0]["score"] for row in rows] for rows in (predicted, predict(workspace, base, "c"))]
    assert np.abs(np.subtract(*scores)).min() > 1e-3  # the adapter matters


def test_two_tasks_share_a_run(two):
    weights = load_file(two / "peft_model.safetensors")
    assert len(weights) == 2 * 2 * 6 and {name.split(".adapters.")[1].split(".")[0] for name in weights} == {
        "qg",
        "title",
    }
    assert list(json.loads((two / "bottleneck_config.json").read_text())["tasks"]) == ["qg", "title"]


def mixed_file(workspace) -> list[dict]:
    """Records of two tasks, of none, and of one that nobody loads."""
    rows = [json.loads(line) for line in (workspace.folder / "dev.json").read_text(encoding="utf-8").splitlines()]
    tasks = ["qg", "title", None, "title", "qg", "poem"]
    records = [{**rows[n % len(rows)], "task": task} for n, task in enumerate(tasks)]
    records = [{name: value for name, value in record.items() if value is not None} for record in records]
    write_records(workspace.folder / "mixed.json", records)
    return records


@pytest.mark.parametrize("num_beams", [1, 3])
def test_tasks_share_batches(workspace, base, two, num_beams):
    """Each row is what its task, or the base, writes alone; a task that is not loaded is named in its row."""
    records, named = mixed_file(workspace), workspace.folder / "mixed.json"
    options = {"num_beams": num_beams, "overwrite_output": True}
    rows = predict(workspace, base, "mixed.out", test_file=named, adapters=two, **options)
    for number, record in enumerate(records[:-1]):
        write_records(workspace.folder / "one.json", [record])
        if task := record.get("task"):
            where = {"model": base, "adapters": two, "task_name": task}
        else:
            where = {"model": base}
        alone = predict(workspace, name="one.out", test_file=workspace.folder / "one.json", **where, **options)
        assert rows[number]["predictions"][0]["text"] == alone[0]["predictions"][0]["text"]
        score = alone[0]["predictions"][0]["score"]
        assert rows[number]["predictions"][0]["score"] == pytest.approx(score, abs=1e-5)
        assert rows[number].get("task") == record.get("task")
    assert "poem is no task that is loaded; loaded are qg, title" in rows[-1]["error"]
    scores = {task: rows[n]["predictions"][0]["score"] for n, task in enumerate(("qg", "title", "none"))}
    assert len(set(scores.values())) == 3


def test_joined_is_what_was_joined(workspace, base, adapter, two, tmp_path):
    joined = tmp_path / "joined"
    adapters.main(["join", f"question={adapter}", str(two), "--output_dir", str(joined)])
    assert list(json.loads((joined / "bottleneck_config.json").read_text())["tasks"]) == ["question", "qg", "title"]
    options = {"model": base, "test_file": workspace.folder / "dev.json", "overwrite_output": True}
    ours = predict(workspace, name="j.out", adapters=joined, task_name="question", **options)
    theirs = predict(workspace, adapter, "a.out", overwrite_output=True)
    for one, other in zip(ours, theirs, strict=True):
        assert one["predictions"][0]["text"] == other["predictions"][0]["text"]
        assert one["predictions"][0]["score"] == pytest.approx(other["predictions"][0]["score"], abs=1e-5)


def test_what_cannot_be_joined(workspace, base, adapter, two, tmp_path):
    with pytest.raises(InputError, match="the task qg is in .* too; take one of them out"):
        adapters.main(["join", f"qg={adapter}", str(two), "--output_dir", str(tmp_path / "out")])
    with pytest.raises(InputError, match=r"has no adapters \(bottleneck_config.json or lora_config.json\)"):
        adapters.main(["join", str(base), "--output_dir", str(tmp_path / "out")])
    other = workspace.finetune("base-2", max_steps=2)
    foreign = workspace.finetune("foreign", **WHAT | {"max_steps": 1}, model_name_or_path=other)
    with pytest.raises(InputError, match=r"was trained with another model \(glm\..* differs\)"):
        adapters.main(["join", str(adapter), f"b={foreign}", "--output_dir", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_tasks_are_served(workspace, base, two):
    """One process and one copy of the base; requests of tasks and of none share its batcher."""
    given = ["--model_name_or_path", str(base), "--adapters", str(two), "--device", "cpu", "--serve"]
    service = build_service(parse_predict_arguments(given), [])
    service.batcher.start()
    record = json.loads((workspace.folder / "dev.json").read_text(encoding="utf-8").splitlines()[0])

    async def ask(*tasks):
        requests = [GenerateRequest(records=[record], task=task) for task in tasks]
        return await asyncio.gather(*(service.of(request.task).generate(request) for request in requests))

    answers = asyncio.run(ask("qg", "title", None))
    service.batcher.close()
    assert [model["id"] for model in service.models()["data"]] == [str(base), "qg", "title"]
    how = {"adapters": two, "overwrite_output": True}
    alone = [predict(workspace, base, "served.out", task_name=task, **how)[0] for task in ("qg", "title")]
    alone.append(predict(workspace, base, "served.out", overwrite_output=True)[0])
    for answer, row in zip(answers, alone, strict=True):
        assert answer["rows"][0]["predictions"][0]["text"] == row["predictions"][0]["text"]
    with pytest.raises(InputError, match="task poem: is not loaded; loaded are qg, title"):
        service.of("poem")


def test_a_teachers_texts_are_data(workspace, base, tmp_path):
    output = tmp_path / "distilled.jsonl"
    given = ["--teacher", str(base), "--train_file", str(workspace.folder / "dev.json"), "--device", "cpu"]
    distill.main([*given, "--output_file", str(output)])
    rows = read_lines(output)
    texts = [row["predictions"][0]["text"] for row in predict(workspace, base, "teacher.out", num_beams=1)]
    assert [row["question"] for row in rows] == texts
    assert all(row["made by"] == {"teacher": str(base), "num_beams": 1, "tgt_length": 30} for row in rows)
    with pytest.raises(InputError, match="exists; choose another name"):
        distill.main([*given, "--output_file", str(output)])
    workspace.finetune("student", **WHAT | {"max_steps": 1}, model_name_or_path=base, train_file=output)


def test_another_base_is_refused(workspace, adapter, tmp_path):
    config = json.loads((adapter / "bottleneck_config.json").read_text())
    for path in adapter.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    name = next(iter(config["base_tensors"]))
    config["base_tensors"][name] = "0" * 16
    config["base_model_name_or_path"] = str(workspace.folder / "base")
    (tmp_path / "bottleneck_config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(InputError, match=rf"was trained with another model \({name} differs\)"):
        loaded(tmp_path)


@pytest.mark.parametrize(
    "options",
    [
        {"adapter_bottleneck": 0},
        {"adapter_bottleneck": 4, "lora": True},
        {"adapter_bottleneck": None, "adapter_up_std": 0.1},
    ],
)
def test_options_that_cannot_be(workspace, base, options):
    with pytest.raises(UsageError, match="adapter_"):
        workspace.finetune("refused", **{**WHAT, **options}, model_name_or_path=base)
