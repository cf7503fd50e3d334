"""`python -m glm show` as its users call it."""

import json

import pytest
from PIL import Image

from glm.commands.show import main
from glm.errors import InputError

GOOD = {"id": "q1", "context": "白鹿湖在松江。", "answer": "松江", "question": "白鹿湖在哪里？"}
LONG = {**GOOD, "context": "白鹿湖在松江。" + "水在零度结冰。" * 20}


@pytest.fixture
def path(tmp_path):
    rows = [GOOD, "", "bad", LONG, {"context": "白鹿湖在松江。", "answer": "松江", "question": ""}]
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    (tmp_path / "a.json").write_text("\n".join(lines), encoding="utf-8")
    return tmp_path / "a.json"


@pytest.fixture
def show(path, sentencepiece_file, capsys):
    """A function: what is printed for a line."""

    def show(line: int, *argv: str) -> str:
        tokenizer = ["--tokenizer_name_or_path", str(sentencepiece_file)]
        assert main([str(path), "--line", str(line), *tokenizer, *argv]) == 0
        return capsys.readouterr().out

    return show


def cells(text: str) -> list[list[str]]:
    """The rows of the table: part, place, piece, four columns of training, three of prediction."""
    rows = [[cell.strip() for cell in line.split("│")] for line in text.splitlines() if line.count("│") == 9]
    return [row for row in rows if row[0] in ("A", "B")]


def test_a_record(show, tokenizer):
    text = show(1)
    source = tokenizer.encode_text("答案：松江，上下文：白鹿湖在松江。")
    opening, question = tokenizer.encode_text(["在已知答案的前提下，问题：", "白鹿湖在哪里？"])
    S, blank = len(source) + 3, len(source) + 1
    ids = [tokenizer.cls_token_id, *source, tokenizer.mask_token_ids[2], tokenizer.eos_token_id]
    span, labels = [*opening, *question], [*opening, *question, tokenizer.eop_token_id]
    rows = cells(text)
    assert [row[0] for row in rows] == ["A"] * S + ["B"] * (len(span) + 1)
    assert [int(row[3]) for row in rows] == [*ids, tokenizer.sop_token_id, *span]
    assert [int(row[4]) for row in rows] == [*range(S), *[blank] * (len(span) + 1)]
    assert [int(row[5]) for row in rows] == [0] * S + list(range(1, len(span) + 2))
    assert [row[6].split()[-1] for row in rows] == ["-"] * S + list(map(str, labels))
    given = S + 1 + len(opening)
    assert [row[7:] for row in rows[:given]] == [row[3:6] for row in rows[:given]]
    assert {tuple(row[7:]) for row in rows[given:]} == {("…", "…", "…")}
    assert f"source: {S} tokens, src_length 608; 0 were cut" in text
    assert "training and prediction are laid out alike" in text
    L = S + 1 + len(span)
    assert f"places 0 to {S - 1} attend to places 0 to {S - 1}\n" in text
    assert f"places {S} to {L - 1} attend to places 0 to themselves\n" in text
    grid = [line for line in text.splitlines() if set(line) <= {"█", "·"} and line]
    assert grid == ["█" * S + "·" * (L - S)] * S + ["█" * (n + 1) + "·" * (L - n - 1) for n in range(S, L)]


def test_what_was_cut(show, tokenizer):
    text = show(4, "--src_length", "40")
    kept = len(cells(text)) - sum(row[0] == "B" for row in cells(text))
    uncut = len(tokenizer.encode_text(f"答案：松江，上下文：{LONG['context']}")) + 3
    assert kept <= 40 < uncut and f"source: {kept} tokens, src_length 40; {uncut - kept} were cut" in text
    assert "what is left of it: 答案:松江,上下文:白鹿湖在松江。" in text


def test_without_target(show):
    text = show(5)
    assert "no target" in text and "laid out alike" not in text
    assert all(row[3:7] == ["", "", "", ""] for row in cells(text))


def test_picture(show, tmp_path):
    target = tmp_path / "new" / "a.png"
    show(1, "--image", str(target))
    with Image.open(target) as image:
        assert image.format == "PNG" and min(image.size) > 300
    with pytest.raises(InputError, match=f"image {target}: exists; choose another name, or add --overwrite_output"):
        show(1, "--image", str(target))
    show(4, "--image", str(target), "--overwrite_output")


def test_a_picture_that_cannot_be_written(show, path):
    with pytest.raises(InputError, match="image .*a.json/a.png: cannot be written"):
        show(1, "--image", str(path / "a.png"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (2, "line 2: .*a.json has no record there; its last one is 5"),
        (9, "line 9: .*a.json has no record there; its last one is 5"),
        (0, "line 0: .*a.json has no record there; its last one is 5"),
        (3, "a.json, line 3: not JSON"),
    ],
)
def test_lines_without_a_record(show, line, message):
    with pytest.raises(InputError, match=message):
        show(line)


def test_a_target_that_does_not_fit(show):
    with pytest.raises(InputError, match="line 1, field target: .*--allow_cut_targets"):
        show(1, "--tgt_length", "18")
    assert "tgt_length 18; " in show(1, "--tgt_length", "18", "--allow_cut_targets")
