"""Names and shapes of a GLM's weights, and the fields of its configuration. Loads no Paddle.

The names are the same everywhere but for the prefix `glm.`, which Hugging Face's and Megatron's files lack. PyTorch
keeps the weight of a linear layer as [out, in], Paddle as [in, out]. Every whole model has the fused
query_key_value as [all Q | all K | all V]; what a tensor-parallel rank holds of it is laid out so in Megatron's files
(its Q | its K | its V), and head by head (q k v of its first head, q k v of the next) in PaddleNLP's.
Source: THUDM/GLM, change_mp.py; paddlenlp/transformers/conversion_utils.py, naive_merged_qkv_to_tensor_parallel_qkv.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from glm.errors import InputError
from glm.models.glm.tokenization import COMMAND_TOKENS
from glm.models.protocol import WeightNames

# Hub names of published models; `configs/model` has a configuration for each.
PUBLISHED = tuple(f"THUDM/glm-{name}" for name in ("10b-chinese", "10b", "2b", "515m", "large-chinese"))
PREFIX = "glm."
WORDS = "glm.word_embeddings.weight"
POSITIONS = "glm.transformer.position_embeddings.weight"
BLOCK_POSITIONS = "glm.transformer.block_position_embeddings.weight"
LAYER = "glm.transformer.layers.{}."
LAYER_OF_NAME = re.compile(r"\.layers\.(\d{1,6})\.")
FUSED = "attention.query_key_value"
FINAL_NORM = "final_layernorm"

# Shapes of a layer's weights in multiples of the hidden size, as [in, out].
LAYER_SHAPES = {
    "input_layernorm.weight": (1,),
    "input_layernorm.bias": (1,),
    f"{FUSED}.weight": (1, 3),
    f"{FUSED}.bias": (3,),
    "attention.dense.weight": (1, 1),
    "attention.dense.bias": (1,),
    "post_attention_layernorm.weight": (1,),
    "post_attention_layernorm.bias": (1,),
    "mlp.dense_h_to_4h.weight": (1, 4),
    "mlp.dense_h_to_4h.bias": (4,),
    "mlp.dense_4h_to_h.weight": (4, 1),
    "mlp.dense_4h_to_h.bias": (1,),
}
SIZES = ("num_layers", "vocab_size", "hidden_size", "max_sequence_length", "block_position_encoding")


def position_rows(config: Mapping[str, Any]) -> int:
    """Returns the rows of each position table (THUDM/GLM has one more with block positions)."""
    return config["max_sequence_length"] + (1 if config["block_position_encoding"] else 0)


class GLMWeights(WeightNames):
    """GLM's weight names and shapes, see `WeightNames`. How weights are split: THUDM/GLM, change_mp.py (there
    transposed)."""

    words = WORDS
    required = (WORDS, POSITIONS)
    copied_rows_key = "own_gmask_row"
    linears = tuple(name for name, shape in LAYER_SHAPES.items() if len(shape) == 2)
    # At three ranks the fused weight is a square, at four the first of the MLP.
    biased_linears = (f"{FUSED}.weight", "mlp.dense_h_to_4h.weight")
    fused = (f".{FUSED}.",)
    plan = {
        "word_embeddings.weight": (0, 1),
        f"{FUSED}.weight": (1, 3),
        f"{FUSED}.bias": (0, 3),
        "attention.dense.weight": (0, 1),
        "mlp.dense_h_to_4h.weight": (1, 1),
        "mlp.dense_h_to_4h.bias": (0, 1),
        "mlp.dense_4h_to_h.weight": (0, 1),
    }
    # The heads divide the hidden size, and so do the divisors of their number.
    divided = ("num_attention_heads", "vocab_size")
    sizes = SIZES
    agreed = (*SIZES, "num_attention_heads", "layernorm_epsilon")
    fields = {
        "num_layers": int,
        "vocab_size": int,
        "hidden_size": int,
        "max_sequence_length": int,
        "block_position_encoding": bool,
        "num_attention_heads": int,
        "layernorm_epsilon": float,
        "embedding_dropout_prob": float,
        "attention_dropout_prob": float,
        "output_dropout_prob": float,
        "attention_scale": float,
        "initializer_range": float,
        "use_scaled_init_for_output_weights": bool,
        "bad_words_id": list,
    }
    parts = ("embeddings", FINAL_NORM)
    lora_targets = ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h")
    defaults = {
        "vocab_size": 50048,  # of the published Chinese models
        "block_position_encoding": True,
        "attention_dropout_prob": 0.1,
        "output_dropout_prob": 0.1,
    }

    def shapes(self, config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        H, rows = config["hidden_size"], position_rows(config)
        shapes: dict[str, tuple[int, ...]] = {WORDS: (config["vocab_size"], H), POSITIONS: (rows, H)}
        if config["block_position_encoding"]:
            shapes[BLOCK_POSITIONS] = (rows, H)
        for layer in range(config["num_layers"]):
            for name, multiples in LAYER_SHAPES.items():
                shapes[LAYER.format(layer) + name] = tuple(multiple * H for multiple in multiples)
        return shapes | {f"glm.transformer.{FINAL_NORM}.{kind}": (H,) for kind in ("weight", "bias")}

    def sizes_of(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
        block = BLOCK_POSITIONS in shapes
        words, positions = (shapes.get(name, (0, 0)) for name in (WORDS, POSITIONS))
        for name, shape in ((WORDS, words), (POSITIONS, positions)):
            if len(shape) != 2:
                raise InputError(f"{name}: the shape {list(shape)} is no table's")
        return {
            "num_layers": _count_layers(shapes),
            "block_position_encoding": block,
            "vocab_size": words[0],
            "hidden_size": words[1],
            "max_sequence_length": positions[0] - (1 if block else 0),
        }

    def ours(self, name: str) -> tuple[str, int, int]:
        return (PREFIX + name if name.startswith(("word_embeddings.", "transformer.")) else name), 0, 1

    def made_of(self, name: str, format: str) -> tuple[str, ...]:
        return (name if format in ("glm", "paddlenlp") else name.removeprefix(PREFIX),)

    def copied_rows(self, format: str, config: Mapping[str, Any]) -> Sequence[tuple[int, int]]:
        """[gMASK], whose row in THUDM's files of glm-10b-chinese is that of eop.

        Raises:
            InputError: there is no row of eop before it.
        """
        if format != "megatron":
            return ()
        back = COMMAND_TOKENS["<|endofpiece|>"] - COMMAND_TOKENS["[gMASK]"]
        for row in config.get("bad_words_id", []):
            if row + back < 0:
                raise InputError(f"bad_words_id {row}: cannot be gMASK, whose row is that of eop in Megatron's files")
        return [(row, row + back) for row in config.get("bad_words_id", [])]

    def part_of(self, name: str) -> str | int | None:
        if layer := LAYER_OF_NAME.search(name):
            return int(layer[1])
        return next((part for part in self.parts if f"{part}." in name), None)


def _count_layers(names: Mapping[str, Any]) -> int:
    """Counts layers: at least one, and bounded by the number of names, so a forged layer number cannot make it
    large."""
    numbers = [int(match[1]) for name in names if (match := LAYER_OF_NAME.search(name))]
    return max(min(max(numbers, default=0) + 1, len(names)), 1)
