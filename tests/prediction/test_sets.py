"""Prediction for several data sets: rows, figures and reports of each, and their table."""

import json

import pytest

from glm.errors import InputError, UsageError
from tools.run_tools import PLACES, make_workspace, read_lines, write_records


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, sentencepiece_file):
    space = make_workspace(tmp_path_factory.mktemp("sets"), sentencepiece_file)
    rows = [{"sentence1": place, "sentence2": place, "label": str(n % 2)} for n, place in enumerate(PLACES)]
    write_records(space.folder / "pairs.json", rows)
    write_records(space.folder / "few.json", rows[:3])
    asked = {"id": "q", "context": "青石镇位于河的北岸。" * 6, "question": "在哪里？", "answers": ["北岸"]}
    write_records(space.folder / "qa.json", [asked])
    return space


@pytest.fixture(scope="module")
def chooser(workspace):
    options = {"task_name": "pawsx_zh", "labels": "2万=1,3万=0", "max_steps": 1, "num_beams": None, "tgt_length": 8}
    return workspace.finetune("chooser", train_file=workspace.folder / "pairs.json", **options)


def table(workspace, **options):
    path = workspace.folder / "metrics.json"
    code = workspace.predict(metrics_file=path, overwrite_output=True, show=0, **options)
    return code, json.loads(path.read_text(encoding="utf-8"))


def test_each_set_has_rows_figures_and_a_report(workspace, chooser, capsys):
    folder = workspace.folder
    files = [f"zh={folder / 'pairs.json'}", f"en={folder / 'few.json'}"]
    output, report = folder / "o.jsonl", folder / "report"
    code, found = table(workspace, model_name_or_path=chooser, test_file=files, output_file=output, report=report)
    assert code == 0 and list(found) == ["zh", "en", "mean"]
    rows = {name: read_lines(folder / f"o.{name}.jsonl") for name in ("zh", "en")}
    assert {name: len(own) for name, own in rows.items()} == {"zh": len(PLACES), "en": 3} and not output.exists()
    assert {row["language"] for row in rows["en"]} == {"en"} and {row["language"] for row in rows["zh"]} == {"zh"}
    scores = [[found["score"] for found in own[0]["candidates"]] for own in rows.values()]
    assert scores[0] == pytest.approx(scores[1], abs=1e-4)  # of the same record
    for name, own in rows.items():
        right = sum(row["prediction"] == row["reference"] for row in own)
        assert found[name]["accuracy"] == pytest.approx(100 * right / len(own))
    assert found["mean"]["accuracy"] == pytest.approx((found["zh"]["accuracy"] + found["en"]["accuracy"]) / 2)
    assert found["mean"]["records"] == len(PLACES) + 3
    printed = capsys.readouterr().out
    assert "scores of the data sets" in printed and "mean" in printed
    page = (report / "report.html").read_text(encoding="utf-8")
    assert 'href="zh/report.html"' in page and (report / "en" / "report.html").is_file()
    assert (report / "plots" / "scores-by-set.png").is_file()  # a bar for each


def test_figures_of_answers_stand_side_by_side(workspace, chooser, capsys):
    files = [f"{name}={workspace.folder / 'qa.json'}" for name in ("zh", "en")]
    options = {"task_name": "cmrc2018", "src_length": 60, "num_beams": 1, "output_file": workspace.folder / "q.jsonl"}
    _, found = table(workspace, model_name_or_path=chooser, test_file=files, **options)
    assert "f1 (mlqa, zh)" in found["zh"] and "f1 (mlqa, zh)" not in found["en"]
    mean = (found["zh"]["f1 (mlqa, zh)"] + found["en"]["f1 (mlqa, en)"]) / 2
    assert found["mean"]["f1 (mlqa, mean)"] == pytest.approx(mean)
    assert "f1 (mlqa)" in capsys.readouterr().out


def test_a_set_named_by_its_task(workspace, chooser):
    files = [f"{name}={workspace.folder / 'pairs.json'}" for name in ("afqmc", "pawsx_zh")]
    own = json.loads((chooser / "finetune_config.json").read_text(encoding="utf-8"))
    assert own["task_name"] == "pawsx_zh"  # what the model was trained on comes before names
    workspace.predict(model_name_or_path=chooser, test_file=files, output_file=workspace.folder / "t.jsonl", show=0)
    assert {row["task"] for row in read_lines(workspace.folder / "t.afqmc.jsonl")} == {"pawsx_zh"}


def test_what_several_sets_need(workspace, chooser):
    files = [f"zh={workspace.folder / 'pairs.json'}", f"en={workspace.folder / 'few.json'}"]
    with pytest.raises(UsageError, match="test_file zh, en: several data sets need --output_file"):
        workspace.predict(model_name_or_path=chooser, test_file=files)
    with pytest.raises(UsageError, match="has no name beside the others"):
        workspace.predict(model_name_or_path=chooser, test_file=[files[0], str(workspace.folder / "few.json")])
    (workspace.folder / "w.en.jsonl").write_text("{}\n", encoding="utf-8")
    with pytest.raises(InputError, match="w.en.jsonl: exists"):
        workspace.predict(model_name_or_path=chooser, test_file=files, output_file=workspace.folder / "w.jsonl")
    assert not (workspace.folder / "w.zh.jsonl").exists()
