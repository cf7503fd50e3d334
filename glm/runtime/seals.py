"""Size and SHA-256 of a file, to find out later whether it has changed."""

import hashlib
import os
from pathlib import Path
from typing import Annotated

from pydantic import Field

from glm.runtime.settings_file import Settings


class FileSeal(Settings):
    """Size and SHA-256 of a file."""

    bytes: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


def seal(path: Path) -> FileSeal:
    """Computes the seal of a file.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        return FileSeal(bytes=size, sha256=hashlib.file_digest(file, "sha256").hexdigest())
