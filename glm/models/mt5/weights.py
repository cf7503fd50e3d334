"""Names and shapes of an mT5's weights, and the fields of its configuration. Loads no Paddle.

The names are PaddleNLP's; the hub's lack the prefix `mt5.` and have linear weights the other way round.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from glm.models.protocol import WeightNames

PREFIX = "mt5."
WORDS = "mt5.shared.weight"
HEAD = "lm_head.weight"
BLOCK = re.compile(r"(encoder|decoder)\.block\.(\d{1,6})\.")
# The hub's files may hold the word embedding under these names too.
TIED = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
ATTENTION = ("q", "k", "v", "o")
GATED = ("wi_0", "wi_1", "wo")


class MT5Weights(WeightNames):
    """See `WeightNames`."""

    words = WORDS
    required = (WORDS, HEAD)
    linears = (*(f".{name}.weight" for name in (*ATTENTION, *GATED)), HEAD)
    sizes = ("vocab_size", "d_model", "num_layers", "num_decoder_layers", "d_ff")
    agreed = sizes
    fields = {
        **dict.fromkeys((*sizes, "d_kv", "num_heads", "relative_attention_num_buckets"), int),
        "relative_attention_max_distance": int,
        "dropout_rate": float,
        "layer_norm_epsilon": float,
        "feed_forward_proj": str,
        "tie_word_embeddings": bool,
        "pad_token_id": int,
        "eos_token_id": int,
        "decoder_start_token_id": int,
    }
    defaults = {"relative_attention_num_buckets": 32}

    def shapes(self, config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        config = {**self.defaults, **config}
        H, F, V = config["d_model"], config["d_ff"], config["vocab_size"]
        inner = config["num_heads"] * config["d_kv"]
        attention = {"q": (H, inner), "k": (H, inner), "v": (H, inner), "o": (inner, H)}
        found: dict[str, tuple[int, ...]] = {WORDS: (V, H), HEAD: (H, V)}
        layers = {"encoder": config["num_layers"], "decoder": config["num_decoder_layers"]}
        for stack, count in layers.items():
            kinds = ("SelfAttention",) if stack == "encoder" else ("SelfAttention", "EncDecAttention")
            for number in range(count):
                block = f"{PREFIX}{stack}.block.{number}.layer."
                for place, kind in enumerate(kinds):
                    found |= {f"{block}{place}.{kind}.{name}.weight": shape for name, shape in attention.items()}
                    found[f"{block}{place}.layer_norm.weight"] = (H,)
                last = f"{block}{len(kinds)}."
                found |= {f"{last}DenseReluDense.{name}.weight": (H, F) for name in ("wi_0", "wi_1")}
                found |= {f"{last}DenseReluDense.wo.weight": (F, H), f"{last}layer_norm.weight": (H,)}
            buckets = (config["relative_attention_num_buckets"], config["num_heads"])
            found[f"{PREFIX}{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"] = buckets
            found[f"{PREFIX}{stack}.final_layer_norm.weight"] = (H,)
        return found

    def recognises(self, names: Iterable[str]) -> bool:
        return set(self.required) <= {self.ours(name)[0] for name in names}

    def sizes_of(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
        words = (*shapes.get(WORDS, ()), 0, 0)
        up = shapes.get(f"{PREFIX}encoder.block.0.layer.1.DenseReluDense.wi_0.weight", (0, 0))
        counts = {"encoder": 0, "decoder": 0}
        for name in shapes:
            if found := BLOCK.search(name):
                counts[found[1]] = min(max(counts[found[1]], int(found[2]) + 1), len(shapes))
        sizes = {"vocab_size": words[0], "d_model": words[1], "d_ff": max(up)}
        return sizes | {"num_layers": counts["encoder"], "num_decoder_layers": counts["decoder"]}

    def settled(self, weights):
        """Drops the other names under which some files hold the word embedding again."""
        return {name: tensor for name, tensor in weights.items() if not name.endswith(TIED)}

    def ours(self, name: str) -> tuple[str, int, int]:
        return (PREFIX + name if name.startswith(("shared.", "encoder.", "decoder.")) else name), 0, 1

    def made_of(self, name: str, format: str) -> tuple[str, ...]:
        return (name if format in ("glm", "paddlenlp") else name.removeprefix(PREFIX),)

    def linears_out_in(self, shapes: Mapping[str, tuple[int, ...]]) -> bool:
        """Decides by the names: the hub's names always come with linears as [out, in]."""
        return not any(name.startswith(PREFIX) for name in shapes)

    def part_of(self, name: str) -> str | int | None:
        return int(found[2]) if (found := BLOCK.search(name)) else None
