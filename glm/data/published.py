"""Fetches published data sets with PaddleNLP."""

from collections.abc import Sequence

from glm.data.columns import RECOGNISED
from glm.data.formats import Row
from glm.data.records import BadRecord, Record, columns_of, record_or_bad
from glm.data.templates import Template
from glm.errors import InputError

PUBLISHED_DATA = ("dureader_qg",)


def fetch_records(
    task_name: str, split: str, template: Template, reserved: Sequence[str] = ()
) -> list[Record | BadRecord]:
    """Fetches the records of a split (`train`, `dev`) of PaddleNLP's data set of that name.

    One row of DuReaderQG's dev set has an empty answer; it becomes a `BadRecord`.

    Raises:
        InputError: there is no such data set, or it could not be fetched.
    """
    from paddlenlp.datasets import load_dataset

    advice = "give files of your own with --train_file and --dev_file"
    if task_name not in PUBLISHED_DATA:
        raise InputError(f"task_name {task_name}: no data set can be fetched by this name; {advice}")
    try:
        values = list(load_dataset(task_name, splits=split))
    except Exception as error:  # whatever the reason, the advice is the same
        raise InputError(
            f"task_name {task_name}: the data set could not be fetched ({type(error).__name__}: {error}); {advice}"
        ) from error
    name = f"{task_name} {split}"
    rows = [Row(number, f"{name}, row {number}", row) for number, row in enumerate(values, start=1)]
    columns = columns_of(rows, template, RECOGNISED, name=name, need_target=True)
    return [record_or_bad(row, columns, need_target=True, reserved=reserved) for row in rows]
