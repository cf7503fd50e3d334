"""A small GLM over numbered words, for trying a device out."""

from types import SimpleNamespace

import numpy as np

from glm.models.glm.geometry import GLMGeometry
from glm.models.protocol import GeometryOptions, Trial

WORDS = 96
BLANK, START, END, OPENING, CLOSING, FIRST = range(1, 7)  # ids; words begin at FIRST
EXAMPLES, SOURCE, SPAN = 12, (9, 30), (3, 9)  # number of examples, and their least and most words


def trial() -> Trial:
    """Makes a model of two layers with heads of 16, which every attention of a GPU supports, and a fixed set of
    examples."""
    tokens = {"mask_token_ids": (BLANK,), "sop_token_id": START, "eop_token_id": END, "cls_token_id": OPENING}
    tokenizer = SimpleNamespace(**tokens, eos_token_id=CLOSING, special_ids={"[gMASK]": BLANK})
    geometry = GLMGeometry(tokenizer, GeometryOptions(blank="[gMASK]"))
    numbers = np.random.default_rng(19)

    def words(bounds: tuple[int, int]) -> list[int]:
        return numbers.integers(FIRST, WORDS, numbers.integers(*bounds)).tolist()

    return Trial(
        config={
            "num_layers": 2,
            "hidden_size": 64,
            "num_attention_heads": 4,
            "vocab_size": 128,
            "max_sequence_length": 64,
            "attention_dropout_prob": 0.0,
            "embedding_dropout_prob": 0.0,
            "output_dropout_prob": 0.0,
        },
        geometry=geometry,
        sources=[geometry.lay_out(words(SOURCE), []) for _ in range(EXAMPLES)],
        spans=[words(SPAN) for _ in range(EXAMPLES)],
        end_token_id=END,
        pad_token_id=0,
    )
