"""Prints the results of compiled loops in a process of its own: a script of tests/cpu/test_loops.py.

python -m tools.loops_in_order train decode: does so in this order, and prints JSON, a digest of each. Numba keeps what
it compiles where NUMBA_CACHE_DIR says.
"""

import hashlib
import json
import sys

import numpy as np
import paddle

import glm.cpu.arrays
import glm.cpu.two_part
import glm.modules.layers
from glm.generation.config import GenerationConfig
from glm.generation.search import generate
from glm.models.glm.configuration import GLMConfig
from glm.models.glm.geometry import BlankInfilling
from glm.models.glm.modeling import GLMForConditionalGeneration
from glm.modules.decoding import prepare_decoding
from glm.runtime.device import prepare
from tools.measured_memory import train as take_steps


def new_model() -> GLMForConditionalGeneration:
    """Makes a model with heads of 64, for which loops are compiled, and larger weights than usual, so that no sum is
    near 0."""
    sizes = {"num_layers": 2, "hidden_size": 128, "num_attention_heads": 2, "vocab_size": 300}
    model = GLMForConditionalGeneration(GLMConfig(**sizes, max_sequence_length=200))
    numbers = np.random.default_rng(0)
    for weight in model.parameters():
        weight.set_value(numbers.normal(0.0, 0.2, weight.shape).astype("float32"))
    return model


def train() -> str:
    """Trains a model for some steps, and then a prefix alone, with all norms frozen."""
    found = hashlib.sha256()
    for prefix in (0, 5):
        paddle.seed(1)
        model = new_model()
        take_steps(model, examples=3, S=90, T=23, recompute=bool(prefix), keeps=False, prefix=prefix)
        for weight in model.parameters():
            found.update(weight.numpy().tobytes())
    return found.hexdigest()


def decode() -> str:
    """Returns tokens and scores of beams."""
    model = new_model()
    prepare_decoding(model, "float32", "cpu")
    geometry = BlankInfilling((0, 0, 0), 1, 2)
    sources = np.random.default_rng(0).integers(3, 300, size=(3, 90))
    sources[:, -2] = 0
    prompts = [geometry.prompt(source[-90 + 20 * number :].tolist()) for number, source in enumerate(sources)]
    config = GenerationConfig(tgt_length=20, num_beams=4)
    texts = generate(model, prompts, config, end_token_id=2, batch_size=3)
    found = sorted((place, [(text.tokens, text.token_scores) for text in of_one]) for place, of_one in texts)
    return hashlib.sha256(repr(found).encode()).hexdigest()


if __name__ == "__main__":
    prepare("cpu")
    for module in (glm.cpu.arrays, glm.cpu.two_part, glm.modules.layers):
        module.MIN_PARALLEL_SIZE = 0  # so that hand-written layers are used for so few numbers too
    print(json.dumps({name: {"train": train, "decode": decode}[name]() for name in sys.argv[1:]}))
