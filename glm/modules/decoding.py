"""A loaded model made ready to decode, as fast as its device allows."""

from glm.cpu.arrays import HEAD_SIZE, wait_actively
from glm.errors import InputError
from glm.models.glm.configuration import GLMConfig
from glm.models.glm.modeling import GLMForConditionalGeneration
from glm.modules.cache import LayerCache


def prepare_decoding(model: GLMForConditionalGeneration, dtype: str, device: str) -> None:
    """Makes a model ready to decode with products of a type: `float32`, `bfloat16`, or on a GPU `float16`.

    On a CPU weights are arranged for few rows, and the model can only decode from then on; attention and sums stay
    float32.

    Raises:
        InputError: the processor has no bfloat16 products.
    """
    model.eval()
    if device != "cpu":
        model.to(dtype=dtype)
        return
    # Here, because it loads Numba, which a GPU does without.
    from glm.cpu.blocks import prepare_blocks
    from glm.cpu.tiles import has_tiles

    if dtype == "bfloat16" and not has_tiles():
        raise InputError("decode_dtype bfloat16: this processor has no bfloat16 products (AMX); use float32")
    wait_actively()  # the next product of a step comes at once
    model.glm.transformer.layer_cache = fastest_cache(model.config)
    prepare_blocks(model, dtype)


def fastest_cache(config: GLMConfig) -> type:
    """What keeps keys and values on a CPU: that of compiled attention, if heads have the size it is compiled for."""
    if config.hidden_size != config.num_attention_heads * HEAD_SIZE:
        return LayerCache
    from glm.cpu.step_attention import HostLayerCache  # here for the same reason

    return HostLayerCache
