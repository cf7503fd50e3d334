"""A decoding step of one of this toolkit's families."""

import json
import resource
import sys
from importlib.metadata import version
from time import perf_counter
from typing import Any

import numpy as np
from families_work import BEAMS, FamilyWork
from settings import settle

from glm.generation.config import GenerationConfig
from glm.generation.search import generate
from glm.modules.decoding import prepare_decoding


def glm(work: FamilyWork) -> tuple[Any, list, dict]:
    """A GLM, or a multilingual one: model, prompts, and what `generate` is told of the end."""
    from glm.models.glm.configuration import GLMConfig
    from glm.models.glm.geometry import BlankInfilling
    from glm.models.glm.modeling import GLMForConditionalGeneration
    from glm.models.mglm.configuration import MGLMConfig
    from glm.models.mglm.modeling import MGLMForConditionalGeneration

    size = work.sizes
    classes = (MGLMConfig, MGLMForConditionalGeneration), (GLMConfig, GLMForConditionalGeneration)
    config, model = classes[work.shape != "mglm"]
    built = model(
        config(
            num_layers=size.layers,
            hidden_size=size.hidden,
            num_attention_heads=size.heads,
            vocab_size=size.vocabulary,
            max_sequence_length=1025,
        )
    )
    geometry = BlankInfilling((9,), 6, 7)
    sources = words(work)
    sources[:, -2] = 9
    return built, [geometry.prompt(source) for source in sources], {"end_token_id": 7, "banned_token_ids": [7]}


def vlm(work: FamilyWork) -> tuple[Any, list, dict]:
    """A GPT-2 with an adapter of one task behind each block."""
    from glm.models.vlm.configuration import VLMConfig
    from glm.models.vlm.geometry import Prompt
    from glm.models.vlm.modeling import VLMForConditionalGeneration

    size = work.sizes
    model = VLMForConditionalGeneration(
        VLMConfig(
            num_layers=size.layers, hidden_size=size.hidden, num_attention_heads=size.heads, bottlenecks=[300] * 5
        )
    )
    prompts = [Prompt(source, np.full(work.source, 50269), 0, 0, work.source) for source in words(work)]
    return model, prompts, {"end_token_id": 50256, "banned_token_ids": list(range(50256, 50287))}


def unilm(work: FamilyWork) -> tuple[Any, list, dict]:
    """A Chinese BERT."""
    from unilm_ours import GEOMETRY, build
    from unilm_work import SEP, UniLMWork

    model = build(UniLMWork("base", threads=work.threads))
    return model, [GEOMETRY.prompt(source) for source in words(work)], {"end_token_id": SEP, "banned_token_ids": [SEP]}


def ganlm(work: FamilyWork) -> tuple[Any, list, dict]:
    """Encoder and generator."""
    from ganlm_model import random_model
    from ganlm_work import EOS, PAD, GanLMWork

    from glm.models.ganlm.geometry import Prompt

    model = random_model(GanLMWork("base", threads=work.threads), dropout=0.0)
    prompts = [Prompt(source, np.array([EOS])) for source in words(work)]
    return model, prompts, {"end_token_id": EOS, "banned_token_ids": [PAD, EOS]}


def words(work: FamilyWork) -> np.ndarray:
    """The same ids for all families, [B, S]."""
    return np.random.default_rng(0).integers(700, 20000, size=(work.batch, work.source))


BUILDERS = {"vlm": vlm, "unilm": unilm, "ganlm": ganlm}


def main() -> None:
    """Prints the median seconds of the steps of one run, behind a shorter one."""
    work = FamilyWork(**json.loads(sys.argv[1]))
    settle(work)
    model, prompts, ends = BUILDERS.get(work.shape, glm)(work)
    prepare_decoding(model, "float32", "cpu")
    taken, step = [], model.step

    def marked(*arguments: Any, **options: Any) -> Any:
        taken.append(perf_counter())
        return step(*arguments, **options)

    model.step = marked
    for tokens in (4, work.tokens):
        taken.clear()
        config = GenerationConfig(tgt_length=tokens, min_tgt_length=tokens - 1, num_beams=BEAMS)
        list(generate(model, prompts, config, batch_size=work.batch, **ends))
    figures = {
        "seconds": float(np.median(np.diff(taken))),
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "versions": {name: version(name) for name in ("paddlepaddle", "numpy")},
    }
    print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
