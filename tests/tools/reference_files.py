"""Golden numbers of the originals: the folder that has them, found by pattern; what it lacks is skipped and named.

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
    """The folder; None where neither variable names one."""
    if named := os.environ.get("GLM_REFERENCE"):
        return Path(named)
    real = os.environ.get("GLM_REAL_DATA")
    return Path(real) / "reference" if real else None


def reference_files(pattern: str) -> list[Any]:
    """The files that match, as parameters of a test; one that is skipped, and says why, if there are none."""
    root = reference_root()
    found = sorted(root.glob(pattern)) if root is not None else []
    if found:
        return [pytest.param(path, id=path.stem) for path in found]
    reason = UNSET if root is None else f"{root} has no {pattern}"
    return [pytest.param(None, id="none", marks=pytest.mark.skip(reason=reason))]


def reference_file(name: str) -> Path:
    """A file of the folder; the test is skipped if it is not there."""
    root = reference_root()
    if root is None:
        pytest.skip(UNSET)
    if not (root / name).is_file():
        pytest.skip(f"{root} has no {name}")
    return root / name


def reference_folder(name: str) -> Path:
    """The folder of a family's golden numbers; the test is skipped where there is none."""
    root = reference_root()
    if root is None:
        pytest.skip(UNSET)
    if not (root / name).is_dir():
        pytest.skip(f"{root} has no {name}")
    return root / name


def reference_paths(name: str, pattern: str) -> list[Path]:
    """The files of a family's folder that a pattern fits, at least one; the test is skipped where there is none."""
    folder = reference_folder(name)
    if not (found := sorted(folder.glob(pattern))):
        pytest.skip(f"{folder} has no {pattern}")
    return found


def reference_json(name: str, pattern: str) -> Any:
    """What is in the JSON file that a pattern fits."""
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
    """All tensors of a safetensors file, and its metadata."""
    with safe_open(path, "np") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}


def read_golden(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """As `reference_tensors`, each entry of the metadata read as JSON."""
    tensors, metadata = reference_tensors(path)
    return tensors, {name: json.loads(value) for name, value in metadata.items()}
