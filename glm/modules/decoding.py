"""Prepares a loaded model for decoding as fast as its device allows."""

import sys

import paddle
from paddle import nn

from glm.cpu.arrays import is_compiled_for, wait_actively
from glm.errors import InputError
from glm.modules.cache import LayerCache
from glm.modules.pending import fill_model
from glm.modules.stack import Stack


def prepare_decoding(model: nn.Layer, dtype: str, device: str) -> None:
    """Prepares a model for decoding with products in a type: `float32`, `bfloat16`, `int8` (CPU) or `float16` (GPU).

    On a CPU weights are arranged for few rows, and the model can only decode from then on; attention and sums stay
    float32.

    Args:
        model: has `stacks` and a `head`; one that has no stacks decodes as it is.

    Raises:
        InputError: the processor has no such products, or a weight cannot be quantized.
    """
    model.eval()
    if device != "cpu":
        fill_model(model)
        model.to(dtype=dtype)
        return
    # Imported here because it loads Numba, which a GPU does not need
    from glm.cpu.panels import bfloat16_kernel, integer_kernel

    kernels = {"int8": integer_kernel(), "bfloat16": bfloat16_kernel(), "float32": "products"}
    if kernels[dtype] is None:
        needed = {"int8": "AVX2", "bfloat16": "AMX or AVX512_BF16"}[dtype]
        others = " or ".join(other for other, kernel in kernels.items() if kernel)
        raise InputError(f"decode_dtype {dtype}: this processor has no such products ({needed}); use {others}")
    wait_actively()  # a step's products follow each other at once
    if model.stacks:
        from glm.modules.arranged import arrange_weights

        for stack in model.stacks:
            stack.layer_cache = fastest_cache(stack)
        arrange_weights(model, dtype)
    else:
        fill_model(model)


def prepare_adapters(model: nn.Layer, *, has_rows: bool) -> None:
    """Prepares adapters that were put into a model which decodes already.

    Args:
        has_rows: whether rows of the word embedding came with them.
    """
    model.eval()
    if model.head.weight.dtype != paddle.float32:
        model.to(dtype=model.head.weight.dtype)
    for stack in model.stacks:
        if stack.compiled_blocks is not None:
            from glm.modules.arranged import arrange_adapters

            arrange_adapters(stack)
    if has_rows and model.head.arranged is not None:  # in some types it has a copy of the embedding
        from glm.modules.arranged import arrange_head

        arrange_head(model, type(model.head.arranged))


def report_compiling() -> None:
    """Prints how many kernels were compiled since the last report, and how long that took."""
    if "glm.cpu.loops" in sys.modules:
        sys.modules["glm.cpu.loops"].NOTICE.report()


def fastest_cache(stack: Stack) -> type:
    """Returns the class of key/value caches for a CPU: compiled if heads of this size are."""
    if not is_compiled_for(stack.layers[0].attention.head_size):
        return LayerCache
    from glm.cpu.step_attention import CompiledLayerCache  # imported here for the same reason

    return CompiledLayerCache
