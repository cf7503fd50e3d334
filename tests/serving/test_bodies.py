"""What a body may hold: counted before it is read, and read and laid out without holding up others."""

import asyncio
import json
import threading
import tracemalloc

import pytest

from glm.serving import bodies
from glm.serving.bodies import Desk, Limits, characters, parse, slices
from glm.serving.errors import ApiError, render
from glm.serving.schemas import CompletionRequest, GenerateRequest

MANY = {
    "numbers for texts": b'{"prompt":[' + b"1," * 400_000 + b"1]}",
    "unknown fields": json.dumps({"prompt": "a", **{f"k{number}": 1 for number in range(200_000)}}).encode(),
    "records": json.dumps({"records": [{"context": "a", "answer": "a"}] * 100_000}).encode(),
    "lists": b'{"records":' + b"[" * 4_000_000,
    "empty objects": b'{"records":[' + b"{}," * 1_300_000 + b"{}]}",
    "empty texts": b'{"texts":[' + b'"",' * 1_000_000 + b'""]}',
    "one text": json.dumps({"prompt": "a, b. " * 600_000}).encode(),
    "stops": json.dumps({"prompt": "a", "stop": ["ab c" * 120_000 + str(number) for number in range(8)]}).encode(),
    "a number": b'{"prompt": ' + b"9" * 4_000_000 + b"}",
    "spaces": b" " * 4_000_000,
    "quotes": b'"' * 4_000_000,
    "backslashes": b'{"prompt": "' + b"\\" * 4_000_000,
}


@pytest.mark.parametrize("name", MANY)
def test_too_much_is_refused_in_little_memory(name):
    tracemalloc.start()
    with pytest.raises(ApiError) as error:
        parse(MANY[name], CompletionRequest if b"prompt" in MANY[name][:20] else GenerateRequest, Limits())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert error.value.status in (400, 413, 422) and len(str(error.value)) < 700
    assert peak < 32 << 20


@pytest.mark.parametrize(
    ("limit", "body", "status"),
    [
        ({"max_request_items": 10}, {"texts": ["a"] * 9}, 413),
        ({"max_request_depth": 3}, {"records": [{"context": ["a"]}]}, 400),
        ({"max_request_characters": 20}, {"texts": ["a" * 20]}, 413),
        ({"max_request_characters": 60}, {"records": [{"context": "a", "x" * 60: 1}]}, 413),
    ],
)
def test_a_limit_is_named_and_can_be_raised(limit, body, status):
    data = json.dumps(body).encode()
    with pytest.raises(ApiError) as error:
        parse(data, GenerateRequest, Limits(**limit))
    ((name, most),) = limit.items()
    assert error.value.status == status and f"at most {most} ({name})" in str(error.value)
    assert parse(data, GenerateRequest, Limits(**{name: most * 3})).model_dump(exclude_unset=True) == body


def test_validation_stops_at_the_first_errors():
    validated = []

    class Seen(CompletionRequest):
        @classmethod
        def model_validate(cls, content):
            validated.append(len(content))
            return CompletionRequest.model_validate(content)

    many = {"prompt": "a"} | {f"\x1b{number}": 1 for number in range(9000)}
    with pytest.raises(ApiError) as error:
        parse(json.dumps(many).encode(), Seen, Limits())
    assert validated == [4]
    message = "; ".join(f"\\x1b{number}: no such field" for number in range(3))
    assert (str(error.value), error.value.param) == (message, "\\x1b0")
    with pytest.raises(ApiError, match=r"^texts\.0: a text is expected$"):
        parse(json.dumps({"texts": [7] * 9000}).encode(), GenerateRequest, Limits())


def test_characters_of_a_value():
    assert characters("问a") == 3 and characters(7) == 1
    assert characters({"ab": ["c", None, {}]}) == 1 + 3 + (1 + 2 + 1 + 1)


def test_slices_are_small(monkeypatch):
    monkeypatch.setattr(bodies, "SLICE", 10)
    assert list(slices(["a" * 30, "b", "c", "d" * 8, "e"])) == [["a" * 30], ["b", "c", "d" * 8], ["e"]]
    assert [len(part) for part in slices([0] * 70)] == [10] * 7
    monkeypatch.setattr(bodies, "SLICE", 1000)
    assert [len(part) for part in slices([0] * 70)] == [32, 32, 6]
    assert list(slices([])) == []


def test_a_desk_takes_turns_and_stops_for_who_left(monkeypatch):
    """A long request's slices and a short one's alternate; of one that is cancelled no further slice is begun."""
    monkeypatch.setattr(bodies, "SLICE", 1)
    desk, done, go = Desk("test"), [], threading.Event()

    def work(name):
        go.wait(10)
        done.append(name)
        return name

    async def main():
        long = asyncio.create_task(desk.map(work, ["long"] * 50))
        await asyncio.sleep(0.05)
        short = asyncio.create_task(desk.map(work, ["short"] * 2))
        await asyncio.sleep(0.05)
        go.set()
        assert await short == ["short"] * 2
        assert done.count("long") < 6
        long.cancel()
        await asyncio.gather(long, return_exceptions=True)
        so_far = len(done)
        assert await desk.map(work, ["after"]) == ["after"]
        assert len(done) <= so_far + 2

    asyncio.run(main())
    desk.close()


def test_an_answer_rendered_item_by_item():
    answer = {"id": 'a"b', "rows": [{"text": "问", "score": 0.5}, {"text": "\ud800"}], "none": [], "usage": {"n": 1}}
    assert json.loads(render(answer)) == answer
    assert render(answer) == (json.dumps(answer, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n")
