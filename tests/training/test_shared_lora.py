"""Adapters of several kinds over one base, in one batch and on one server: LoRA unmerged beside residual ones."""

import json
import time

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from starlette.testclient import TestClient

from glm.commands import adapters
from glm.errors import InputError
from glm.modules.low_rank import LowRankLinear
from glm.options.predict import parse_predict_arguments
from glm.serving.adapters import AdapterDesk
from glm.serving.app import build_app
from glm.serving.server import build_service
from tools.run_tools import read_lines, write_records

HOW = {"learning_rate": 2e-2, "tokenizer_name_or_path": None, "max_steps": 6}
TARGETS = {"first": "query_key_value|dense|dense_h_to_4h|dense_4h_to_h", "second": "dense"}
KEY = {"Authorization": "Bearer secret"}


@pytest.fixture(scope="module")
def folders(workspace, base):
    """Two LoRAs of other layers and ranks, and a residual adapter, trained on other questions each."""
    made = {}
    rows = read_lines(workspace.folder / "train.json")
    for place, (name, targets) in enumerate(TARGETS.items()):
        write_records(
            workspace.folder / f"{name}.json", [{**row, "question": f"{name}{row['question']}"} for row in rows]
        )
        lora = {"lora": True, "lora_rank": 3 + place, "lora_alpha": 16, "lora_targets": targets}
        made[name] = workspace.finetune(
            name, **HOW, **lora, model_name_or_path=base, train_file=workspace.folder / f"{name}.json"
        )
    made["third"] = workspace.finetune("third", **HOW, adapter_bottleneck=6, model_name_or_path=base)
    return made


def predict(workspace, model, records, **options) -> list[dict]:
    write_records(workspace.folder / "asked.json", records)
    output = workspace.folder / "shared.out"
    options = {"test_file": workspace.folder / "asked.json", "show": 0, "overwrite_output": True, **options}
    workspace.predict(model_name_or_path=model, output_file=output, token_scores=True, **options)
    return read_lines(output)


def named(folders) -> str:
    return ",".join(f"{name}={folder}" for name, folder in folders.items())


def mixed(workspace) -> list[dict]:
    rows = read_lines(workspace.folder / "dev.json")
    tasks = [*TARGETS, "third", None, "second", "first"]
    records = [{**rows[n % len(rows)], "task": task} for n, task in enumerate(tasks)]
    return [{name: value for name, value in record.items() if value is not None} for record in records]


def assert_alike(ours: dict, theirs: dict, *, within: float) -> None:
    """The same text, and log-probabilities of its tokens within so much of themselves, and a digit of the files'."""
    (one, *_), (other, *_) = ours["predictions"], theirs["predictions"]
    assert one["text"] == other["text"]
    scores = [[score for _, score in found["token_scores"]] for found in (one, other)]
    np.testing.assert_allclose(*scores, rtol=within, atol=1e-6)


@pytest.mark.parametrize("num_beams", [1, 3])
def test_a_batch_of_all_kinds(workspace, base, folders, num_beams):
    """Each row is what its task, or the base, writes alone: with LoRA apart, and merged into the model."""
    records, how = mixed(workspace), {"num_beams": num_beams}
    together = predict(workspace, base, records, adapters=named(folders), **how)
    for record, row in zip(records, together, strict=True):
        task = record.get("task")
        alone = predict(workspace, base, [record], **({"adapters": named(folders)} if task else {}), **how)
        # Products of other numbers of rows add up in another order: the rounding of float32.
        assert_alike(row, alone[0], within=1e-6)
        if task:
            merged = predict(workspace, folders[task], [record], **how)
            assert_alike(row, merged[0], within=1e-5)
    scores = [row["predictions"][0]["score"] for row in together[:4]]
    assert len({round(score, 3) for score in scores}) == 4  # all of them matter


def test_each_task_has_its_scores(workspace, base, folders, capfd):
    """In metrics.json and side by side in the terminal, with the texts of each source in a row."""
    rows = read_lines(workspace.folder / "dev.json")
    records = [{**row, "task": task} for row in rows for task in TARGETS]
    output = workspace.folder / "scored.metrics.json"
    options = {"adapters": named(folders), "metrics_file": output, "show": 2}
    found = predict(workspace, base, records, **options)
    scores = json.loads(output.read_text(encoding="utf-8"))
    assert list(scores) == [*TARGETS, "mean"]
    said = capfd.readouterr().out
    assert "scores of the tasks" in said and "the first 2 sources, a column a task" in said
    for task in TARGETS:
        alone = [record for record in records if record["task"] == task]
        predict(workspace, base, alone, **options)
        own = json.loads(output.read_text(encoding="utf-8"))
        assert own["bleu-4 (char, corpus)"] == scores[task]["bleu-4 (char, corpus)"]
    assert len(found) == 2 * len(rows)


def test_joined_in_one_folder(workspace, base, folders, tmp_path):
    """One name instead of three, for the same rows; LoRA alone too, under another name, and joined once more."""
    joined, loras, again = (workspace.folder / name for name in ("joined", "loras only", "again"))
    adapters.main(["join", *named(folders).split(","), "--output_dir", str(joined)])
    together = predict(workspace, base, mixed(workspace), adapters=joined)
    assert together == predict(workspace, base, mixed(workspace), adapters=named(folders))
    assert sorted(path.name for path in (joined / "loras").iterdir()) == list(TARGETS)

    adapters.main(["join", f"renamed={folders['first']}", str(folders["second"]), "--output_dir", str(loras)])
    adapters.main(["join", f"third={folders['third']}", str(loras), "--output_dir", str(again)])
    names = {"first": "renamed"}
    records = [{**row, "task": names.get(row.get("task"), row.get("task"))} for row in mixed(workspace)]
    records = [{name: value for name, value in row.items() if value is not None} for row in records]
    renamed = predict(workspace, base, records, adapters=again)
    assert [row["predictions"] for row in renamed] == [row["predictions"] for row in together]

    with pytest.raises(InputError, match="x=.*joined: holds third, first, second; leave out the name"):
        predict(workspace, base, mixed(workspace), adapters=f"x={joined}")
    with pytest.raises(InputError, match="the task second is in .*loras/second too; take one of them out"):
        adapters.main(["join", str(loras), str(folders["second"]), "--output_dir", str(tmp_path / "out")])


def test_what_does_not_go_together(workspace, base, folders, tmp_path):
    with pytest.raises(InputError, match="the task x is in .*first too; take one of them out"):
        predict(workspace, base, mixed(workspace), adapters=f"x={folders['first']},x={folders['second']}")
    other = workspace.finetune("other base", max_steps=1)
    with pytest.raises(InputError, match=r"is of the model .*base, and this is .*other base; use that one, or set"):
        predict(workspace, other, mixed(workspace), adapters=named(folders))
    lora = workspace.finetune("other lora", max_steps=1, lora=True, model_name_or_path=other)
    with pytest.raises(InputError, match=r"other lora: is of the model .*other base, and this is .*base; use that"):
        adapters.main(["join", str(folders["third"]), f"z={lora}", "--output_dir", str(tmp_path / "out")])
    with pytest.raises(InputError, match="a name is of letters, digits, _, [+] and -; write NAME=FOLDER"):
        predict(workspace, base, mixed(workspace), adapters=f"a b={folders['first']}")


def test_matrices_of_another_model(workspace, base, folders, tmp_path):
    folder = tmp_path / "first"
    folder.mkdir()
    for path in folders["first"].glob("*.json"):
        (folder / path.name).write_bytes(path.read_bytes())
    settings = json.loads((folder / "lora_config.json").read_text())
    (folder / "lora_config.json").write_text(json.dumps({**settings, "base_model_name_or_path": str(base)}))
    weights = load_file(folders["first"] / "peft_model.safetensors")
    name = "glm.transformer.layers.1.mlp.dense_4h_to_h.lora_A"
    save_file({**weights, name: weights[name][:-1].copy()}, folder / "peft_model.safetensors")
    with pytest.raises(InputError, match=rf"is of another adapter or model \({name} differs\)"):
        predict(workspace, base, mixed(workspace), adapters=f"first={folder}")


# -- a server


@pytest.fixture
def served(workspace, base):
    """A client of a server of the base alone, with a key."""
    given = ["--model_name_or_path", str(base), "--device", "cpu", "--serve", "--api_key", "secret"]
    options = parse_predict_arguments(given)
    service = build_service(options, [])
    with TestClient(build_app(service, api_key="secret", adapters=AdapterDesk(service, options))) as client:
        yield client, service


def texts(client, record, task=None) -> list:
    body = {"records": [record], **({"task": task} if task else {})}
    answer = client.post("/generate", json=body, headers=KEY)
    assert answer.status_code == 200, answer.text
    return [found["text"] for found in answer.json()["rows"][0]["predictions"]]


def ids(answer) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [model["id"] for model in answer.json()["data"]]


def test_tasks_come_and_go_while_it_serves(workspace, base, folders, served):
    """The texts of a task are those that `predict.py` writes, those of the base stay, and nothing is left of it."""
    client, service = served
    (record, *_) = read_lines(workspace.folder / "dev.json")
    before = texts(client, record)
    for name in ("first", "third"):
        added = client.post("/adapters", json={"folder": str(folders[name]), "name": name}, headers=KEY)
        assert name in ids(added)
    assert ids(client.get("/v1/models", headers=KEY)) == [str(base), "first", "third"]
    assert list(client.get("/settings", headers=KEY).json()["adapters"]) == ["first", "third"]
    expected = predict(
        workspace, base, [{**record, "task": task} for task in ("first", "third")], adapters=named(folders)
    )
    for task, row in zip(("first", "third"), expected, strict=True):
        assert texts(client, record, task)[0] == row["predictions"][0]["text"]
    assert texts(client, record) == before

    again = client.post("/adapters", json={"folder": str(folders["first"]), "name": "first"}, headers=KEY)
    assert again.status_code == 422 and "name first: is served already" in again.json()["error"]["message"]
    for name in ("first", "third"):
        assert name not in ids(client.delete(f"/adapters/{name}", headers=KEY))
    gone = client.post("/generate", json={"records": [record], "task": "first"}, headers=KEY)
    assert gone.status_code == 422 and "task first: is not loaded; loaded are none" in gone.text
    (stack,) = service.writer.model.stacks
    assert not any(layer.matrices for layer in stack.sublayers() if isinstance(layer, LowRankLinear))
    assert not any(list(layer.adapters) for layer in stack.layers) and not any(stack.adapter_names)
    assert texts(client, record) == before
    back = client.post("/adapters", json={"folder": str(folders["third"]), "name": "first"}, headers=KEY)
    assert "first" in ids(back)
    assert texts(client, record, "first")[0] == expected[1]["predictions"][0]["text"]  # and not the LoRA of that name


def test_what_a_server_refuses(workspace, base, folders, served, tmp_path):
    client, _ = served
    for method, path in (("post", "/adapters"), ("delete", "/adapters/x")):
        body = {"json": {"folder": "x"}} if method == "post" else {}
        assert getattr(client, method)(path, **body).status_code == 401
    for body, said in [
        ({"folder": str(tmp_path)}, "the folder has no adapters"),
        ({"folder": str(folders["first"]), "name": "a b"}, "name"),
        ({"folder": str(folders["first"]), "nam": "a"}, "nam: no such field; did you mean name?"),
        ({}, "folder"),
    ]:
        answer = client.post("/adapters", json=body, headers=KEY)
        assert answer.status_code == 422 and said in answer.json()["error"]["message"], answer.text
    answer = client.delete("/adapters/x", headers=KEY)
    assert answer.status_code == 422 and "name x: is not served; there are none" in answer.text


def test_half_an_addition_is_none(workspace, base, folders, served, tmp_path):
    """Adapters whose weights do not fit leave nothing, so that right ones can have their name."""
    client, service = served
    for path in folders["third"].glob("*.json"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = json.loads((tmp_path / "bottleneck_config.json").read_text())
    (task,) = config["tasks"].values()
    task["bottleneck"] += 1
    (tmp_path / "bottleneck_config.json").write_text(json.dumps({**config, "base_model_name_or_path": str(base)}))
    weights = folders["third"] / "peft_model.safetensors"
    (tmp_path / weights.name).write_bytes(weights.read_bytes())
    answer = client.post("/adapters", json={"folder": str(tmp_path), "name": "third"}, headers=KEY)
    assert answer.status_code == 422 and "is of another adapter or model" in answer.json()["error"]["message"]
    assert not any(service.writer.model.stacks[0].adapter_names)
    assert "third" in ids(
        client.post("/adapters", json={"folder": str(folders["third"]), "name": "third"}, headers=KEY)
    )


def test_without_a_key_nothing_changes(workspace, base, folders):
    given = ["--model_name_or_path", str(base), "--adapters", named(folders), "--device", "cpu", "--serve"]
    options = parse_predict_arguments(given)
    service = build_service(options, [])
    with TestClient(build_app(service, adapters=AdapterDesk(service, options))) as client:
        for answer in (client.post("/adapters", json={"folder": "x"}), client.delete("/adapters/first")):
            assert answer.status_code == 403 and "start with --api_key_file" in answer.text
        assert len(ids(client.get("/v1/models"))) == 4


def test_a_task_is_taken_out_behind_its_last_text(workspace, base, folders, served):
    """What is being written is written to its end; a request that comes later is told."""
    client, service = served
    assert "third" in ids(
        client.post("/adapters", json={"folder": str(folders["third"]), "name": "third"}, headers=KEY)
    )
    number = service.of("third").writer.encoder.task
    batcher, asked = service.batcher, []
    is_writing = batcher.is_writing
    batcher.is_writing = lambda one: asked.append(one) or len(asked) < 3 or is_writing(one)
    start = time.monotonic()
    assert "third" not in ids(client.delete("/adapters/third", headers=KEY))
    assert asked == [number] * 3 and time.monotonic() - start > 0.1
    assert number in batcher.gone


def test_an_overwritten_run_leaves_no_adapter(workspace, base):
    """It would be taken for that of the run in its place, whatever that has trained."""
    options = {"model_name_or_path": base, "max_steps": 1, "overwrite_output_dir": True}
    kinds = [
        ({"adapter_bottleneck": 4}, {"bottleneck_config.json", "peft_model.safetensors"}),
        ({"lora": True}, {"lora_config.json", "peft_model.safetensors"}),
        ({}, set()),
    ]
    for kind, own in kinds:
        folder = workspace.finetune("overwritten", **options, **kind)
        found = {path.name for path in folder.iterdir() if path.name.endswith(("_config.json", ".safetensors"))}
        expected = own or {"model.safetensors"}
        assert found - {"finetune_config.json", "tokenizer_config.json", "data_config.json"} == expected
