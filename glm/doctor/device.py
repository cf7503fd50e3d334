"""The capabilities of a device."""

import paddle


def count(device: str) -> int:
    """Returns the number of such devices over which a model can be split; 1 for a CPU."""
    return 1 if device == "cpu" else paddle.device.cuda.device_count()


def has_flashmask(device: str) -> bool:
    """Whether FlashMask runs on the device (FlashAttention 2's condition)."""
    return device != "cpu" and paddle.device.cuda.get_device_capability()[0] >= 8
