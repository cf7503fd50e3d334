"""Names and shapes of a VLM's weights, and the fields of its configuration. Loads no Paddle.

Read are this toolkit's names; GPT-2's as Hugging Face and VLM have them, with and without `transformer.`, whose
linears are [in, out] as Paddle's; and VLM's adapters, which are [out, in]: of one task, or of several by number.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from glm.errors import InputError
from glm.models.protocol import WeightNames
from glm.models.vlm.tokenization import TASKS

WORDS, POSITIONS = "vlm.word_embeddings.weight", "vlm.transformer.position_embeddings.weight"
FINAL_NORM, LAYER = "vlm.transformer.final_layernorm", "vlm.transformer.layers.{}."
SINGLE = "single"  # the adapter of a file that holds one task and does not say which
TASK_NAMES = tuple(TASKS)

# Names of a layer's parts in GPT-2, and their shapes without bias in multiples of H.
LAYER_PARTS = {
    "input_layernorm": ("ln_1", (1,)),
    "attention.query_key_value": ("attn.c_attn", (1, 3)),
    "attention.dense": ("attn.c_proj", (1, 1)),
    "post_attention_layernorm": ("ln_2", (1,)),
    "mlp.dense_h_to_4h": ("mlp.c_fc", (1, 4)),
    "mlp.dense_4h_to_h": ("mlp.c_proj", (4, 1)),
}
ADAPTER_PARTS = {"layer_norm": "ln", "project_down": "project_down", "project_up": "project_up"}
OWN_LAYER_PARTS = {foreign: own for own, (foreign, _) in LAYER_PARTS.items()}
OWN_ADAPTER_PARTS = {foreign: own for own, foreign in ADAPTER_PARTS.items()}
TABLES = {"wte.weight": WORDS, "wpe.weight": POSITIONS, "ln_f.weight": f"{FINAL_NORM}.weight"}
TABLES["ln_f.bias"] = f"{FINAL_NORM}.bias"
FOREIGN_TABLES = {own: foreign for foreign, own in TABLES.items()}

FOREIGN_PREFIX = "transformer."
FOREIGN_LAYER = re.compile(r"h\.(\d{1,6})\.(.+)\.(weight|bias)")
FOREIGN_ADAPTER = re.compile(r"adapter_block\.(?:mixadapter\.(\d)\.)?(ln|project_down|project_up)")
OWN_LAYER = re.compile(r"vlm\.transformer\.layers\.(\d{1,6})\.(?:adapters\.(\w+)\.)?(.+)\.(weight|bias)")
LAYER_OF_NAME = re.compile(r"\.layers\.(\d{1,6})\.")

# GPT-2's configuration fields and ours.
FIELDS_OF_GPT2 = {
    "n_embd": "hidden_size",
    "n_layer": "num_layers",
    "n_head": "num_attention_heads",
    "n_positions": "max_position_embeddings",
    "layer_norm_epsilon": "layer_norm_eps",
    "embd_pdrop": "embedding_dropout_prob",
    "attn_pdrop": "attention_dropout_prob",
    "resid_pdrop": "output_dropout_prob",
}


class VLMWeights(WeightNames):
    """VLM's weight names and shapes, see `WeightNames`."""

    words = WORDS
    required = (WORDS, POSITIONS)
    resizable = (WORDS,)
    new_rows_std = 0.02
    linears = ("project_down.weight", "project_up.weight")  # the other linears are [in, out] in PyTorch's files too
    ignored = (".attn.bias", ".attn.masked_bias", "p_gen_linear.weight", "p_gen_linear.bias")
    sizes = (
        *("vocab_size", "hidden_size", "num_layers", "max_position_embeddings"),
        *("bottlenecks", "single_bottleneck"),
    )
    agreed = (
        *("vocab_size", "hidden_size", "num_layers", "max_position_embeddings"),
        *("num_attention_heads", "layer_norm_eps"),
    )
    fields = {
        "vocab_size": int,
        "hidden_size": int,
        "num_layers": int,
        "num_attention_heads": int,
        "max_position_embeddings": int,
        "layer_norm_eps": float,
        "embedding_dropout_prob": float,
        "attention_dropout_prob": float,
        "output_dropout_prob": float,
        "initializer_range": float,
        "bottlenecks": list,
        "single_bottleneck": int,
        "activation_function": str,
        **{name: float if name.endswith(("epsilon", "pdrop")) else int for name in FIELDS_OF_GPT2},
    }
    parts = ("embeddings", "final_layernorm")
    lora_targets = ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h")
    defaults = {"attention_dropout_prob": 0.1, "output_dropout_prob": 0.1}
    foreign_to = ("paddlenlp", "megatron", "fairseq")

    def shapes(self, config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        H = config["hidden_size"]
        shapes: dict[str, tuple[int, ...]] = {WORDS: (config["vocab_size"], H)}
        shapes[POSITIONS] = (config["max_position_embeddings"], H)
        for layer in map(LAYER.format, range(config["num_layers"])):
            for part, (_, multiples) in LAYER_PARTS.items():
                shapes[f"{layer}{part}.weight"] = tuple(multiple * H for multiple in multiples)
                shapes[f"{layer}{part}.bias"] = (multiples[-1] * H,)
            for name, width in adapter_widths(config).items():
                adapter = f"{layer}adapters.{name}."
                shapes |= {f"{adapter}layer_norm.{kind}": (H,) for kind in ("weight", "bias")}
                shapes |= {f"{adapter}project_down.weight": (H, width), f"{adapter}project_down.bias": (width,)}
                shapes |= {f"{adapter}project_up.weight": (width, H), f"{adapter}project_up.bias": (H,)}
        return shapes | {f"{FINAL_NORM}.{kind}": (H,) for kind in ("weight", "bias")}

    def sizes_of(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
        words, positions = (shapes.get(name, (0, 0)) for name in (WORDS, POSITIONS))
        for name, shape in ((WORDS, words), (POSITIONS, positions)):
            if len(shape) != 2:
                raise InputError(f"{name}: the shape {list(shape)} is no table's")
        first = f"{LAYER.format(0)}adapters.{{}}.project_down.bias"
        widths = [(*shapes.get(first.format(name), (0,)), 0)[0] for name in (*TASK_NAMES, SINGLE)]
        numbers = [int(match[1]) for name in shapes if (match := LAYER_OF_NAME.search(name))]
        return {
            "vocab_size": words[0],
            "hidden_size": words[1],
            "num_layers": max(min(max(numbers, default=0) + 1, len(shapes)), 1),
            "max_position_embeddings": positions[0],
            "bottlenecks": widths[:-1] if any(widths[:-1]) else [],
            "single_bottleneck": widths[-1],
        }

    def linears_out_in(self, names: Iterable[str]) -> bool:
        """True for GPT-2's and VLM's names, of which only the adapters differ."""
        return not any(name.startswith("vlm.") for name in names)

    def ours(self, name: str) -> tuple[str, int, int]:
        short = name.removeprefix(FOREIGN_PREFIX)
        if short in TABLES:
            return TABLES[short], 0, 1
        if (match := FOREIGN_LAYER.fullmatch(short)) is None:
            return name, 0, 1
        layer, part, kind = LAYER.format(int(match[1])), match[2], match[3]
        if part in OWN_LAYER_PARTS:
            return f"{layer}{OWN_LAYER_PARTS[part]}.{kind}", 0, 1
        if (adapter := FOREIGN_ADAPTER.fullmatch(part)) is None or int(adapter[1] or 0) >= len(TASK_NAMES):
            return name, 0, 1
        task = SINGLE if adapter[1] is None else TASK_NAMES[int(adapter[1])]
        return f"{layer}adapters.{task}.{OWN_ADAPTER_PARTS[adapter[2]]}.{kind}", 0, 1

    def made_of(self, name: str, format: str) -> tuple[str, ...]:
        if format == "glm":
            return (name,)
        if name in FOREIGN_TABLES:
            return (FOREIGN_PREFIX + FOREIGN_TABLES[name],)
        number, task, part, kind = OWN_LAYER.fullmatch(name).groups()
        layer = f"{FOREIGN_PREFIX}h.{number}."
        if task is None:
            return (f"{layer}{LAYER_PARTS[part][0]}.{kind}",)
        which = "" if task == SINGLE else f"mixadapter.{TASK_NAMES.index(task)}."
        return (f"{layer}adapter_block.{which}{ADAPTER_PARTS[part]}.{kind}",)

    def copy_of(self, name: str) -> str | None:
        return f"{FOREIGN_PREFIX}wte.weight" if name == "lm_head.weight" else None

    def declared(self, content: Mapping[str, Any], origin: object) -> dict[str, Any]:
        """Renames GPT-2's fields. Raises InputError for another activation."""
        activation = content.get("activation_function", "gelu_new")
        if activation not in ("gelu_new", "gelu_pytorch_tanh"):
            raise InputError(f"{origin}: activation_function {activation!r:.60}: a GPT-2's is gelu_new")
        found = {FIELDS_OF_GPT2.get(name, name): value for name, value in content.items()}
        found.pop("activation_function", None)
        return found

    def config_of(self, format: str, config: Mapping[str, Any]) -> dict[str, Any]:
        """Returns GPT-2's fields, for the formats that other programs read."""
        if format == "glm":
            return {}
        fields = {foreign: config[own] for foreign, own in FIELDS_OF_GPT2.items() if own in config}
        return {
            **fields,
            "architectures": ["GPT2LMHeadModel"],
            "model_type": "gpt2",
            "n_ctx": config["max_position_embeddings"],
            "activation_function": "gelu_new",
        }

    def part_of(self, name: str) -> str | int | None:
        if layer := LAYER_OF_NAME.search(name):
            return int(layer[1])
        return next((part for part in self.parts if part in name), None)


def adapter_widths(config: Mapping[str, Any]) -> dict[str, int]:
    """Returns the widths of the model's own adapters, by name."""
    widths = dict(zip(TASK_NAMES, config.get("bottlenecks") or (), strict=False))
    widths[SINGLE] = config.get("single_bottleneck") or 0
    return {name: width for name, width in widths.items() if width}
