"""This toolkit's decoder."""

from typing import Any

import numpy as np
import paddle
from settings import settle
from work import EOP, GMASK, SOP, Clock, Work, run

from glm.checkpoint.loading import load_config, load_model
from glm.checkpoint.tokenizers import load_tokenizer
from glm.data.records import read_records
from glm.generation.config import GenerationConfig
from glm.generation.search import generate
from glm.models.glm import FAMILY as GLM
from glm.models.glm.configuration import GLMConfig
from glm.models.glm.geometry import BlankInfilling
from glm.models.glm.modeling import GLMForConditionalGeneration
from glm.modules.decoding import prepare_decoding
from glm.modules.pending import leave_pending
from glm.options.data import DataArguments
from glm.prediction.setup import build_encoder
from glm.prediction.writer import Writer, predict


class Drawn:
    """A random weight that is drawn when it is read, as one in a file is read: memory is that of a loaded model."""

    def __init__(self, name: str, weight: paddle.Tensor):
        self.name, self.shape = name, weight.shape

    def float32(self) -> np.ndarray:
        """N(0, 0.02); of LayerNorms 1 and 0."""
        if len(self.shape) == 1:
            return np.full(self.shape, float("norm" in self.name and self.name.endswith("weight")), np.float32)
        generator = np.random.default_rng(len(self.name))
        return 0.02 * generator.standard_normal(self.shape, np.float32)


def build(work: Work, clock: Clock) -> GLMForConditionalGeneration:
    """Random weights of the shape, or a checkpoint's."""
    settle(work)
    if work.checkpoint is not None:
        model = load_model(
            GLM,
            work.checkpoint,
            load_config(GLM, work.checkpoint, load_tokenizer(GLM, work.tokenizer)),
            leaves_pending=True,
        )
    else:
        with paddle.LazyGuard(), GLMForConditionalGeneration.without_drawing():
            model = GLMForConditionalGeneration(GLMConfig(**work.size.settings(), max_sequence_length=work.positions))
        leave_pending(model, {name: Drawn(name, weight) for name, weight in model.named_parameters()})
    prepare_decoding(model, work.decode_dtype, "cpu")
    model.prefill, model.step = clock.marking(model.prefill), clock.marking(model.step)
    return model


def options(work: Work) -> GenerationConfig:
    """How `work` is decoded."""
    return GenerationConfig(
        tgt_length=work.tokens,
        num_beams=work.beams,
        length_penalty=work.length_penalty,
        no_repeat_ngram_size=work.no_repeat_ngram_size,
    )


def decode(model: Any, sources: np.ndarray, config: GenerationConfig) -> list[list[int]]:
    """Generates `tgt_length` tokens for each of the sources [B, S]."""
    geometry = BlankInfilling((GMASK,), SOP, EOP)
    prompts = [geometry.prompt(source) for source in sources]
    found = dict(generate(model, prompts, config, end_token_id=EOP, banned_token_ids=[EOP]))
    return [list(found[place][0].tokens) for place in range(len(prompts))]


def decode_records(model: Any, work: Work, config: GenerationConfig) -> list[list[int]]:
    """Generates for the first records of a file, as `predict.py` does.

    Returns:
        The characters of the best texts, in the order of the records.
    """
    encoder = build_encoder(GLM, load_tokenizer(GLM, work.tokenizer), DataArguments(src_length=work.source), config)
    records = read_records(work.data)[: work.records]
    predictions = predict(Writer(model, encoder, config, work.batch), records, progress=False)
    return [[ord(character) for character in prediction.best] for prediction in predictions]


def decode_work(model: GLMForConditionalGeneration, work: Work) -> list[list[int]]:
    """Records if there is a file of them, random sources otherwise."""
    if work.data is None:
        return decode(model, work.sources(), options(work))
    return decode_records(model, work, options(work))


if __name__ == "__main__":
    run(build, decode_work, ["paddlepaddle", "numpy"])
