"""`predict.py --report`: what the page holds, and that it changes nothing else."""

import io
import json
import sys
from pathlib import Path

import pytest

import predict
from glm.errors import InputError, UsageError
from glm.options.predict import parse_predict_arguments
from tools.run_tools import Workspace, make_workspace, read_lines


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, sentencepiece_file) -> Workspace:
    return make_workspace(tmp_path_factory.mktemp("report"), sentencepiece_file)


@pytest.fixture(scope="module")
def checkpoint(workspace) -> Path:
    return workspace.finetune("checkpoint", max_steps=10, logging_steps=5)


@pytest.fixture
def run(workspace, checkpoint, tmp_path):
    """`run(option=…)`: predicts the dev records into `tmp_path`, and gives the text of the page."""

    def predicted(**options) -> str:
        settings = {
            "model_name_or_path": checkpoint,
            "test_file": workspace.folder / "dev.json",
            "output_file": tmp_path / "out.jsonl",
            "report": tmp_path / "report",
            "num_beams": 3,
            "show": 0,
            **options,
        }
        workspace.predict(**{name: value for name, value in settings.items() if value is not None})
        return (tmp_path / "report" / "report.html").read_text(encoding="utf-8")

    return predicted


def test_the_page_and_its_plots(run, tmp_path, checkpoint):
    page = run(metrics_file=tmp_path / "m.json")
    figures = json.loads((tmp_path / "m.json").read_text(encoding="utf-8"))
    assert f"{figures['rouge-l (char)']:.2f}" in page and "bleu-4 (jieba, corpus)" in page
    assert page.count("<article") == 4 and page.count("beam 3") == 4  # all beams, though one is asked for
    assert f"Predictions of {checkpoint} for" in page and "python predict.py --device cpu" in page
    assert "sha256 of the input" in page and "no_repeat_ngram_size" in page
    assert "Learning rate" in page  # of the run that made the checkpoint
    assert (tmp_path / "report" / "plots" / "source-length.png").is_file()


def test_the_file_is_the_same_as_without_report(run, tmp_path, workspace, checkpoint):
    run(num_return_sequences=2)
    options = {"model_name_or_path": checkpoint, "test_file": workspace.folder / "dev.json", "num_beams": 3}
    workspace.predict(**options, num_return_sequences=2, output_file=tmp_path / "plain.jsonl", show=0)
    rows = read_lines(tmp_path / "out.jsonl")
    assert {len(row["predictions"]) for row in rows} == {2}
    assert rows == read_lines(tmp_path / "plain.jsonl")


def test_no_scores_without_references(run, tmp_path):
    path = tmp_path / "records.json"
    record = {"context": "青石镇位于河的北岸，人口大约2万。", "answer": "2万"}
    path.write_text(json.dumps(record, ensure_ascii=False) + "\n", encoding="utf-8")
    page = run(test_file=path)
    assert "have no references" in page and page.count("<article") == 1


def test_records_from_standard_input(run, monkeypatch):
    text = json.dumps({"context": "人口大约2万。", "answer": "2万"}, ensure_ascii=False) + "\nnonsense\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    page = run(test_file=None, output_file=None, show=None)
    assert "for standard input" in page and "standard input, line 2" in page


def test_an_interrupted_run(run, monkeypatch):
    """The page of a resumed run has all records."""
    add, added = predict.PredictionsFile.add, []

    def interrupt(self, number, row):
        added.append(number)
        if len(added) == 3:
            raise KeyboardInterrupt
        add(self, number, row)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(predict.PredictionsFile, "add", interrupt)
        run()
    page = run(resume=True)
    assert page.count("<article") == 4 and page.count("beam 3") == 2  # the file has one text of the others


def test_an_earlier_report_is_kept(run, tmp_path):
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "report.html").write_text("mine")
    with pytest.raises(InputError, match=r"report .*report: holds report\.html;.*--overwrite_output"):
        run()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report"]
    assert "<article" in run(overwrite_output=True)


def test_no_folder_can_be_made(run, tmp_path):
    (tmp_path / "file").write_text("mine")
    for place in ("file", "file/below"):
        with pytest.raises(InputError, match="is a file or lies in one"):
            run(report=tmp_path / place)


def test_a_page_is_no_folder(run, tmp_path):
    with pytest.raises(InputError, match=r"page\.html: give a folder; the page in it is report\.html"):
        run(report=tmp_path / "page.html")
    assert list(tmp_path.iterdir()) == []


def test_blanks_have_no_report():
    with pytest.raises(UsageError, match="report r: there is none of filled blanks"):
        parse_predict_arguments(["--fill", "[MASK]", "--report", "r", "--device", "cpu"])
