"""Names and shapes of a UniLM's weights, and the fields of its configuration. Loads no Paddle.

Three namings are read: this toolkit's; that of BERT in PyTorch (Hugging Face's, and UniLM's own `pytorch_model.bin`
and `model.N.bin`), in which LayerNorms were once called gamma and beta; and that of PaddleNLP's BERT. The foreign ones
keep queries, keys and values apart.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from glm.errors import InputError
from glm.models.protocol import WeightNames

PREFIX = "unilm."
WORDS = "unilm.word_embeddings.weight"
POSITIONS = "unilm.encoder.position_embeddings.weight"
SEGMENTS = "unilm.encoder.segment_embeddings.weight"
NORM = "unilm.encoder.embedding_layernorm"
LAYER = "unilm.encoder.layers.{}."
POOLER, HEAD, ORDER = "unilm.pooler", "lm_head", "sentence_order"
HEAD_DENSE, HEAD_NORM, HEAD_BIAS = f"{HEAD}.dense", f"{HEAD}.layernorm", f"{HEAD}.bias"
FUSED, OUTPUT = "attention.query_key_value", "attention.dense"
UP, DOWN = "mlp.dense_h_to_4h", "mlp.dense_4h_to_h"
ATTENTION_NORM, MLP_NORM = "attention_layernorm", "mlp_layernorm"
LAYER_OF_NAME = re.compile(r"\.layers?\.(\d{1,6})\.")

# Hub names of BERTs that PaddleNLP fetches; `configs/model` has a configuration for each.
PUBLISHED = ("bert-base-chinese", "bert-wwm-chinese", "bert-wwm-ext-chinese")
PUBLISHED += ("macbert-base-chinese", "macbert-large-chinese")

TASKS = (
    # Both directions, left to right, right to left, source to target: each with a position table and part of the head.
    4
)
SEGMENT_TYPES = 6
ROWS_OF_TYPES = (0, 1, 0, 0, 0, 1)  # which of a BERT's two segment types initialises each of the six

# Names of a layer's parts: in PyTorch's BERT, and in PaddleNLP's.
LAYER_PARTS = {
    OUTPUT: ("attention.output.dense", "self_attn.out_proj"),
    ATTENTION_NORM: ("attention.output.LayerNorm", "norm1"),
    UP: ("intermediate.dense", "linear1"),
    DOWN: ("output.dense", "linear2"),
    MLP_NORM: ("output.LayerNorm", "norm2"),
}
# Names of the parts of the fused projection, in their order.
FUSED_PARTS = tuple(
    (f"attention.self.{torch}", f"self_attn.{paddle}")
    for torch, paddle in (("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj"))
)
# Names outside the layers, up to `weight` or `bias`.
PARTS = {
    "unilm.word_embeddings": ("bert.embeddings.word_embeddings",) * 2,
    "unilm.encoder.position_embeddings": ("bert.embeddings.position_embeddings",) * 2,
    "unilm.encoder.segment_embeddings": ("bert.embeddings.token_type_embeddings",) * 2,
    NORM: ("bert.embeddings.LayerNorm", "bert.embeddings.layer_norm"),
    POOLER: ("bert.pooler.dense",) * 2,
    HEAD_DENSE: ("cls.predictions.transform.dense", "cls.predictions.transform"),
    HEAD_NORM: ("cls.predictions.transform.LayerNorm", "cls.predictions.layer_norm"),
    ORDER: ("cls.seq_relationship",) * 2,
}
PADDLES_LINEARS = tuple(f".{paddle}.weight" for _, paddle in FUSED_PARTS)
FOREIGN_LAYERS = ("bert.encoder.layer.{}.", "bert.encoder.layers.{}.")
FOREIGN_BIASES = ("cls.predictions.bias", "cls.predictions.decoder_bias")  # of the head
FORMATS = {"huggingface": 0, "huggingface-bin": 0, "paddlenlp": 1}  # which of the two foreign namings a format uses

# Names under which files hold a weight a second time, each with that weight's name.
COPIES = {
    "cls.predictions.decoder.weight": WORDS,
    "cls.predictions.decoder_weight": WORDS,
    "cls.predictions.decoder.bias": HEAD_BIAS,
}
# Values that are no weights: of the original's loss, and an index range.
NO_WEIGHTS = ("crit_mask_lm_smoothed.one_hot", "bert.embeddings.position_ids")
WITHOUT_PREFIX = ("embeddings.", "encoder.", "pooler.")  # in a file of a BERT without a head


def _own_names() -> dict[str, tuple[str, int, int]]:
    """Maps foreign names without `weight` or `bias` to our name, the part, and the number of parts; `{}` stands for a
    layer."""
    found = {foreign: (own, 0, 1) for own, names in PARTS.items() for foreign in names}
    for own, names in LAYER_PARTS.items():
        for layer, name in zip(FOREIGN_LAYERS, names, strict=True):
            found[layer + name] = (LAYER + own, 0, 1)
    for number, names in enumerate(FUSED_PARTS):
        for layer, name in zip(FOREIGN_LAYERS, names, strict=True):
            found[layer + name] = (LAYER + FUSED, number, len(FUSED_PARTS))
    return found | {"cls2.seq_relationship": (ORDER, 0, 1)}  # in the base class


OWN_NAMES = _own_names()
KINDS = {"gamma": "weight", "beta": "bias"}  # of LayerNorms in old files


class UniLMWeights(WeightNames):
    """UniLM's weight names and shapes, see `WeightNames`."""

    words = WORDS
    required = (WORDS, POSITIONS)
    linears = tuple(f"{name}.weight" for name in (FUSED, OUTPUT, UP, DOWN, POOLER, HEAD_DENSE, ORDER))
    # A weight of every naming that is rarely square.
    biased_linears = tuple(
        f"{name}.weight" for name in (FUSED, UP, "intermediate.dense", "linear1", ORDER, "seq_relationship")
    )
    sizes = (
        *("vocab_size", "hidden_size", "num_hidden_layers", "intermediate_size", "max_position_embeddings"),
        *("type_vocab_size", "new_pos_ids", "relax_projection", "pooler", "sentence_order"),
    )
    optional = ("pooler", "sentence_order")
    # The number of segment types is not taken from files: they say 2 where the program that wrote them sets 6.
    agreed = (
        *("vocab_size", "hidden_size", "num_hidden_layers", "intermediate_size", "max_position_embeddings"),
        *("num_attention_heads", "layer_norm_eps"),
    )
    fields = {
        "vocab_size": int,
        "hidden_size": int,
        "num_hidden_layers": int,
        "num_attention_heads": int,
        "intermediate_size": int,
        "max_position_embeddings": int,
        "type_vocab_size": int,
        "layer_norm_eps": float,
        "hidden_act": str,
        "hidden_dropout_prob": float,
        "attention_probs_dropout_prob": float,
        "embedding_dropout_prob": float,
        "initializer_range": float,
        "mimetic_init": bool,
        "new_pos_ids": bool,
        "relax_projection": int,
        "pooler": bool,
        "sentence_order": bool,
        "finished_rule": str,
    }
    parts = ("embeddings", "pooler", HEAD, ORDER)
    foreign_to = ("megatron", "fairseq")
    lora_targets = ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h")

    def shapes(self, config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        V, H, F = (config[name] for name in ("vocab_size", "hidden_size", "intermediate_size"))
        tables = TASKS if config.get("new_pos_ids") else 1
        wide = H * (config.get("relax_projection") or 1)
        shapes: dict[str, tuple[int, ...]] = {
            WORDS: (V, H),
            POSITIONS: (config["max_position_embeddings"], H * tables),
            SEGMENTS: (config["type_vocab_size"], H),
            **_norm(NORM, H),
        }
        for number in range(config["num_hidden_layers"]):
            layer = LAYER.format(number)
            shapes |= _linear(layer + FUSED, H, 3 * H) | _linear(layer + OUTPUT, H, H)
            shapes |= _norm(layer + ATTENTION_NORM, H)
            shapes |= _linear(layer + UP, H, F) | _linear(layer + DOWN, F, H) | _norm(layer + MLP_NORM, H)
        if config.get("pooler"):
            shapes |= _linear(POOLER, H, H)
        shapes |= _linear(HEAD_DENSE, H, wide) | _norm(HEAD_NORM, wide) | {HEAD_BIAS: (V,)}
        return shapes | (_linear(ORDER, H, 2) if config.get("sentence_order") else {})

    def linears_out_in(self, names: Iterable[str]) -> bool:
        """Decides by the names: PaddleNLP's have linears as [in, out], PyTorch's BERT as [out, in]."""
        return not any(name.endswith(PADDLES_LINEARS) for name in names)

    def recognises(self, names: Iterable[str]) -> bool:
        return {WORDS, POSITIONS} <= {self.ours(name)[0] for name in names}

    def sizes_of(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
        words, positions, segments = (shapes.get(name, (0, 0)) for name in (WORDS, POSITIONS, SEGMENTS))
        for name, shape in ((WORDS, words), (POSITIONS, positions), (SEGMENTS, segments)):
            if len(shape) != 2:
                raise InputError(f"{name}: the shape {list(shape)} is no table's")
        H = words[1]
        head = shapes.get(f"{HEAD_DENSE}.weight", (H, H))
        for name, width in ((POSITIONS, positions[1]), (f"{HEAD_DENSE}.weight", head[-1] if head else 0)):
            if H and width not in (H, TASKS * H):
                raise InputError(f"{name}: is {width} wide, and neither hidden_size {H} nor {TASKS} times as much")
        return {
            "vocab_size": words[0],
            "hidden_size": H,
            "num_hidden_layers": _count_layers(shapes),
            "intermediate_size": shapes.get(f"{LAYER.format(0)}{UP}.bias", (0,))[-1],
            "max_position_embeddings": positions[0],
            "type_vocab_size": segments[0],
            "new_pos_ids": positions[1] == TASKS * H,
            "relax_projection": TASKS if head and head[-1] == TASKS * H else 0,
            "pooler": f"{POOLER}.weight" in shapes,
            "sentence_order": f"{ORDER}.weight" in shapes,
        }

    def ours(self, name: str) -> tuple[str, int, int]:
        if name in COPIES:
            return name, 0, 1
        full = f"bert.{name}" if name.startswith(WITHOUT_PREFIX) else name
        if full in FOREIGN_BIASES:
            return HEAD_BIAS, 0, 1
        stem, _, kind = full.rpartition(".")
        layer = LAYER_OF_NAME.search(stem)
        pattern = stem if layer is None else stem[: layer.start(1)] + "{}" + stem[layer.end(1) :]
        if pattern not in OWN_NAMES or kind not in (*KINDS, *KINDS.values()):
            return name, 0, 1
        own, part, count = OWN_NAMES[pattern]
        own = own if layer is None else own.format(int(layer[1]))
        return f"{own}.{KINDS.get(kind, kind)}", part, count

    def made_of(self, name: str, format: str) -> tuple[str, ...]:
        if format not in FORMATS:
            return (name,)
        naming = FORMATS[format]
        if name == HEAD_BIAS:
            return (FOREIGN_BIASES[naming],)
        stem, _, kind = name.rpartition(".")
        if stem in PARTS:
            return (f"{PARTS[stem][naming]}.{kind}",)
        layer = LAYER_OF_NAME.search(name)
        before, part = FOREIGN_LAYERS[naming].format(layer[1]), stem[layer.end() :]
        names = FUSED_PARTS if part == FUSED else (LAYER_PARTS[part],)
        return tuple(f"{before}{own[naming]}.{kind}" for own in names)

    def settled(self, weights: Mapping[str, Any]) -> dict[str, Any]:
        """Drops what is no weight, compares and drops copies, and extends the segment types to six.

        Raises:
            InputError: a copy differs from what it is one of.
        """
        found = {name: tensor for name, tensor in weights.items() if name not in NO_WEIGHTS and name not in COPIES}
        for name, original in COPIES.items():
            if name in weights:
                found[original] = _agreed(name, weights[name], original, found.get(original))
        if SEGMENTS in found and found[SEGMENTS].shape[:1] == (2,) and len(found[SEGMENTS].shape) == 2:
            found[SEGMENTS] = _rows(found[SEGMENTS], ROWS_OF_TYPES)
        return found

    def declared(self, content: Mapping[str, Any], origin: object) -> dict[str, Any]:
        """Drops the name of the activation, of which there is only one.

        Raises:
            InputError: it is another one.
        """
        if content.get("hidden_act", "gelu") != "gelu":
            raise InputError(f"{origin}: hidden_act {content['hidden_act']!r:.60}: a UniLM's is gelu")
        return {name: value for name, value in content.items() if name != "hidden_act"}

    def config_of(self, format: str, config: Mapping[str, Any]) -> dict[str, Any]:
        """Returns BERT's fields, for the formats that other programs read."""
        if format not in FORMATS:
            return {}
        eps = config.get("layer_norm_eps", default_epsilon(config))
        return {
            "architectures": ["BertForPreTraining" if FORMATS[format] == 0 else "BertForPretraining"],
            "model_type": "bert",
            "hidden_act": "gelu",
            "layer_norm_eps": eps,
        }

    def reshaped(
        self, weights: Mapping[str, Any], *, positions: int | None = None, tasks: int | None = None
    ) -> tuple[dict[str, Any], list[str]]:
        """Resizes to more positions, which repeat the existing ones; to a position table and a part of the head for
        each of the four language models, all equal; or to those of source to target only."""
        found, warnings = dict(weights), []
        rows = weights[POSITIONS].shape[0]
        if positions is not None and positions < rows:
            raise InputError(f"positions {positions}: the model has {rows}; they can only grow")
        if tasks not in (None, 1, TASKS):
            raise InputError(f"tasks {tasks}: use 1 or {TASKS}")
        if tasks == 1:
            if found[f"{HEAD_DENSE}.bias"].shape[-1] != found[WORDS].shape[1]:
                warnings.append("the head is no longer the same: its LayerNorm ran over the parts of all four tasks")
            found = cut_to_task(found, TASKS - 1)
        return grown(found, positions=positions, tasks=tasks == TASKS), warnings

    def part_of(self, name: str) -> str | int | None:
        if layer := LAYER_OF_NAME.search(name):
            return int(layer[1])
        return "embeddings" if "embedding" in name else next((part for part in self.parts if part in name), None)


def default_epsilon(config: Mapping[str, Any]) -> float:
    """Returns the epsilon that the originals' programs hard-code and do not store: 1e-5 in the pretraining script,
    else 1e-12."""
    return 1e-5 if config.get("new_pos_ids") or config.get("relax_projection") else 1e-12


def cut_to_task(weights: Mapping[str, Any], task: int) -> dict[str, Any]:
    """Extracts one task from pretraining weights: its position table, and a head of the hidden size.

    Positions stay what they were. The head does not, for its LayerNorm ran over all four parts.
    """
    found = dict(weights)
    H = found[WORDS].shape[1]
    for name in (POSITIONS, f"{HEAD_DENSE}.weight", f"{HEAD_DENSE}.bias", f"{HEAD_NORM}.weight", f"{HEAD_NORM}.bias"):
        if found[name].shape[-1] == TASKS * H:
            found[name] = _changed(found[name], lambda table: table[..., task * H : (task + 1) * H])
    return found


def grown(weights: Mapping[str, Any], *, positions: int | None = None, tasks: bool = False) -> dict[str, Any]:
    """Returns the weights with more positions, repeating the existing rows, or with four equal tables and a four-fold
    head."""
    found = dict(weights)
    if positions is not None:
        rows = found[POSITIONS].shape[0]
        found[POSITIONS] = _rows(found[POSITIONS], [place % rows for place in range(positions)])
    if tasks:
        H = found[WORDS].shape[1]
        names = (f"{part}.{kind}" for part in (HEAD_DENSE, HEAD_NORM) for kind in ("weight", "bias"))
        for name in (POSITIONS, *names):
            if found[name].shape[-1] == H:
                found[name] = _changed(found[name], lambda table: np.concatenate([table] * TASKS, axis=-1))
    return found


def _agreed(name: str, copy: Any, original: str, tensor: Any | None) -> Any:
    """Returns a weight after comparing it with its copy; the copy where the weight itself is missing."""
    if tensor is None:
        return copy
    if copy.shape != tensor.shape or not np.array_equal(copy.load(), tensor.load()):
        raise InputError(f"{name}: differs from {original}, and this family has one table for both")
    return tensor


def _rows(tensor: Any, rows: Iterable[int]) -> Any:
    return _changed(tensor, lambda table: table[list(rows)])


def _changed(tensor: Any, change: Callable[[np.ndarray], np.ndarray]) -> Any:
    """Wraps a weight so that it is read and changed only when it is asked for."""
    shape = change(np.broadcast_to(np.zeros(1, np.int8), tensor.shape)).shape
    return replace(tensor, shape=tuple(shape), load=lambda: np.ascontiguousarray(change(np.asarray(tensor.load()))))


def _linear(name: str, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (inputs, outputs), f"{name}.bias": (outputs,)}


def _norm(name: str, size: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (size,), f"{name}.bias": (size,)}


def _count_layers(names: Mapping[str, Any]) -> int:
    """Counts layers: at least one, and bounded by the number of names, so a forged layer number cannot make it
    large."""
    numbers = [int(match[1]) for name in names if (match := LAYER_OF_NAME.search(name))]
    return max(min(max(numbers, default=0) + 1, len(names)), 1)
