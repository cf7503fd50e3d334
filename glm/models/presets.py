"""The model configurations under `configs/model`, by path and by published name."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from glm.errors import InputError

_PACKAGE = Path(__file__).resolve().parents[1]
# In a checkout, or in an installed package (setup.py).
PRESET_FOLDER = next(
    (folder for parent in (_PACKAGE, _PACKAGE.parent) if (folder := parent / "configs" / "model").is_dir()),
    _PACKAGE.parent / "configs" / "model",
)


def published_presets(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Maps hub names of published models to configurations; ORGANISATION/NAME has `configs/model/NAME.json`."""
    files = {name: PRESET_FOLDER / f"{name.rpartition('/')[2]}.json" for name in names}
    return {name: json.loads(file.read_text(encoding="utf-8")) for name, file in files.items()}


def preset_file(name: str | Path) -> Path:
    """Returns a configuration file: the path itself, or the file of that name in `configs/model`.

    Raises:
        InputError: there is neither.
    """
    path = Path(name)
    path = path if path.is_file() else PRESET_FOLDER / path.name
    if not path.is_file():
        names = ", ".join(sorted(preset.name for preset in PRESET_FOLDER.glob("*.json")))
        raise InputError(f"model_name_or_path {path.name}: no such file, nor a preset ({names})")
    return path
