"""`check`, `show`, `score` and `compare` of tasks that choose or extract."""

import json

import pytest

from glm.__main__ import main
from glm.errors import InputError, UsageError

OWN = ["--template", "{a}，[MASK]。", "--labels", "2万=two,3万=three"]


def write(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.fixture
def data(tmp_path):
    rows = [{"a": "人口大约", "label": "two"}, {"a": "人口", "label": "four"}, {"a": "人口" * 40, "label": "three"}]
    return write(tmp_path / "data.json", rows)


@pytest.fixture
def run(sentencepiece_file, capsys):
    """A function: exit code and what is printed of a verb with a tokenizer."""

    def run(*argv):
        code = main([*argv, "--tokenizer_name_or_path", str(sentencepiece_file)])
        return code, capsys.readouterr().out

    return run


def test_check(run, data):
    code, printed = run("check", data, *OWN, "--src_length", "40")
    assert code == 1 and "unknown label, 1 times" in printed
    assert f"{data}, line 2, field label: 'four' is none of two, three" in printed
    assert "3 rows read = 2 used + 1 refused (task own)" in printed and "1 of 2 sources are longer" in printed


def test_show_candidates_and_what_is_cut(run, data):
    code, printed = run("show", data, "--line", "3", *OWN, "--src_length", "30")
    assert code == 0 and "tokens before the candidates, src_length 30;" in printed
    assert "[MASK]" in printed and "three" in printed and "right" in printed
    _, whole = run("show", data, "--line", "1", *OWN)
    assert "; 0 were cut" in whole and "labels of several pieces" in whole
    _, head = run("show", data, "--line", "1", *OWN, "--classification_head", "start")
    assert "is classified" in head


def test_show_windows(run, tmp_path):
    rows = [{"context": "青石镇位于河的北岸。" * 12, "question": "在哪里？", "answers": ["北岸"]}]
    _, printed = run(
        "show", write(tmp_path / "q.json", rows), "--line", "1", "--task_name", "cmrc2018", "--src_length", "60"
    )
    assert "windows of a passage of" in printed and "in it" in printed


def test_show_has_no_picture_of_a_choice(run, data, tmp_path):
    with pytest.raises(UsageError, match="--image"):
        run("show", data, "--line", "1", *OWN, "--image", str(tmp_path / "x.png"))
    with pytest.raises(InputError, match="line 9: .* has no record there"):
        run("show", data, "--line", "9", *OWN)


# -- score and compare


def choice(identity, prediction, reference, share=0.9):
    shares = {"a": share, "b": 1 - share} if prediction == "a" else {"a": 1 - share, "b": share}
    candidates = [
        {"label": label, "text": label, "probability": found, "score": found, "mean": found}
        for label, found in shares.items()
    ]
    return {
        "id": identity,
        "source": "文" * 10,
        "prediction": prediction,
        "candidates": candidates,
        "reference": reference,
    }


def answer(identity, prediction, references, language="zh"):
    return {
        "id": identity,
        "question": "谁？",
        "context": "文",
        "window": 0,
        "windows": 1,
        "window_text": "文",
        "language": language,
        "prediction": prediction,
        "references": references,
        "score": -1.0,
    }


def scored(capsys, *argv):
    code = main([*argv, "--format", "json"])
    return code, json.loads(capsys.readouterr().out)


def test_score_of_choices(tmp_path, capsys):
    rows = [choice(1, "a", "a"), choice(2, "a", "b"), choice(3, "b", "b"), {"id": 4, "error": "bad"}]
    path = write(tmp_path / "c.jsonl", rows)
    code, found = scored(capsys, "score", path, "--fail_under", "accuracy=60")
    assert code == 0 and found["accuracy"] == pytest.approx(200 / 3) and found["failed records"] == 1
    assert found["macro f1"] == pytest.approx(100 * 2 / 3) and "signatures" in found
    assert scored(capsys, "score", path, "--fail_under", "accuracy=70")[0] == 1
    main(["score", path])
    assert "macro f1" in capsys.readouterr().out


def test_score_of_answers(tmp_path, capsys):
    path = write(tmp_path / "e.jsonl", [answer(1, "北京", ["北京"]), answer(2, "北京大学", ["北京"])])
    _, found = scored(capsys, "score", path)
    assert found["em (mlqa, zh)"] == 50.0 and found["f1 (mlqa, zh)"] == pytest.approx(100 * (1 + 2 / 3) / 2)


def test_compare_choices(tmp_path, capsys):
    first = write(tmp_path / "a.jsonl", [choice(n, "a", "ab"[n % 2]) for n in range(40)])
    second = write(tmp_path / "b.jsonl", [choice(n, "ab"[n % 2], "ab"[n % 2]) for n in range(40)])
    main(["compare", first, second, "--format", "json", "--show", "2"])
    found = json.loads(capsys.readouterr().out)
    difference = found["differences"]["accuracy"]
    assert (difference["A"], difference["B"], difference["difference"]) == (50.0, 100.0, 50.0)
    low, high = difference["95 % interval"]
    assert 30 < low < 50 < high < 70 and difference["p"] < 0.001
    assert len(found["records where they differ"]) == 2
    main(["compare", first, first])
    assert "accuracy" in capsys.readouterr().out


def test_compare_answers_by_language(tmp_path, capsys):
    first = write(tmp_path / "a.jsonl", [answer(1, "北京", ["北京"]), answer(1, "x", ["y"], "en")])
    second = write(tmp_path / "b.jsonl", [answer(1, "上海", ["北京"]), answer(1, "y", ["y"], "en")])
    main(["compare", first, second, "--format", "json"])
    differences = json.loads(capsys.readouterr().out)["differences"]
    assert differences["f1 (mlqa, zh)"]["difference"] == -100 and differences["f1 (mlqa, en)"]["difference"] == 100
    assert differences["f1 (mlqa, mean)"]["difference"] == 0


def test_files_that_do_not_go_together(tmp_path):
    a = write(tmp_path / "a.jsonl", [choice(1, "a", "a")])
    cases = {
        "their ids differ": [choice(2, "a", "a")],
        "another reference": [choice(1, "a", "b")],
        "different kinds": [answer(1, "a", ["a"])],
    }
    for told, rows in cases.items():
        with pytest.raises(InputError, match=told):
            main(["compare", a, write(tmp_path / "b.jsonl", rows)])


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({**choice(1, "a", "a"), "prediction": 3}, "field prediction: text is expected"),
        ({**choice(1, "a", "a"), "reference": []}, "field reference: text, or a list"),
        ({**choice(1, "a", "a"), "candidates": [{"label": "a"}]}, r"field candidates: a list of objects"),
    ],
)
def test_rows_that_cannot_be_scored(tmp_path, row, told):
    path = write(tmp_path / "c.jsonl", [choice(7, "a", "a"), row])
    with pytest.raises(InputError, match=f"line 2.*{told}"):
        main(["score", path])


def test_one_right_answer_as_text(tmp_path, capsys):
    """It is one answer, not one for each of its characters."""
    _, found = scored(capsys, "score", write(tmp_path / "e.jsonl", [answer(1, "河", "河边")]))
    assert found["em (mlqa, zh)"] == 0


def test_rows_without_what_is_right(tmp_path, capsys):
    """Are not scored, and have a page; a file without any cannot be scored."""
    bare = {name: value for name, value in choice(1, "a", "a").items() if name != "reference"}
    path = write(tmp_path / "c.jsonl", [choice(7, "a", "a"), bare])
    main(["score", path, "--format", "json"])
    said = capsys.readouterr()
    assert json.loads(said.out)["records"] == 1
    assert "1 of 2 records has a reference; the scores are of these" in said.err
    path = write(tmp_path / "d.jsonl", [bare])
    with pytest.raises(InputError, match="no field reference in any row: nothing to score against"):
        main(["score", path])
    main(["report", path])
    assert "No record says what is right" in (tmp_path / "d.report" / "report.html").read_text(encoding="utf-8")


def test_an_id_stands_once_in_a_language(tmp_path):
    with pytest.raises(InputError, match="line 2, field id: 1 is the id of"):
        main(["score", write(tmp_path / "c.jsonl", [choice(1, "a", "a"), choice(1, "b", "b")])])
