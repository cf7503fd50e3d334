"""What a device can do."""

import paddle


def count(device: str) -> int:
    """Devices of its kind over which a model can be split; of a CPU one."""
    return 1 if device == "cpu" else paddle.device.cuda.device_count()


def has_flashmask(device: str) -> bool:
    """Whether FlashMask runs there (FlashAttention 2's condition)."""
    return device != "cpu" and paddle.device.cuda.get_device_capability()[0] >= 8
