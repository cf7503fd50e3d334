"""A tiny model with random weights, ready to be served, and servers of it."""

import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from glm.data.columns import ColumnOptions
from glm.generation.config import GenerationConfig
from glm.models.glm import FAMILY as GLM
from glm.options.data import DataArguments
from glm.prediction.setup import build_encoder
from glm.prediction.writer import Writer
from glm.serving.app import build_app
from glm.serving.batcher import Batcher
from glm.serving.server import Server, bind
from glm.serving.service import Service

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def make_writer(tiny_model, tokenizer) -> Callable[..., Writer]:
    """A factory: a writer with these options of decoding; prompts of questions open with 13 tokens."""

    def make(*, prefix: str = "", batch_size: int = 4, **options) -> Writer:
        config = GenerationConfig(**{"tgt_length": 24, "num_beams": 3, **options})
        encoder = build_encoder(GLM, tokenizer, DataArguments(src_length=60), config)
        return Writer(tiny_model(seed=3, vocab_size=352), encoder, config, batch_size, tokenizer.encode_text(prefix))

    return make


@pytest.fixture
def make_service(make_writer) -> Callable[..., Service]:
    """A factory: a service called `tiny` whose batcher is not started."""

    def make(*, most_waiting: int = 64, columns: ColumnOptions | None = None, **options) -> Service:
        writer = make_writer(**options)
        batcher = Batcher(writer, device="cpu", most_waiting=most_waiting)
        return Service("tiny", writer, batcher, columns or ColumnOptions(), ["--model_name_or_path=tiny"])

    return make


@pytest.fixture
def threaded(make_service):
    """A factory: a running server of a tiny model, `threaded(option=…)`, with `port` and `service`."""
    running = []

    def start(*, api_key: str | None = None, **options) -> Server:
        service = make_service(**options)
        listener = bind("127.0.0.1", 0)
        server = Server(build_app(service, api_key=api_key), service, ["127.0.0.1"])
        server.port = listener.getsockname()[1]
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        running.append((server, thread))
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        return server

    yield start
    for server, thread in running:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def checkpoint(tiny_model, tokenizer, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    tiny_model(seed=3, vocab_size=352).save_pretrained(str(folder), safe_serialization=True)
    tokenizer.save_pretrained(str(folder))
    return folder


@contextmanager
def serving(checkpoint: Path) -> Iterator[tuple[subprocess.Popen, int]]:
    """`predict.py --serve` in a process of its own, and its port."""
    command = [sys.executable, "predict.py", "--model_name_or_path", str(checkpoint), "--serve", "--port", "0"]
    command += ["--src_length", "60", "--tgt_length", "24", "--num_beams", "3", "--device", "cpu"]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if found := re.search(r"at http://127\.0\.0\.1:(\d+) ", line):
            break
    else:
        pytest.fail(f"the server ended with {process.wait()}")
    threading.Thread(target=process.stderr.read, daemon=True).start()  # so that the pipe never fills up
    yield process, int(found.group(1))
    process.kill()
    process.wait()


@pytest.fixture(scope="module")
def program(checkpoint):
    """`serving`, once for all tests of a file."""
    with serving(checkpoint) as started:
        yield started
