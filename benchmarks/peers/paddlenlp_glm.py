"""PaddleNLP's own GLM class and its `generate`, under the same settings of Paddle as the toolkit."""

from collections.abc import Sequence
from time import perf_counter
from typing import Any

import numpy as np
import paddle
from paddlenlp.transformers import GLMConfig, GLMForConditionalGeneration
from settings import settle
from work import EOP, GMASK, PAD, SOP, WORDS, Clock, Decode, Work, run, timed

from glm.checkpoint.tokenizers import load_tokenizer
from glm.data.records import read_records
from glm.generation.config import GenerationConfig
from glm.models.glm import FAMILY as GLM
from glm.options.data import DataArguments
from glm.prediction.setup import build_encoder

Inputs = dict[str, np.ndarray]


def build(work: Work, clock: Clock) -> GLMForConditionalGeneration:
    """Random weights of the shape, or a checkpoint's."""
    settle(work)
    if work.checkpoint is not None:
        model = GLMForConditionalGeneration.from_pretrained(work.checkpoint)
    else:
        model = GLMForConditionalGeneration(
            GLMConfig(**work.size.settings(), max_sequence_length=work.positions, output_predict=True)
        )
    model.eval()
    model.register_forward_pre_hook(clock.mark)
    return model


def inputs_of(sources: Sequence[Sequence[int]], tokens: int, *, blank=GMASK, opening=(SOP,), pad=PAD) -> Inputs:
    """Ids, positions and mask as its tokenizer lays them out, but with the padding behind each source.

    Args:
        sources: each with one blank.
        tokens: T, most tokens to generate.
        opening: [P], what every span starts with.

    Returns:
        input_ids [B, S + P], position_ids [B, 2, L] and attention_mask [B, 1, L, L], L = S + P + T.
    """
    lengths = np.array([len(source) for source in sources])
    S, T = lengths.max(), len(opening) + tokens
    ids = np.array([[*source, *[pad] * (S - len(source)), *opening] for source in sources])
    places = [np.concatenate([np.arange(S), np.full(T, list(source).index(blank))]) for source in sources]
    block = np.concatenate([np.zeros(S, dtype=int), np.arange(1, T + 1)])
    rows, columns = np.arange(S + T)[:, None], np.arange(S + T)[None]
    seen = (columns < lengths[:, None, None]) | ((columns >= S) & (columns <= rows))
    positions = np.stack([np.stack([place, block]) for place in places])
    return {"input_ids": ids, "position_ids": positions, "attention_mask": seen[:, None].astype("int64")}


def generate(model: Any, inputs: Inputs, work: Work, tokens: int, *, eop: int = EOP, **settings: Any) -> np.ndarray:
    """Its `generate`: the ids of the best texts, [B, <= tokens]."""
    found, _ = model.generate(
        **{name: paddle.to_tensor(value) for name, value in inputs.items()},
        decode_strategy="beam_search",
        num_beams=work.beams,
        length_penalty=work.length_penalty,
        no_repeat_ngram_size=work.no_repeat_ngram_size,
        max_new_tokens=tokens,
        eos_token_id=eop,
        pad_token_id=PAD,
        **settings,
    )
    return found.numpy()


def decode(model: GLMForConditionalGeneration, work: Work) -> list[list[int]]:
    """Records if there is a file of them, random sources otherwise."""
    if work.data is not None:
        return decode_records(model, work)
    inputs = inputs_of(work.sources(), work.tokens)
    return generate(model, inputs, work, work.tokens, min_new_tokens=work.tokens).tolist()


def decode_records(model: GLMForConditionalGeneration, work: Work) -> list[list[int]]:
    """The toolkit's ids, in batches of like length as the toolkit makes them."""
    generation = GenerationConfig(tgt_length=work.tokens)
    encoder = build_encoder(
        GLM, load_tokenizer(GLM, work.tokenizer), DataArguments(src_length=work.source), generation
    )
    sources = [encoder.source_ids(record) for record in read_records(work.data)[: work.records]]
    sources.sort(key=len, reverse=True)
    tokenizer, tokens = encoder.tokenizer, work.tokens - len(encoder.opening_ids)
    opening = (tokenizer.sop_token_id, *encoder.opening_ids)
    texts = []
    for start in range(0, len(sources), work.batch):
        batch = sources[start : start + work.batch]
        inputs = inputs_of(batch, tokens, blank=encoder.blank_id, opening=opening, pad=tokenizer.pad_token_id)
        texts += generate(model, inputs, work, tokens, eop=tokenizer.eop_token_id).tolist()
    return texts


def estimated(model: Any, work: Work, clock: Clock, decode: Decode) -> dict[str, float]:
    """Prefill and three steps of `generate` itself; the steps between are on a line between those."""
    T = work.tokens
    inputs = inputs_of(work.sources(), T)
    clock.marks.clear()
    start = perf_counter()
    generate(model, inputs, work, 4, min_new_tokens=4)
    prefill, early = clock.marks[1] - start, least_step(clock)
    middle, late = (step_seconds(model, inputs, work, clock, place) for place in (T // 2, T - 2))
    steps = np.interp(np.arange(1, T), (1, T // 2, T - 2), (early, middle, late))
    return {
        "seconds": prefill + float(steps.sum()),
        "prefill": prefill,
        "step": float(steps.mean()),
        "early": early,
        "middle": middle,
        "late": late,
    }


def step_seconds(model: Any, inputs: Inputs, work: Work, clock: Clock, place: int) -> float:
    """Seconds of a step that follows `place` generated tokens: `generate` goes on from a cache of random states."""
    made = np.random.default_rng(1).integers(*WORDS, size=(work.batch, place - 1))
    read = work.source + place - 1  # `sop` or the last token made is yet to be read
    cache = [paddle.randn([work.batch * work.beams, read, work.size.hidden]) for _ in range(work.size.layers + 1)]
    clock.marks.clear()
    inputs = inputs | {"input_ids": np.concatenate([inputs["input_ids"], made], axis=1)}
    generate(model, inputs, work, 4, min_new_tokens=4, cache=cache)
    return least_step(clock)


def least_step(clock: Clock) -> float:
    """The faster of the second and third step since the clock was cleared, the first being prefill or a cold start."""
    return float(np.diff(clock.marks)[1:].min())


def measure(model: Any, work: Work, clock: Clock, decode: Decode) -> dict[str, Any]:
    """In full, or from single steps."""
    return (estimated if work.extrapolate else timed)(model, work, clock, decode)


if __name__ == "__main__":
    run(build, decode, ["paddlepaddle", "paddlenlp"], measure)
