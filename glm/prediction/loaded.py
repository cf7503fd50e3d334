"""A model in three lines of Python: `model = glm.load("runs/demo")`, then `model.generate(records, num_beams=5)`.

Options have the names, defaults and checks of `predict.py`, and texts are the same as the script's.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, overload

from paddle import nn

from glm.data.columns import RECOGNISED, ColumnOptions
from glm.data.formats import Row
from glm.data.records import BadRecord, Record, columns_of, record_or_bad
from glm.data.task_records import TaskRecord, reader_of
from glm.data.tasks import CHOOSE, EXTRACT, GENERATE
from glm.errors import InputError, UsageError
from glm.generation.config import GenerationConfig
from glm.options.predict import FILES_OPTIONS, SERVING_OPTIONS, PredictOptions, parse_predict_arguments
from glm.prediction.filling import fill
from glm.prediction.free_tasks import ANY_CHOICE, ANY_QUESTION, any_answerer, any_chooser, text_writer
from glm.prediction.predictions import Prediction, Text
from glm.prediction.setup import build_prediction_encoder, build_writer, writer_with
from glm.prediction.writer import Writer, predict
from glm.runtime.device import has_gpu, prepare

# Options that may differ from call to call; all others belong to the loaded model.
OF_A_CALL = {item.name for item in fields(GenerationConfig)} | {
    "prefix",
    "allowed_outputs_file",
    "per_device_eval_batch_size",
    "punctuation",
    "src_length",
}


@dataclass(frozen=True)
class Filled:
    """A text whose blanks are filled, or an error.

    Args:
        text: with its blanks.
        best: with the best text of each blank; empty if there is an error.
        blanks: the texts of each blank, best first.
    """

    text: str
    best: str
    blanks: list[list[Text]]
    error: str | None = None


@dataclass(frozen=True)
class Candidate:
    """A candidate of a choice, with its probability among all candidates."""

    label: str
    text: str
    probability: float
    score: float


@dataclass(frozen=True)
class Choice:
    """The choice made for a record, or an error.

    Args:
        best: label of the best candidate; empty if there is an error.
        candidates: in the order of the record.
    """

    best: str
    candidates: list[Candidate]
    error: str | None = None


@dataclass(frozen=True)
class Answer:
    """The answer to a question, or an error.

    Args:
        best: the answer's text; empty if there is an error.
        window: the part of the passage that it was found in.
    """

    best: str
    score: float | None
    window: str
    error: str | None = None


def load(name_or_path: str, **options: Any) -> "LoadedModel":
    """Loads a model to predict with.

    Args:
        name_or_path: a model folder of this toolkit or in another format, or a published name.
        options: those of `predict.py` by their names, as `decode_dtype="bfloat16"`; lengths, template and decoding are
            as the model was trained, if not given. `device` is a GPU where there is one.

    Raises:
        InputError: the folder holds no model, or it cannot be loaded.
        UsageError: an option is unknown, out of its range, or without effect here.
    """
    for name in {*FILES_OPTIONS, *SERVING_OPTIONS, "serve", "adapters"} & options.keys():
        raise UsageError(f"{name} {options[name]}: has no effect on a model that Python asks; leave it out")
    given = {"device": "gpu" if has_gpu() else "cpu", **options, "model_name_or_path": str(name_or_path)}
    parsed = _parsed(given)
    prepare(parsed.prediction.device)
    writer = build_writer(parsed, build_prediction_encoder(parsed), quiet=True)
    return LoadedModel(given, parsed, writer)


def _parsed(options: Mapping[str, Any]) -> PredictOptions:
    """Parses options as `predict.py` does, with the same messages."""
    return parse_predict_arguments([f"--{name}={value}" for name, value in options.items() if value is not None])


class LoadedModel:
    """A model ready to predict; see `load`. Only one thread at a time may use it.

    Args:
        given: the options that it was loaded with.
        options: the same, read.
        own: what its own task predicts with.
    """

    def __init__(self, given: Mapping[str, Any], options: PredictOptions, own: Any):
        self._given = dict(given)
        self._options = options
        self._own = own

    @property
    def network(self) -> nn.Layer:
        """The Paddle layer; on a CPU its weights are arranged for decoding."""
        return getattr(self._own, "writer", self._own).model

    @property
    def task(self) -> str:
        """The kind of the model's own task: `generate`, `choose` or `extract`."""
        return self._own.encoder.kind

    def generate(self, records: Iterable[Mapping[str, Any] | str], **options: Any) -> list[Prediction]:
        """Generates texts for records.

        Args:
            records: each a dict with the columns of a data file, or a text that is the source.
            options: options of decoding, as `num_beams=5`; those of `load` if not given.

        Returns:
            For each record `.texts`, best first, with `.text` and `.score`, and `.best`, the first one's text; where a
            record cannot be used `.error` says why, and there are no texts.

        Raises:
            InputError: the columns of the records are not recognised, or the model's task writes no texts.
            UsageError: an option is unknown, out of its range, or of the loaded model.
        """
        if self.task != GENERATE:
            raise UsageError(f"generate: the model's task is to {self.task}; use {self.task}")
        parsed = self._options_with(options)
        return predict(self._writer(parsed), self._records(records, parsed), progress=False)

    @overload
    def fill(self, texts: str, **options: Any) -> Filled: ...
    @overload
    def fill(self, texts: Sequence[str], **options: Any) -> list[Filled]: ...
    def fill(self, texts, **options):
        """Fills the blanks of a text, or of each of several, from left to right; one without a blank is continued.

        Args:
            options: options of decoding, see `generate`.

        Raises:
            UsageError: as `generate`, or the family fills no blanks.
        """
        several = [texts] if isinstance(texts, str) else list(texts)
        if not all(isinstance(text, str) for text in several):
            raise InputError("fill: texts are expected; records belong to generate")
        writer = self._writer(self._options_with(options, fill=""))
        rows = dict(fill(writer, dict(enumerate(several))))
        found = [_filled(rows[number]) for number in range(len(several))]
        return found[0] if isinstance(texts, str) else found

    def choose(self, records: Iterable[Mapping[str, Any]]) -> list[Choice]:
        """Chooses among candidates.

        Args:
            records: records of the model's task; for a model with another kind of task
                `{"inputs": text, "choices": candidates}`.

        Raises:
            InputError: a record is no dict, or the family cannot lay candidates out.
        """
        chooser = self._own if self.task == CHOOSE else any_chooser(text_writer(self._own, self._options.generation))
        columns = self._options.data.columns if chooser.encoder.task is not ANY_CHOICE else RECOGNISED
        return self._answered(chooser.encoder, columns, records, chooser.choose, _choice)

    def extract(self, records: Iterable[Mapping[str, Any]], *, language: str = "zh") -> list[Answer]:
        """Answers questions about passages, with a part of each.

        Args:
            records: records of the model's task; for a model with another kind of task
                `{"question": …, "context": …}`.
            language: language of such records, `zh` or `en`.

        Raises:
            InputError: as `choose`.
            UsageError: there is no such language.
        """
        if language not in ANY_QUESTION:
            raise UsageError(f"language {language}: use {' or '.join(ANY_QUESTION)}")
        own = self._own
        answerer = own if self.task == EXTRACT else any_answerer(text_writer(own, self._options.generation), language)
        return self._answered(answerer.encoder, self._options.data.columns, records, answerer.answer, _answer)

    # -- options and records

    def _options_with(self, options: Mapping[str, Any], **more: Any) -> PredictOptions:
        """Returns the options of a call."""
        for name, value in options.items():
            if name not in OF_A_CALL and hasattr(self._options.prediction, name):
                raise UsageError(f"{name} {value}: is of the loaded model; give it to glm.load")
        return _parsed({**self._given, **options, **more}) if options or more else self._options

    def _writer(self, options: PredictOptions) -> Writer:
        """Makes a writer of texts with these options."""
        if options is self._options:
            return self._own
        tokenizer = self._own.encoder.tokenizer
        return writer_with(self.network, options, build_prediction_encoder(options, tokenizer=tokenizer))

    def _records(self, values: Iterable[Any], options: PredictOptions) -> list[Record | BadRecord]:
        """Reads records as `predict.py` reads them from a file."""
        encoder, columns = self._own.encoder, options.data.columns
        names = columns.of("source") or (encoder.template.source_name,)
        dicts = [{names[0]: value} if isinstance(value, str) else value for value in _listed(values)]
        rows = [Row(number, f"record {number}", value) for number, value in enumerate(dicts, start=1)]
        if not rows:
            return []
        found = columns_of(rows, encoder.template, columns, name="records", need_target=False)
        return [record_or_bad(row, found, need_target=False, reserved=encoder.family.reserved) for row in rows]

    @staticmethod
    def _answered(encoder: Any, columns: ColumnOptions, values: Iterable[Any], ask: Callable, made: Callable) -> list:
        """Predicts for records with the task's predictor; returns rows in the records' order."""
        reader = reader_of(
            encoder.task,
            columns,
            pattern_id=encoder.pattern_id,
            need_label=False,
            reserved=encoder.family.reserved,
        )
        rows = [Row(number, f"record {number}", value) for number, value in enumerate(_listed(values), start=1)]
        records: list[TaskRecord | BadRecord] = [record for row in rows for record in reader.records(row)]
        found = dict(ask(dict(enumerate(records))))
        return [made(found[number]) for number in range(len(records))]


def _listed(records: Iterable[Any]) -> list[Any]:
    """Makes a list of records. Raises InputError for a single record, or for what is no record."""
    if isinstance(records, str | Mapping):
        raise InputError("records: a list of them is expected; put the one into brackets")
    found = list(records)
    for number, record in enumerate(found, start=1):
        if not isinstance(record, str | Mapping):
            raise InputError(f"record {number}: a dict or a text is expected, not {type(record).__name__}")
    return found


def _filled(row: Mapping[str, Any]) -> Filled:
    blanks = [[Text(found["text"], found["score"], []) for found in blank] for blank in row.get("blanks", ())]
    return Filled(row["text"], row.get("filled", ""), blanks, row.get("error"))


def _choice(row: Mapping[str, Any]) -> Choice:
    names = [item.name for item in fields(Candidate)]
    candidates = [Candidate(**{name: found[name] for name in names}) for found in row.get("candidates", ())]
    return Choice(row.get("prediction", ""), candidates, row.get("error"))


def _answer(row: Mapping[str, Any]) -> Answer:
    return Answer(row.get("prediction", ""), row.get("score"), row.get("window_text", ""), row.get("error"))
