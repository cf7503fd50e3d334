"""The configurations under `configs/model`, by path and by published name."""

import json
from pathlib import Path
from typing import Any

from glm.errors import InputError

PRESET_FOLDER = Path(__file__).resolve().parents[2] / "configs" / "model"
HUB_ORGANISATION = "THUDM/"


def published_presets() -> dict[str, dict[str, Any]]:
    """The published configurations by hub name (`THUDM/glm-large-chinese`): the files of `configs/model/glm-*`."""
    return {
        HUB_ORGANISATION + path.stem: json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(PRESET_FOLDER.glob("glm-*.json"))
    }


def preset_file(name: str | Path) -> Path:
    """A configuration file, or the one of that name in `configs/model`.

    Raises:
        InputError: there is neither.
    """
    path = Path(name)
    path = path if path.is_file() else PRESET_FOLDER / path.name
    if not path.is_file():
        names = ", ".join(sorted(preset.name for preset in PRESET_FOLDER.glob("*.json")))
        raise InputError(f"model_name_or_path {path.name}: no such file, nor a preset ({names})")
    return path
