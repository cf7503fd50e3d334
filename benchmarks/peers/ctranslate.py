"""CTranslate2's Generator on the weights of Hugging Face's GPT-2, in float32 or int8."""

import json
from collections.abc import Iterable
from pathlib import Path

import ctranslate2
from work import Clock, Work, run


def build(work: Work, clock: Clock) -> ctranslate2.Generator:
    """The model of `convert.py`; its passes are not seen from here."""
    return ctranslate2.Generator(
        work.folder, device="cpu", compute_type=work.decode_dtype, inter_threads=1, intra_threads=work.threads
    )


def decode(model: ctranslate2.Generator, work: Work) -> list[list[int]]:
    """As many tokens as asked for, eos is forbidden until then; batches of records one after the other."""
    if work.batches is None:
        return decode_batch(model, work, work.sources())
    batches = json.loads(Path(work.batches).read_text(encoding="utf-8"))
    left = [batch[: work.records] for batch in batches[: -(-work.records // work.batch)]]
    return [ids for batch in left for ids in decode_batch(model, work, batch)]


def decode_batch(model: ctranslate2.Generator, work: Work, sources: Iterable[Iterable[int]]) -> list[list[int]]:
    """Sources that are decoded together."""
    results = model.generate_batch(
        [[f"t{word}" for word in source] for source in sources],
        beam_size=work.beams,
        min_length=work.tokens,
        max_length=work.tokens,
        length_penalty=work.length_penalty,
        no_repeat_ngram_size=work.no_repeat_ngram_size,
        include_prompt_in_result=False,
    )
    return [result.sequences_ids[0] for result in results]


if __name__ == "__main__":
    run(build, decode, ["ctranslate2"])
