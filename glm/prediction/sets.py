"""The data sets of a prediction run, `--test_file NAME=PATH NAME=PATH`; each has rows, scores and a report."""

import copy
from dataclasses import replace
from pathlib import Path

from glm.data.mixture import NamedFile, named_files
from glm.data.task_table import TASKS
from glm.data.templates import TEMPLATES
from glm.errors import UsageError
from glm.options.predict import PredictOptions


def sets_of(options: PredictOptions) -> list[tuple[str, PredictOptions]]:
    """Returns each data set's name with the options it would have alone; a single set may have no name.

    What is written gets the set's name: `o.jsonl` is `o.zh.jsonl`, and a report lies in a folder of that name.

    Raises:
        UsageError: names cannot be told apart, or there is no file for the rows of several.
    """
    files = named_files("test_file", options.prediction.test_file)
    found = [(file.name, _of_set(options, file, has_others=len(files) > 1)) for file in files]
    if len(files) > 1 and options.prediction.output_file is None:
        names = ", ".join(file.name for file in files)
        raise UsageError(f"test_file {names}: several data sets need --output_file; each gets its own, by its name")
    return found


def _of_set(options: PredictOptions, file: NamedFile, *, has_others: bool) -> PredictOptions:
    prediction, data = copy.copy(options.prediction), copy.copy(options.data)
    prediction.test_file = file.path
    if has_others and prediction.output_file is not None:
        prediction.output_file = named_path(prediction.output_file, file.name)
    if has_others and prediction.report is not None:
        prediction.report = str(Path(prediction.report) / file.name)
    says_task = file.name in TASKS or file.name in TEMPLATES
    if says_task and not {"task_name", "template", "labels"} & {*options.given, *options.inherited}:
        data.task_name = file.name
    return replace(options, data=data, prediction=prediction)


def named_path(path: str, name: str) -> str:
    """Inserts a set's name into a file's: `o.zh.jsonl` for `o.jsonl`."""
    whole = Path(path)
    return str(whole.with_name(f"{whole.stem}.{name}{whole.suffix}"))
