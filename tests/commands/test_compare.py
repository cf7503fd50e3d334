"""`python -m glm compare`: what it prints, and which files it refuses."""

import json

import pytest

from glm.__main__ import main
from glm.errors import InputError, UsageError
from glm.evaluation import metrics
from glm.evaluation.scored_file import read_scored_file
from glm.evaluation.significance import compare, table_of_statistics

REFERENCES = ["李白是哪个朝代的人", "杜甫的号是什么", "谁写了包法利夫人", "长江有多长", "黄河有多长"]
FAILED = {"predictions": [], "error": "too long"}


def rows(*predictions: str) -> list[dict]:
    return [
        {"id": f"r{k}", "source": f"原文{k}", "predictions": [{"text": text}], "reference": REFERENCES[k]}
        for k, text in enumerate(predictions)
    ]


FIRST = rows("李白是哪个朝代的人", "杜甫是谁", "谁写了", "长江有多长", "河")
SECOND = rows("李白是谁", "杜甫的号是什么", "谁写了包法利夫人", "长江有多长", "黄河有多")


@pytest.fixture
def write(tmp_path):
    def to_file(name: str, content: list[dict]) -> str:
        path = tmp_path / name
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in content), encoding="utf-8")
        return str(path)

    return to_file


@pytest.fixture
def files(write) -> list[str]:
    return [write("a.jsonl", FIRST), write("b.jsonl", SECOND)]


def compare_as_json(capsys, *arguments: str) -> dict:
    main(["compare", *arguments, "--format", "json"])
    return json.loads(capsys.readouterr().out)


def test_json(files, capsys):
    found = compare_as_json(capsys, *files, "--seed", "3")
    pairs = [list(read_scored_file(file).pairs.values()) for file in files]
    expected = compare(*map(table_of_statistics, pairs), seed=3)
    assert (found["first"], found["second"], found["records"], found["seed"]) == (*files, 5, 3)
    assert list(found["differences"]) == list(expected)
    for name, difference in expected.items():
        row = found["differences"][name]
        assert (row["A"], row["B"]) == (difference.first, difference.second)
        assert row["difference"] == difference.second - difference.first
        assert row["95 % interval"] == [difference.low, difference.high] and row["p"] == difference.p_value
    scores = metrics.score(pairs[0])
    assert found["signatures"] == {name: scores.signatures[name] for name in expected}


def test_records_that_differ_most(files, capsys):
    found = compare_as_json(capsys, *files, "--show", "2")["records by rouge-l (char)"]
    (worse,), (best, second) = found["A is better"], found["B is better"]
    found = {row["id"]: (row["score A"], row["score B"]) for row in (worse, best, second)}
    assert list(found) == ["r0", "r4", "r1"]  # r2 differs as much as r1 and stands behind it in the file
    # 李白是 is 3 of 4 and of 9; 河 is 1 of 1 and of 5, 黄河有多 4 of 4 and of 5; 杜甫是 is 3 of 4 and of 7
    expected = {"r0": (100, 600 / 13), "r4": (100 / 3, 800 / 9), "r1": (600 / 11, 100)}
    assert found == {name: pytest.approx(pair, abs=1e-5) for name, pair in expected.items()}
    texts = (second["references"], second["A"], second["B"])
    assert texts == (["杜甫的号是什么"], "杜甫是谁", "杜甫的号是什么")


def test_equal_records_are_not_shown(files, capsys):
    found = compare_as_json(capsys, *files, "--show", "99")["records by rouge-l (char)"]
    shown = [[row["id"] for row in found[f"{name} is better"]] for name in ("A", "B")]
    assert shown == [["r0"], ["r4", "r1", "r2"]]
    found = compare_as_json(capsys, *files, "--show", "0")["records by rouge-l (char)"]
    assert found == {"A is better": [], "B is better": []}


def test_tables(files, capsys):
    main(["compare", *files])
    printed = capsys.readouterr()
    for text in ("95 % interval", "bleu-4 (char, corpus)", "where A is better", "where B is better", "杜甫是谁"):
        assert text in printed.out
    assert printed.err == ""


def test_order_of_rows_does_not_matter(files, write, capsys):
    shuffled = write("c.jsonl", SECOND[::-1])
    assert compare_as_json(capsys, files[0], shuffled)["differences"] == compare_as_json(capsys, *files)["differences"]


def test_failed_records_are_left_out_and_told(write, capsys):
    arguments = write("a.jsonl", FIRST), write("b.jsonl", [*SECOND[:4], {"id": "r4", **FAILED}])
    main(["compare", *arguments, "--format", "json"])
    printed = capsys.readouterr()
    assert json.loads(printed.out)["records"] == 4
    assert "1 of 5 records failed in one of the files, or have no reference, and are left out" in printed.err


def test_files_of_two_tools_by_line(write, capsys):
    """Their sources are framed differently, and that is no difference of the records."""
    texts = [[(row["predictions"][0]["text"], row["reference"]) for row in rows] for rows in (FIRST, SECOND)]
    llama_factory = [{"prompt": f"[gMASK]{k}", "predict": p, "label": r} for k, (p, r) in enumerate(texts[0])]
    swift = [{"response": p, "labels": r, "messages": [{"role": "user", "content": "原文"}]} for p, r in texts[1]]
    found = compare_as_json(capsys, write("l.jsonl", llama_factory), write("s.jsonl", swift))
    assert found["records"] == 5
    assert found["differences"]["exact match"]["difference"] == pytest.approx(20)  # 2 of 5, 3 of 5


def changed(place: int, **fields) -> list[dict]:
    return [*SECOND[:place], SECOND[place] | fields, *SECOND[place + 1 :]]


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (
            changed(1, id="x"),
            r"their ids differ: 1 only in .*a\.jsonl \(such as r1\); 1 only in .*b\.jsonl \(such as x",
        ),
        (SECOND[:4], r"their ids differ: 1 only in .*a\.jsonl \(such as r4\)$"),
        (changed(2, reference="别的"), "record r2 has another reference in each"),
        (changed(3, source="别的"), "record r3 has another source in each"),
        ([{name: row[name] for name in row if name != "id"} for row in SECOND], "only one has ids"),
    ],
)
def test_files_that_are_refused(write, second, message):
    with pytest.raises(InputError, match=message):
        main(["compare", write("a.jsonl", FIRST), write("b.jsonl", second)])


def test_no_common_record(write):
    arguments = (
        write("a.jsonl", [FIRST[0], {"id": "r1", **FAILED}]),
        write("b.jsonl", [{"id": "r0", **FAILED}, SECOND[1]]),
    )
    with pytest.raises(InputError, match="no record with a reference and without failure in both"):
        main(["compare", *arguments])


@pytest.mark.parametrize("option", ["seed", "show"])
def test_wrong_options(option):
    with pytest.raises(UsageError, match=f"--{option} -1: 0 or more is expected"):
        main(["compare", "a", "b", f"--{option}", "-1"])
