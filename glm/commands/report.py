"""`python -m glm report FILE`: makes a page from a file of predictions, without loading a model."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from glm.commands.parser import Parser
from glm.errors import InputError


def main(argv: list[str]) -> int:
    """Reads, scores, writes."""
    arguments = _parser().parse_args(argv)
    from glm.evaluation.task_file import kind_of_file
    from glm.report.files import REPORT_PAGE

    file = Path(arguments.file)
    folder = file.with_name(f"{file.stem}.report") if arguments.output_dir is None else Path(arguments.output_dir)
    if any(path.exists() and not path.is_dir() for path in (folder, *folder.parents)):
        raise InputError(f"output_dir {folder}: is a file or lies in one; give a folder")
    if (folder / REPORT_PAGE).exists() and not arguments.overwrite_output:
        raise InputError(f"output_dir {folder}: holds {REPORT_PAGE}; choose another folder, or add --overwrite_output")
    kind = kind_of_file(file)
    page = _write_texts(file, folder, argv) if kind is None else _write_task(file, folder, argv)
    print(f"report: {page}", file=sys.stderr)
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog="python -m glm report",
        description="Makes a page of a file of predictions: figures, samples beside their references, all rows. Takes "
        "what `score` takes, and rows without reference.",
    )
    parser.add_argument("file", help="one JSON object per line")
    parser.add_argument("--output_dir", metavar="DIR", help="folder for the page; beside the file if left out")
    parser.add_argument("--overwrite_output", action="store_true", help="replace an existing page")
    return parser


def _write_texts(file: Path, folder: Path, argv: list[str]) -> Path:
    from glm.evaluation.metrics import Scorer
    from glm.evaluation.scored_file import references_of, rows_of_predictions
    from glm.evaluation.statistics import Pair
    from glm.report.page import write_report
    from glm.report.rows import ReportRows

    rows, scorer, scored = ReportRows(), Scorer(), 0
    for row in _with_progress(rows_of_predictions(file)):
        rows.add(row)
        if references := references_of(row):
            best = row["predictions"][0]["text"] if row["predictions"] else ""
            scorer.add([Pair(best, references, row.get("source"), row.get("answer"))])
            scored += 1
    return write_report(folder, rows, scorer.result() if scored else None, **_origin(file, argv))


def _write_task(file: Path, folder: Path, argv: list[str]) -> Path:
    from glm.evaluation.task_file import read_task_file
    from glm.report.task_page import TaskRows, write_task_report

    found = read_task_file(file)
    rows = TaskRows(found.reference)
    for row in found.rows.values():
        rows.add(row)
    return write_task_report(folder, rows, found.score() if found.scored else None, **_origin(file, argv))


def _with_progress(rows: Iterable[dict[str, Any]]) -> Iterable[dict[str, Any]]:
    from tqdm import tqdm

    return tqdm(rows, desc="reading", unit="row", disable=None, leave=False)


def _origin(file: Path, argv: list[str]) -> dict[str, Any]:
    """Returns title and provenance of the page, and the log of the training run behind the predictions, if it
    exists."""
    from glm.report.curves import read_log
    from glm.report.files import METRICS_NAME
    from glm.report.provenance import Provenance, command_of
    from glm.runtime.paths import published

    settings = {"file": published(str(file))}
    return {
        "provenance": Provenance(command_of("report", argv), settings, "cpu"),
        "title": published(f"Predictions in {file}"),
        "log": read_log(file.parent / METRICS_NAME),
    }
