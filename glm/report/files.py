"""File names of runs and reports, and how the files are written."""

import os
from pathlib import Path

METRICS_NAME = "metrics.jsonl"
REPORT_PAGE = "report.html"
TRAINING_PAGE = "training.html"
CARD_NAME = "README.md"
PLOTS_FOLDER = "plots"


def write_file(path: Path, content: bytes) -> None:
    """Writes a file under a temporary name and renames it, so that readers never see half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    new.write_bytes(content)
    os.replace(new, path)
