"""The API over HTTP, without a network: answers against the decoder's own, and every error."""

import json
import re
import time

import pytest
from starlette.testclient import TestClient

from glm.data.columns import ColumnOptions
from glm.generation.config import GenerationConfig
from glm.generation.search import generate
from glm.prediction.filling import fill
from glm.prediction.writer import Writer, predict_rows
from glm.serving import app as app_module
from glm.serving.app import build_app
from glm.serving.bodies import Limits

RECORDS = [
    {"context": "青石镇位于河的北岸，人口大约3万。", "answer": "3万"},
    {"context": "李明远小时候住在白鹿湖。", "answer": "白鹿湖", "id": "b"},
    {"context": "松江", "answer": "松"},
]
TEXTS = ["青石镇位于[MASK]，人口大约[MASK]。", "春天来了", "[sMASK]然后去公园跑步。"]
PROMPT = "水在零度结冰，在一百度"


@pytest.fixture
def client(make_service):
    """A factory: a client of the application, `client(request_timeout=…, api_key=…, option=…)`."""
    opened = []

    def make(*, api_key=None, request_timeout=60.0, limits=None, **options) -> TestClient:
        service = make_service(**options)
        app = build_app(service, api_key=api_key, request_timeout=request_timeout, limits=limits)
        found = TestClient(app)
        found.__enter__()
        found.service = service
        opened.append(found)
        return found

    yield make
    for one in opened:
        one.__exit__(None, None, None)


def rows_of_file(writer: Writer, records, **options):
    """What `predict.py` makes of these records."""
    from glm.data.columns import RECOGNISED
    from glm.data.formats import Row
    from glm.data.records import columns_of, record_or_bad

    rows = [Row(number, "f", row) for number, row in enumerate(records, start=1)]
    columns = columns_of(rows, writer.encoder.template, RECOGNISED, name="f", need_target=False)
    numbered = {row.number - 1: record_or_bad(row, columns, need_target=False) for row in rows}
    other = Writer(writer.model, writer.encoder, writer.config.changed(options), 16, writer.prefix_ids)
    return [row for _, row in sorted(predict_rows(other, numbered, token_scores=True))]


def assert_close(got, want, place="answer"):
    """Equal, but for the last digits of scores."""
    assert type(got) is type(want), place
    if isinstance(want, dict):
        assert list(got) == list(want), place
    if isinstance(want, dict | list):
        assert len(got) == len(want), place
        for key in want if isinstance(want, dict) else range(len(want)):
            assert_close(got[key], want[key], f"{place}.{key}")
    else:
        assert got == (pytest.approx(want, abs=1e-4) if isinstance(want, float) else want), place


# -- POST /generate


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_beams": 4, "num_return_sequences": 4, "length_penalty": 1.5},
        {"num_beams": 1, "tgt_length": 20},
        {"select_topk": False, "top_k": 9, "temperature": 1.5, "generation_seed": 3, "num_return_sequences": 2},
    ],
    ids=str,
)
def test_records_as_predict_does(client, options):
    found = client()
    answer = found.post("/generate", json={"records": RECORDS, "token_scores": True, **options})
    assert answer.status_code == 200
    assert_close(answer.json()["rows"], rows_of_file(found.service.writer, RECORDS, **options))


def test_blanks_as_predict_does(client):
    found = client(prefix="河")
    options = {"num_beams": 2, "num_return_sequences": 2}
    answer = found.post("/generate", json={"texts": TEXTS, **options})
    writer = found.service.writer
    other = Writer(writer.model, writer.encoder, writer.config.changed(options), 16, writer.prefix_ids)
    assert_close(answer.json()["rows"], [row for _, row in sorted(fill(other, dict(enumerate(TEXTS))))])


def test_a_record_or_text_that_fails_stops_nobody(client):
    found = client()
    records = [RECORDS[0], {"context": "", "answer": "x"}, {"context": "河" * 99, "answer": "水" * 99}, RECORDS[1]]
    rows = found.post("/generate", json={"records": records}).json()["rows"]
    assert [("error" in row, len(row["predictions"])) for row in rows] == [
        (False, 1),
        (True, 0),
        (True, 0),
        (False, 1),
    ]
    assert rows[1]["error"] == "record 2, field context: empty"
    body = json.dumps({"texts": ["河" * 99, "甲[MASK]", "甲\ud800"]})
    answer = found.post("/generate", content=body, headers={"content-type": "application/json"})
    rows = json.loads(answer.text)["rows"]
    assert "do not fit into src_length 60" in rows[0]["error"] and "filled" in rows[1]
    assert rows[2]["error"].startswith("text: holds half of a surrogate pair") and rows[2]["text"] == "甲\ud800"


def test_columns_that_were_named(client):
    found = client(columns=ColumnOptions(source_column="passage"))
    record = {"passage": RECORDS[0]["context"], "answer": "3万"}
    row = found.post("/generate", json={"records": [record]}).json()["rows"][0]
    assert row["source"] == RECORDS[0]["context"]
    assert found.get("/settings").json()["fields"] == {"source": ["passage"], "extras": [], "answer": ["answer"]}


# -- POST /v1/completions


def written(service, prompt: str, config: GenerationConfig, *, record_id=(0, 0)):
    """Hypotheses of a prompt, by hand."""
    tokenizer, encoder = service.writer.encoder.tokenizer, service.writer.encoder
    before, _, after = prompt.partition("[MASK]")
    mask = "[MASK]" if "[MASK]" in prompt else "[gMASK]"
    ids = [tokenizer.cls_token_id, *tokenizer.encode_text(before), tokenizer.command_ids[mask]]
    if mask == "[MASK]":
        ids += [*tokenizer.encode_text(after), tokenizer.eos_token_id]
    given = encoder.geometry.prompt(ids, opening=service.writer.prefix_ids)
    ((_, found),) = generate(
        service.writer.model,
        [given],
        config,
        end_token_id=tokenizer.eop_token_id,
        banned_token_ids=service.writer.banned_ids,
        record_ids=[record_id],
    )
    return found, len(given)


def test_completion_of_several_prompts(client):
    found = client()
    body = {"model": "tiny", "prompt": [PROMPT, "他每天[MASK]起床"], "n": 2, "max_tokens": 7}
    answer = found.post("/v1/completions", json=body).json()
    config = GenerationConfig(tgt_length=7, num_beams=3, num_return_sequences=2)
    expected = [written(found.service, prompt, config) for prompt in body["prompt"]]
    texts = [text for hypotheses, _ in expected for text in hypotheses]
    tokenizer = found.service.writer.encoder.tokenizer
    assert [choice["text"] for choice in answer["choices"]] == [tokenizer.decode_ids(text.tokens) for text in texts]
    assert [choice["score"] for choice in answer["choices"]] == pytest.approx([text.score for text in texts], abs=1e-4)
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2, 3]
    ended = [len(text.token_scores) > len(text.tokens) for text in texts]
    assert [choice["finish_reason"] for choice in answer["choices"]] == ["stop" if end else "length" for end in ended]
    read, wrote = sum(length for _, length in expected), sum(len(text.token_scores) for text in texts)
    assert answer["usage"] == {"prompt_tokens": read, "completion_tokens": wrote, "total_tokens": read + wrote}
    assert (answer["object"], answer["model"]) == ("text_completion", "tiny") and answer["id"].startswith("cmpl-")
    assert abs(answer["created"] - time.time()) < 60
    assert list(answer["choices"][0]) == ["index", "text", "score", "logprobs", "finish_reason"]


def test_finish_reasons(client):
    """At the limit "length", with `eop` "stop"; `eop` counts as generated."""
    found = client(batch_size=1)
    usual = {"prompt": PROMPT, "num_beams": 1}
    answer = found.post("/v1/completions", json=usual | {"max_tokens": 5, "min_tgt_length": 4}).json()
    assert (answer["choices"][0]["finish_reason"], answer["usage"]["completion_tokens"]) == ("length", 5)
    head = found.service.writer.model.head
    logits = head.logits
    eop = found.service.writer.encoder.tokenizer.eop_token_id

    def likely_eop(states):
        raised = logits(states)
        raised[..., eop] = 99.0
        return raised

    head.logits = likely_eop
    answer = found.post("/v1/completions", json=usual | {"max_tokens": 5, "min_tgt_length": 2}).json()
    assert (answer["choices"][0]["finish_reason"], answer["usage"]["completion_tokens"]) == ("stop", 3)


def test_prefix_is_part_of_text_but_not_of_usage(client):
    found = client(prefix="青石镇")
    answer = found.post("/v1/completions", json={"prompt": PROMPT, "max_tokens": 4}).json()
    given = len(found.service.writer.prefix_ids)
    (text,), read = written(found.service, PROMPT, GenerationConfig(tgt_length=4 + given, num_beams=3))
    assert answer["choices"][0]["text"].startswith("青石镇")
    assert answer["usage"] == {
        "prompt_tokens": read,
        "completion_tokens": len(text.token_scores),
        "total_tokens": read + len(text.token_scores),
    }


def test_stop_ends_the_text_before_it(client):
    """The stop is a character of the middle of the greedy text; what was generated ends with its token."""
    found = client()
    usual = {"prompt": PROMPT, "num_beams": 1, "token_scores": True}
    whole = found.post("/v1/completions", json=usual).json()["choices"][0]
    text = whole["text"]
    stop = next(character for place, character in enumerate(text) if place > 3 and character not in text[:place])
    cut = found.post("/v1/completions", json=usual | {"stop": ["？！？", stop]}).json()
    choice = cut["choices"][0]
    assert (choice["text"], choice["finish_reason"]) == (text[: text.index(stop)], "stop")
    count = cut["usage"]["completion_tokens"]
    assert 0 < count < len(whole["token_scores"])
    assert_close(choice["token_scores"], whole["token_scores"][:count])
    assert stop in choice["token_scores"][-1][0]


def test_a_stop_is_compared_as_the_tokenizer_writes_it(client):
    service = client().service
    assert service.completions._stops(app_module.CompletionRequest(prompt="a", stop="？")) == {"？", "?"}
    assert service.completions._stops(app_module.CompletionRequest(prompt="a")) == set()


def test_drawing(client):
    """`n` independent texts; a seed repeats them, none draws others, and the seed of prompt and number is its own."""
    found = client()
    body = {"prompt": [PROMPT, PROMPT], "n": 2, "temperature": 1.3, "top_p": 0.9, "seed": 5, "max_tokens": 12}

    def texts(**changes):
        answer = found.post("/v1/completions", json=body | changes)
        assert answer.status_code == 200, answer.text
        return [choice["text"] for choice in answer.json()["choices"]]

    config = GenerationConfig(
        tgt_length=12, num_beams=1, select_topk=False, temperature=1.3, top_p=0.9, generation_seed=5
    )
    tokenizer = found.service.writer.encoder.tokenizer
    expected = [
        tokenizer.decode_ids(written(found.service, PROMPT, config, record_id=(place, draw))[0][0].tokens)
        for place in range(2)
        for draw in range(2)
    ]
    assert texts() == texts() == expected and len(set(expected)) == 4
    assert texts(seed=6) != expected
    assert texts(seed=None) != texts(seed=None)


def test_temperature_0_is_the_search(client):
    found = client(select_topk=False, num_beams=2)

    def text(**fields):
        return found.post("/v1/completions", json={"prompt": PROMPT, **fields}).json()["choices"][0]["text"]

    config = GenerationConfig(tgt_length=24, num_beams=2)
    (best,), _ = written(found.service, PROMPT, config)
    assert text(temperature=0, seed=1, top_p=1) == found.service.writer.encoder.tokenizer.decode_ids(best.tokens)
    assert text() == text()  # drawn, with the server's seed
    assert text() != text(temperature=0)


def test_neutral_values_of_clients(client):
    neutral = {
        "best_of": 1, "echo": False, "frequency_penalty": 0, "logit_bias": {}, "logprobs": None,
        "presence_penalty": 0.0, "stream": False, "suffix": "", "user": "me", "stop": None, "temperature": None,
    }  # fmt: skip
    found = client()
    plain, same = (found.post("/v1/completions", json={"prompt": PROMPT, **more}).json() for more in ({}, neutral))
    assert plain["choices"] == same["choices"]


# -- errors

ONE = {"records": [RECORDS[0]]}
WRONG = [  # path, body, status, param, what the message says
    ("/generate", '{"records": [', 400, None, "the body is no JSON"),
    ("/generate", "", 422, "body", "a JSON object is expected"),
    ("/generate", "[]", 422, "body", "a JSON object is expected"),
    ("/generate", "[" * 9999, 400, None, ""),
    ("/generate", {}, 422, "body", "give either records or texts"),
    ("/generate", {**ONE, "texts": ["a"]}, 422, "body", "give either records or texts"),
    ("/generate", {"records": []}, 422, "records", "1 or more are expected"),
    ("/generate", {"records": ["a"]}, 422, "records.0", "a JSON object is expected"),
    ("/generate", {"records": [{"x": "a"}]}, 422, "records", "no column is recognised as the source"),
    ("/generate", {"records": [RECORDS[0]] * 69}, 422, None, "69 texts at once: at most 68"),
    ("/generate", {"texts": [7]}, 422, "texts.0", "a text is expected"),
    ("/generate", {**ONE, "beams": 3}, 422, "beams", "beams: no such field; here it is num_beams"),
    ("/generate", {**ONE, "num_beams": "3"}, 422, "num_beams", "a whole number is expected"),
    ("/generate", {**ONE, "num_beams": True}, 422, "num_beams", "a whole number is expected"),
    ("/generate", {**ONE, "num_beams": 33}, 422, "num_beams", "num_beams 33: use 1 to 32"),
    ("/generate", {**ONE, "num_beams": 0}, 422, "num_beams", "num_beams 0: use 1 to 32"),
    ("/generate", {**ONE, "length_penalty": 11}, 422, "length_penalty", "use -10 to 10"),
    ("/generate", {**ONE, "temperature": 2.0}, 422, "temperature", "it has no effect with select_topk True"),
    ("/generate", {**ONE, "tgt_length": 41}, 422, "tgt_length", "tgt_length 41: the model has room for 40 beside"),
    ("/generate", {**ONE, "tgt_length": 13}, 422, "tgt_length", "no room for 0 tokens"),
    ("/v1/completions", {}, 422, "prompt", "prompt: has to be given"),
    ("/v1/completions", {"prompt": [20, 999]}, 422, "prompt", "prompt: 999 is no id of a text"),
    ("/v1/completions", {"prompt": []}, 422, "prompt", "1 or more are expected"),
    (
        "/v1/completions",
        {"prompt": "a", "model": "gpt"},
        404,
        "model",
        "model gpt: is not served; the model here is t",
    ),
    ("/v1/completions", {"prompt": "a", "max_tokens": 0}, 422, "max_tokens", "max_tokens 0: writes nothing"),
    (
        "/v1/completions",
        {"prompt": "a", "max_tokens": 41},
        422,
        "max_tokens",
        "max_tokens 41: the model has room for 4",
    ),
    ("/v1/completions", {"prompt": "a", "num_beams": 0}, 422, "num_beams", "num_beams: use 1 or more"),
    ("/v1/completions", {"prompt": "a", "seed": 2**70}, 422, "seed", "seed: use 9.22337e+18 or less"),
    (
        "/generate",
        {**ONE, "min_tgt_length": 2**40},
        422,
        "min_tgt_length",
        "min_tgt_length 1099511627776: use 0 or more, at most",
    ),
    ("/generate", {**ONE, "top_k": 2**40}, 422, "top_k", "use 0 (off) or more, at most"),
    ("/generate", {**ONE, "early_stopping": "x"}, 422, "early_stopping", "use one of 'true', 'false', 'never'"),
    ("/v1/completions", {"prompt": "a", "n": 4}, 422, "n", "n 4: use 1 to 3, raise num_beams, or draw"),
    ("/v1/completions", {"prompt": "a", "temperature": -1}, 422, "temperature", "temperature: use 0 or more"),
    ("/v1/completions", {"prompt": "a", "temperature": 1e-9}, 422, "temperature", "use 0.01 to 100"),
    ("/v1/completions", {"prompt": "a", "temperature": 0, "top_p": 0.5}, 422, "top_p", "no effect with temperature 0"),
    ("/v1/completions", {"prompt": "a", "temperature": 0, "top_k": 5}, 422, "top_k", "no effect with temperature 0"),
    ("/v1/completions", '{"prompt": "a", "temperature": NaN}', 422, "temperature", "finite"),
    ("/v1/completions", {"prompt": "a", "logprobs": 6}, 422, "logprobs", "logprobs: use 5 or less"),
    ("/v1/completions", {"prompt": "a", "logprobs": 1, "stream": True}, 422, "logprobs", "leave stream out"),
    ("/v1/completions", {"prompt": "a", "presence_penalty": 0.5}, 422, "presence_penalty", "repetition_penalty"),
    ("/v1/completions", {"prompt": "a", "frequency_penalty": True}, 422, "frequency_penalty", "repetition_penalty"),
    ("/v1/completions", {"prompt": "a", "logit_bias": {"5": 1}}, 422, "logit_bias", "logit_bias: is not there"),
    ("/v1/completions", {"prompt": "a", "stream_options": {}}, 422, "stream_options", "without stream true"),
    ("/v1/completions", {"prompt": "a", "n": 3, "best_of": 2}, 422, "best_of", "best_of 2: use n (3) or more"),
    ("/v1/completions", {"prompt": "a", "best_of": 3, "num_beams": 2}, 422, "best_of", "beside num_beams 2"),
    ("/v1/completions", {"prompt": "a[MASK]", "suffix": "b"}, 422, "suffix", "beside a prompt with a blank"),
    ("/v1/completions", {"prompt": "a[MASK]", "echo": True, "logprobs": 1}, 422, "echo", "no log-probabilities"),
    ("/v1/completions", {"prompt": "a", "max_new_tokens": 3}, 422, "max_new_tokens", "here it is max_tokens"),
    ("/v1/completions", {"prompt": "a", "stop": ""}, 422, "stop", "must not be empty"),
    ("/v1/chat/completions", {"messages": []}, 422, "messages", "messages: 1 or more are expected"),
    ("/v1/chat/completions", {"messages": [{"role": "user"}]}, 422, "messages", "content is empty"),
    (
        "/v1/chat/completions",
        {"messages": [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}]},
        422,
        "messages",
        "messages: 2 of the roles system, user; one of the role user is answered",
    ),
    (
        "/v1/chat/completions",
        {"messages": [{"role": "user", "content": "a"}]},
        422,
        "messages",
        "the model's template reads more than one text (answer, context)",
    ),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}], "tools": [{}]}, 422, "tools", "nothing"),
    ("/detokenize", {"tokens": ["a"]}, 422, "tokens.0", "a whole number is expected"),
    ("/detokenize", {"tokens": [7, 10**9]}, 422, "tokens", "tokens: 1000000000 is no id of the model's tokenizer"),
    (
        "/v1/completions",
        {"prompt": "a", "stop": ["\ud800"]},
        422,
        "stop",
        "stop.0: holds half of a surrogate pair",
    ),
    ("/v1/completions", {"prompt": "a\ud800"}, 422, "prompt", "prompt: holds half of a surrogate pair"),
    ("/v1/completions", {"prompt": "[MASK][MASK]"}, 422, "prompt", "more than one blank; POST /generate"),
    ("/v1/completions", {"prompt": "河" * 99}, 422, "prompt", "do not fit into src_length 60"),
]


@pytest.fixture(scope="module")
def shared_client(make_writer):
    from glm.serving.batcher import Batcher
    from glm.serving.service import Service

    batcher = Batcher(make_writer(), device="cpu", most_waiting=64)
    with TestClient(build_app(Service("tiny", batcher.writer, batcher, ColumnOptions()))) as client:
        yield client


@pytest.mark.parametrize(("path", "body", "status", "param", "message"), WRONG, ids=lambda value: str(value)[:40])
def test_errors_have_one_form(shared_client, path, body, status, param, message):
    content = body if isinstance(body, str) else json.dumps(body)
    answer = shared_client.post(path, content=content, headers={"content-type": "application/json"})
    error = answer.json()["error"]
    assert (answer.status_code, list(error)) == (status, ["message", "type", "param", "code"])
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert message in error["message"] and error["code"]


def test_errors_beside_the_body(shared_client):
    def error(method, path, **options):
        answer = shared_client.request(method, path, **options)
        return answer.status_code, answer.json()["error"]["code"]

    assert "/v1/completions" in shared_client.get("/nothing").json()["error"]["message"]
    assert error("GET", "/nothing") == (404, "not_found")
    assert error("GET", "/docs") == (404, "not_found")
    assert error("GET", "/generate") == (405, "method_not_allowed")
    assert error("POST", "/generate", content="{}") == (415, "unsupported_media_type")
    form = {"content-type": "text/plain"}
    assert error("POST", "/generate", content="{}", headers=form) == (415, "unsupported_media_type")


def test_large_bodies(client):
    shared_client = client(limits=Limits(max_request_bytes=1000))
    json_type = {"content-type": "application/json"}
    whole = json.dumps({"texts": ["甲"], "num_beams": 1})
    fits = whole + " " * (1000 - len(whole))
    assert shared_client.post("/generate", content=fits, headers=json_type).status_code == 200
    for content in (fits + " ", iter([fits.encode(), b" "])):  # of known and of unknown length
        answer = shared_client.post("/generate", content=content, headers=json_type)
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")


def test_key(client):
    found = client(api_key="sesame")
    right, wrong = ({"authorization": f"Bearer {key}"} for key in ("sesame", "sesam"))
    assert found.get("/").status_code == found.get("/health").status_code == 200
    for headers in ({}, wrong, {"authorization": "Basic sesame"}):
        for method, path in (("GET", "/v1/models"), ("GET", "/settings"), ("POST", "/generate")):
            answer = found.request(method, path, headers=headers)
            assert (answer.status_code, answer.json()["error"]["type"]) == (401, "authentication_error")
    assert found.get("/v1/models", headers=right).status_code == 200
    assert found.post("/generate", json=ONE, headers=right).status_code == 200


def slow_down(service, monkeypatch, seconds: float):
    step = service.writer.model.step
    monkeypatch.setattr(service.writer.model, "step", lambda *given: time.sleep(seconds) or step(*given))


def test_time_limit_drops_the_work(client, monkeypatch):
    found = client(request_timeout=0.3)
    slow_down(found.service, monkeypatch, 0.02)
    answer = found.post("/generate", json={**ONE, "tgt_length": 40, "min_tgt_length": 26})
    error = answer.json()["error"]
    assert (answer.status_code, error["type"], error["code"]) == (504, "timeout_error", "timeout")
    assert "not done within 0.3 s" in error["message"]
    deadline = time.monotonic() + 5
    while found.get("/health").json()["decoding"]:
        assert time.monotonic() < deadline


def test_full_queue(client, monkeypatch):
    found = client(most_waiting=1, batch_size=1)

    async def full(tasks):
        raise app_module.QueueFullError

    monkeypatch.setattr(found.service.batcher, "write", full)
    answer = found.post("/generate", json=ONE)
    error = answer.json()["error"]
    assert (answer.status_code, error["type"], error["code"]) == (503, "overloaded_error", "queue_full")
    assert answer.headers["retry-after"] == "1"


def test_a_model_that_fails(client, monkeypatch):
    found = client()
    prefill = found.service.writer.model.prefill

    def broken(prompts):
        logits, cache = prefill(prompts)
        return logits * float("nan"), cache

    monkeypatch.setattr(found.service.writer.model, "prefill", broken)
    answer = found.post("/generate", json=ONE)
    error = answer.json()["error"]
    assert (answer.status_code, error["type"], error["code"]) == (500, "server_error", "decoding_failed")
    assert "its weights are damaged" in error["message"]
    monkeypatch.setattr(found.service.writer.model, "prefill", prefill)
    assert found.post("/generate", json=ONE).status_code == 200


# -- the rest


def test_health_and_models(client):
    found = client()
    assert found.get("/health").json() == {"status": "ok", "decoding": 0, "waiting": 0}
    (model,) = found.get("/v1/models").json()["data"]
    assert (model["id"], model["object"]) == ("tiny", "model")
    found.service.batcher.close()
    answer = found.get("/health")
    assert (answer.status_code, answer.json()["status"]) == (503, "failed")


def test_page_loads_nothing_from_elsewhere(shared_client):
    answer = shared_client.get("/")
    assert answer.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "://" not in answer.text


def test_page_declares_every_name_once(shared_client):
    # A name declared twice is an error of the script's syntax, and the page an empty one.
    names = re.findall(r"^(?:const|let|(?:async )?function) (\w+)", shared_client.get("/").text, re.MULTILINE)
    assert len(names) > 20 and len(set(names)) == len(names)


def test_settings_of_the_page(shared_client):
    settings = shared_client.get("/settings").json()
    assert settings["fields"] == {"source": ["context"], "extras": [], "answer": ["answer"]}
    assert settings["options"]["tgt_length"] == 24 and settings["defaults"]["tgt_length"] == 160
    assert settings["checkpoint"] == settings["defaults"]  # `tiny` is no folder
    for option in settings["options"]:
        assert f"{option}: [" in shared_client.get("/").text
