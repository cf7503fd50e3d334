"""The registry of families, and how a model folder, configuration or tokenizer tells its family. Loads no Paddle."""

import importlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from glm.errors import InputError
from glm.models.presets import PRESET_FOLDER
from glm.models.protocol import Family
from glm.runtime.settings_file import read_object

# model_type -> the package that has its FAMILY
FAMILIES = {
    "glm": "glm.models.glm",
    "mglm": "glm.models.mglm",
    "mt5": "glm.models.mt5",
    "vlm": "glm.models.vlm",
    "unilm": "glm.models.unilm",
    "ganlm": "glm.models.ganlm",
}
FIRST = "glm"  # family of a configuration that names none, written before there were others
CONFIG_NAME = "config.json"


def find(name: str) -> Family:
    """Returns the family of this name.

    Raises:
        InputError: there is none.
    """
    if name not in FAMILIES:
        raise InputError(f"model_type {name!r:.60}: unknown; known are {', '.join(FAMILIES)}")
    return importlib.import_module(FAMILIES[name]).FAMILY


def families() -> list[Family]:
    """Returns all families."""
    return [find(name) for name in FAMILIES]


def recognise(
    config: Mapping[str, Any], names: Iterable[str] = (), *, origin: object, folder: Path | None = None
) -> Family:
    """Recognises the family of a model folder by the `model_type` of its configuration, else by the tokenizer in it,
    else by the names of its weights.

    Args:
        origin: where they come from, for messages.
        folder: the model folder.

    Raises:
        InputError: no family is meant, or more than one.
    """
    stated = config.get("model_type")
    if stated is not None:
        for family in families():
            if stated == family.name or stated in family.aliases:
                return family
        raise InputError(
            f"{origin}: {CONFIG_NAME} says model_type {stated!r:.60}, which is none of {', '.join(FAMILIES)}"
        )
    names = list(names)
    beside = _tokenizers_in(folder) if folder is not None else []
    if len(beside) == 1 and set(beside[0].weights.required) <= {beside[0].weights.ours(name)[0] for name in names}:
        return beside[0]
    found = [family for family in families() if names and family.weights.recognises(names)]
    if len(found) > 1:
        fitting = " and ".join(family.name for family in found)
        raise InputError(f"{origin}: its weights fit {fitting}; say which in {CONFIG_NAME} (model_type)")
    return found[0] if found else find(FIRST)


def of_model(name_or_path: str, *, names: Callable[[], Iterable[str]] | None = None) -> Family:
    """Returns the family of a model folder, a configuration file or a published name.

    Args:
        names: those of a folder's weights, asked for where neither its configuration nor a tokenizer in it tell.

    Raises:
        InputError: its configuration names a family that is not known; or a folder has neither a configuration nor a
            tokenizer, and its weights cannot be read or fit several families.
    """
    path = Path(name_or_path)
    for family in families():
        if name_or_path in family.published:
            return family
    file = path / CONFIG_NAME if path.is_dir() else path
    if file.suffix == ".json" and not file.is_file():
        file = PRESET_FOLDER / file.name
    config = _read(file) if file.suffix == ".json" and file.is_file() else {}
    if "model_type" in config:
        return recognise(config, origin=name_or_path)
    if names is not None and path.is_dir() and not _tokenizers_in(path):
        return recognise({}, names(), origin=name_or_path)
    return of_tokenizer(path)


def of_tokenizer(path: Path) -> Family:
    """Returns the family that opens a tokenizer's folder or file.

    Raises:
        InputError: a folder has the tokenizers of two.
    """
    found = _tokenizers_in(path)
    if len(found) > 1:
        listed = " and ".join(f"{family.tokenizer_files[0]} ({family.name})" for family in found)
        raise InputError(f"{path}: has {listed}; say which family it is in {CONFIG_NAME} (model_type)")
    return found[0] if found else find(FIRST)


def _tokenizers_in(path: Path) -> list[Family]:
    """Returns the families whose tokenizer is in a folder."""
    return [family for family in families() if path.is_dir() and (path / family.tokenizer_files[0]).is_file()]


def _read(path: Path) -> dict[str, Any]:
    """Reads a JSON object; returns an empty one for anything else, which raises when it is read for its content."""
    try:
        return read_object(path)
    except InputError:
        return {}
