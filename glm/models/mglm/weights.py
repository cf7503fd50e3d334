"""Names and shapes of a multilingual GLM's weights, and the fields of its configuration. Loads no Paddle.

Its own files use other names than GLM's; files of an earlier version use GLM's names (`--old-checkpoint`
there). Inside the toolkit the names are GLM's, so that one model serves both.
Source: THUDM/Multilingual-GLM, model/modeling_multilingual.py.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from glm.models.glm.weights import LAYER, PREFIX, SIZES, GLMWeights

PROMPT_FUNCTIONS = ("none", "mlp", "lstm")
TRANSFORMER = "glm.transformer."
ADDITIONAL = tuple(f"{TRANSFORMER}additional_{kind}position_embeddings.weight" for kind in ("", "block_"))
MIXIN = "mixins.block_position_embedding."
PROMPT = f"{TRANSFORMER}prompt_encoder."
SANDWICH = tuple(f"{name}_layernorm.{kind}" for name in ("third", "fourth") for kind in ("weight", "bias"))
# Name prefixes there and here, the longer ones first.
BEGINNINGS = (
    ("transformer.word_embeddings.", f"{PREFIX}word_embeddings."),
    (f"{MIXIN}block_position_embeddings.", f"{TRANSFORMER}block_position_embeddings."),
    (f"{MIXIN}additional_", f"{TRANSFORMER}additional_"),
    ("prefix_encoder.", PROMPT),
    ("transformer.", TRANSFORMER),
)
OF_MGLM_ALONE = (MIXIN, "transformer.word_embeddings.", PROMPT, f"{TRANSFORMER}additional_")


def table_rows(config: Mapping[str, Any]) -> int:
    """Rows of each position table, the additional ones included."""
    return config["max_sequence_length"] + (config.get("additional_sequence_length") or 0)


class MGLMWeights(GLMWeights):
    """See `WeightNames`."""

    copied_rows_key = ""
    linears = (*GLMWeights.linears, "mlp_head.0.weight", "mlp_head.2.weight")
    sizes = (*SIZES, "sandwich_ln", "additional_sequence_length", "prefix_prompt", "prompt_func")
    agreed = (*sizes, "pb_relax", "num_attention_heads", "layernorm_epsilon")
    fields = {
        **GLMWeights.fields,
        "sandwich_ln": bool,
        "pb_relax": bool,
        "additional_sequence_length": int,
        "prefix_prompt": int,
        "prompt_func": str,
    }
    parts = (*GLMWeights.parts, "prompt_encoder")
    defaults = {
        **GLMWeights.defaults,
        "vocab_size": 250112,
        "sandwich_ln": False,
        "additional_sequence_length": 0,
        "prefix_prompt": 0,
        "prompt_func": "none",
    }

    def shapes(self, config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        config = {**self.defaults, **config}
        H, rows = config["hidden_size"], config["max_sequence_length"]
        shapes = super().shapes({**config, "max_sequence_length": rows - bool(config["block_position_encoding"])})
        if config["additional_sequence_length"]:
            shapes |= dict.fromkeys(ADDITIONAL, (config["additional_sequence_length"], H))
        if config["sandwich_ln"]:
            shapes |= {LAYER.format(layer) + name: (H,) for layer in range(config["num_layers"]) for name in SANDWICH}
        return shapes | _prompt_shapes(config, H)

    def recognises(self, names: Iterable[str]) -> bool:
        """Tells by names that no GLM file has; an earlier version's files have GLM's names and count as GLM."""
        names = list(names)
        return any(name.startswith(OF_MGLM_ALONE) or name.endswith(SANDWICH) for name in names) and set(
            self.required
        ) <= {self.ours(name)[0] for name in names}

    def sizes_of(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
        sizes = super().sizes_of(shapes)
        rows = sizes["max_sequence_length"] + sizes["block_position_encoding"]
        first_additional, prompt = (shapes.get(name, (0,)) for name in (ADDITIONAL[0], f"{PROMPT}embedding.weight"))
        heads = [kind for kind in ("lstm", "mlp") if any(name.startswith(f"{PROMPT}{kind}_head.") for name in shapes)]
        return sizes | {
            "max_sequence_length": rows,
            "sandwich_ln": any(name.endswith(SANDWICH) for name in shapes),
            "additional_sequence_length": (*first_additional, 0)[0],
            "prefix_prompt": (*prompt, 0)[0],
            "prompt_func": next(iter(heads), "none"),
        }

    def ours(self, name: str) -> tuple[str, int, int]:
        for there, here in BEGINNINGS:
            if name.startswith(there):
                return here + name.removeprefix(there), 0, 1
        return super().ours(name)

    def made_of(self, name: str, format: str) -> tuple[str, ...]:
        if format in ("glm", "paddlenlp"):
            return (name,)
        there, here = next(pair for pair in BEGINNINGS if name.startswith(pair[1]))
        return (there + name.removeprefix(here),)

    def copied_rows(self, format: str, config: Mapping[str, Any]) -> Sequence[tuple[int, int]]:
        """None: every token has a row of its own."""
        return ()


def _prompt_shapes(config: Mapping[str, Any], H: int) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of the prompt's vectors and its network, as [in, out]."""
    if not config["prefix_prompt"]:
        return {}
    shapes: dict[str, tuple[int, ...]] = {"embedding.weight": (config["prefix_prompt"], config["num_layers"] * H)}
    is_lstm = config["prompt_func"] == "lstm"
    if is_lstm:
        for layer, direction in ((layer, direction) for layer in (0, 1) for direction in ("", "_reverse")):
            shapes |= {
                f"lstm_head.weight_ih_l{layer}{direction}": (4 * H, (1 + layer) * H),
                f"lstm_head.weight_hh_l{layer}{direction}": (4 * H, H),
                f"lstm_head.bias_ih_l{layer}{direction}": (4 * H,),
                f"lstm_head.bias_hh_l{layer}{direction}": (4 * H,),
            }
    if config["prompt_func"] != "none":
        shapes |= {
            "mlp_head.0.weight": (2 * H if is_lstm else H, H),
            "mlp_head.0.bias": (H,),
            "mlp_head.2.weight": (H, H),
            "mlp_head.2.bias": (H,),
        }
    return {PROMPT + name: shape for name, shape in shapes.items()}
