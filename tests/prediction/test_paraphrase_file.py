"""The file of paraphrases as UniLM's decoding writes it."""

import pytest

from glm.errors import InputError
from glm.prediction.paraphrase_file import paraphrase_line, write_paraphrases


def row(source: str, *texts: str) -> dict:
    return {"id": 7, "source": source, "predictions": [{"text": text, "score": -1.0} for text in texts]}


def test_lines(tmp_path):
    path = tmp_path / "test.json"
    write_paraphrases(path, [row("凡尔赛牛肉泡面", "好吃", "爽口"), row("深V", "x"), {"id": 1, "error": "bad"}])
    assert path.read_text(encoding="utf-8") == "凡尔赛牛肉泡面\x01好吃||爽口\n深V\x01x\n"


@pytest.mark.parametrize(
    ("source", "text", "what"),
    [
        ("甲", "乙||丙", r"\|\|"),
        ("甲", "乙\x01", r"U\+0001"),
        ("甲", "乙\n丙", "a line"),
        ("甲\n", "乙", "a line"),
    ],
)
def test_what_would_be_ambiguous_is_refused_and_nothing_written(tmp_path, source, text, what):
    with pytest.raises(InputError, match=rf"record 7: .* holds {what}.*--output_format json"):
        write_paraphrases(tmp_path / "test.json", [row("好", "的"), row(source, text)])
    assert list(tmp_path.iterdir()) == []


def test_a_source_may_hold_bars():
    assert paraphrase_line(row("甲||乙", "丙")) == "甲||乙\x01丙"
