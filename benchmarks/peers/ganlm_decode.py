"""This toolkit's decoding of a GanLM, by fairseq's rules; the end is forbidden until the last token."""

import numpy as np
from ganlm_model import random_model
from ganlm_work import EOS, PAD, GanLMWork, run

from glm.generation.config import GenerationConfig
from glm.generation.search import generate
from glm.models.ganlm.geometry import Prompt
from glm.modules.decoding import prepare_decoding


def build(work: GanLMWork):
    """The model, and a run over all sources."""
    model = random_model(work, dropout=0.0)
    prepare_decoding(model, "float32", "cpu")
    prompts = [Prompt(source, np.array([EOS])) for source in work.sources()]

    def once(tokens: int) -> list[int]:
        config = GenerationConfig(
            tgt_length=tokens + 1,
            min_tgt_length=tokens,
            num_beams=work.beams,
            length_penalty=1.0,
            no_repeat_ngram_size=3,
            search_rules="fairseq",
        )
        found = dict(generate(model, prompts, config, end_token_id=EOS, banned_token_ids=[PAD], batch_size=work.batch))
        lengths = [len(hypotheses[0].tokens) for hypotheses in found.values()]
        assert set(lengths) == {tokens}
        return lengths

    return once


if __name__ == "__main__":
    run(build, ["paddlepaddle", "numpy"])
