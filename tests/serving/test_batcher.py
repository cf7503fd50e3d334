"""The batcher: every text as if it were alone, whoever else comes, leaves or fails meanwhile."""

import asyncio
import time
from contextlib import contextmanager

import numpy as np
import pytest

from glm.errors import InputError
from glm.generation.config import GenerationConfig
from glm.generation.search import generate
from glm.serving.batcher import Batcher, DecodingError, QueueFullError, Task

TEXTS = [
    "青石镇位于河的北岸",
    "松江",
    "他每天早上六点起床，先读半小时书",
    "水在零度结冰",
    "春天来了，山上的花都开了",
    "火车",
]
LONG = {"tgt_length": 60, "min_tgt_length": 59, "no_repeat_ngram_size": 0}


@contextmanager
def running(writer, **options):
    batcher = Batcher(writer, device="cpu", **{"most_waiting": 64, **options})
    batcher.start()
    try:
        yield batcher
    finally:
        batcher.close()
        assert not batcher.is_alive


def task(writer, text: str, *, record_id: int = 0, **options) -> Task:
    geometry = writer.encoder.geometry
    ids = geometry.lay_out(writer.encoder.tokenizer.encode_text(text), [])
    return Task(geometry.prompt(ids), GenerationConfig(**{"tgt_length": 9, **options}), record_id)


def alone(writer, wanted: Task):
    """What the decoder makes of a task by itself."""
    ((_, found),) = generate(
        writer.model,
        [wanted.prompt],
        wanted.config,
        end_token_id=writer.encoder.tokenizer.eop_token_id,
        banned_token_ids=writer.banned_ids,
        record_ids=[wanted.record_id],
    )
    return found


def assert_same(got, want):
    assert [text.tokens for text in got] == [text.tokens for text in want]
    assert [text.score for text in got] == pytest.approx([text.score for text in want], abs=1e-4)


async def until(condition, seconds: float = 10.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(0.005)


@pytest.fixture
def slow(monkeypatch, make_writer):
    """A writer whose model takes 10 ms more for every step."""
    writer = make_writer()
    step = writer.model.step

    def slowly(*arguments):
        time.sleep(0.01)
        return step(*arguments)

    monkeypatch.setattr(writer.model, "step", slowly)
    return writer


def test_mixed_options_come_out_as_alone(make_writer):
    """More texts than places, of 5 ways of decoding, three of which share a batch."""
    writer = make_writer(batch_size=5)
    ways = [
        {"num_beams": 3, "num_return_sequences": 2},
        {"num_beams": 3, "length_penalty": 2.0, "tgt_length": 15},
        {"num_beams": 3, "early_stopping": "never", "tgt_length": 12},
        {"num_beams": 1},
        {"num_beams": 1, "select_topk": False, "temperature": 1.5, "generation_seed": 7},
        {"num_beams": 2, "min_tgt_length": 6},
        {"num_beams": 2, "repetition_penalty": 1.4},
    ]
    tasks = [task(writer, text, record_id=n, **way) for n, text in enumerate(TEXTS[:4]) for way in ways]
    order = np.random.default_rng(0).permutation(len(tasks))

    async def ask(batcher, place):
        await asyncio.sleep(0.002 * place)
        return (await batcher.write([tasks[order[place]]]))[0]

    async def all_of(batcher):
        return await asyncio.gather(*(ask(batcher, place) for place in range(len(tasks))))

    with running(writer) as batcher:
        found = asyncio.run(all_of(batcher))
        assert batcher.load == {"decoding": 0, "waiting": 0}
    for place, hypotheses in zip(order, found, strict=True):
        assert_same(hypotheses, alone(writer, tasks[place]))


def test_texts_are_decoded_together(slow, monkeypatch):
    """Four places: four texts take the steps of one, and a fifth comes in as soon as one is done."""
    sizes = []
    step = slow.model.step
    monkeypatch.setattr(slow.model, "step", lambda tokens, *rest: sizes.append(len(tokens)) or step(tokens, *rest))
    options = {"num_beams": 1, "min_tgt_length": 9, "no_repeat_ngram_size": 0}  # none of them ends with eop
    lengths = (10, 20, 20, 20, 20)
    tasks = [task(slow, text, tgt_length=n, **options) for text, n in zip(TEXTS, lengths, strict=False)]
    with running(slow) as batcher:
        found = asyncio.run(batcher.write(tasks))
    assert [len(hypotheses[0].tokens) for hypotheses in found] == [10, 20, 20, 20, 20]
    assert sizes == [4] * 9 + [4] * 10 + [1] * 9


def test_batches_take_turns(slow):
    """A short text of other options is done long before a long one that came first."""
    done = []

    async def ask(batcher, name, wanted):
        await batcher.write([wanted])
        done.append(name)

    async def both(batcher):
        await asyncio.gather(
            ask(batcher, "long", task(slow, TEXTS[0], num_beams=1, **LONG)),
            ask(batcher, "short", task(slow, TEXTS[1], num_beams=2, tgt_length=4)),
        )

    with running(slow) as batcher:
        asyncio.run(both(batcher))
    assert done == ["short", "long"]


def test_too_many_are_turned_away(slow):
    async def ask(batcher):
        first = asyncio.create_task(batcher.write([task(slow, TEXTS[0], num_beams=1, **LONG)] * 4))
        await until(lambda: batcher.load == {"decoding": 4, "waiting": 0})
        second = asyncio.create_task(batcher.write([task(slow, TEXTS[1], num_beams=1)] * 2))
        await until(lambda: batcher.load["waiting"] == 2)
        with pytest.raises(QueueFullError):
            await batcher.write([task(slow, TEXTS[2], num_beams=1)] * 2)
        with pytest.raises(InputError, match="8 texts at once: at most 7"):
            await batcher.write([task(slow, TEXTS[2], num_beams=1)] * 8)
        second.cancel()  # who left waits no more
        await asyncio.wait([second])
        third = await batcher.write([task(slow, TEXTS[2], num_beams=1)] * 3)
        return await first, third

    with running(slow, most_waiting=3) as batcher:
        first, third = asyncio.run(ask(batcher))
    assert (len(first), len(third)) == (4, 3)


def test_work_of_who_left_is_dropped(slow):
    wanted = [task(slow, text, num_beams=2, **LONG) for text in TEXTS[:3]]

    async def ask(batcher):
        works = [asyncio.create_task(batcher.write([one])) for one in wanted]
        await until(lambda: batcher.load["decoding"] == 3)
        for work in works[:2]:
            work.cancel()
        await until(lambda: batcher.load["decoding"] == 1)
        assert not works[2].done()  # which has as many tokens to go
        return (await works[2])[0]

    with running(slow) as batcher:
        assert_same(asyncio.run(ask(batcher)), alone(slow, wanted[2]))


def test_a_failure_is_that_of_its_batch(make_writer, monkeypatch, capsys):
    """Greedy decoding fails once; beams go on, and so does greedy decoding afterwards."""
    writer = make_writer()
    step, failures = writer.model.step, [RuntimeError("no memory")]

    def fail_once(tokens, *rest):
        if tokens.shape[1] == 1 and failures:
            raise failures.pop()
        return step(tokens, *rest)

    monkeypatch.setattr(writer.model, "step", fail_once)
    greedy, beams = task(writer, TEXTS[0], num_beams=1), task(writer, TEXTS[0], num_beams=3)

    async def ask(batcher):
        bad, good = await asyncio.gather(batcher.write([greedy]), batcher.write([beams]), return_exceptions=True)
        return bad, good, await batcher.write([greedy])

    with running(writer) as batcher:
        bad, (good,), (again,) = asyncio.run(ask(batcher))
    assert isinstance(bad, DecodingError) and str(bad) == "no memory"
    assert_same(good, alone(writer, beams))
    assert_same(again, alone(writer, greedy))
    assert "RuntimeError: no memory" in capsys.readouterr().err


def test_a_text_without_room_is_the_only_one_that_fails(make_writer):
    writer = make_writer()
    good = task(writer, TEXTS[0], num_beams=1)
    opening = writer.encoder.geometry.prompt(good.prompt.source_ids, opening=[1] * 9)

    async def ask(batcher):
        bad = Task(opening, good.config, 0)
        return await asyncio.gather(batcher.write([bad]), batcher.write([good]), return_exceptions=True)

    with running(writer) as batcher:
        bad, (found,) = asyncio.run(ask(batcher))
    assert isinstance(bad, InputError) and str(bad).startswith("tgt_length 9: no room for 0 tokens")
    assert_same(found, alone(writer, good))


def test_the_end_cancels_what_is_unfinished(slow):
    async def ask(batcher):
        work = asyncio.create_task(batcher.write([task(slow, text, num_beams=1, **LONG) for text in TEXTS]))
        await until(lambda: batcher.load == {"decoding": 4, "waiting": 2})
        await asyncio.to_thread(batcher.close)
        with pytest.raises(asyncio.CancelledError):
            await work

    with running(slow) as batcher:
        asyncio.run(ask(batcher))
