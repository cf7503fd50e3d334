"""Names and shapes of a GLM's weights, and what tells the layouts of checkpoints apart.

The names are the same everywhere but for the prefix `glm.`, which Hugging Face's and Megatron's files lack. PyTorch
keeps the weight of a linear layer as [out, in], Paddle as [in, out]. Every whole checkpoint has the fused
query_key_value as [all Q | all K | all V]; what a tensor-parallel rank holds of it is laid out so in Megatron's files
(its Q | its K | its V), and head by head (q k v of its first head, q k v of the next) in PaddleNLP's.
Source: THUDM/GLM, change_mp.py; paddlenlp/transformers/conversion_utils.py, naive_merged_qkv_to_tensor_parallel_qkv.
"""

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from glm.checkpoint.tensors import WEIGHT_DTYPES, LazyTensor
from glm.errors import InputError, shown
from glm.parallel.plan import merge_weight, part_of_weight, part_shape, planned

PREFIX = "glm."
WORDS = "glm.word_embeddings.weight"
POSITIONS = "glm.transformer.position_embeddings.weight"
BLOCK_POSITIONS = "glm.transformer.block_position_embeddings.weight"
LAYER = "glm.transformer.layers.{}."
LAYER_OF_NAME = re.compile(r"\.layers\.(\d{1,6})\.")
FUSED = "attention.query_key_value"
LISTED = 1000  # names in a message; a GLM has fewer than 600

# Shapes of a layer's weights in multiples of the hidden size, Paddle's way round.
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
LINEAR = tuple(name for name, shape in LAYER_SHAPES.items() if len(shape) == 2)

Weights = dict[str, LazyTensor]


def expected_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Name and shape, Paddle's way round, of every weight of a configuration."""
    H, rows = config["hidden_size"], position_rows(config)
    shapes: dict[str, tuple[int, ...]] = {WORDS: (config["vocab_size"], H), POSITIONS: (rows, H)}
    if config["block_position_encoding"]:
        shapes[BLOCK_POSITIONS] = (rows, H)
    for layer in range(config["num_layers"]):
        for name, multiples in LAYER_SHAPES.items():
            shapes[LAYER.format(layer) + name] = tuple(multiple * H for multiple in multiples)
    return shapes | {f"glm.transformer.final_layernorm.{kind}": (H,) for kind in ("weight", "bias")}


def position_rows(config: Mapping[str, Any]) -> int:
    """Rows of each position table (THUDM/GLM: one more with block positions)."""
    return config["max_sequence_length"] + (1 if config["block_position_encoding"] else 0)


def canonical_names(tensors: Mapping[str, LazyTensor]) -> Weights:
    """The tensors under the toolkit's names, with the prefix; a name that no GLM has stays as it is.

    Raises:
        InputError: a name occurs with and without it.
    """
    found: Weights = {}
    for name, tensor in tensors.items():
        full = PREFIX + name if name.startswith(("word_embeddings.", "transformer.")) else name
        if full in found:
            raise InputError(f"{shown(name)}: occurs twice, with and without {PREFIX}")
        found[full] = tensor
    return found


def is_torch_layout(tensors: Mapping[str, LazyTensor]) -> bool:
    """Whether linear weights are [out, in]: their biases [out] tell, where the weight is no square.

    At three ranks the fused weight is one, at four the first of the MLP; True if there is neither.
    """
    for name, tensor in tensors.items():
        if name.endswith((f"{FUSED}.weight", "mlp.dense_h_to_4h.weight")):
            bias = tensors.get(name.removesuffix("weight") + "bias")
            if bias is not None and len(tensor.shape) == 2 and tensor.shape[0] != tensor.shape[1]:
                return tensor.shape[:1] == bias.shape
    return True


def transposed_linears(tensors: Mapping[str, LazyTensor]) -> Weights:
    """Weights with those of linear layers transposed: PyTorch's layout from Paddle's, or back."""
    return {
        name: tensor.transposed() if name.endswith(LINEAR) and len(tensor.shape) == 2 else tensor
        for name, tensor in tensors.items()
    }


def infer_sizes(tensors: Mapping[str, LazyTensor]) -> dict[str, Any]:
    """The configuration that whole weights, Paddle's way round, show. The number of heads is not to be seen in them.

    Raises:
        InputError: the embeddings are missing (the text lists all that is missing or unknown), or are no tables.
    """
    block = BLOCK_POSITIONS in tensors
    sizes = {"num_layers": _count_layers(tensors), "block_position_encoding": block}
    if WORDS not in tensors or POSITIONS not in tensors:
        unseen = dict.fromkeys(("vocab_size", "hidden_size", "max_sequence_length"), 0)
        _refuse("not the weights of a GLM", _name_problems(tensors, expected_shapes(sizes | unseen)))
    for name in (WORDS, POSITIONS):
        if len(tensors[name].shape) != 2:
            raise InputError(f"{name}: the shape {list(tensors[name].shape)} is no table's")
    vocab_size, hidden_size = tensors[WORDS].shape
    max_sequence_length = tensors[POSITIONS].shape[0] - (1 if block else 0)
    return sizes | {
        "vocab_size": vocab_size,
        "hidden_size": hidden_size,
        "max_sequence_length": max_sequence_length,
    }


def _count_layers(tensors: Mapping[str, LazyTensor]) -> int:
    """At least one, and no more than there are tensors, whatever number a name claims."""
    numbers = [int(match[1]) for name in tensors if (match := LAYER_OF_NAME.search(name))]
    return max(min(max(numbers, default=0) + 1, len(tensors)), 1)


def checked_weights(tensors: Mapping[str, LazyTensor], config: Mapping[str, Any]) -> Weights:
    """The weights in the model's order.

    Raises:
        InputError: weights are unknown, missing, or of a wrong shape or dtype; the text lists them all.
    """
    expected = expected_shapes(config)
    wrong = [
        f"{name}: {list(tensors[name].shape)} instead of {list(shape)}"
        for name, shape in expected.items()
        if name in tensors and tensors[name].shape != shape
    ]
    integers = [
        f"{name}: {tensors[name].dtype}"
        for name in expected
        if name in tensors and tensors[name].dtype not in WEIGHT_DTYPES
    ]
    lines = [
        *_name_problems(tensors, expected),
        *_listed("wrong shape", wrong, str),
        *_listed("no floating-point numbers", integers, str),
    ]
    _refuse("the weights do not fit the configuration", lines)
    return {name: tensors[name] for name in expected}


def _refuse(summary: str, problems: list[str]) -> None:
    if problems:
        raise InputError("\n".join([summary, *problems]))


def _name_problems(tensors: Mapping[str, LazyTensor], expected: Mapping[str, Any]) -> list[str]:
    unknown = [name for name in tensors if name not in expected]
    missing = [name for name in expected if name not in tensors]
    return [
        *_listed("unknown", unknown, lambda name: shown(name) + _nearest(name, missing or expected)),
        *_listed("missing", missing, str),
    ]


def _listed(label: str, names: list[str], line: Callable[[str], str]) -> list[str]:
    lines = [f"  {label} {line(name)}" for name in names[:LISTED]]
    return lines + ([f"  {label}: {len(names) - LISTED} more"] if len(names) > LISTED else [])


def _nearest(name: str, known: Iterable[str]) -> str:
    """The known name nearest to a wrong one, of the same layer if there is one: few are compared."""
    known = list(known)
    layer = LAYER_OF_NAME.search(name)
    same_layer = [other for other in known if layer and f".layers.{int(layer[1])}." in other]
    others = [other for other in known if ".layers." not in other or ".layers.0." in other]
    close = difflib.get_close_matches(name[:200], same_layer or others, n=1, cutoff=0.4)
    return f" (nearest: {close[0]})" if close else ""


# -- ranks


def split_weights(weights: Mapping[str, LazyTensor], *, rank: int, degree: int) -> Weights:
    """What one rank holds of whole weights, Paddle's way round.

    Raises:
        InputError: `degree` does not divide a weight.
    """
    return {name: split_tensor(name, tensor, rank=rank, degree=degree) for name, tensor in weights.items()}


def split_tensor(name: str, tensor: LazyTensor, *, rank: int, degree: int) -> LazyTensor:
    """What one rank holds of a tensor that is split as the weight `name` is.

    Raises:
        InputError: `degree` does not divide it.
    """
    if degree == 1:
        return tensor
    shape = part_shape(name, tensor.shape, degree=degree)
    return LazyTensor(shape, tensor.dtype, lambda: part_of_weight(name, tensor.load(), degree=degree, rank=rank))


def merge_weights(ranks: list[Weights], *, origin: object) -> Weights:
    """Whole weights of what the ranks hold, Paddle's way round.

    Args:
        origin: where they come from, for the message when the numbers turn out not to fit.

    Raises:
        InputError: the ranks hold other names, shapes or dtypes.
    """
    first = ranks[0]
    for rank, weights in enumerate(ranks):
        other = sorted(set(weights) ^ set(first))
        if other:
            raise InputError(f"rank {rank} holds other weights than rank 0: {', '.join(map(shown, other[:LISTED]))}")
    return {name: _merge(name, [weights[name] for weights in ranks], origin) for name in first}


def _merge(name: str, parts: list[LazyTensor], origin: object) -> LazyTensor:
    if len(parts) == 1:
        return parts[0]
    shape, dtype = parts[0].shape, parts[0].dtype
    for rank, part in enumerate(parts):
        if (part.shape, part.dtype) != (shape, dtype):
            raise InputError(
                f"{name}: {list(part.shape)} {part.dtype} on rank {rank}, {list(shape)} {dtype} on rank 0"
            )
    how = planned(name)
    if how is None or len(shape) <= how[0]:
        return LazyTensor(shape, dtype, lambda: _same_on_all(name, parts, origin))
    whole = tuple(size * len(parts) if axis == how[0] else size for axis, size in enumerate(shape))
    return LazyTensor(whole, dtype, lambda: merge_weight(name, [part.load() for part in parts]))


def _same_on_all(name: str, parts: list[LazyTensor], origin: object) -> np.ndarray:
    """The numbers of a weight that every rank holds whole."""
    first = parts[0].load()
    for rank, part in enumerate(parts[1:], start=1):
        if first.tobytes() != part.load().tobytes():
            raise InputError(
                f"{origin}: {name} has other numbers on rank {rank} than on rank 0; are the files of one step?"
            )
    return first


def head_by_head(weights: Mapping[str, LazyTensor], *, heads: int) -> Weights:
    """A rank's weights as PaddleNLP keeps them: the fused ones as q, k, v of one head after the other."""
    return _fused(weights, heads, lambda numbers: _axes_swapped(numbers, 3, heads))


def block_by_block(weights: Mapping[str, LazyTensor], *, heads: int) -> Weights:
    """The inverse of `head_by_head`: [its Q | its K | its V]."""
    return _fused(weights, heads, lambda numbers: _axes_swapped(numbers, heads, 3))


def _fused(weights: Mapping[str, LazyTensor], heads: int, order: Callable[[np.ndarray], np.ndarray]) -> Weights:
    def ordered(name: str, tensor: LazyTensor) -> LazyTensor:
        if f".{FUSED}." not in name or not tensor.shape:
            return tensor
        if tensor.shape[-1] % (3 * heads):
            raise InputError(f"{name}: {list(tensor.shape)} cannot be divided among {heads} heads")
        return LazyTensor(tensor.shape, tensor.dtype, lambda: order(tensor.load()))

    return {name: ordered(name, tensor) for name, tensor in weights.items()}


def _axes_swapped(numbers: np.ndarray, outer: int, inner: int) -> np.ndarray:
    """The last axis, `outer` groups of `inner` blocks, as `inner` groups of `outer` blocks."""
    *lead, width = numbers.shape
    blocks = numbers.reshape(*lead, outer, inner, width // (outer * inner))
    return blocks.swapaxes(-3, -2).reshape(*lead, width)
