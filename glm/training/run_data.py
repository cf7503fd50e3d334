"""Reads and checks a run's data before the model is loaded; every row is accounted for."""

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
from glm.data.mixture import NamedFile
from glm.data.published import fetch_records
from glm.data.records import BadRecord, Record
from glm.data.references import SharedReferences, shared_note
from glm.data.report import FileReport
from glm.data.store import (
    Examples,
    ExampleStore,
    JoinedExamples,
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
from glm.data.task_table import in_language
from glm.data.tasks import GENERATE
from glm.errors import InputError
from glm.models.protocol import NO_TASK
from glm.options.finetune import FinetuneArguments
from glm.prediction.output import json_line
from glm.prediction.setup import build_encoder
from glm.runtime.caches import user_cache
from glm.runtime.paths import published, published_values
from glm.training.tasks import number_of

COMPARING = ("cross_entropy", "hinge")  # losses that need a wrong candidate to compare with
REPORT_NAME = "data_report.json"
REFUSED_NAME = "refused-{split}.jsonl"


@dataclass(frozen=True)
class RecordSet:
    """The records of one file, with their encoder.

    Args:
        name: name of the data set; empty where there is one without.
    """

    name: str
    encoder: Encoder
    records: list[Record | BadRecord]


@dataclass
class RunData:
    """The data that a run learns from, is evaluated on, and predicts for.

    Args:
        train_examples: None if the run does not train.
        train_digest: SHA-256 of the file they are from; of several, by name.
        train_columns: its columns, as they are taken; of several, by name.
        train_templates: for several files their templates, by name.
        dev_sets: empty if it does not evaluate.
        test_sets: empty if it does not predict; refused rows are among them, for their lines of the predictions.
        reports: what the check of each file found, by split, or by `split/name`.
    """

    train_examples: Examples | None = None
    train_digest: str | dict[str, str] = ""
    train_columns: str | dict[str, str] = ""
    train_templates: dict[str, Any] = field(default_factory=dict)
    dev_sets: list[RecordSet] = field(default_factory=list)
    test_sets: list[RecordSet] = field(default_factory=list)
    reports: dict[str, FileReport] = field(default_factory=dict)

    @property
    def learns_full_width(self) -> bool:
        """Whether the targets of all training sets use full-width punctuation."""
        training = [report for split, report in self.reports.items() if split.partition("/")[0] == "train"]
        return bool(training) and all(report.full_width for report in training)

    def write(self, output_dir: Path) -> None:
        """Writes the reports, and each file's refused rows beside them."""
        output_dir.mkdir(parents=True, exist_ok=True)
        reports = {split: published_values(report.as_dict()) for split, report in self.reports.items()}
        text = json.dumps(reports, ensure_ascii=True, indent=2)
        (output_dir / REPORT_NAME).write_text(text + "\n", encoding="utf-8")
        for split, report in self.reports.items():
            if report.bad_rows:
                lines = b"".join(json_line(row | {"error": published(row["error"])}) for row in report.bad_rows)
                (output_dir / REFUSED_NAME.format(split=split.replace("/", "-"))).write_bytes(lines)


def read_run_data(arguments: FinetuneArguments, encoder: Encoder) -> RunData:
    """Reads and checks all files of a run, and reports what was found.

    Raises:
        InputError: a file cannot be used, or more than max_bad_records rows of it are refused.
    """
    training, data = arguments.training, RunData()
    stores = {}
    if training.do_train:
        stores = _read_training_sets(arguments, encoder, data)
    if training.do_eval:
        for split in _splits("dev", arguments, encoder):
            records = split.shared([item.record for item in split.items() if not isinstance(item, BadRecord)])
            for store in stores.values():
                split.check.compare(store.report.file, store.row_hashes)
            data.dev_sets.append(RecordSet(split.file.name, split.check.encoder, records))
            data.reports[split.title] = split.report()
    if training.do_predict:
        for split in _splits("test", arguments, encoder):
            records = [item if isinstance(item, BadRecord) else item.record for item in split.items()]
            data.test_sets.append(RecordSet(split.file.name, split.check.encoder, split.shared(records)))
            data.reports[split.title] = split.report()
    for report in data.reports.values():
        announce(report)
    return data


def first_records(arguments: FinetuneArguments, encoder: Encoder) -> list[Record]:
    """Returns the first usable training records, to show to people."""
    split = _Split("train", arguments.files.of_split("train")[0], arguments, encoder)
    return [item.record for item in islice(split.items(), 100) if not isinstance(item, BadRecord)]


def _read_training_sets(
    arguments: FinetuneArguments, encoder: Encoder, data: RunData
) -> dict[str, ExampleStore | TaskExamples]:
    """Encodes the training records, or takes them from the cache; notes what a run depends on of them.

    Raises:
        InputError: as `read_run_data`; or the sets are of tasks of unlike kinds.
    """
    splits = _splits("train", arguments, encoder)
    for split in splits:
        if split.check.encoder.kind != encoder.kind:
            raise InputError(
                f"train_file {split.file.name}: is a task that is to {split.check.encoder.kind}, and others are to "
                f"{encoder.kind}; train tasks of one kind together"
            )
    stores = {split.file.name: _read_examples(split, arguments.files.data_cache_dir) for split in splits}
    for store in stores.values():
        lone = store.lone if isinstance(store, TaskExamples) else None
        if lone is not None and arguments.training.loss_func in COMPARING:
            raise InputError(
                f"{lone}: has one candidate, and loss_func {arguments.training.loss_func} compares several; use "
                "--loss_func generative"
            )
    for split in splits:
        data.reports[split.title] = stores[split.file.name].report
    if len(splits) == 1:
        (split,), (data.train_examples,) = splits, stores.values()
        data.train_digest, data.train_columns = split.content, split.check.columns
        return stores
    data.train_examples = JoinedExamples(stores, arguments.files.shares([len(store) for store in stores.values()]))
    data.train_digest = {split.file.name: split.content for split in splits}
    data.train_columns = {split.file.name: split.check.columns for split in splits}
    data.train_templates = {split.file.name: split.check.encoder.described for split in splits}
    return stores


def _splits(name: str, arguments: FinetuneArguments, encoder: Encoder) -> list["_Split"]:
    return [_Split(name, file, arguments, encoder) for file in arguments.files.of_split(name)]


def _encoder_for(file: NamedFile, arguments: FinetuneArguments, encoder: Encoder) -> Encoder:
    """Returns the encoder of a set: as the others', but with its own task and language."""
    data = arguments.data_of(file)
    frame = in_language(data.find_template(encoder.family.templates), file.name)
    task = number_of(arguments, encoder.family, file)
    if frame == encoder.template and task == getattr(encoder, "task", NO_TASK):
        return encoder
    return build_encoder(
        encoder.family,
        encoder.tokenizer,
        data,
        arguments.generation,
        template=frame,
        allow_cut_targets=arguments.files.allow_cut_targets,
        objective=arguments.objective.of_geometry,
        task=task,
    )


def announce(report: FileReport) -> None:
    """Prints what was found in a file."""
    summary, *warnings = report.notices()
    logger.info(summary)
    for warning in warnings:
        logger.warning(warning)


def read_task_examples(split: "_Split", encoder: Encoder) -> TaskExamples:
    """Makes the training examples of a task that chooses or extracts.

    Raises:
        InputError: there is nothing to learn in the file.
    """
    items = [item for item in split.items() if not isinstance(item, BadRecord)]
    examples = TaskExamples(items, encoder, split.report(), split.check.row_hashes)
    if not len(examples):
        raise InputError(f"{split.check.name}: no window of it holds its answer, so there is nothing to learn")
    return examples


class _Split:
    """A file, or the published data set if none is given, with its check."""

    def __init__(self, name: str, file: NamedFile, arguments: FinetuneArguments, encoder: Encoder):
        self.file, self.title = file, f"{name}/{file.name}" if file.name else name
        files, data = arguments.files, arguments.data_of(file)
        most = {"train": files.max_train_samples, "test": files.max_predict_samples}.get(name)
        encoder = _encoder_for(file, arguments, encoder)
        if file.path is None:
            task = data.task_name
            records = fetch_records(task, name, encoder.template, encoder.family.reserved)[:most]
            self.content = hashlib.sha256(repr(records).encode()).hexdigest()
            self.most_refused = math.inf  # the user cannot correct a published data set
            self.check = FileCheck(encoder, name=f"{task} {name}", is_training=name == "train")
            self._batches = check_records(records, self.check)
        else:
            records = open_records(
                file.path,
                encoder.template,
                data.columns,
                need_target=name != "test",
                several_targets=name != "train",
                most=most,
                reserved=encoder.family.reserved,
                pattern_id=encoder.pattern_id,
            )
            self.content = content_digest(records.path)
            if most is not None:
                self.content = hashlib.sha256(f"{self.content} first {most}".encode()).hexdigest()
            self.most_refused = arguments.files.max_bad_records
            self.check, self._batches = check_file(
                records,
                encoder,
                learns_targets=name != "test",
                is_training=name == "train",
                most_refused=self.most_refused,
            )

    def items(self) -> Iterator[Any]:
        """Yields all rows; the check is complete after the last."""
        return chain.from_iterable(self._batches)

    def shared(self, records: list[Record | BadRecord]) -> list[Record | BadRecord]:
        """Returns records to be scored, each with the targets of all records with the same source."""
        if self.check.encoder.kind != GENERATE:
            return records
        found = SharedReferences(lambda: records)
        if found.count:
            self.check.notes.append(f"{self.check.name}: {shared_note(found.count)}")
        return list(map(found.given_to, records))

    def report(self) -> FileReport:
        """Returns the check's report. Raises InputError if more rows were refused than allowed."""
        report = self.check.report()
        report.require(self.most_refused)
        return report


def _read_examples(split: _Split, cache_folder: str | None) -> ExampleStore | TaskExamples:
    """Encodes the training examples, or takes them from the cache; other tasks' examples stay in memory."""
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
