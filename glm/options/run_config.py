"""The configuration that a run leaves in its folder, and what prediction and checks take from it."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from glm.errors import UsageError
from glm.generation.config import GenerationConfig
from glm.options.data import DataArguments

RUN_CONFIG_NAME = "finetune_config.json"


def read_config(path: Path) -> dict[str, Any]:
    """The options of a configuration file; keys that start with an underscore are notes.

    Raises:
        UsageError: the file cannot be read, is not a JSON object, or sets an option to null.
    """
    try:
        settings = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path}: cannot be read as JSON ({error})") from error
    if not isinstance(settings, dict):
        raise UsageError(f"{path}: a JSON object is expected")
    settings = {name: value for name, value in settings.items() if not name.startswith("_")}
    for name, value in settings.items():
        if value is None:
            raise UsageError(f"{path}: {name} is null; leave it out to have its default")
    return settings


def trained_with(folder: str) -> dict[str, Any]:
    """The settings in a checkpoint's folder that prediction follows; none if it has no configuration."""
    path = Path(folder) / RUN_CONFIG_NAME
    if not path.is_file():
        return {}
    followed = {item.name for group in (DataArguments, GenerationConfig) for item in dataclasses.fields(group)}
    return {name: value for name, value in read_config(path).items() if name in followed}
