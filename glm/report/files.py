"""Names of the files that runs and reports leave, and how they are written."""

import os
from pathlib import Path

METRICS_NAME = "metrics.jsonl"
REPORT_PAGE = "report.html"
TRAINING_PAGE = "training.html"
CARD_NAME = "README.md"
PLOTS_FOLDER = "plots"


def write_file(path: Path, content: bytes) -> None:
    """Writes a file aside and renames it, so that a reader never finds half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    new.write_bytes(content)
    os.replace(new, path)
