"""Choices and answers of a tiny model: rows, their order, and what they must not depend on."""

import numpy as np
import pytest

from glm.data.choices import ChoiceEncoder
from glm.data.columns import RECOGNISED
from glm.data.formats import Row
from glm.data.task_records import reader_of
from glm.data.task_table import TASKS, find_frame
from glm.data.windows import WindowEncoder
from glm.errors import InputError
from glm.generation.config import GenerationConfig
from glm.models.glm import FAMILY
from glm.prediction.answers import Answerer
from glm.prediction.answers import predict as answer
from glm.prediction.choosing import Chooser, predict, score
from glm.prediction.kinds import KINDS, predicted_rows, writer_of
from glm.prediction.writer import Writer

OWN = find_frame("dureader_qg", "{a}，[MASK]。", None, "春天=spring,水=water")
PLACES = ["青石镇位于河的北岸。", "白鹿湖在松江，人口大约3万，有一座古老的石桥。", "水在零度结冰。", "图书馆"]


@pytest.fixture(scope="module")
def model(tiny_model):
    return tiny_model(seed=3, vocab_size=352)


def records_of(task, rows):
    reader = reader_of(task, RECOGNISED, need_label=False)
    numbered = (Row(number, f"f.json, line {number}", row) for number, row in enumerate(rows, start=1))
    return dict(enumerate(record for row in numbered for record in reader.records(row)))


@pytest.fixture
def choose(model, tokenizer):
    """A function: the rows of questions."""

    def choose(task, rows, *, batch_size=4, penalty=0.0, **how):
        encoder = ChoiceEncoder(FAMILY, tokenizer, task, **{"src_length": 60, "tgt_length": 9, **how})
        found = dict(predict(Chooser(model, encoder, batch_size, penalty), records_of(task, rows)))
        return [found[number] for number in range(len(found))]

    return choose


def scores_of(row):
    return {candidate["label"]: candidate["score"] for candidate in row["candidates"]}


def test_a_row(choose):
    (row,) = choose(OWN, [{"a": PLACES[0], "label": "water", "id": "x"}])
    assert (row["id"], row["task"], row["source"], row["language"]) == ("x", "own", PLACES[0], "zh")
    assert row["reference"] == "water" and row["prediction"] in ("spring", "water")
    shares = [candidate["probability"] for candidate in row["candidates"]]
    assert sum(shares) == pytest.approx(1, abs=1e-5)
    best = max(row["candidates"], key=lambda candidate: candidate["probability"])
    assert best["label"] == row["prediction"]


def test_what_fails_says_why_and_the_rest_goes_on(choose):
    rows = choose(OWN, [{"a": ""}, {"a": PLACES[0]}, {"b": PLACES[0]}])
    assert "line 1, field a: empty" in rows[0]["error"] and "no field a" in rows[2]["error"]
    assert "prediction" in rows[1]


@pytest.mark.parametrize("multi_token", [None, True])
def test_a_row_depends_on_no_batch_mate(choose, multi_token):
    values = [{"a": place} for place in PLACES]
    together = choose(OWN, values, batch_size=4, multi_token=multi_token)
    for value, row in zip(values, together, strict=True):
        (alone,) = choose(OWN, [value], batch_size=1, multi_token=multi_token)
        for label, found in scores_of(alone).items():
            assert found == pytest.approx(scores_of(row)[label], abs=1e-4)


def test_a_permutation_of_the_choices_permutes_the_scores(choose):
    choices = ["三万", "图书馆里", "春天", "水"]
    want = scores_of(choose(TASKS["multichoice"], [{"inputs": PLACES[1], "choices": choices}])[0])
    for order in (choices[::-1], choices[1:] + choices[:1]):
        (row,) = choose(TASKS["multichoice"], [{"inputs": PLACES[1], "choices": order}])
        assert [candidate["label"] for candidate in row["candidates"]] == order
        for label, found in scores_of(row).items():
            assert found == pytest.approx(want[label], abs=1e-4)


def test_the_mean_is_by_tokens_and_decides_with_a_penalty(choose, tokenizer):
    rows = [{"inputs": PLACES[1], "choices": ["三万", "图书馆里有十二万册图书"]}]
    (plain,) = choose(TASKS["multichoice"], rows, tgt_length=30)
    (penalized,) = choose(TASKS["multichoice"], rows, tgt_length=30, penalty=1.0)
    for candidate in plain["candidates"]:
        tokens = len(tokenizer.encode_text(candidate["text"]))
        assert candidate["mean"] == pytest.approx(candidate["score"] / tokens, abs=1e-5)
    means = {candidate["label"]: candidate["mean"] for candidate in penalized["candidates"]}
    assert penalized["prediction"] == max(means, key=means.get)


def test_a_score_of_one_piece_with_its_end(model, tokenizer):
    """log p(piece) + log p(end | piece), of a full forward (check 10)."""
    encoder = ChoiceEncoder(FAMILY, tokenizer, OWN, src_length=60, tgt_length=9, multi_token=True)
    (record,) = records_of(OWN, [{"a": PLACES[0]}]).values()
    (encoded,) = encoder.encode([record])
    prompt = encoder.prompt(encoded)
    logits, cache = model.prefill([prompt])
    ids = encoded.candidates[0]
    total = 0.0
    for number, token in enumerate(ids):
        row = logits.reshape(-1).astype(np.float64)
        total += row[token] - np.log(np.exp(row).sum())
        if number + 1 < len(ids):
            logits = model.step(np.array([[token]]), np.array([number]), cache)
    (found,) = Chooser(model, encoder, 1).scores([encoded])
    assert found[0].log_probs.sum() == pytest.approx(total, abs=1e-4)


def test_last_words(choose):
    (row,) = choose(TASKS["lambada"], [{"text": "春天来了，山上的花 都开了"}])
    assert row["reference"] == "都开了" and row["log_prob"] < 0
    assert score([row]).figures["accuracy"] == (100.0 if row["prediction"] == row["reference"] else 0.0)


def test_a_noun_that_is_right_if_the_model_writes_it(choose, model, tokenizer):
    target = {"span1_text": "3万", "span1_index": 0, "span2_text": "it", "span2_index": 1}
    values = {"text": "3万 it 水", "target": target, "label": False}
    (row,) = choose(TASKS["wsc"], [values])
    assert (row["prediction"], row["reference"], row["candidate"]) == ("false", "false", "3万")
    written = row["written"].strip()
    (same,) = choose(TASKS["wsc"], [{**values, "label": True, "target": {**target, "span1_text": written or "水"}}])
    assert same["log_prob"] < 0 and same["reference"] == "true"
    assert score([row, {**row, "reference": "true"}]).figures["accuracy"] == 50.0


def test_windows_are_asked_and_one_answers(model, tokenizer):
    encoder = WindowEncoder(FAMILY, tokenizer, TASKS["cmrc2018"], src_length=48, tgt_length=8)
    writer = Writer(model, encoder.base, GenerationConfig(tgt_length=8, num_beams=2), 3)
    values = {"question": "有多少人口？", "context": "".join(PLACES) * 2, "answers": ["3万"], "id": "q"}
    records = records_of(TASKS["cmrc2018"], [values, {"question": "问" * 60, "context": "文", "answers": ["文"]}])
    rows = dict(answer(Answerer(writer, encoder), records))
    assert rows[0]["windows"] > 1 and rows[0]["references"] == ["3万"] and rows[0]["id"] == "q"
    assert 0 <= rows[0]["window"] < rows[0]["windows"]
    assert "leave no room for the passage" in rows[1]["error"]
    figures = KINDS["extract"].score([rows[0]]).figures
    assert {"em (mlqa, zh)", "f1 (mlqa, zh)", "f1 (squad, zh)"} <= figures.keys()


def test_scores_of_tokens_are_for_generated_texts(model, tokenizer):
    encoder = ChoiceEncoder(FAMILY, tokenizer, OWN, src_length=60, tgt_length=9)
    with pytest.raises(InputError, match="token_scores True"):
        list(predict(Chooser(model, encoder, 1), {}, token_scores=True))


def test_rows_come_in_the_order_of_the_records(model, tokenizer):
    encoder = ChoiceEncoder(FAMILY, tokenizer, OWN, src_length=60, tgt_length=9)
    writer = writer_of(model, encoder, GenerationConfig(), 2, length_penalty=0.5)
    records = list(records_of(OWN, [{"a": place, "id": place} for place in PLACES]).values())
    rows = predicted_rows(writer, "choose", records, progress=False)
    assert [row["id"] for row in rows] == PLACES
