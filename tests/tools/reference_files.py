"""Finds golden numbers of the originals by pattern; tests whose files are missing are skipped with a reason.

The folder is that of the environment variable GLM_REFERENCE, else `reference/` in the folder of GLM_REAL_DATA.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open

UNSET = "set GLM_REFERENCE to the folder of golden numbers"


def reference_root() -> Path | None:
    """Returns the folder; None where neither variable names one."""
    if named := os.environ.get("GLM_REFERENCE"):
        return Path(named)
    real = os.environ.get("GLM_REAL_DATA")
    return Path(real) / "reference" if real else None


def reference_files(pattern: str) -> list[Any]:
    """Returns matching files as parameters of a test; a single skipped one with the reason if there are none."""
    root = reference_root()
    found = sorted(root.glob(pattern)) if root is not None else []
    if found:
        return [pytest.param(path, id=path.stem) for path in found]
    reason = UNSET if root is None else f"{root} has no {pattern}"
    return [pytest.param(None, id="none", marks=pytest.mark.skip(reason=reason))]


def reference_file(name: str) -> Path:
    """Returns a file of the folder; skips the test if it is missing."""
    root = reference_root()
    if root is None:
        pytest.skip(UNSET)
    if not (root / name).is_file():
        pytest.skip(f"{root} has no {name}")
    return root / name


def reference_folder(name: str) -> Path:
    """Returns the folder of a family's golden numbers; skips the test if there is none."""
    root = reference_root()
    if root is None:
        pytest.skip(UNSET)
    if not (root / name).is_dir():
        pytest.skip(f"{root} has no {name}")
    return root / name


def reference_paths(name: str, pattern: str) -> list[Path]:
    """Returns the files of a family's folder that match a pattern, at least one; skips the test if there is none."""
    folder = reference_folder(name)
    if not (found := sorted(folder.glob(pattern))):
        pytest.skip(f"{folder} has no {pattern}")
    return found


def reference_json(name: str, pattern: str) -> Any:
    """Reads the JSON file that matches a pattern."""
    return json.loads(reference_paths(name, pattern)[0].read_text(encoding="utf-8"))


def entry_of(table: Mapping[str, Any], name: str, *, of: str) -> Any:
    """An entry of a file's table; the test is skipped if the file has none.

    Args:
        of: the file.
    """
    if name not in table:
        pytest.skip(f"{of} has no {name}")
    return table[name]


def reference_tensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Returns all tensors of a safetensors file, and its metadata."""
    with safe_open(path, "np") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}


def read_golden(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """As `reference_tensors`, with the metadata's entries parsed as JSON."""
    tensors, metadata = reference_tensors(path)
    return tensors, {name: json.loads(value) for name, value in metadata.items()}
