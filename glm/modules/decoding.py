"""A loaded model made ready to decode, as fast as its device allows."""

import sys

import paddle
from paddle import nn

from glm.cpu.arrays import is_compiled_for, wait_actively
from glm.errors import InputError
from glm.modules.cache import LayerCache
from glm.modules.stack import Stack


def prepare_decoding(model: nn.Layer, dtype: str, device: str) -> None:
    """Makes a model ready to decode with products of a type: `float32`, `bfloat16`, `int8` (CPU) or `float16` (GPU).

    On a CPU weights are arranged for few rows, and the model can only decode from then on; attention and sums stay
    float32.

    Args:
        model: has `stacks` and a `head`; one that has no stacks decodes as it is.

    Raises:
        InputError: the processor has no such products, or a weight cannot be quantized.
    """
    model.eval()
    if device != "cpu":
        model.to(dtype=dtype)
        return
    # Here, because it loads Numba, which a GPU does without.
    from glm.cpu.panels import bfloat16_kernel, integer_kernel

    kernels = {"int8": integer_kernel(), "bfloat16": bfloat16_kernel(), "float32": "products"}
    if kernels[dtype] is None:
        needed = {"int8": "AVX2", "bfloat16": "AMX or AVX512_BF16"}[dtype]
        others = " or ".join(other for other, kernel in kernels.items() if kernel)
        raise InputError(f"decode_dtype {dtype}: this processor has no such products ({needed}); use {others}")
    wait_actively()  # the next product of a step comes at once
    if model.stacks:
        from glm.modules.arranged import arrange_weights

        for stack in model.stacks:
            stack.layer_cache = fastest_cache(stack)
        arrange_weights(model, dtype)


def prepare_adapters(model: nn.Layer, *, has_rows: bool) -> None:
    """Makes adapters ready that were put into a model which decodes already.

    Args:
        has_rows: whether rows of the word table came with them.
    """
    model.eval()
    if model.head.weight.dtype != paddle.float32:
        model.to(dtype=model.head.weight.dtype)
    for stack in model.stacks:
        if stack.compiled_blocks is not None:
            from glm.modules.arranged import arrange_adapters

            arrange_adapters(stack)
    if has_rows and model.head.arranged is not None:  # of some types it has a copy of the word table
        model.head.arranged = type(model.head.arranged)(model.head.weight, model.head.bias)


def report_compiling() -> None:
    """Says how many kernels were compiled so far, if some were, and how long that took."""
    if "glm.cpu.loops" in sys.modules:
        sys.modules["glm.cpu.loops"].NOTICE.report()


def fastest_cache(stack: Stack) -> type:
    """What keeps keys and values on a CPU: that of compiled attention, where it is for heads of their size."""
    if not is_compiled_for(stack.layers[0].attention.head_size):
        return LayerCache
    from glm.cpu.step_attention import CompiledLayerCache  # here for the same reason

    return CompiledLayerCache
