"""Writes a model's adapter as a run of one process does."""

from pathlib import Path

from paddle import nn

from glm.adapters.files import AdapterConfig, adapter_weights, write_adapter


def save_adapter(model: nn.Layer, config: AdapterConfig, folder: Path) -> None:
    """Writes the adapter's weights and configuration to a folder."""
    write_adapter({name: weight.numpy() for name, weight in adapter_weights(model).items()}, config, folder)
