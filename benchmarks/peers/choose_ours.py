"""This toolkit: each source once, its candidates behind it."""

from collections.abc import Callable

import numpy as np
from choose_work import ChooseWork, run
from settings import settle
from work import EOP, GMASK, SOP

from glm.models.glm.configuration import GLMConfig
from glm.models.glm.geometry import BlankInfilling
from glm.models.glm.modeling import GLMForConditionalGeneration
from glm.modules.decoding import prepare_decoding


def build(work: ChooseWork) -> Callable[[], np.ndarray]:
    """The model, ready to decode as `predict.py` has it."""
    settle(work)
    model = GLMForConditionalGeneration(GLMConfig(**work.size.settings(), max_sequence_length=1024))
    prepare_decoding(model, "float32", "cpu")
    geometry = BlankInfilling((GMASK,), SOP, EOP)
    sources, candidates = work.tables()
    prompts = [geometry.prompt(source) for source in sources]

    def score() -> np.ndarray:
        found = model.log_probs(prompts, candidates.tolist())
        return np.array([[float(scores.log_probs.sum()) for scores in row] for row in found])

    return score


if __name__ == "__main__":
    run(build, ["paddlepaddle", "numpy"])
