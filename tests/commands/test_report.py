"""`python -m glm report`: a page of any file of predictions."""

import json
from pathlib import Path

import pytest

from glm.__main__ import main
from glm.errors import InputError

ROWS = {
    "ours": [
        {"id": "a", "source": "甲位于乙。", "answer": "乙", "predictions": [{"text": "甲在哪？", "score": -1.0}]}
        | {"reference": ["甲在哪里？", "甲位于哪里？"], "cut": 3, "seen": [0, 3]},
        {"id": "b", "source": "丙", "predictions": [{"text": "丁", "score": -2.0}]},
        {"id": "c", "predictions": [], "error": "in.json, line 3: not JSON"},
    ],
    "of LLaMA-Factory": [{"prompt": "甲位于乙。", "predict": "甲在哪？", "label": "甲在哪里？"}],
    "of ms-swift": [{"query": "甲位于乙。", "response": "甲在哪？", "labels": "甲在哪里？"}],
    "plain, without references": [{"prediction": "甲在哪？"}, {"prediction": ""}],
}


def write(path: Path, rows: list[dict]) -> str:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("form", ROWS)
def test_a_page_of_any_predictions(tmp_path, capsys, form):
    file = write(tmp_path / "p.jsonl", ROWS[form])
    assert main(["report", file]) == 0
    page = (tmp_path / "p.report" / "report.html").read_text(encoding="utf-8")
    assert str(tmp_path / "p.report" / "report.html") in capsys.readouterr().err
    assert "甲在哪？" in page and "python -m glm report" in page
    assert ("bleu-4 (char, corpus)" in page) == ("without" not in form)
    if form == "ours":
        assert "3 tokens of the source were cut" in page and "in.json, line 3: not JSON" in page
        assert '<span class="unseen">乙。</span>' in page or '<span class="unseen">乙</span>' in page


def test_a_page_of_choices(tmp_path):
    candidates = [{"label": label, "score": 0.0, "probability": 0.5} for label in ("yes", "no")]
    rows = [{"id": 1, "source": "甲", "prediction": "yes", "candidates": candidates, "reference": "no"}]
    assert main(["report", write(tmp_path / "p.jsonl", rows), "--output_dir", str(tmp_path / "page")]) == 0
    page = (tmp_path / "page" / "report.html").read_text(encoding="utf-8")
    assert "All records" in page and "全部样本" in page and '<span class="en">wrong</span>' in page


def test_a_page_that_is_there_is_kept(tmp_path):
    file = write(tmp_path / "p.jsonl", ROWS["of ms-swift"])
    main(["report", file])
    with pytest.raises(InputError, match="choose another folder, or add --overwrite_output"):
        main(["report", file])
    assert main(["report", file, "--overwrite_output"]) == 0
    with pytest.raises(InputError, match="is a file or lies in one"):
        main(["report", file, "--output_dir", file])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "no prediction in it|no record"),
        ([{"a": 1}], "no known format of predictions"),
        ([{"predictions": [{"score": 1}]}], "line 1, field predictions: a list of objects with a text"),
        ([{"prediction": "a"}, {"x": 1}], "line 2: no field prediction"),
        ([{"prediction": 3}], "line 1, field prediction: int where text is expected"),
    ],
)
def test_what_is_no_file_of_predictions(tmp_path, rows, message):
    with pytest.raises(InputError, match=message):
        main(["report", write(tmp_path / "p.jsonl", rows)])
    assert not (tmp_path / "p.report").exists()
