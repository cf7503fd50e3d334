"""A server of each family that this toolkit's search decodes: what it answers is what `predict.py` writes."""

from pathlib import Path

import paddle
import pytest
from starlette.testclient import TestClient

from glm.data.columns import RECOGNISED, ColumnOptions
from glm.data.formats import Row
from glm.data.records import columns_of, record_or_bad
from glm.generation.config import GenerationConfig
from glm.models import registry
from glm.options.data import DataArguments
from glm.prediction.setup import build_encoder
from glm.prediction.writer import Writer, predict_rows
from glm.serving.app import build_app
from glm.serving.batcher import Batcher
from glm.serving.service import Service

DATA = Path(__file__).resolve().parents[2] / "data"
FAMILIES = {
    "unilm": (
        DATA / "wordpiece",
        {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48},
    ),
    "ganlm": (
        DATA / "tokenizer",
        {"hidden_size": 32, "mlp_size": 48, "num_attention_heads": 2, "encoder_layers": 1, "generator_layers": 1},
    ),
}
RECORDS = [{"source": "青石镇位于河的北岸，人口大约3万。"}, {"source": "松江", "id": "b"}]


@pytest.fixture(params=list(FAMILIES))
def writer(request) -> Writer:
    """Of random weights, large enough that no two texts are alike."""
    family, (folder, sizes) = registry.find(request.param), FAMILIES[request.param]
    tokenizer = family.open_tokenizer(folder)
    rows = -(-tokenizer.vocab_size // family.vocabulary_multiple) * family.vocabulary_multiple
    paddle.seed(3)
    model = family.model_class()(family.config_class()(vocab_size=rows, **sizes))
    for weight in model.parameters():
        weight.set_value(weight + 0.2 * paddle.randn(weight.shape))
    model.eval()
    config = GenerationConfig(tgt_length=8, num_beams=3)
    data = DataArguments(src_length=40, template="{source}[gMASK]")
    return Writer(model, build_encoder(family, tokenizer, data, config), config, 4)


def rows_of_file(writer: Writer) -> list[dict]:
    """What `predict.py` makes of the records."""
    rows = [Row(number, "f", row) for number, row in enumerate(RECORDS)]
    columns = columns_of(rows, writer.encoder.template, RECOGNISED, name="f", need_target=False)
    numbered = {row.number: record_or_bad(row, columns, need_target=False) for row in rows}
    return [row for _, row in sorted(predict_rows(writer, numbered, token_scores=True))]


def test_answers_are_those_of_prediction(writer):
    service = Service(
        "tiny", writer, Batcher(writer, device="cpu", most_waiting=8), ColumnOptions(), ["--model_name_or_path=tiny"]
    )
    with TestClient(build_app(service)) as client:
        answer = client.post("/generate", json={"records": RECORDS, "token_scores": True})
        assert answer.status_code == 200, answer.text
        for got, want in zip(answer.json()["rows"], rows_of_file(writer), strict=True):
            assert [text["text"] for text in got["predictions"]] == [text["text"] for text in want["predictions"]]
            assert got["predictions"][0]["score"] == pytest.approx(want["predictions"][0]["score"], abs=1e-4)
        sampled = client.post("/generate", json={"records": RECORDS[:1], "select_topk": False, "num_beams": 1})
        assert sampled.status_code == 200, sampled.text
        refused = client.post("/generate", json={"texts": ["春天[MASK]"]})
        assert refused.status_code == 422
        assert f"texts: {writer.encoder.family.title} has no blanks to fill" in refused.text
        completed = client.post("/v1/completions", json={"prompt": RECORDS[0]["source"], "max_tokens": 8})
        assert completed.status_code == 200, completed.text
        assert completed.json()["choices"][0]["text"] == answer.json()["rows"][0]["predictions"][0]["text"]
