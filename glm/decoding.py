"""What makes a loaded model ready to decode on a device."""

from glm.cache import LayerCache
from glm.compiled import compile_products
from glm.configuration import GLMConfig
from glm.cpu import wait_actively
from glm.modeling import GLMForConditionalGeneration


def prepare_decoding(model: GLMForConditionalGeneration, dtype: str, device: str) -> None:
    """Makes a model ready to decode with products of a type: `float32`, `bfloat16`, or on a GPU `float16`.

    It can only decode from then on.

    Raises:
        InputError: the processor has no bfloat16 products.
    """
    model.eval()
    if device != "cpu":
        model.to(dtype=dtype)  # scores, softmax and log-probabilities are float32 all the same
        return
    wait_actively()  # the next product of a step comes at once
    model.glm.transformer.layer_cache = fastest_cache(model.config)
    if dtype == "float32":
        from glm.host_products import arrange_weights  # here, because it loads Numba, which training does without

        arrange_weights(model)
    else:
        compile_products(model)


def fastest_cache(config: GLMConfig) -> type:
    """What keeps keys and values on a CPU: that of compiled attention, if heads have the size it is compiled for."""
    from glm.host_attention import HEAD_SIZE, HostLayerCache  # here for the same reason

    return HostLayerCache if config.hidden_size == config.num_attention_heads * HEAD_SIZE else LayerCache
