"""Published data sets, fetched by PaddleNLP where there is a network."""

from glm.data.records import Record, record_of_row
from glm.errors import InputError


def fetch_records(task_name: str, split: str) -> list[Record]:
    """The records of a split (`train`, `dev`) of PaddleNLP's data set of that name.

    A record without passage, answer or question is left out, with a message: one row of DuReaderQG's dev set has none.

    Raises:
        InputError: the data set could not be fetched.
    """
    from paddlenlp.datasets import load_dataset
    from paddlenlp.utils.log import logger

    try:
        rows = list(load_dataset(task_name, splits=split))
    except Exception as error:  # whatever stops the download, the advice is the same
        raise InputError(
            f"task_name {task_name}: the data set could not be fetched ({type(error).__name__}: {error}); "
            "give files of your own with --train_file and --dev_file"
        ) from error
    records = []
    for number, row in enumerate(rows, start=1):
        try:
            records.append(
                record_of_row(row, origin=f"{task_name} {split}, row {number}", number=number, need_question=True)
            )
        except InputError as error:
            logger.warning(f"left out: {error}")
    return records
