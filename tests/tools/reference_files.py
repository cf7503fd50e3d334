"""Golden numbers of the originals: the folder that has them, found by pattern; what it lacks is skipped and named.

The folder is that of the environment variable GLM_REFERENCE, else `reference/` in the folder of GLM_REAL_DATA.
"""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open


def reference_folder() -> Path | None:
    """The folder; None where neither variable names one."""
    if named := os.environ.get("GLM_REFERENCE"):
        return Path(named)
    real = os.environ.get("GLM_REAL_DATA")
    return Path(real) / "reference" if real else None


def reference_files(pattern: str) -> list[Any]:
    """The files that match, as parameters of a test; one that is skipped, and says why, if there are none."""
    folder = reference_folder()
    found = sorted(folder.glob(pattern)) if folder is not None else []
    if found:
        return [pytest.param(path, id=path.stem) for path in found]
    reason = "set GLM_REFERENCE to the folder of golden numbers" if folder is None else f"{folder} has no {pattern}"
    return [pytest.param(None, id="none", marks=pytest.mark.skip(reason=reason))]


def reference_file(name: str) -> Path:
    """A file of the folder; the test is skipped if it is not there."""
    folder = reference_folder()
    if folder is None:
        pytest.skip("set GLM_REFERENCE to the folder of golden numbers")
    if not (folder / name).is_file():
        pytest.skip(f"{folder} has no {name}")
    return folder / name


def read_golden(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The tensors of a safetensors file by name, and its metadata, each entry read as JSON."""
    with safe_open(path, "np") as file:
        metadata = {name: json.loads(value) for name, value in (file.metadata() or {}).items()}
        return {name: file.get_tensor(name) for name in file.keys()}, metadata
