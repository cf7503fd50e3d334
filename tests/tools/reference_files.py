"""Golden numbers that the originals' own code gave, where they are at hand: a folder named by GLM_REFERENCE,
by default `reference/` in the folder of GLM_REAL_DATA."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open


def reference_folder(name: str) -> Path:
    """The folder of a family's golden numbers; the test is skipped where there is none."""
    root = os.environ.get("GLM_REFERENCE")
    if not root and (data := os.environ.get("GLM_REAL_DATA")):
        root = str(Path(data) / "reference")
    if not root:
        pytest.skip("set GLM_REFERENCE to the folder that holds golden numbers")
    if not (Path(root) / name).is_dir():
        pytest.skip(f"{root} has no {name}")
    return Path(root) / name


def reference_files(name: str, pattern: str) -> list[Path]:
    """The files of a folder that a pattern fits, at least one; the test is skipped where there is none."""
    folder = reference_folder(name)
    if not (found := sorted(folder.glob(pattern))):
        pytest.skip(f"{folder} has no {pattern}")
    return found


def reference_json(name: str, pattern: str) -> Any:
    """What is in the JSON file that a pattern fits."""
    return json.loads(reference_files(name, pattern)[0].read_text(encoding="utf-8"))


def reference_tensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """All tensors of a safetensors file, and its metadata."""
    with safe_open(path, "np") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}
