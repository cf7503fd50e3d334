"""What people bring and type in their first hour: whole commands, and what they leave on the screen and the disk."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import predict
from glm.__main__ import main as glm_main
from glm.errors import InputError, UsageError
from tools.run_tools import arguments, make_workspace, read_lines, write_records

ROOT = Path(__file__).resolve().parents[1]
RECORD = {"context": "松江位于河的北岸，人口大约3万。", "answer": "3万", "question": "松江有多少人口？"}
OTHER = RECORD | {"answer": "松江"}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, sentencepiece_file):
    return make_workspace(tmp_path_factory.mktemp("first-hour"), sentencepiece_file)


@pytest.fixture(scope="module")
def model(workspace) -> Path:
    return workspace.finetune("model", max_steps=10, learning_rate=1e-2)


@pytest.fixture
def write(tmp_path):
    """A function: the path of a file with these rows."""

    def write(*rows: dict, name: str = "in.jsonl") -> Path:
        write_records(tmp_path / name, rows)
        return tmp_path / name

    return write


def run(*command: str, **environment: str) -> subprocess.CompletedProcess:
    """A command as from the shell, in the project's folder."""
    return subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        timeout=120,
    )


# -- consoles


@pytest.mark.parametrize("encoding", ["gbk", "ascii"])
def test_a_console_that_cannot_show_a_character_loses_nothing(model, write, tmp_path, encoding):
    path = write({"context": "吃了🍎和é，今天很开心。", "answer": "🍎", "question": "吃了什么😋？"})
    output, metrics = tmp_path / "out.jsonl", tmp_path / "metrics.json"
    options = {"model_name_or_path": model, "test_file": path, "output_file": output, "metrics_file": metrics}
    done = run("predict.py", *arguments({**options, "device": "cpu"}), PYTHONIOENCODING=encoding)
    assert done.returncode == 0, done.stderr.decode(encoding)
    assert "\\U0001f34e" in done.stdout.decode(encoding) and "scores of 1 records" in done.stdout.decode(encoding)
    assert read_lines(output)[0]["reference"] == "吃了什么😋？"
    assert json.loads(metrics.read_text(encoding="utf-8"))["records"] == 1
    check = ["check", path, "--tokenizer_name_or_path", model]
    done = run("-m", "glm", *check, PYTHONIOENCODING=encoding)
    assert done.returncode == 0 and "\\U0001f34e" in done.stdout.decode(encoding)
    done = run("-m", "glm", *check, "--format", "json", PYTHONIOENCODING=encoding)
    assert "🍎" in "".join(json.loads(done.stdout.decode(encoding))["files"][0]["unknown_pieces"])


# -- references


def test_records_without_reference_are_predicted_and_the_others_scored(workspace, model, write, tmp_path, capfd):
    without = {name: value for name, value in RECORD.items() if name != "question"}
    path = write(RECORD, without, {**RECORD, "question": ""}, {**RECORD, "question": None})
    output, metrics = tmp_path / "out.jsonl", tmp_path / "metrics.json"
    options = {"model_name_or_path": model, "test_file": path, "output_file": output, "metrics_file": metrics}
    assert workspace.predict(**options) == 0
    assert ["error" in row for row in read_lines(output)] == [False] * 4
    assert ["reference" in row for row in read_lines(output)] == [True, False, False, False]
    assert json.loads(metrics.read_text(encoding="utf-8"))["records"] == 1
    said = capfd.readouterr()
    assert "1 of 4 records has a reference; the scores are of these" in said.err and "scores of 1 records" in said.out
    scores = json.loads(metrics.read_text(encoding="utf-8"))
    assert glm_main(["score", str(output), "--format", "json"]) == 0  # what the first scores, the second scores too
    said = capfd.readouterr()
    again = json.loads(said.out)
    assert {name: again[name] for name in scores["signatures"]} == {
        name: scores[name] for name in scores["signatures"]
    }
    assert "1 of 4 records has a reference; the scores are of these" in said.err


def test_metrics_without_any_reference_are_refused_before_the_model_is_loaded(model, write, tmp_path, monkeypatch):
    monkeypatch.setattr("glm.prediction.setup.build_writer", lambda *_, **__: pytest.fail("the model was loaded"))
    path = write({**RECORD, "question": ""}, {**RECORD, "question": None})
    options = {"model_name_or_path": model, "test_file": path, "metrics_file": tmp_path / "m.json"}
    with pytest.raises(InputError, match="field question: empty in all records, so there is nothing to score"):
        predict.main([*arguments(options)])
    assert not (tmp_path / "m.json").exists()


def test_several_references_of_a_record(workspace, model, write, tmp_path, capsys):
    texts = ["松江有多少人口？", "松江的人口是多少？"]
    path, output, metrics = write({**RECORD, "question": texts}, OTHER), tmp_path / "out.jsonl", tmp_path / "m.json"
    report = tmp_path / "report"
    options = {"model_name_or_path": model, "test_file": path, "output_file": output, "metrics_file": metrics}
    assert workspace.predict(**options, report=report) == 0
    assert [row["reference"] for row in read_lines(output)] == [texts, OTHER["question"]]
    assert " / ".join(texts) in (report / "report.html").read_text(encoding="utf-8")
    capsys.readouterr()
    assert glm_main(["score", str(output), "--format", "json"]) == 0
    again = json.loads(capsys.readouterr().out)
    scores = json.loads(metrics.read_text(encoding="utf-8"))
    assert {name: scores[name] for name in scores["signatures"]} == {
        name: again[name] for name in scores["signatures"]
    }
    assert scores["signatures"]["rouge-l (char)"].startswith("nrefs:var")


def test_dev_records_with_several_references_are_evaluated(workspace, write):
    dev = write({**RECORD, "question": ["松江有多少人口？", "松江的人口是多少？"]})
    folder = workspace.finetune("several", max_steps=1, do_eval=True, dev_file=dev)
    (row,) = read_lines(folder / "eval" / "step-1.jsonl")
    assert row["reference"] == ["松江有多少人口？", "松江的人口是多少？"]


def test_training_refuses_a_list_of_targets(workspace, write):
    path = write({**RECORD, "question": ["甲？", "乙？"]})
    with pytest.raises(InputError, match="line 1, field question: list where text is expected"):
        workspace.finetune("list", max_steps=1, train_file=path)


def test_ids_that_occur_twice_are_scored_and_not_compared(workspace, model, write, tmp_path, capsys):
    rows = [{**RECORD, "id": "a"}, {**RECORD, "id": "a", "question": "松江在哪里？"}, {**RECORD, "id": 7}]
    output, metrics = tmp_path / "out.jsonl", tmp_path / "m.json"
    options = {"model_name_or_path": model, "test_file": write(*rows), "output_file": output, "metrics_file": metrics}
    assert workspace.predict(**options) == 0
    capsys.readouterr()
    assert glm_main(["score", str(output), "--format", "json"]) == 0
    again = json.loads(capsys.readouterr().out)
    scores = json.loads(metrics.read_text(encoding="utf-8"))
    assert again["records"] == 3
    assert {name: scores[name] for name in scores["signatures"]} == {
        name: again[name] for name in scores["signatures"]
    }
    with pytest.raises(InputError, match="field id: a is the id of"):
        glm_main(["compare", str(output), str(output)])


def test_a_misspelt_target_column_drops_no_references(model, write):
    options = {"model_name_or_path": model, "test_file": write(RECORD), "target_column": "questoin"}
    with pytest.raises(InputError, match=r"target_column questoin: no such column in .*context, answer, question"):
        predict.main([*arguments({**options, "device": "cpu"})])


def test_the_target_column_of_training_need_not_be_there_in_prediction(workspace, write, capsys):
    rows = [{"text": row["context"], "span": row["answer"], "ask": row["question"]} for row in [RECORD] * 4]
    columns = {"source_column": "text", "answer_column": "span", "target_column": "ask"}
    folder = workspace.finetune("named", max_steps=1, train_file=write(*rows, name="train.jsonl"), **columns)
    path = write(*({key: row[key] for key in ("text", "span")} for row in rows[:1]))
    assert workspace.predict(model_name_or_path=folder, test_file=path) == 0
    path = write(RECORD)  # and other names are recognised
    output = path.with_name("out.jsonl")
    assert workspace.predict(model_name_or_path=folder, test_file=path, output_file=output) == 0
    assert read_lines(output)[0]["reference"] == RECORD["question"]


# -- prefixes


def test_a_prefix_stands_as_it_was_given(workspace, model, write, tmp_path):
    output = tmp_path / "out.jsonl"
    options = {"model_name_or_path": model, "test_file": write(RECORD), "output_file": output}
    assert workspace.predict(**options, prefix="松江，１９年：") == 0
    assert read_lines(output)[0]["predictions"][0]["text"].startswith("松江，１９年：")


@pytest.mark.parametrize("prefix", ["松江😀，", "龘", "松江\u0e01年"])
def test_a_prefix_without_a_piece_is_an_error_that_names_the_character(model, write, prefix):
    options = {"model_name_or_path": model, "test_file": write(RECORD), "prefix": prefix}
    (unknown,) = [character for character in prefix if character not in "松江，年"]
    with pytest.raises(InputError, match=f"prefix {prefix}: the tokenizer has no piece for .*{unknown}"):
        predict.main([*arguments({**options, "device": "cpu"})])


# -- data sets that nobody named


@pytest.mark.parametrize(
    "options",
    [{"do_eval": True}, {"evaluation_strategy": "steps", "eval_steps": 1}, {"evaluation_strategy": "epoch"}],
)
def test_own_data_are_not_evaluated_on_a_published_set(workspace, options):
    with pytest.raises(UsageError, match="needs --dev_file"):
        workspace.finetune("unasked", max_steps=1, **options)
    assert not (workspace.folder / "unasked").exists()


def test_own_dev_records_do_not_meet_a_published_training_set(workspace):
    options = {"train_file": None, "do_eval": True, "dev_file": workspace.folder / "dev.json"}
    with pytest.raises(UsageError, match=r"needs --train_file beside it.*--task_name dureader_qg"):
        workspace.finetune("unasked", max_steps=1, **options)


# -- a dead model does not look well


@pytest.fixture(scope="module")
def dead(workspace, tokenizer) -> Path:
    """A model that always ends at once: the loss on its own end of text was taken for the whole of a text."""
    from safetensors.numpy import load_file, save_file

    folder = workspace.finetune("dead", max_steps=1, learning_rate=1e-9)
    weights = load_file(folder / "model.safetensors")
    (name,) = [name for name in weights if name.endswith("final_layernorm.bias")]
    embeddings = weights["glm.word_embeddings.weight"]
    weights[name] = weights[name] + 100 * embeddings[tokenizer.end_token_id]
    save_file(weights, folder / "model.safetensors", metadata={"format": "np"})
    return folder


def test_a_dead_model_does_not_look_well(workspace, dead, tmp_path, capfd):
    output, report = tmp_path / "out.jsonl", tmp_path / "report"
    options = {"model_name_or_path": dead, "test_file": workspace.folder / "dev.json", "output_file": output}
    assert workspace.predict(**options, report=report, metrics_file=tmp_path / "m.json") == 0
    count = len(read_lines(output))
    assert f"warning: {count} of {count} texts are empty" in capfd.readouterr().err
    assert f"{count} of {count} texts are empty" in (report / "report.html").read_text(encoding="utf-8")
    assert glm_main(["score", str(output)]) == 0
    assert f"warning: {count} of {count} texts are empty" in capfd.readouterr().err


def test_a_training_that_learns_nothing_says_so_at_its_end_and_on_its_card(workspace, capfd):
    options = {"do_eval": True, "dev_file": workspace.folder / "dev.json", "src_length": 24, "learning_rate": 1e-12}
    options |= {"attention_dropout_prob": 0.0, "embedding_dropout_prob": 0.0, "output_dropout_prob": 0.0}
    folder = workspace.finetune("nothing", max_steps=10, max_grad_norm=0.0, label_smoothing=0.0, **options)
    said = capfd.readouterr().err
    card = (folder / "README.md").read_text(encoding="utf-8")
    page = next(folder.glob("eval/*.report/report.html")).read_text(encoding="utf-8")
    (row, *_) = read_lines(next(folder.glob("eval/step-*.jsonl")))
    assert row["cut"] > 0 and f"{row['cut']} tokens of the source were cut" in page
    for line in (
        "20 of 20 training sources were cut",
        "dev records: 4 of 4 sources were cut",
        "end at the length limit",
    ):
        assert line in said and line in card
    assert "4 of 4 sources were cut" in page


# -- what people bring


@pytest.fixture(scope="module")
def full_width(workspace) -> Path:
    """A model whose training targets have full-width punctuation, as the workspace's have."""
    return workspace.finetune("full-width", max_steps=60, learning_rate=1e-2)


def test_punctuation_is_that_of_the_training_data(workspace, full_width, tmp_path, capfd):
    assert json.loads((full_width / "finetune_config.json").read_text("utf-8"))["punctuation"] == "fullwidth"
    options = {"model_name_or_path": full_width, "test_file": workspace.folder / "dev.json", "overwrite_output": True}
    output = tmp_path / "out.jsonl"
    assert workspace.predict(**options, output_file=output) == 0
    texts = [row["predictions"][0]["text"] for row in read_lines(output)]
    assert any("？" in text for text in texts) and not any("?" in text for text in texts)
    assert "--punctuation fullwidth" in capfd.readouterr().err
    assert workspace.predict(**options, output_file=output, punctuation="halfwidth") == 0
    plain = [row["predictions"][0]["text"] for row in read_lines(output)]
    assert [text.replace("？", "?").replace("，", ",") for text in texts] == plain


def test_half_width_targets_stay_so(workspace, tmp_path):
    records = [json.loads(line) for line in (workspace.folder / "train.json").read_text("utf-8").splitlines()]
    write_records(tmp_path / "train.json", [row | {"question": row["question"].replace("？", "?")} for row in records])
    folder = workspace.finetune("half-width", max_steps=1, train_file=tmp_path / "train.json")
    assert "punctuation" not in json.loads((folder / "finetune_config.json").read_text("utf-8"))


def test_own_columns_are_kept(workspace, model, write, tmp_path):
    rows = [{**RECORD, "url": "http://a", "n": 3, "score": None}, {**RECORD, "url": ["b"], "id": "x"}]
    output = tmp_path / "out.jsonl"
    options = {"model_name_or_path": model, "test_file": write(*rows), "output_file": output, "overwrite_output": True}
    assert workspace.predict(**options, keep_columns="url,n") == 0
    first, second = read_lines(output)
    assert (first["url"], first["n"], second["url"], "n" in second, "score" in first) == (
        "http://a",
        3,
        ["b"],
        False,
        False,
    )
    assert workspace.predict(**options, keep_columns="all") == 0
    first, _ = read_lines(output)
    assert first["score"] is None and first["context"] == RECORD["context"] and first["id"] == 1
    with pytest.raises(InputError, match="keep_columns link: no such column"):
        predict.main([*arguments({**options, "keep_columns": "link", "device": "cpu"})])


def test_texts_of_one_source_are_references_of_each_other(workspace, model, write, tmp_path, capfd):
    others = ["松江的人口是多少？", "松江人口有几万？"]
    rows = [RECORD, {**RECORD, "answer": "松江"}, *({**RECORD, "question": text} for text in others)]
    output, metrics = tmp_path / "out.jsonl", tmp_path / "m.json"
    options = {"model_name_or_path": model, "test_file": write(*rows), "output_file": output, "metrics_file": metrics}
    assert workspace.predict(**options) == 0
    found = [row["reference"] for row in read_lines(output)]
    own = RECORD["question"]
    assert found == [[own, *others], own, [others[0], own, others[1]], [others[1], own, others[0]]]
    assert "3 records share their source with others" in capfd.readouterr().err
    folder = workspace.finetune("shared", max_steps=1, do_eval=True, dev_file=write(*rows, name="dev.jsonl"))
    assert [row["reference"] for row in read_lines(folder / "eval" / "step-1.jsonl")] == found


# -- looking before it costs


def test_only_the_first_records(workspace, model, tmp_path, capfd):
    folder = workspace.finetune("first", max_steps=1, max_train_samples=7)
    assert json.loads((folder / "data_report.json").read_text("utf-8"))["train"]["read"] == 7
    output = tmp_path / "out.jsonl"
    options = {"model_name_or_path": model, "test_file": workspace.folder / "train.json", "output_file": output}
    assert workspace.predict(**options, max_predict_samples=3) == 0
    assert [row["id"] for row in read_lines(output)] == [1, 2, 3]
    folder = workspace.finetune(
        "first-2", max_steps=1, do_predict=True, test_file=workspace.folder / "train.json", max_predict_samples=2
    )
    assert len(read_lines(folder / "predictions.jsonl")) == 2


def test_a_dry_run_shows_what_a_run_would_be_and_leaves_nothing(workspace, capsys):
    folder = workspace.finetune("dry", max_steps=None, num_train_epochs=2, dry_run=True)
    shown = capsys.readouterr().out
    assert not folder.exists()
    assert shown.count("  learns: ") == 3 and "example 3: " in shown and "steps: 10 = 2.00 epochs of 5" in shown
    first = json.loads((workspace.folder / "train.json").read_text("utf-8").splitlines()[0])
    learns = next(line for line in shown.splitlines() if line.startswith("  learns: "))
    assert learns.replace(" ", "").replace("▁", "").endswith("<|endofpiece|>")
    assert "".join(first["question"][:3]) in learns.replace(" ", "").replace("▁", "")
    for line in (
        "source, tokens: min",
        "target, tokens: min",
        "memory: ",
        "time: ",
        "dry_run True: nothing was trained",
    ):
        assert line in shown


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("wandb", "report_to wandb: wandb is not installed; pip install it as requirements-trackers.txt has it"),
        ("visualdl,swanlab", "report_to swanlab: swanlab is not installed"),
        ("mlflow", "report_to mlflow: use visualdl, tensorboard, swanlab, wandb or none, several separated by commas"),
    ],
)
def test_where_figures_cannot_go(workspace, monkeypatch, value, message):
    monkeypatch.setattr("glm.options.finetune.find_spec", lambda package: object() if package == "visualdl" else None)
    with pytest.raises(UsageError) as caught:
        workspace.finetune("nowhere", max_steps=1, report_to=value)
    assert caught.value.messages[0].startswith(message)


# -- machines


@pytest.mark.parametrize("threads", ["abc", "0", "-3", "2.5", "99999999"])
def test_a_number_of_threads_that_is_none(threads):
    code = "import glm, os; print(os.environ.get('OMP_NUM_THREADS'), glm.environment.cpu_threads() >= 1)"
    done = run("-c", code, OMP_NUM_THREADS=threads)
    assert done.returncode == 0 and done.stdout.decode().split() == ["None", "True"]
    assert f"OMP_NUM_THREADS {threads}: is no number" in done.stderr.decode()


def test_a_home_that_cannot_be_written_to(workspace, model, write, tmp_path):
    output = tmp_path / "out.jsonl"
    options = {"model_name_or_path": model, "test_file": write(RECORD), "output_file": output, "device": "cpu"}
    done = run("predict.py", *arguments(options), HOME="/proc", XDG_CACHE_HOME="", TMPDIR=str(tmp_path))
    assert done.returncode == 0, done.stderr.decode()
    assert "HOME /proc: cannot be written to" in done.stderr.decode() and len(read_lines(output)) == 1
    assert list(tmp_path.glob("glm-home-*"))


def test_verbs_of_other_tools():
    for verb, message in (
        ("evaluate", "use python -m glm score"),
        ("chekc", "did you mean check?"),
        ("zzz", "one of"),
    ):
        with pytest.raises(UsageError, match=message):
            glm_main([verb])
    with pytest.raises(UsageError, match=r"unknown option max_source_length; here it is --src_length"):
        glm_main(["check", "f.json", "--tokenizer_name_or_path", "t", "--max_source_length", "3"])
