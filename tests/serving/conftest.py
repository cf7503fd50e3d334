"""A tiny model with random weights, ready to be served."""

from collections.abc import Callable

import pytest

from glm.data.columns import ColumnOptions
from glm.data.options import DataArguments
from glm.generation.config import GenerationConfig
from glm.prediction import Writer, build_encoder
from glm.serving.batcher import Batcher
from glm.serving.service import Service


@pytest.fixture(scope="session")
def make_writer(tiny_model, tokenizer) -> Callable[..., Writer]:
    """A factory: a writer with these options of decoding; prompts of questions open with 13 tokens."""

    def make(*, prefix: str = "", batch_size: int = 4, **options) -> Writer:
        config = GenerationConfig(**{"tgt_length": 24, "num_beams": 3, **options})
        encoder = build_encoder(tokenizer, DataArguments(src_length=60), config)
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
