"""`python -m glm score`: what it prints, and its exit codes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from glm.__main__ import main
from glm.errors import InputError, UsageError
from glm.evaluation import metrics
from glm.evaluation.metrics import FIGURES
from glm.evaluation.protocols import PROTOCOLS
from glm.evaluation.scored_file import read_scored_file

ROOT = Path(__file__).resolve().parents[2]


def row_of(identity: int, text: str | None, reference: str, *, source: str = "甲", answer: str = "唐") -> dict:
    texts = [] if text is None else [{"text": text, "score": -1.0}]
    return {"id": identity, "source": source, "answer": answer, "predictions": texts, "reference": reference}


ROWS = [
    row_of(1, "李白是哪个朝代的人?", "李白是哪个朝代的人？", source="甲" * 70),
    row_of(2, "杜甫是唐代人吗", "杜甫是哪个朝代的诗人？"),
    row_of(3, None, "谁"),
    {"id": 4, "predictions": [], "error": "d.json, line 4: not JSON"},
]


@pytest.fixture
def file(tmp_path) -> str:
    path = tmp_path / "p.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS), encoding="utf-8")
    return str(path)


def score_as_json(capsys, *arguments: str) -> dict:
    main(["score", *arguments, "--format", "json"])
    return json.loads(capsys.readouterr().out)


def test_json(file, capsys):
    found = score_as_json(capsys, file)
    scores = metrics.score(read_scored_file(file).pairs.values())
    assert found == {"file": file, "format": "glm", **scores.as_json(), "failed records": 1}
    assert found["records"] == 3 and set(found["signatures"]) == set(FIGURES)
    assert list(found["by source length (characters)"]) == ["1-64", "65-128"]


def test_failed_records_are_told(file, capsys):
    assert main(["score", file]) == 0
    assert f"{file}: 1 of 4 records failed and are not scored" in capsys.readouterr().err


def test_headline_figures_and_what_comes_next(file, capsys):
    main(["score", file])
    printed = capsys.readouterr()
    figures = score_as_json(capsys, file)
    rows = {row[0].strip(): row[1].strip() for line in printed.out.splitlines() if len(row := line.split("│")[1:]) > 1}
    for name in ("bleu-4 (char, corpus)", "rouge-l (char)", "exact match", "distinct-2 (char)"):
        assert rows[name] == f"{figures[name]:.2f}"
    assert rows["records"] == "3" and rows["failed records"] == "1" and "rouge-2 (char)" not in rows
    assert printed.out.count("bleu: nrefs:1|") == 1 and printed.out.count("rouge: nrefs:1|") == 1
    assert "by length of the source" not in printed.out
    last = printed.err.splitlines()[-1]
    assert last.startswith(f"next: python -m glm report {file} (a page)") and "--format full" in last


def test_all_tables(file, capsys):
    main(["score", file, "--format", "full"])
    printed = capsys.readouterr().out
    for text in ("bleu-4 (char, corpus)", "nrefs:1|norm:nfkc", "answer leaks", "by length of the source", "65-128"):
        assert text in printed
    assert "llama-factory" not in printed


def test_all_protocols(file, capsys):
    found = score_as_json(capsys, file, "--protocols", "all")["protocols"]
    pairs = list(read_scored_file(file).pairs.values())
    assert list(found) == ["ours (char)", "ours (jieba)", *PROTOCOLS]
    for name, protocol in PROTOCOLS.items():
        expected = protocol(pairs)
        assert found[name] == {**expected.figures, "signature": expected.signature}
    main(["score", file, "--protocols", "all"])
    printed = capsys.readouterr().out
    assert all(name in printed for name in found) and "gamma-1.2" in printed


def test_fail_under(file, capsys):
    figure = score_as_json(capsys, file)["bleu-4 (char, corpus)"]
    assert 0 < figure < 100
    limit = f"bleu-4 (char, corpus)={figure}"
    assert main(["score", file, "--fail_under", limit, "--fail_under", "rouge-l (char) = 1"]) == 0
    assert "--fail_under" not in capsys.readouterr().err
    assert main(["score", file, "--fail_under", "rouge-l (char)=1", "--fail_under", "exact match=99.5"]) == 1
    printed = capsys.readouterr()
    assert "--fail_under exact match=99.5: it is 33.3333" in printed.err and "rouge-l" not in printed.err
    assert "exact match" in printed.out  # the scores are printed all the same


def test_fail_under_an_absent_figure(tmp_path, capsys):
    path = tmp_path / "p.jsonl"
    path.write_text('{"prediction": "甲", "reference": "甲"}\n', encoding="utf-8")
    assert main(["score", str(path), "--fail_under", "answer leaks=0"]) == 1
    assert "it is absent, for no record has what it needs" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        ("zzz=30", r"no figure of this name; known are bleu-1 \(char, corpus\), bleu-2"),
        ("bleu-4=30", r"did you mean bleu-4 \(char, corpus\) or bleu-4 \(jieba, corpus\)\?"),
        ("bleu-4 (char)=30", r"no figure of this name; did you mean bleu-4 \(char, corpus\)"),
        ("bleu-4 (char, corpus)", r"no figure of this name"),
        ("exact match=many", "many is no number; write NAME=VALUE"),
        ("exact match=nan", "nan is no number"),
    ],
)
def test_wrong_limits(limit, message):
    with pytest.raises(UsageError, match=message):
        main(["score", "nowhere.jsonl", "--fail_under", limit])


def test_unknown_format(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text('{"text": "甲"}\n', encoding="utf-8")
    with pytest.raises(InputError, match="accepted are"):
        main(["score", str(path)])


def test_as_a_command(file):
    """Results on standard output, nothing but words on standard error; no Paddle is loaded."""
    command = [sys.executable, "-X", "importtime", "-m", "glm", "score", file, "--format", "json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and json.loads(done.stdout)["records"] == 3
    own = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    assert own == [f"{file}: 1 of 4 records failed and are not scored"]
    loaded = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert "sacrebleu" in loaded and loaded & {"paddle", "paddlenlp", "sentencepiece"} == set()
