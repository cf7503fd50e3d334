"""Names and shapes of a GanLM's weights, and the fields of its configuration. Loads no Paddle.

fairseq's files (`{"model": ..., "cfg": ...}`) have their own names: the encoder is `encoder.discriminator` there, the
generator `decoder.generator`, the discriminator `decoder.discriminator`; queries, keys and values are apart; the table
of words stands under four names. PyTorch keeps the weight of a linear layer as [out, in], Paddle as [in, out].
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from glm.errors import InputError
from glm.models.ganlm.geometry import FIRST_POSITION
from glm.models.protocol import WeightNames

WORDS = "word_embeddings.weight"
RELATIVE = "encoder.relative_bias.weight"
HEAD = "discriminator_head."
CLASSIFIER = "classification_head."
FOREIGN_CLASSIFIER = "classification_heads.sentence_classification_head."
STACKS = ("encoder", "generator", "discriminator")
FORMAT = "fairseq"

# Stack of ours -> its prefix in fairseq's files.
FOREIGN_STACKS = {
    "encoder": "encoder.discriminator",
    "generator": "decoder.generator",
    "discriminator": "decoder.discriminator",
}
FOREIGN_WORDS = "encoder.discriminator.embed_tokens.weight"
FOREIGN_RELATIVE = "encoder.discriminator.relative_position.relative_attention_bias.weight"
COPIES_OF_WORDS = (
    "decoder.generator.embed_tokens.weight",
    "decoder.generator.output_projection.weight",
    "decoder.discriminator.embed_tokens.weight",
)
# Names of the parts of a stack beside its layers, and of the parts of a layer: ours and fairseq's.
PARTS = {"position_embeddings": "embed_positions", "embedding_norm": "layernorm_embedding"}
LAYER_PARTS = {
    "self_attn.out_proj": "self_attn.out_proj",
    "self_attn_layer_norm": "self_attn_layer_norm",
    "cross_attn.q_proj": "encoder_attn.q_proj",
    "cross_attn.out_proj": "encoder_attn.out_proj",
    "cross_attn_layer_norm": "encoder_attn_layer_norm",
    "mlp.fc1": "fc1",
    "mlp.fc2": "fc2",
    "final_layer_norm": "final_layer_norm",
}
FUSED = {  # weights that are several in fairseq's files, side by side here
    "self_attn.qkv_proj": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "cross_attn.kv_proj": ("encoder_attn.k_proj", "encoder_attn.v_proj"),
}
# Fields of a configuration -> fairseq's options.
OPTIONS = {
    "hidden_size": "encoder_embed_dim",
    "mlp_size": "encoder_ffn_embed_dim",
    "num_attention_heads": "encoder_attention_heads",
    "encoder_layers": "encoder_layers",
    "generator_layers": "generator_decoder_layers",
    "discriminator_layers": "discriminator_decoder_layers",
    "share_generator_discriminator": "share_generator_discriminator",
    "max_source_positions": "max_source_positions",
    "max_target_positions": "max_target_positions",
    "relative_buckets": "rel_pos_buckets",
    "output_dropout_prob": "dropout",
    "attention_dropout_prob": "attention_dropout",
}
HEAD_PARTS = {"dense.": "dense.", "layer_norm.": "layer_norm.", "out_proj.": ""}
FOREIGN_HEAD = "decoder.discriminator.output_projection."
LAYER_OF_NAME = re.compile(rf"({'|'.join(STACKS)})\.layers\.(\d{{1,6}})\.(.+)\.(weight|bias)")
LINEARS = ("qkv_proj", "q_proj", "kv_proj", "out_proj", "fc1", "fc2", "dense")


def _foreign_table() -> dict[str, tuple[str, int, int]]:
    """Maps a layer's part in fairseq's naming to ours, which slice of it this is, and of how many."""
    table = {foreign: (own, 0, 1) for own, foreign in LAYER_PARTS.items()}
    for own, foreigns in FUSED.items():
        table |= {foreign: (own, place, len(foreigns)) for place, foreign in enumerate(foreigns)}
    return table


OWN_OF_FOREIGN = _foreign_table()
FOREIGN_NAME = re.compile(r"((?:en|de)coder\.(?:generator|discriminator))\.(.+)")
FOREIGN_LAYER = re.compile(r"layers\.(\d{1,6})\.(.+)\.(weight|bias)")


class GanLMWeights(WeightNames):
    """GanLM's weight names and shapes, see `WeightNames`. Files written by PyTorch have linear weights as [out,
    in]."""

    foreign_to = ("huggingface", "huggingface-bin", "megatron")
    words = WORDS
    required = (WORDS, "encoder.position_embeddings.weight", "generator.position_embeddings.weight")
    linears = tuple(f"{name}.weight" for name in LINEARS)
    biased_linears = ("fc1.weight", "qkv_proj.weight")
    ignored = (".version", "_float_tensor")
    sizes = (
        *("vocab_size", "hidden_size", "mlp_size", "encoder_layers", "generator_layers", "discriminator_layers"),
        *("max_source_positions", "max_target_positions", "relative_buckets"),
    )
    agreed = (*sizes, "num_attention_heads", "share_generator_discriminator")
    fields = {
        "vocab_size": int,
        "hidden_size": int,
        "mlp_size": int,
        "num_attention_heads": int,
        "encoder_layers": int,
        "generator_layers": int,
        "discriminator_layers": int,
        "share_generator_discriminator": bool,
        "max_source_positions": int,
        "max_target_positions": int,
        "relative_buckets": int,
        "layernorm_epsilon": float,
        "embedding_dropout_prob": float,
        "attention_dropout_prob": float,
        "output_dropout_prob": float,
        "rescale_init": bool,
        "mimetic_init": bool,
        "classes": int,
        "classifier_sees_all": bool,
    }
    lora_targets = LINEARS[:6]
    resizable = ("position_embeddings.weight",)
    parts = ("embeddings", *STACKS)

    def shapes(self, config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        if "discriminator_layers" not in config:
            raise InputError(
                "how many layers of the generator the discriminator shares is not to be seen in the weights; say it "
                "in config.json (discriminator_layers) or with --preset"
            )
        H = config["hidden_size"]
        shapes: dict[str, tuple[int, ...]] = {WORDS: (config["vocab_size"], H)}
        if config["relative_buckets"]:
            shapes[RELATIVE] = (config["relative_buckets"], config["num_attention_heads"])
        for stack in STACKS:
            if not config[f"{stack}_layers"] or (stack == "discriminator" and _shares(config)):
                continue
            positions = config["max_source_positions" if stack == "encoder" else "max_target_positions"]
            shapes[f"{stack}.position_embeddings.weight"] = (positions + FIRST_POSITION, H)
            shapes |= _norm(f"{stack}.embedding_norm", H)
            for layer in range(config[f"{stack}_layers"]):
                shapes |= _layer(f"{stack}.layers.{layer}.", H, config["mlp_size"], crosses=stack != "encoder")
        if config.get("classes"):
            shapes |= _linear(f"{CLASSIFIER}dense", H, H) | _linear(f"{CLASSIFIER}out_proj", H, config["classes"])
        if config["discriminator_layers"]:
            shapes |= _linear(f"{HEAD}dense", H, H) | _norm(f"{HEAD}layer_norm", H) | _linear(f"{HEAD}out_proj", H, 2)
        return shapes

    def part_of(self, name: str) -> str | None:
        """Its stack, with positions and head, or the words, which all stacks share; there are no numbers of layers."""
        if name == WORDS:
            return "embeddings"
        return next((stack for stack in STACKS if name.startswith((f"{stack}.", f"{stack}_head."))), None)

    def recognises(self, names: Iterable[str]) -> bool:
        return set(self.required) <= {self.ours(name)[0] for name in names}

    def sizes_of(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
        def table(name: str) -> tuple[int, int]:
            shape = shapes.get(name, (0, 0))
            if len(shape) != 2:
                raise InputError(f"{name}: the shape {list(shape)} is no table's")
            return shape

        layers = {stack: _count_layers(shapes, stack) for stack in STACKS}
        has_head = f"{HEAD}out_proj.weight" in shapes
        words, relative = table(WORDS), table(RELATIVE)
        own_layers = layers["discriminator"]
        found = {
            "vocab_size": words[0],
            "hidden_size": words[1],
            "mlp_size": table("encoder.layers.0.mlp.fc1.weight")[1],
            "encoder_layers": layers["encoder"],
            "generator_layers": layers["generator"],
            "max_source_positions": max(table("encoder.position_embeddings.weight")[0] - FIRST_POSITION, 0),
            "max_target_positions": max(table("generator.position_embeddings.weight")[0] - FIRST_POSITION, 0),
            "relative_buckets": relative[0],
            "classes": table(f"{CLASSIFIER}out_proj.weight")[1],
        }
        if relative[1]:
            found["num_attention_heads"] = relative[1]
        # A shared discriminator's number of layers cannot be read from the weights.
        if own_layers or not has_head:
            found |= {"discriminator_layers": own_layers, "share_generator_discriminator": False}
        else:
            found["share_generator_discriminator"] = True
        return found

    def ours(self, name: str) -> tuple[str, int, int]:
        if name == FOREIGN_WORDS:
            return WORDS, 0, 1
        if name == FOREIGN_RELATIVE:
            return RELATIVE, 0, 1
        if name.startswith(FOREIGN_CLASSIFIER):
            return CLASSIFIER + name.removeprefix(FOREIGN_CLASSIFIER), 0, 1
        if name.startswith(FOREIGN_HEAD):
            rest = name.removeprefix(FOREIGN_HEAD)
            part = next(part for part in HEAD_PARTS if rest.startswith(HEAD_PARTS[part]))
            return f"{HEAD}{part}{rest.removeprefix(HEAD_PARTS[part])}", 0, 1
        found = FOREIGN_NAME.fullmatch(name)
        stack = found and next((own for own, foreign in FOREIGN_STACKS.items() if foreign == found[1]), None)
        if not stack:
            return name, 0, 1
        if layer := FOREIGN_LAYER.fullmatch(found[2]):
            own, part, count = OWN_OF_FOREIGN.get(layer[2], (layer[2], 0, 1))
            return f"{stack}.layers.{layer[1]}.{own}.{layer[3]}", part, count
        for own, foreign in PARTS.items():
            if found[2].startswith(f"{foreign}."):
                return f"{stack}.{own}{found[2].removeprefix(foreign)}", 0, 1
        return name, 0, 1

    def stated(self, options: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
        found = {own: options[foreign] for own, foreign in OPTIONS.items() if options.get(foreign) is not None}
        heads = {options.get(f"{stack}_attention_heads") for stack in ("encoder", "decoder")} - {None}
        if len(heads) > 1:
            raise InputError(
                f"its options say {sorted(heads)} attention heads for encoder and decoder; use one number"
            )
        if not any(name.startswith(FOREIGN_HEAD) for name in names):  # it was fine-tuned without a discriminator
            found |= {"discriminator_layers": 0, "share_generator_discriminator": False}
        return found

    def foreign_options(self, config: Mapping[str, Any], format: str) -> dict[str, Any]:
        options = {foreign: config[own] for own, foreign in OPTIONS.items() if own in config}
        return options | {"decoder_attention_heads": config["num_attention_heads"]}

    def made_of(self, name: str, format: str) -> tuple[str, ...]:
        if format in ("glm", "paddlenlp"):
            return (name,)
        if name in (WORDS, RELATIVE):
            return (FOREIGN_WORDS if name == WORDS else FOREIGN_RELATIVE,)
        if name.startswith(CLASSIFIER):
            return (FOREIGN_CLASSIFIER + name.removeprefix(CLASSIFIER),)
        if name.startswith(HEAD):
            rest = name.removeprefix(HEAD)
            part = next(part for part in HEAD_PARTS if rest.startswith(part))
            return (FOREIGN_HEAD + HEAD_PARTS[part] + rest.removeprefix(part),)
        if layer := LAYER_OF_NAME.fullmatch(name):
            parts = FUSED.get(layer[3]) or (LAYER_PARTS[layer[3]],)
            return tuple(f"{FOREIGN_STACKS[layer[1]]}.layers.{layer[2]}.{part}.{layer[4]}" for part in parts)
        stack, part, kind = name.split(".")
        return (f"{FOREIGN_STACKS[stack]}.{PARTS[part]}.{kind}",)

    def started(self, config: Mapping[str, Any], start: str) -> dict[str, Any]:
        config = dict(config)
        if start in ("both", "discriminator") and not config["discriminator_layers"]:
            raise InputError(f"start {start}: the model has no discriminator; use --start generator")
        if start == "both":
            return config
        if start == "discriminator":  # this one has seen all of what it reads
            config |= {"generator_layers": config["discriminator_layers"], "classifier_sees_all": True}
        return config | {"discriminator_layers": 0, "share_generator_discriminator": False}

    def at_start(self, name: str, config: Mapping[str, Any], start: str) -> str | None:
        stack = name.split(".")[0]
        if start == "both" or stack in ("encoder", "word_embeddings", CLASSIFIER[:-1]):
            return name
        if start == "generator":
            return name if stack == "generator" else None
        if _shares(config):  # the discriminator is the generator's first layers
            layer = LAYER_OF_NAME.fullmatch(name)
            beyond = layer is not None and int(layer[2]) >= config["discriminator_layers"]
            return name if stack == "generator" and not beyond else None
        return f"generator{name.removeprefix(stack)}" if stack == "discriminator" else None

    def copy_of(self, name: str) -> str | None:
        return FOREIGN_WORDS if name in COPIES_OF_WORDS else None

    def copies(self, config: Mapping[str, Any], format: str) -> dict[str, str]:
        """Returns the names under which a format's files hold a weight a second time, each with the first one's
        name."""
        if format != FORMAT:
            return {}
        has = {"generator": config["generator_layers"], "discriminator": config["discriminator_layers"]}
        return {name: FOREIGN_WORDS for name in COPIES_OF_WORDS if has[name.split(".")[1]]}


def _shares(config: Mapping[str, Any]) -> bool:
    return bool(config.get("share_generator_discriminator"))


def _linear(name: str, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (inputs, outputs), f"{name}.bias": (outputs,)}


def _norm(name: str, size: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (size,), f"{name}.bias": (size,)}


def _layer(prefix: str, H: int, F: int, *, crosses: bool) -> dict[str, tuple[int, ...]]:
    shapes = _linear(f"{prefix}self_attn.qkv_proj", H, 3 * H) | _linear(f"{prefix}self_attn.out_proj", H, H)
    shapes |= _norm(f"{prefix}self_attn_layer_norm", H)
    if crosses:
        shapes |= _linear(f"{prefix}cross_attn.q_proj", H, H) | _linear(f"{prefix}cross_attn.kv_proj", H, 2 * H)
        shapes |= _linear(f"{prefix}cross_attn.out_proj", H, H) | _norm(f"{prefix}cross_attn_layer_norm", H)
    shapes |= _linear(f"{prefix}mlp.fc1", H, F) | _linear(f"{prefix}mlp.fc2", F, H)
    return shapes | _norm(f"{prefix}final_layer_norm", H)


def _count_layers(names: Iterable[str], stack: str) -> int:
    """Counts layers; bounded by the number of names, so a forged layer number cannot make it large."""
    numbers = {int(found[2]) for name in names if (found := LAYER_OF_NAME.fullmatch(name)) and found[1] == stack}
    return min(max(numbers, default=-1) + 1, 8 * len(numbers))
