"""Symptoms: what is wrong with texts is said with its figure, and nothing is said of texts that are well."""

import pytest

from glm.evaluation.symptoms import FEWEST_TO_JUDGE, Symptoms, loss_symptom

GOOD = [
    "松江有多少人口？",
    "白鹿湖在哪里？",
    "谁写了《诗经》？",
    "石桥建于哪一年？",
    "铁的熔点是多少？",
    "他几点起床？",
]


def lines(texts, *, references=(), **marks) -> list[str]:
    found = Symptoms()
    for number, text in enumerate(texts):
        reference = references[number : number + 1]
        found.add(text, references=reference, **{name: values[number] for name, values in marks.items()})
    return found.lines()


def test_texts_that_are_well():
    assert lines(GOOD) == [] == lines(GOOD * 20, references=GOOD * 20) == lines([])


def test_empty_texts():
    (line,) = lines([""] * 60, references=GOOD * 10)
    assert line.startswith("60 of 60 texts are empty") and "--learning_rate" in line
    (line,) = lines([*GOOD, " \u3000\n"])
    assert line.startswith("1 of 7 texts are empty")


def test_texts_that_are_all_alike():
    (line,) = lines(["是什么？"] * 19 + ["谁？"], references=(GOOD * 4)[:20])
    assert line.startswith("19 of 20 texts are the same, “是什么？”")
    assert lines(["是什么？"] * 17 + GOOD[:3], references=(GOOD * 4)[:20]) == []
    long = "".join(map(chr, range(0x4E00, 0x4E30)))
    (line,) = lines([long] * 9)
    assert f"“{long[:20]}…”" in line


def test_texts_that_may_be_alike():
    """So few that chance will do; and where the references are all the same."""
    assert lines(["是"] * (FEWEST_TO_JUDGE - 1), references=["否"] * (FEWEST_TO_JUDGE - 1)) == []
    assert lines(["是"] * 50, references=["是"] * 46 + ["否"] * 4) == []
    assert len(lines(["是"] * 50, references=["是"] * 25 + ["否"] * 25)) == 1


def test_texts_at_the_length_limit():
    (line,) = lines(GOOD, at_limit=[True, True, False, False, False, False])
    assert line.startswith("33 % of the texts end at the length limit") and "--tgt_length" in line
    assert lines(GOOD * 10, at_limit=[True] * 3 + [False] * 57) == []  # 5 %


def test_texts_that_repeat_themselves():
    (line,) = lines([*GOOD[:4], "好好好好好好好好", "谁是谁的谁是谁的谁是谁的谁"])
    assert line.startswith("33 % of the texts repeat themselves") and "--no_repeat_ngram_size" in line


def test_sources_that_were_cut():
    (line,) = lines(GOOD, cut=[0, 7, 0, 100, 0, 0])
    assert line.startswith("2 of 6 sources were cut and lost 107 tokens") and "--src_length" in line


def test_rows_of_predictions():
    found = Symptoms()
    text = {"text": "谁？", "score": -1.0}
    found.add_row({"id": 1, "predictions": [text | {"finish_reason": "length"}], "reference": ["甲", "乙"], "cut": 3})
    found.add_row({"id": 2, "predictions": []})
    found.add_row({"id": 3, "predictions": [], "error": "bad"})
    found.add_row({"id": 4, "text": "甲[MASK]", "filled": "甲", "blanks": [[]]})
    assert (found.count, found.empty, found.at_limit, found.cut, found.lost) == (2, 1, 1, 1, 3)


@pytest.mark.parametrize(
    ("losses", "falls"),
    [
        ([5.0, 4.0, 3.0], True),
        ([5.0, 5.0], False),
        ([5.0, 4.0, 6.0, 5.5], False),
        ([5.0, 6.0, 7.0, 8.0, 4.0, 4.0, 4.0, 4.0], True),
        ([5.0], True),
        ([], True),
    ],
)
def test_a_loss_that_did_not_fall(losses, falls):
    log = [{"step": 10 * number, "loss": loss} for number, loss in enumerate(losses, start=1)]
    line = loss_symptom([*log, {"step": 9, "eval_loss": 99.0}, {"train_loss": 1.0}], learning_rate=3e-5)
    assert (line is None) == falls
    if not falls:
        assert f"5.0000 at step 10, {losses[-1]:.4f} at the end (step {10 * len(losses)})" in line and "3e-05" in line
