"""The configuration that a run leaves in its folder, and what prediction and checks take from it."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import yaml

from glm.errors import UsageError
from glm.generation.config import GenerationConfig
from glm.options.data import DataArguments

RUN_CONFIG_NAME = "finetune_config.json"
CONFIG_SUFFIXES = (".json", ".yaml", ".yml")


def read_config(path: Path) -> dict[str, Any]:
    """The options of a configuration file, JSON or YAML; keys that start with an underscore are notes.

    Values of YAML stay the words that they are written as: `no` and `1e-3` mean what they do on the command line.

    Raises:
        UsageError: the file cannot be read, is not an object, has a key twice, or sets an option to null.
    """
    is_yaml = path.suffix in (".yaml", ".yml")
    kind = "YAML" if is_yaml else "JSON"
    try:
        text = path.read_text(encoding="utf-8-sig")
        settings = yaml.load(text, Loader=_Words) if is_yaml else json.loads(text, object_pairs_hook=_once)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"{path}: cannot be read as {kind} ({reason})") from error
    if not isinstance(settings, dict):
        raise UsageError(f"{path}: {'names and values are' if is_yaml else 'a JSON object is'} expected")
    settings = {str(name): value for name, value in settings.items() if not str(name).startswith("_")}
    nulls = [name for name, value in settings.items() if value is None or (is_yaml and value in ("", "~", "null"))]
    if nulls:
        raise UsageError(*(f"{path}: {name} is null; leave it out to have its default" for name in nulls))
    return settings


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; ValueError if it has a key twice, of which the first would be lost."""
    names = [name for name, _ in pairs]
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise ValueError(f"{twice[0]} is set twice")
    return dict(pairs)


class _Words(yaml.BaseLoader):
    """YAML without types: no object is ever made of it, and a scalar is the text that it is written as."""

    def construct_mapping(self, node, deep=False):
        return _once(
            [(self.construct_object(key), self.construct_object(value, deep=True)) for key, value in node.value]
        )


def trained_with(folder: str) -> dict[str, Any]:
    """The settings in a checkpoint's folder that prediction follows; none if it has no configuration."""
    path = Path(folder) / RUN_CONFIG_NAME
    if not path.is_file():
        return {}
    followed = {item.name for group in (DataArguments, GenerationConfig) for item in dataclasses.fields(group)}
    return {name: value for name, value in read_config(path).items() if name in followed}
