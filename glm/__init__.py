"""GLM fine-tuning for Chinese generation: the public names, imported when they are first used.

Shapes in comments and docstrings are written with one set of letters:

B batch, S source (Part A) length, T target (Part B) length, L = S + T, H hidden size, N attention heads,
D head size, V vocabulary, K beams, R rows: new tokens of one example in one decoding step.
"""

import importlib

from glm.runtime import environment as environment  # first of all: see there

__version__ = "0.1.0"

_HOME = {
    "GLMConfig": "glm.models.glm.configuration",
    "GLMForConditionalGeneration": "glm.models.glm.modeling",
    "GLMModel": "glm.models.glm.modeling",
    "GLMTokenizer": "glm.models.glm.paddlenlp_tokenizer",
    "GenerationConfig": "glm.generation.config",
    "generate": "glm.generation.search",
    "load": "glm.prediction.loaded",
}

__all__ = ["__version__", *sorted(_HOME)]


def __getattr__(name: str):
    """Imports a public name from its module: `import glm` alone loads neither Paddle nor PaddleNLP (10 s)."""
    if name not in _HOME:
        raise AttributeError(f"module 'glm' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
