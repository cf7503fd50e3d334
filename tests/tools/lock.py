"""Writes `requirements.lock` of what `uv pip compile --generate-hashes` found: python tests/tools/lock.py COMPILED."""

import re
import sys
from pathlib import Path

# PaddleNLP requires these, but nothing here imports them, and onnx 1.17.0, the version it works with, has a known
# advisory (CVE-2025-51480).
LEFT_OUT = ("onnx", "onnxoptimizer", "paddle2onnx")
HEAD = """\
# Exactly what `make setup` installs, with the SHA-256 of every file; pip verifies them. Made by `make lock`, without
# what nothing here imports: onnx, onnxoptimizer and paddle2onnx.
"""


def locked(compiled: str) -> str:
    """Makes the lock from a compiled list, package by package."""
    packages = re.split(r"(?m)^(?=[A-Za-z0-9])", compiled)[1:]
    return HEAD + "".join(text for text in packages if text.partition("==")[0] not in LEFT_OUT)


if __name__ == "__main__":
    sys.stdout.write(locked(Path(sys.argv[1]).read_text(encoding="utf-8")))
