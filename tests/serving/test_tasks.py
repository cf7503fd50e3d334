"""`POST /choose` and `POST /extract`, of a model that writes texts and of one that chooses."""

import pytest
from starlette.testclient import TestClient

from glm.data.choices import ChoiceEncoder
from glm.data.columns import ColumnOptions
from glm.data.task_table import find_frame
from glm.models.glm import FAMILY
from glm.prediction.choosing import Chooser
from glm.prediction.free_tasks import text_writer
from glm.serving.app import build_app
from glm.serving.batcher import Batcher
from glm.serving.service import Service

OWN = find_frame("dureader_qg", "{a}，[MASK]。", None, "2万=two,3万=three")


@pytest.fixture
def client(make_service):
    """A client of a model that writes texts."""
    with TestClient(build_app(make_service())) as found:
        yield found


@pytest.fixture
def chooser_client(make_writer, tokenizer):
    """A client of a model whose task chooses, and what it chooses with."""
    texts = make_writer()
    own = Chooser(texts.model, ChoiceEncoder(FAMILY, tokenizer, OWN, src_length=60, tgt_length=9), 4)
    writer = text_writer(own, texts.config)
    batcher = Batcher(writer, device="cpu", most_waiting=64)
    service = Service("tiny", writer, batcher, ColumnOptions(), [], own)
    with TestClient(build_app(service)) as found:
        found.own = own
        yield found


def rows_of(response):
    assert response.status_code == 200, response.text
    return response.json()["rows"]


def test_a_text_and_candidates(client):
    body = {"text": "青石镇人口大约[MASK]。", "candidates": ["2万", "3万", "图书馆"]}
    (row,) = rows_of(client.post("/choose", json=body))
    assert [candidate["label"] for candidate in row["candidates"]] == body["candidates"]
    assert sum(candidate["probability"] for candidate in row["candidates"]) == pytest.approx(1, abs=1e-5)
    turned = rows_of(client.post("/choose", json={**body, "candidates": body["candidates"][::-1]}))[0]
    assert turned["prediction"] == row["prediction"]


def test_a_question_and_a_passage(client):
    body = {"question": "有多少人口？", "context": "青石镇位于河的北岸，人口大约3万。" * 4}
    (row,) = rows_of(client.post("/extract", json=body))
    assert row["windows"] > 1 and row["question"] == body["question"] and "prediction" in row
    rows = rows_of(client.post("/extract", json={"records": [body, {"question": "谁？"}], "language": "en"}))
    assert rows[0]["windows"] > 1 and "no field context" in rows[1]["error"]


def test_records_of_a_model_that_chooses(chooser_client):
    values = [{"a": "青石镇人口大约"}, {"b": "青石镇"}, *[{"a": "松江", "id": str(n)} for n in range(6)]]
    rows = rows_of(chooser_client.post("/choose", json={"records": values}))
    assert len(rows) == 8 and "no field a" in rows[1]["error"] and rows[7]["id"] == "5"
    assert [candidate["label"] for candidate in rows[0]["candidates"]] == ["two", "three"]
    assert rows[0]["prediction"] in ("two", "three")
    settings = chooser_client.get("/settings").json()
    assert settings["task"] == {"kind": "choose", "fields": ["a"]}
    filled = rows_of(chooser_client.post("/generate", json={"texts": ["松江[MASK]。"]}))
    assert "filled" in filled[0]


@pytest.mark.parametrize(
    ("path", "body", "told"),
    [
        ("/choose", {}, "give either records, or text and candidates"),
        ("/choose", {"text": "a[MASK]"}, "text and candidates belong together"),
        ("/choose", {"text": "a[MASK]", "candidates": ["x"]}, "2 or more are expected"),
        ("/choose", {"text": "a[MASK]", "candidates": ["x"] * 300}, "at most 256 are expected"),
        ("/choose", {"records": [{"a": "x"}]}, "the model's task does not choose"),
        ("/choose", {"text": "a", "candidates": ["x", "y"], "top": 1}, "top"),
        ("/extract", {"question": "谁？"}, "question and context belong together"),
        ("/extract", {}, "give either records, or question and context"),
        ("/extract", {"question": "谁？", "context": "文", "language": "fr"}, "language"),
    ],
)
def test_bodies_that_cannot_be_used(client, path, body, told):
    response = client.post(path, json=body)
    assert response.status_code == 422 and told in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("text", "candidates", "told"),
    [
        ("[MASK]和[MASK]", ["2万", "3万"], "more than one [MASK]"),
        ("a[MASK]", ["2万", "2万"], "is the same to the model"),
        ("a[MASK]", ["2万", "[gMASK]"], "command token"),
        ("a[gMASK]", ["2万", "3万"], "command token"),
        ("[MASK]" + "图书馆" * 60, ["2万", "3万"], "do not fit into src_length"),
    ],
)
def test_texts_that_cannot_be_used_have_an_error_in_their_row(client, text, candidates, told):
    body = {"text": text, "candidates": candidates}
    (row,) = rows_of(client.post("/choose", json=body))
    assert told in row["error"]
    (row,) = rows_of(client.post("/choose", json=body, headers={"accept-language": "zh"}))
    assert not set(row["error"].split()) & {"the", "is", "field", "record", "more", "command", "do", "to", "a", "no"}


def test_a_model_that_chooses_writes_no_records(chooser_client):
    response = chooser_client.post("/generate", json={"records": [{"a": "x"}]})
    assert response.status_code == 422 and "/choose" in response.json()["error"]["message"]
