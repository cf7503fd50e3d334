"""The two scripts as their users call them: results, options, and what they say of bad input."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import finetune_generation
from glm.errors import InputError
from run_tools import Workspace, arguments, make_workspace, read_lines

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, sentencepiece_file) -> Workspace:
    return make_workspace(tmp_path_factory.mktemp("scripts"), sentencepiece_file)


@pytest.fixture(scope="module")
def checkpoint(workspace) -> Path:
    """A model that has learnt a little, so that every option can still change what it says."""
    return workspace.finetune("checkpoint", max_steps=15, learning_rate=5e-3, logging_steps=5)


def predictions(workspace, checkpoint, tmp_path, **options) -> list[dict]:
    target = tmp_path / f"out-{len(list(tmp_path.iterdir()))}.jsonl"
    workspace.predict(
        **{
            "model_name_or_path": checkpoint,
            "test_file": workspace.folder / "train.json",
            "output_file": target,
            "show": 0,
            **options,
        }
    )
    return read_lines(target)


def texts(rows: list[dict]) -> list[list[str]]:
    return [[item["text"] for item in row["predictions"]] for row in rows]


def scores(rows: list[dict]) -> list[list[float]]:
    return [[item["score"] for item in row["predictions"]] for row in rows]


# -- predict.py


def test_one_line_per_record_in_input_order(workspace, checkpoint, tmp_path):
    records = read_lines(workspace.folder / "train.json")
    rows = predictions(workspace, checkpoint, tmp_path)
    assert [row["id"] for row in rows] == list(range(1, 21))  # line numbers: the data has no ids
    assert [row["source"] for row in rows] == [record["context"] for record in records]
    assert [row["answer"] for row in rows] == [record["answer"] for record in records]
    assert [row["reference"] for row in rows] == [record["question"] for record in records]
    assert all(list(row) == ["id", "source", "answer", "predictions", "reference"] for row in rows)


def test_results_do_not_depend_on_batch_size(workspace, checkpoint, tmp_path):
    one = predictions(workspace, checkpoint, tmp_path, per_device_eval_batch_size=1)
    many = predictions(workspace, checkpoint, tmp_path, per_device_eval_batch_size=7)
    assert texts(one) == texts(many)
    assert sum(scores(one), []) == pytest.approx(sum(scores(many), []), abs=1e-4)


def test_drawn_text_does_not_depend_on_batch_size(workspace, checkpoint, tmp_path):
    options = {"select_topk": "False", "temperature": 1.3, "top_k": 20}
    one = predictions(workspace, checkpoint, tmp_path, per_device_eval_batch_size=1, **options)
    many = predictions(workspace, checkpoint, tmp_path, per_device_eval_batch_size=20, **options)
    assert texts(one) == texts(many)
    assert texts(one) != texts(predictions(workspace, checkpoint, tmp_path, generation_seed=1, **options))


def test_standard_input_and_output(workspace, checkpoint, tmp_path, monkeypatch, capsys):
    record = {"context": "青石镇位于河的北岸，人口大约2万。", "answer": "2万", "id": "a-7"}
    text = json.dumps(record, ensure_ascii=False) + "\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    capsys.readouterr()
    workspace.predict(model_name_or_path=checkpoint)
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["id"] for row in rows] == ["a-7"]
    assert "reference" not in rows[0]


def test_metrics_file_and_table(workspace, checkpoint, tmp_path, capsys):
    rows = predictions(workspace, checkpoint, tmp_path, metrics_file=tmp_path / "m.json", show=2)
    figures = json.loads((tmp_path / "m.json").read_text(encoding="utf-8"))
    assert {"bleu-4 (char)", "rouge-1 (char)", "rouge-2 (jieba)", "rouge-l (jieba)"} <= set(figures)
    lengths = [len(row["predictions"][0]["text"].replace(" ", "")) for row in rows]
    assert figures["generated length"] == pytest.approx(sum(lengths) / len(lengths))
    assert figures["samples per second"] > 0
    printed = capsys.readouterr().out
    assert "gold question" in printed and rows[1]["reference"][:4] in printed and "bleu-4 (char)" in printed


def test_the_constant_opening_is_not_in_the_text(workspace, checkpoint, tmp_path):
    assert not any("前提" in text for row in texts(predictions(workspace, checkpoint, tmp_path)) for text in row)


@pytest.mark.parametrize(
    "changed",
    [
        {"num_beams": 5},
        {"length_penalty": 3.0, "num_beams": 3},
        {"no_repeat_ngram_size": 1},
        {"min_tgt_length": 12},
        {"tgt_length": 16},
        {"repetition_penalty": 3.0},
        {"select_topk": "False"},
        {"src_length": 16},
        {"no_block_position": True},
        {"early_stopping": "true", "num_beams": 3, "length_penalty": 5.0},
    ],
    ids=lambda options: " ".join(options),
)
def test_every_option_changes_the_result(workspace, checkpoint, tmp_path, changed):
    """Against a run that differs in the first option only."""
    name = next(iter(changed))
    others = {key: value for key, value in changed.items() if key != name}
    plain = predictions(workspace, checkpoint, tmp_path, **others)
    other = predictions(workspace, checkpoint, tmp_path, **changed)
    assert (texts(plain), scores(plain)) != (texts(other), scores(other))


@pytest.mark.parametrize(
    "changed", [{"temperature": 0.3}, {"top_k": 2}, {"top_p": 0.2}], ids=lambda item: next(iter(item))
)
def test_every_drawing_option_changes_the_result(workspace, checkpoint, tmp_path, changed):
    drawing = {"select_topk": "False", "num_beams": 1}
    plain = predictions(workspace, checkpoint, tmp_path, **drawing)
    assert texts(plain) != texts(predictions(workspace, checkpoint, tmp_path, **drawing, **changed))


def test_num_return_sequences(workspace, checkpoint, tmp_path):
    rows = predictions(workspace, checkpoint, tmp_path, num_beams=4, num_return_sequences=3)
    for row in scores(rows):
        assert len(row) == 3 and row == sorted(row, reverse=True)


def test_an_existing_file_is_not_overwritten(workspace, checkpoint, tmp_path):
    kept = tmp_path / "kept.jsonl"
    kept.write_text("mine")
    with pytest.raises(InputError, match=r"output_file .*kept.jsonl: exists.*--overwrite_output"):
        predictions(workspace, checkpoint, tmp_path, output_file=kept)
    assert kept.read_text() == "mine"
    workspace.predict(
        model_name_or_path=checkpoint,
        test_file=workspace.folder / "dev.json",
        output_file=kept,
        overwrite_output=True,
        show=0,
    )
    assert len(read_lines(kept)) == 4


def test_outputs_that_cannot_be(workspace, checkpoint, tmp_path):
    data = workspace.folder / "dev.json"
    (tmp_path / "file").write_text("")
    for options, match in (
        ({"metrics_file": tmp_path / "a", "output_file": tmp_path / "a"}, "metrics_file .*: is output_file too"),
        ({"output_file": data, "test_file": data, "overwrite_output": True}, "output_file .*: is test_file too"),
        ({"output_file": tmp_path, "overwrite_output": True}, "no file can be written there"),
        ({"output_file": tmp_path / "file" / "a"}, "no file can be written there"),
    ):
        with pytest.raises(InputError, match=match):
            predictions(workspace, checkpoint, tmp_path, **options)


# -- finetune_generation.py


def test_do_predict_writes_predictions_and_scores(workspace):
    run = workspace.finetune("predicted", max_steps=2, do_predict=True, test_file=workspace.folder / "dev.json")
    assert len(read_lines(run / "predictions.jsonl")) == 4
    assert "bleu-4 (char)" in json.loads((run / "metrics.json").read_text(encoding="utf-8"))


def test_the_command_of_the_glm_example_runs(workspace, checkpoint):
    """As its users wrote it, with the model and the data local and the lengths within the tiny model's positions."""
    command = (
        "--num_train_epochs 4 --learning_rate 3e-5 --warmup_ratio 0.06 --weight_decay 0.1 --label_smoothing 0.1 "
        "--save_steps 10000 --logging_steps 1 --eval_steps 4 --src_length 60 --tgt_length 40 --min_tgt_length 20 "
        "--length_penalty 0.7 --no_repeat_ngram_size 3 --num_beams 5 --select_topk True "
        "--per_device_eval_batch_size 2 --per_device_train_batch_size 2 --max_grad_norm 1.0 "
        "--lr_scheduler_type linear --fp16 --recompute --do_train --do_eval"
    ).split()
    local = {
        "model_name_or_path": checkpoint,
        "train_file": workspace.folder / "dev.json",
        "dev_file": workspace.folder / "dev.json",
        "output_dir": workspace.folder / "example",
    }
    finetune_generation.main(list(arguments(local)) + command)
    rows = read_lines(workspace.folder / "example" / "eval" / "step-8.jsonl")
    assert len(rows) == 4
    assert (workspace.folder / "example" / "model.safetensors").is_file()


# -- bad input: an error that names it, before any training, nothing touched


def refused(workspace, match: str, **options) -> None:
    folder = workspace.folder / "refused"
    with pytest.raises(InputError, match=match):
        workspace.finetune("refused", max_steps=1, **options)
    assert not folder.exists()


def test_bad_files_are_refused(workspace):
    good = (workspace.folder / "train.json").read_bytes()
    bad = workspace.folder / "bad.json"
    refused(workspace, r"nowhere\.json: cannot be read", train_file=workspace.folder / "nowhere.json")
    for content, match in (
        (good + b'{"context": \n', r"bad\.json, line 21: not JSON"),
        (b'{"context": "a", "question": "q"}\n', r"bad\.json, line 1: no field answer or title"),
        (b'{"context": "a", "answer": "a"}\n', r"bad\.json, line 1: no field question or target"),
        (b"", r"bad\.json: no record"),
        ("答".encode("gbk"), r"bad\.json, line 1: not UTF-8"),
        (b'{"context": "a[gMASK]", "answer": "a", "question": "q"}', r"line 1, field context.*\[gMASK\]"),
        (b'{"context": "a", "answer": "a", "question": "q<|endofpiece|>"}', r"field question.*endofpiece"),
    ):
        bad.write_bytes(content)
        refused(workspace, match, train_file=bad)


def test_bad_options_are_refused(workspace, checkpoint):
    refused(workspace, r"src_length 90 \+ tgt_length 30 = 120: the model has 100 positions", src_length=90)
    refused(workspace, r"num_return_sequences 3: use 1 to 2", num_return_sequences=3)
    refused(workspace, r"task_name dureader: unknown; known tasks: dureader_qg", task_name="dureader")
    refused(workspace, r"no such folder", model_name_or_path=workspace.folder / "nowhere")
    refused(workspace, r"unknown option learning_rat; did you mean learning_rate", learning_rat=1)
    refused(
        workspace,
        r"has no effect without --do_train",
        do_train=None,
        train_file=None,
        do_eval=True,
        resume_from_checkpoint=checkpoint,
    )
    refused(workspace, r"dataloader_drop_last True: has no effect", dataloader_drop_last=True)
    refused(workspace, r"metric_for_best_model bleu4: unknown", metric_for_best_model="bleu4")
    refused(workspace, r"tensor_parallel_degree 8: needs 8 processes", tensor_parallel_degree=8)


def test_a_model_without_weights_is_refused(workspace, checkpoint, tmp_path):
    for name in ("config.json", "cog-pretrain.model", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((checkpoint / name).read_bytes())
    refused(workspace, r"the folder has no weights", model_name_or_path=tmp_path, tokenizer_name_or_path=None)


def test_a_filled_output_folder_is_refused(workspace):
    folder = workspace.folder / "filled"
    folder.mkdir()
    (folder / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match=r"output_dir .*filled: is not empty.*--overwrite_output_dir"):
        workspace.finetune("filled", max_steps=1)
    assert [path.name for path in folder.iterdir()] == ["mine.txt"]
    workspace.finetune("filled", max_steps=1, overwrite_output_dir=True)
    assert (folder / "mine.txt").read_text() == "mine"
    assert (folder / "model.safetensors").is_file()


def run_script(*command: str, **options) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, **options
    )


def test_errors_are_one_line_and_a_traceback_only_with_debug(workspace, tmp_path):
    command = ["finetune_generation.py", *arguments({**workspace.options, "output_dir": tmp_path / "out"})]
    command += ["--train_file", str(tmp_path / "nowhere.json")]
    quiet = run_script(*command)
    assert quiet.returncode == 1
    assert "error: " in quiet.stderr and "nowhere.json: cannot be read" in quiet.stderr
    assert "Traceback" not in quiet.stderr
    assert "Traceback" in run_script(*command, "--debug").stderr
    assert not (tmp_path / "out").exists()


def test_wrong_usage_is_exit_code_2(tmp_path):
    done = run_script("predict.py", "--num_beam", "3")
    assert done.returncode == 2
    assert "unknown option num_beam; did you mean num_beams?" in done.stderr
    assert "Traceback" not in done.stderr
