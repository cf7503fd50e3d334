"""Answers `POST /choose` and `POST /extract` without HTTP."""

from collections.abc import Sequence
from functools import cached_property, partial
from typing import Any

from glm.data.choices import ChoiceEncoder
from glm.data.columns import RECOGNISED, ColumnOptions
from glm.data.formats import Row
from glm.data.records import BadRecord
from glm.data.task_records import TaskRecord, reader_of
from glm.data.tasks import CHOOSE, EXTRACT, GENERATE
from glm.data.windows import WindowEncoder
from glm.errors import InputError
from glm.prediction.answers import Answerer
from glm.prediction.choosing import Chooser
from glm.prediction.free_tasks import ANY_CHOICE, ANY_QUESTION, any_answerer, any_chooser
from glm.prediction.writer import Writer
from glm.serving.batcher import Batcher, Task
from glm.serving.bodies import Desk
from glm.serving.schemas import ChooseRequest, ExtractRequest

Json = dict[str, Any]


class TaskService:
    """Answers requests for choices and answers with one model.

    Args:
        own: what the model's own task predicts with; texts and questions of requests need no task.
        texts: writes texts with the same model.
        desk: lays records out.
        columns: the label's column, where the user names it.
    """

    def __init__(
        self, own: Writer | Chooser | Answerer, texts: Writer, batcher: Batcher, desk: Desk, columns: ColumnOptions
    ):
        self.own = own
        self.desk = desk
        self.batcher = batcher
        self.columns = columns
        self.texts = texts
        self.chooser = own if isinstance(own, Chooser) else None

    # Made on first use: a family that cannot lay them out still answers other requests.

    @cached_property
    def any_chooser(self) -> Chooser:
        """Chooses among the candidates of requests. Raises InputError if the family cannot lay them out."""
        return any_chooser(self.texts)

    @cached_property
    def answerers(self) -> dict[str, Answerer]:
        """Answerers of questions by language. Raises InputError if the family cannot lay them out."""
        if isinstance(self.own, Answerer):
            return dict.fromkeys(ANY_QUESTION, self.own)
        return {language: any_answerer(self.texts, language) for language in ANY_QUESTION}

    async def choose(self, request: ChooseRequest) -> Json:
        """Chooses; returns rows as `predict.py` writes them, with an error in the row of an unusable record.

        Raises:
            InputError: records were given, and the model's task is no choice among candidates; or the model's family
                cannot lay candidates out.
            QueueFullError, DecodingError: see `Batcher.run`.
        """
        if request.records is not None:
            if self.chooser is None:
                raise InputError("records: the model's task does not choose; give a text and candidates")
            chooser, values = self.chooser, request.records
        else:
            chooser = self.any_chooser
            values = [{"inputs": request.text, "choices": request.candidates}]
        self.batcher.check_room(len(values))
        records = await self._records(chooser.encoder, values)
        rows: dict[int, Json] = {}
        for start in range(0, len(records), chooser.batch_size):  # other requests get turns in between
            part = dict(list(records.items())[start : start + chooser.batch_size])
            rows |= await self.batcher.run(partial(_chosen, chooser, part), count=len(part))
        return {"rows": [rows[number] for number in range(len(records))]}

    async def extract(self, request: ExtractRequest) -> Json:
        """Answers questions; returns rows as `predict.py` writes them, with an error in the row of an unusable record.

        Raises:
            QueueFullError, DecodingError: see `Batcher.write`.
        """
        answerer = self.answerers[request.language]
        values = request.records or [{"question": request.question, "context": request.context}]
        self.batcher.check_room(len(values))
        records = await self._records(answerer.encoder, values)
        encoded, rows = {}, {}
        for usable, failed in await self.desk.map(lambda item: answerer.lay_out(dict([item])), [*records.items()]):
            encoded |= usable
            rows |= failed
        prompts, places = await self.desk.run(answerer.prompts, encoded)
        config = answerer.writer.config
        tasks = [Task(prompt, config, place) for prompt, place in zip(prompts, places, strict=True)]
        found: dict[int, dict[int, Any]] = {number: {} for number in encoded}
        for (number, place), hypotheses in zip(places, await self.batcher.write(tasks), strict=True):
            found[number][place] = hypotheses[0] if hypotheses else None
        rows |= {number: answerer.row(encoded[number], windows) for number, windows in found.items()}
        return {"rows": [rows[number] for number in range(len(records))]}

    async def _records(
        self, encoder: ChoiceEncoder | WindowEncoder, values: Sequence[Json]
    ) -> dict[int, TaskRecord | BadRecord]:
        reader = reader_of(
            encoder.task,
            self.columns if encoder.task is not ANY_CHOICE else RECOGNISED,
            pattern_id=encoder.pattern_id,
            need_label=False,
            reserved=encoder.family.reserved,
        )
        rows = [Row(number, f"record {number}", row) for number, row in enumerate(values, start=1)]
        found = await self.desk.map(lambda row: list(reader.records(row)), rows)
        return dict(enumerate(record for records in found for record in records))

    def settings(self) -> Json:
        """Returns what the page needs to know of the model's task: its kind, and the fields of a record of a
        choice."""
        if self.chooser is None:
            return {"kind": EXTRACT if isinstance(self.own, Answerer) else GENERATE, "fields": None}
        columns = getattr(self.chooser.encoder.task.read, "columns", None)
        words = self.chooser.encoder.pattern.labels
        return {"kind": CHOOSE, "fields": list(columns) if columns and words else None}


def _chosen(chooser: Chooser, records: dict[int, TaskRecord | BadRecord]) -> dict[int, Json]:
    return dict(chooser.choose(records))
