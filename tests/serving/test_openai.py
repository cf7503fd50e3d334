"""What OpenAI's API has beside plain completions, streams, log-probabilities, chats; and what is around it."""

import json

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from glm.data.columns import ColumnOptions
from glm.options.data import DataArguments
from glm.prediction.setup import build_encoder
from glm.prediction.writer import Writer
from glm.serving.app import build_app
from glm.serving.batcher import Batcher
from glm.serving.chinese import MESSAGES
from glm.serving.completions import Completions
from glm.serving.languages import preferred, translated
from glm.serving.service import Service
from glm.serving.streams import GrowingText
from serving.test_app import PROMPT, RECORDS, WRONG

GREEDY = {"prompt": PROMPT, "num_beams": 1, "max_tokens": 12}
DRAWN = {"prompt": [PROMPT, "他每天[MASK]起床"], "temperature": 1.4, "seed": 3, "n": 2, "max_tokens": 10}
TURN = {"messages": [{"role": "user", "content": "青石镇位于河的北岸，人口大约3万。"}]}


@pytest.fixture(scope="module")
def served(make_writer, tiny_model, tokenizer):
    """A factory: a client of an application, one for each task and prefix."""
    opened = {}

    def make(task: str | None = None, prefix: str = "") -> TestClient:
        if (task, prefix) not in opened:
            writer = make_writer(prefix=prefix)
            if task is not None:
                data = DataArguments(src_length=60, task_name=task)
                encoder = build_encoder(writer.encoder.family, tokenizer, data, writer.config)
                writer = Writer(writer.model, encoder, writer.config, writer.batch_size, writer.prefix_ids)
            batcher = Batcher(writer, device="cpu", most_waiting=64)
            client = TestClient(build_app(Service("a/tiny", writer, batcher, ColumnOptions())))
            client.__enter__()
            client.writer = writer
            opened[task, prefix] = client
        return opened[task, prefix]

    yield make
    for client in opened.values():
        client.__exit__(None, None, None)


def events_of(answer) -> list[dict]:
    """The objects of a stream, whose last event says that it is done."""
    assert answer.headers["content-type"].startswith("text/event-stream")
    *events, done = answer.text.removesuffix("\n\n").split("\n\n")
    assert done == "data: [DONE]" and all(event.startswith("data: ") for event in events)
    return [json.loads(event.removeprefix("data: ")) for event in events]


def joined(events: list[dict]) -> dict[int, tuple[str, list[str], int]]:
    """By choice: its text, why it ended, and in how many parts it came."""
    found: dict[int, tuple[str, list[str], int]] = {}
    for event in events:
        for choice in event["choices"]:
            text, reasons, parts = found.get(choice["index"], ("", [], 0))
            part = choice["text"] if "text" in choice else choice["delta"].get("content", "")
            reasons = reasons + [choice["finish_reason"]] if choice["finish_reason"] else reasons
            found[choice["index"]] = (text + part, reasons, parts + bool(part))
    return found


# -- streams


@pytest.mark.parametrize(
    ("body", "grows"),
    [
        (GREEDY, True),
        (DRAWN, True),
        ({"prompt": PROMPT, "n": 2, "max_tokens": 12}, False),
        (GREEDY | {"echo": True}, True),
        ({"prompt": "他每天[MASK]起床", "echo": True, "num_beams": 1, "max_tokens": 9}, True),
        (DRAWN | {"best_of": 3}, False),
    ],
    ids=["greedy", "drawn", "beams", "echo", "echo around a blank", "best of"],
)
def test_a_stream_is_the_whole_answer_in_parts(served, body, grows):
    client = served(prefix="青石镇")
    whole = client.post("/v1/completions", json=body).json()
    events = events_of(
        client.post("/v1/completions", json=body | {"stream": True, "stream_options": {"include_usage": True}})
    )
    *parts, last = events
    assert (last["choices"], last["usage"]) == ([], whole["usage"])
    assert len({event["id"] for event in events}) == 1 and events[0]["object"] == "text_completion"
    found = joined(parts)
    for choice in whole["choices"]:
        text, reasons, count = found[choice["index"]]
        assert (text, reasons) == (choice["text"], [choice["finish_reason"]])
        assert count > 4 if grows else count <= 1
    assert len(found) == len(whole["choices"])


def test_a_stream_never_sends_what_a_stop_takes_back(served):
    client = served()
    text = client.post("/v1/completions", json=GREEDY).json()["choices"][0]["text"]
    for start in range(2, len(text) - 2):
        body = GREEDY | {"stop": [text[start : start + 2], text[start:] + "甲"]}
        whole = client.post("/v1/completions", json=body).json()["choices"][0]
        (found,) = joined(events_of(client.post("/v1/completions", json=body | {"stream": True}))).values()
        assert found[:2] == (whole["text"], ["stop"]) and len(whole["text"]) <= start


def test_growing_texts_wait_for_what_may_change():
    texts = ["", "a\ufffd", "aé", "aé E", "aé EN", "aé ENx", "aé ENx y"]
    growing = GrowingText(lambda tokens: texts[len(tokens)], ["END"])
    parts = [growing.grown(range(count)) for count in range(len(texts))]
    assert parts == ["", "", "a", "é", " ", "", "ENx"]
    assert growing.rest("aé ENx y") == " y"


def test_an_error_in_a_stream_is_its_last_event(served, monkeypatch):
    client = served()
    step = client.writer.model.step

    def broken(tokens, numbers, cache):
        return step(tokens, numbers, cache) * (np.nan if numbers.max() > 3 else 1.0)

    monkeypatch.setattr(client.writer.model, "step", broken)
    *parts, last = events_of(client.post("/v1/completions", json=GREEDY | {"stream": True}))
    assert last["error"]["code"] == "decoding_failed" and "weights are damaged" in last["error"]["message"]
    assert parts


def test_what_is_wrong_before_a_stream_has_its_status(served):
    answer = served().post("/v1/completions", json=GREEDY | {"stream": True, "max_tokens": 99})
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, "max_tokens")


# -- log-probabilities


def by_hand(writer, source_ids: list[int], ids: list[int], opening=()) -> list[np.ndarray]:
    """Log-probabilities of all tokens in the place of each, by a step of decoding for every one."""
    logits, cache = writer.model.prefill([writer.encoder.geometry.prompt(source_ids, opening=opening)])
    found = []
    for number, token in enumerate(ids):
        row = logits.reshape(-1).astype(np.float64)
        found.append(row - row.max() - np.log(np.exp(row - row.max()).sum()))
        logits = writer.model.step(np.array([[token]]), np.array([number]), cache)
    return found


def test_log_probabilities_of_a_text(served):
    client = served(prefix="青石镇")
    writer, tokenizer = client.writer, client.writer.encoder.tokenizer
    choice = client.post("/v1/completions", json=GREEDY | {"logprobs": 3}).json()["choices"][0]
    listed = choice["logprobs"]
    source = writer.encoder.geometry.lay_out_blanks([tokenizer.encode_text(PROMPT), "[gMASK]"])
    pieces = {tokenizer.token_of(number): number for number in range(352)}
    ids = [pieces[token] for token in listed["tokens"]]
    expected = by_hand(writer, source, ids, writer.prefix_ids)
    assert listed["token_logprobs"] == pytest.approx(
        [row[id] for row, id in zip(expected, ids, strict=True)], abs=1e-4
    )
    for row, likely in zip(expected, listed["top_logprobs"], strict=True):
        assert {pieces[token] for token in likely} == {*np.argsort(-row)[:3].tolist()}
        assert sorted(likely.values()) == pytest.approx(np.sort(row)[-3:], abs=1e-4)
    assert tokenizer.decode_ids([*writer.prefix_ids, *ids]) == choice["text"]
    assert listed["text_offset"][0] == len("青石镇")
    assert [choice["text"][start] for start in listed["text_offset"]] == [
        token.lstrip("▁")[0] if token != "▁" else " " for token in listed["tokens"]
    ]


def test_only_the_chosen_ones(served):
    listed = served().post("/v1/completions", json=GREEDY | {"logprobs": 0}).json()["choices"][0]["logprobs"]
    assert listed["top_logprobs"] is None and len(listed["tokens"]) == len(listed["token_logprobs"]) > 3


@pytest.mark.parametrize("form", ["text", "ids", "ids behind an end"])
def test_an_echoed_prompt_is_scored(served, form):
    client = served()
    writer, tokenizer = client.writer, client.writer.encoder.tokenizer
    ids = tokenizer.encode_text(PROMPT)
    prompt = {"text": PROMPT, "ids": ids, "ids behind an end": [tokenizer.end_token_id, *ids]}[form]
    body = {"prompt": prompt, "echo": True, "logprobs": 1, "max_tokens": 0}
    choice = client.post("/v1/completions", json=body).json()["choices"][0]
    listed = choice["logprobs"]
    expected = by_hand(writer, writer.encoder.geometry.lay_out([], []), ids)
    scores = [row[number] for row, number in zip(expected, ids, strict=True)]
    begins = form == "ids behind an end"
    assert choice["text"] == (PROMPT if form == "text" else tokenizer.decode_ids(ids))
    assert listed["token_logprobs"][0] is None and listed["top_logprobs"][0] is None
    assert listed["token_logprobs"][1:] == pytest.approx(scores if begins else scores[1:], abs=1e-4)
    assert listed["tokens"][begins:] == [tokenizer.token_of(number) for number in ids]
    more = client.post("/v1/completions", json=body | {"max_tokens": 2, "num_beams": 1}).json()["choices"][0]
    count = len(listed["tokens"])
    assert more["logprobs"]["token_logprobs"][1:count] == pytest.approx(listed["token_logprobs"][1:], abs=1e-4)
    assert len(more["logprobs"]["tokens"]) == count + 2 and more["text"].startswith(choice["text"])


def test_tokens_over_http(served):
    client, tokenizer = served(), served().writer.encoder.tokenizer
    info = client.get("/tokenizer_info").json()
    assert info["eos_token"] == "<|endofpiece|>"
    ids = client.post("/tokenize", json={"prompt": PROMPT, "add_special_tokens": False}).json()["tokens"]
    assert ids == tokenizer.encode_text(PROMPT)
    assert client.post("/tokenize", json={"prompt": info["eos_token"]}).json()["tokens"] == [tokenizer.end_token_id]
    assert client.post("/detokenize", json={"tokens": ids}).json() == {"prompt": tokenizer.decode_ids(ids)}


# -- the other fields


def test_a_suffix_is_what_stands_behind_the_blank(served):
    client = served()
    texts = [
        client.post("/v1/completions", json={**body, "n": 2}).json()["choices"]
        for body in ({"prompt": "他每天", "suffix": "起床"}, {"prompt": "他每天[MASK]起床"})
    ]
    assert texts[0] == texts[1]


def test_the_best_of_several(served):
    client = served()
    body = DRAWN | {"prompt": PROMPT}
    every = client.post("/v1/completions", json=body | {"n": 5}).json()
    best = client.post("/v1/completions", json=body | {"best_of": 5}).json()
    ranked = sorted(every["choices"], key=lambda choice: -choice["score"])
    assert [choice["text"] for choice in best["choices"]] == [choice["text"] for choice in ranked[:2]]
    assert best["usage"] == every["usage"]
    searched = client.post("/v1/completions", json={"prompt": PROMPT, "best_of": 4}).json()["choices"]
    beams = client.post("/v1/completions", json={"prompt": PROMPT, "num_beams": 4}).json()["choices"]
    assert searched == beams


def test_the_opening_of_the_template_is_no_part_of_a_completion(served, monkeypatch):
    client = served()
    tokenizer, encoder = client.writer.encoder.tokenizer, client.writer.encoder
    plain = client.post("/v1/completions", json=GREEDY | {"logprobs": 0}).json()["choices"][0]
    pieces = {tokenizer.token_of(number): number for number in range(352)}
    ids = [pieces[token] for token in plain["logprobs"]["tokens"]]
    monkeypatch.setattr(encoder, "opening_ids", ids[:3])
    choice = client.post("/v1/completions", json=GREEDY | {"logprobs": 0}).json()["choices"][0]
    opening = tokenizer.decode_ids(ids[:3])
    assert (
        opening + choice["text"] == plain["text"] and choice["logprobs"]["tokens"] == plain["logprobs"]["tokens"][3:]
    )
    assert choice["logprobs"]["text_offset"][0] == 0
    (found,) = joined(events_of(client.post("/v1/completions", json=GREEDY | {"stream": True}))).values()
    assert found[0] == choice["text"]


# -- chats


def test_a_turn_is_read_in_the_models_template(served):
    client = served("summary")
    answer = client.post("/v1/chat/completions", json=TURN | {"n": 2}).json()
    (row,) = client.post(
        "/generate", json={"records": [{"source": TURN["messages"][0]["content"]}], "num_return_sequences": 2}
    ).json()["rows"]
    texts = [choice["message"]["content"] for choice in answer["choices"]]
    assert texts == [text["text"] for text in row["predictions"]]
    assert (answer["object"], answer["choices"][0]["message"]["role"]) == ("chat.completion", "assistant")
    in_parts = {"messages": [{"role": "user", "content": [{"type": "text", "text": TURN["messages"][0]["content"]}]}]}
    drawn = {"temperature": 1.0, "seed": 1, "max_completion_tokens": 9}
    whole = client.post("/v1/chat/completions", json=in_parts | drawn).json()["choices"][0]
    events = events_of(client.post("/v1/chat/completions", json=TURN | drawn | {"stream": True}))
    assert events[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert events[0]["object"] == "chat.completion.chunk"
    (found,) = joined(events).values()
    assert found[:2] == (whole["message"]["content"], [whole["finish_reason"]]) and found[2] > 2


def test_a_turn_that_was_cut_says_so(served):
    turn = {"messages": [{"role": "user", "content": "青石镇位于河的北岸。" * 30}]}
    choice = served("summary").post("/v1/chat/completions", json=turn).json()["choices"][0]
    assert choice["cut"] > 100


# -- what surrounds them


def test_one_model_by_its_name(served):
    client = served()
    assert client.get("/v1/models/a/tiny").json() == client.get("/v1/models").json()["data"][0]
    answer = client.get("/v1/models/gpt")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")


@pytest.mark.parametrize("path", ["/", "/health", "/settings", "/metrics", "/v1/models", "/v1/models/a/tiny"])
def test_load_balancers_ask_for_heads(served, path):
    answer = served().head(path)
    assert (answer.status_code, answer.content) == (200, b"")


def samples(client) -> dict[tuple[str, ...], float]:
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_figures_for_prometheus(served):
    client = served("title")
    before = samples(client)
    answer = client.post("/v1/completions", json={"prompt": [PROMPT, "松江"], "n": 2}).json()
    client.post("/v1/completions", json={})
    client.get("/made-up")
    after = samples(client)

    def grown(*name: str) -> float:
        return after.get(name, 0.0) - before.get(name, 0.0)

    assert grown("glm_prompt_tokens_total") == answer["usage"]["prompt_tokens"]
    assert grown("glm_generated_tokens_total") == answer["usage"]["completion_tokens"]
    assert grown("glm_requests_total", "/v1/completions", "200") == 1
    assert grown("glm_requests_total", "/v1/completions", "422") == 1
    assert grown("glm_requests_total", "other", "404") == 1
    for name in ("glm_wait_seconds", "glm_first_token_seconds", "glm_text_seconds"):
        assert grown(f"{name}_count") == 2
    assert 0 < grown("glm_first_token_seconds_sum") <= grown("glm_text_seconds_sum")
    assert (after["glm_texts_decoding",], after["glm_texts_waiting",], after["glm_text_places",]) == (0, 0, 4)


def test_many_prompts_of_ids_cost_little(served, tokenizer, monkeypatch):
    client, looks = served(), []
    whole = type(tokenizer).ids_without_text
    monkeypatch.setattr(type(tokenizer), "ids_without_text", lambda *given: looks.append(1) or whole(*given))
    body = {"prompt": [[20]] * 8, "num_beams": 1, "max_tokens": 2}
    assert client.post("/v1/completions", json=body).status_code == 200 and len(looks) <= 1
    monkeypatch.setattr(Completions, "_asked", None)  # too many are refused before any is encoded
    for more in ({"prompt": [[20]] * 9000}, {"prompt": ["a"] * 23, "seed": 1, "n": 3}):
        answer = client.post("/v1/completions", json={**body, **more})
        assert answer.status_code == 422 and "texts at once: at most 68" in answer.json()["error"]["message"]


# -- languages


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        ("en-US,en;q=0.9,zh;q=0.8", "en"),
        ("zh", "zh"),
        ("en;q=0.3, zh-TW;q=0.5", "zh"),
        ("*", "en"),
        ("zh;q=0", "en"),
        ("", "en"),
        (";;q=,zh", "zh"),
    ],
)
def test_the_language_that_is_asked_for(header, language):
    assert preferred({"accept-language": header}) == language


@pytest.mark.parametrize(("path", "body", "status", "param", "message"), WRONG, ids=lambda value: str(value)[:40])
def test_errors_in_chinese(served, path, body, status, param, message):
    content = body if isinstance(body, str) else json.dumps(body)
    headers = {"content-type": "application/json", "accept-language": "zh-CN,zh;q=0.9"}
    error = served().post(path, content=content, headers=headers).json()["error"]
    assert error["param"] == param and error["code"]
    assert any("\u4e00" <= character <= "\u9fff" for character in error["message"]), error["message"]
    words = set(error["message"].split()) & {"the", "is", "use", "or", "more", "expected", "not", "of", "a"}
    assert not words, error["message"]


def test_errors_beside_the_body_in_chinese(served):
    headers = {"accept-language": "zh"}
    for method, path in (("GET", "/made-up"), ("GET", "/generate"), ("POST", "/generate"), ("GET", "/v1/models/x")):
        message = served().request(method, path, headers=headers).json()["error"]["message"]
        assert any("\u4e00" <= character <= "\u9fff" for character in message), message


@pytest.mark.parametrize(
    ("english", "chinese"),
    [
        ("messages: 1 or more are expected", "messages：至少要有 1 个"),
        ("prompt: must not be empty or 1 or more are expected", "prompt：不能为空，或至少要有 1 个"),
        ("a.0: use one of 'x', 'y' or has to be given", "a.0：可用的值：'x', 'y'，或必须给出"),
        ("max_tokens 0: writes nothing; use 1 or more", "max_tokens 0：不会生成文本；请用 1 以上的值"),
    ],
)
def test_word_order_in_chinese(english, chinese):
    assert translated(english, "zh") == chinese


def test_the_code_is_of_the_error_that_is_told(served):
    error = served().post("/v1/completions", json={"prompt": []}).json()["error"]
    assert (error["message"], error["code"]) == ("prompt: 1 or more are expected", "too_short")


def test_every_entry_finds_itself():
    for english, chinese in MESSAGES.items():
        holes = english.count("{}") + english.count("{*}")
        message = english.replace("{*}", "{}").format(*(f"§{number}" for number in range(holes)))
        found = translated(message, "zh")
        assert found == chinese.format(*(f"§{number}" for number in range(holes))), english
        assert translated(message, "en") == message


def test_a_record_that_fails_is_no_error_of_the_request(served):
    answer = served().post("/generate", json={"records": [RECORDS[0], {"context": "", "answer": "x"}]})
    assert answer.status_code == 200 and "error" in answer.json()["rows"][1]


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"context": "", "answer": "x"}, "第 2 条，字段 context：为空"),
        ({"context": 7, "answer": "x"}, "第 2 条，字段 context：这里是 int，应为字符串"),
        ({"answer": "x"}, "第 2 条：没有字段 context（现有字段：answer）"),
        ({"context": "甲\ud800", "answer": "x"}, "第 2 条，字段 context：含有半个代理对；"),
        ({"context": "甲[MASK]", "answer": "x"}, "第 2 条，字段 context：含有控制标记 [MASK]"),
        ({"context": "甲", "answer": "乙", "id": [1]}, "第 2 条，字段 id：这里是 list，应为"),
        ({"context": "河", "answer": "河" * 99}, "第 2 条，字段 answer：超过 src_length 60"),
        ("河" * 99, "个 token，超过 src_length 60，请缩短文本："),
        ("[MASK]" * 99, "99 个空白标记，超过 src_length 60："),
        ("甲\ud800", "text：含有半个代理对；"),
    ],
)
def test_errors_of_rows_in_chinese(served, row, told):
    body = {"texts": ["甲[MASK]", row]} if isinstance(row, str) else {"records": [RECORDS[0], row]}
    headers = {"content-type": "application/json", "accept-language": "zh-CN"}
    answer = served().post("/generate", content=json.dumps(body), headers=headers)
    first, second = answer.json()["rows"]
    assert answer.status_code == 200 and "error" not in first and told in second["error"]
    assert not set(second["error"].split()) & {"the", "is", "field", "record", "expected", "text", "of", "a"}
