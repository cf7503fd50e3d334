"""The data of a training run: read and checked before the model is loaded, every row accounted for."""

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

from paddlenlp.utils.log import logger

from glm.data.check import FileCheck, check_file, check_records
from glm.data.frames import Encoder
from glm.data.published import fetch_records
from glm.data.records import BadRecord, Record
from glm.data.references import SharedReferences, shared_note
from glm.data.report import FileReport
from glm.data.store import (
    ExampleStore,
    content_digest,
    new_store,
    remove_store,
    store_name,
    verify_store,
    write_examples,
    write_report,
)
from glm.data.task_examples import TaskExamples
from glm.data.task_records import open_records
from glm.data.tasks import GENERATE
from glm.errors import InputError
from glm.options.finetune import FinetuneArguments
from glm.prediction.output import json_line
from glm.runtime.caches import user_cache
from glm.runtime.paths import published, published_values

REPORT_NAME = "data_report.json"
REFUSED_NAME = "refused-{split}.jsonl"


@dataclass
class RunData:
    """What a run learns from, is evaluated on, and predicts.

    Args:
        train_examples: None if the run does not train.
        train_digest: SHA-256 of the file they are from.
        train_columns: its columns, as they are taken.
        dev_records: empty if it does not evaluate.
        test_records: empty if it does not predict; refused rows are among them, for their lines of the predictions.
        reports: what the check of each split found.
    """

    train_examples: ExampleStore | TaskExamples | None = None
    train_digest: str = ""
    train_columns: str = ""
    dev_records: list[Record] = field(default_factory=list)
    test_records: list[Record | BadRecord] = field(default_factory=list)
    reports: dict[str, FileReport] = field(default_factory=dict)

    def write(self, output_dir: Path) -> None:
        """Writes the reports, and the refused rows of each split beside them."""
        output_dir.mkdir(parents=True, exist_ok=True)
        reports = {split: published_values(report.as_dict()) for split, report in self.reports.items()}
        text = json.dumps(reports, ensure_ascii=True, indent=2)
        (output_dir / REPORT_NAME).write_text(text + "\n", encoding="utf-8")
        for split, report in self.reports.items():
            if report.bad_rows:
                lines = b"".join(json_line(row | {"error": published(row["error"])}) for row in report.bad_rows)
                (output_dir / REFUSED_NAME.format(split=split)).write_bytes(lines)


def read_run_data(arguments: FinetuneArguments, encoder: Encoder) -> RunData:
    """Reads and checks all files of a run, and says what was found.

    Raises:
        InputError: a file cannot be used, or more than max_bad_records rows of it are refused.
    """
    training, files, data = arguments.training, arguments.files, RunData()
    if training.do_train:
        split = _Split("train", files.train_file, arguments, encoder)
        store = _read_examples(split, files.data_cache_dir)
        data.train_examples, data.train_digest, data.train_columns = store, split.content, split.check.columns
        data.reports["train"] = store.report
    if training.do_eval:
        split = _Split("dev", files.dev_file, arguments, encoder)
        data.dev_records = split.shared([item.record for item in split.items() if not isinstance(item, BadRecord)])
        if training.do_train:
            split.check.compare(store.report.file, store.row_hashes)
        data.reports["dev"] = split.report()
    if training.do_predict:
        split = _Split("test", files.test_file, arguments, encoder)
        records = [item if isinstance(item, BadRecord) else item.record for item in split.items()]
        data.test_records = split.shared(records)
        data.reports["test"] = split.report()
    for report in data.reports.values():
        announce(report)
    return data


def first_records(arguments: FinetuneArguments, encoder: Encoder) -> list[Record]:
    """The first usable training records, for people to look at."""
    split = _Split("train", arguments.files.train_file, arguments, encoder)
    return [item.record for item in islice(split.items(), 100) if not isinstance(item, BadRecord)]


def announce(report: FileReport) -> None:
    """Says what was found in a file."""
    summary, *warnings = report.notices()
    logger.info(summary)
    for warning in warnings:
        logger.warning(warning)


def read_task_examples(split: "_Split", encoder: Encoder) -> TaskExamples:
    """The training examples of a task that chooses or extracts.

    Raises:
        InputError: there is nothing to learn in the file.
    """
    items = [item for item in split.items() if not isinstance(item, BadRecord)]
    examples = TaskExamples(items, encoder, split.report(), split.check.row_hashes)
    if not len(examples):
        raise InputError(f"{split.check.name}: no window of it holds its answer, so there is nothing to learn")
    return examples


class _Split:
    """A file, or a published data set if none is given, and its check."""

    def __init__(self, name: str, path: str | None, arguments: FinetuneArguments, encoder: Encoder):
        files = arguments.files
        most = {"train": files.max_train_samples, "test": files.max_predict_samples}.get(name)
        if path is None:
            task = arguments.data.task_name
            records = fetch_records(task, name, encoder.template, encoder.family.reserved)[:most]
            self.content = hashlib.sha256(repr(records).encode()).hexdigest()
            self.most_refused = math.inf  # what is wrong in a published data set is not the user's to mend
            self.check = FileCheck(encoder, name=f"{task} {name}")
            self._batches = check_records(records, self.check)
        else:
            file = open_records(
                path,
                encoder.template,
                arguments.data.columns,
                need_target=name != "test",
                several_targets=name != "train",
                most=most,
                reserved=encoder.family.reserved,
                pattern_id=encoder.pattern_id,
            )
            self.content = content_digest(file.path)
            if most is not None:
                self.content = hashlib.sha256(f"{self.content} first {most}".encode()).hexdigest()
            self.most_refused = arguments.files.max_bad_records
            self.check, self._batches = check_file(
                file, encoder, learns_targets=name != "test", most_refused=self.most_refused
            )

    def items(self) -> Iterator[Any]:
        """All rows, one by one; with the last of them the check is done."""
        return chain.from_iterable(self._batches)

    def shared(self, records: list[Record | BadRecord]) -> list[Record | BadRecord]:
        """Records to be scored, each with the targets of all that have its source."""
        if self.check.encoder.kind != GENERATE:
            return records
        found = SharedReferences(lambda: records)
        if found.count:
            self.check.notes.append(f"{self.check.name}: {shared_note(found.count)}")
        return list(map(found.given_to, records))

    def report(self) -> FileReport:
        """What the check found. Raises InputError if more was refused than may be."""
        report = self.check.report()
        report.require(self.most_refused)
        return report


def _read_examples(split: _Split, cache_folder: str | None) -> ExampleStore | TaskExamples:
    """The training examples, encoded now or found whole in the cache; other tasks' stay in memory."""
    encoder = split.check.encoder
    if encoder.kind != GENERATE:
        return read_task_examples(split, encoder)
    folder = Path(cache_folder or user_cache()) / store_name(split.content, split.check)
    if folder.is_dir():
        try:
            verify_store(folder)
        except InputError as error:
            logger.warning(f"{error}; the examples are encoded anew")
            remove_store(folder)
    if not folder.is_dir():
        with new_store(folder) as aside:
            write_examples(aside, split.items(), encoder)
            write_report(aside, split.report(), split.check)
    store = ExampleStore(folder, encoder)
    store.report.require(split.most_refused)
    return store
