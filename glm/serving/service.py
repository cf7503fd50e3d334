"""Answers the API's requests without HTTP: turns them into the batcher's tasks, and hypotheses into answers."""

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from glm.data.columns import RECOGNISED, ColumnOptions
from glm.data.formats import Row
from glm.data.records import BadRecord, Record, columns_of, record_or_bad
from glm.errors import InputError, shown
from glm.generation.config import GenerationConfig
from glm.models.protocol import Prompt
from glm.options.run_config import trained_with
from glm.prediction.filling import as_row, lay_out_all
from glm.prediction.predictions import Cut, Prediction
from glm.prediction.writer import Writer
from glm.serving.batcher import Batcher, Task
from glm.serving.bodies import Desk
from glm.serving.completions import Completions, check_length
from glm.serving.schemas import GenerateRequest
from glm.serving.status import Status
from glm.serving.tasks import TaskService

Json = dict[str, Any]


class Service:
    """Answers requests with one model.

    Args:
        name: name of the model.
        columns: which fields of a record are what, where the user says so.
        command: arguments of `predict.py` for the same texts, but for the options of decoding.
        own: what the model's own task predicts with, where it writes no texts.
        tasks: what answers with the model's adapters, by task; all share the batcher. Others may come, and go.
    """

    def __init__(
        self,
        name: str,
        writer: Writer,
        batcher: Batcher,
        columns: ColumnOptions,
        command: Sequence[str] = (),
        own: Any = None,
        tasks: dict[str, "Service"] | None = None,
    ):
        self.of_tasks = {} if tasks is None else tasks
        self.name = name
        self.command = command
        self.writer = writer
        self.batcher = batcher
        self.columns = columns if own is None else RECOGNISED
        self.own = own
        self.desk = Desk("layout")
        self.tasks = TaskService(own or writer, writer, batcher, self.desk, columns)
        self.completions = Completions(name, writer, batcher, self.desk, self.columns, writes=own is None)
        self.started = int(time.time())

    def of(self, task: str | None) -> "Service":
        """Returns what answers for a task; None is the model's own.

        Raises:
            InputError: no adapter is loaded for it.
        """
        if task is None or task == self.name:
            return self
        if task not in self.of_tasks:
            raise InputError(f"task {shown(task)}: is not loaded; loaded are {self.names_of_tasks}")
        return self.of_tasks[task]

    @property
    def names_of_tasks(self) -> str:
        """The tasks of adapters in words."""
        return ", ".join(self.of_tasks) or "none"

    # -- records and blanks

    async def generate(self, request: GenerateRequest) -> Json:
        """Generates rows as `predict.py` writes them; an unusable record or text has an error in its row.

        Raises:
            InputError: the options cannot be used, or the fields of the records are not recognised.
            QueueFullError, DecodingError: see `Batcher.write`.
        """
        if request.records is not None and self.own is not None:
            raise InputError("records: the model's task writes no texts; POST them to /choose or /extract")
        family = self.writer.encoder.family
        if request.texts is not None and not family.blanks:
            raise InputError(
                f"texts: {family.title} has no blanks to fill; POST records, or a prompt to /v1/completions"
            )
        config = request.config(self.writer.config)
        check_length(self.writer, "tgt_length", config.tgt_length)
        self.batcher.check_room(len(request.records or request.texts))
        if request.texts is not None:
            return {"rows": await self._fill(request.texts, config, token_scores=request.token_scores)}
        return {"rows": await self._answer(request.records, config, token_scores=request.token_scores)}

    async def _answer(self, values: list[Json], config: GenerationConfig, *, token_scores: bool) -> list[Json]:
        template = self.writer.encoder.template
        rows = [Row(number, f"record {number}", row) for number, row in enumerate(values, start=1)]
        columns = columns_of(rows, template, self.columns, name="records", need_target=False)
        reserved = self.writer.encoder.family.reserved

        def laid_out(numbered: tuple[int, Json]) -> tuple[Record | BadRecord, Prompt | None, str | None, Cut | None]:
            number, _ = numbered
            record = record_or_bad(rows[number], columns, need_target=False, reserved=reserved)
            prompts, errors, cut = self.writer.lay_out({number: record})
            return record, prompts.get(number), errors.get(number), cut.get(number)

        found = await self.desk.map(laid_out, list(enumerate(values)))
        prompts = {number: prompt for number, (_, prompt, *_) in enumerate(found) if prompt is not None}
        written = await self.batcher.write([Task(prompt, config, number) for number, prompt in prompts.items()])
        hypotheses = dict(zip(prompts, written, strict=True))

        def row_of(number: int) -> Json:
            record, _, error, cut = found[number]
            texts = [self.writer.finished(hypothesis) for hypothesis in hypotheses.get(number, [])]
            return Prediction(record, texts, error, cut).as_row(token_scores=token_scores)

        return await self.desk.map(row_of, range(len(values)))

    async def _fill(self, texts: list[str], config: GenerationConfig, *, token_scores: bool) -> list[Json]:
        """Fills first blanks together, then second ones, and so on, so that each blank sees those before it."""
        unfinished, rows = {}, {}
        for usable, bad in await self.desk.map(
            lambda item: lay_out_all(self.writer, dict([item])), [*enumerate(texts)]
        ):
            unfinished |= usable
            rows |= bad
        blank = 0
        while unfinished:
            prompts = await self.desk.map(lambda text: text.prompt(self.writer), list(unfinished.values()))
            tasks = [Task(prompt, config, (n, blank)) for n, prompt in zip(unfinished, prompts, strict=True)]
            for text, hypotheses in zip(unfinished.values(), await self.batcher.write(tasks), strict=True):
                text.filled.append(hypotheses)
            full = [(number, text) for number, text in unfinished.items() if text.is_full]
            for row in await self.desk.map(lambda item: as_row(self.writer, *item, token_scores=token_scores), full):
                rows[row["id"] - 1] = row
            unfinished = {number: text for number, text in unfinished.items() if not text.is_full}
            blank += 1
        return [rows[number] for number in range(len(texts))]

    # -- about the model

    def status(self) -> Status:
        """Returns the server's status."""
        return Status(**self.batcher.load, is_alive=self.batcher.is_alive)

    def settings(self) -> Json:
        """Returns what the page needs: the fields of a record, the options, and the equivalent command."""
        defaults = asdict(GenerationConfig())
        trained = {name: value for name, value in trained_with(self.name).items() if name in defaults}
        return {
            "model": self.name,
            **self.form(),
            "checkpoint": defaults | trained,
            "defaults": defaults,
            "command": self.command,
            "task": self.tasks.settings(),
            "adapters": {name: own.form() for name, own in self.of_tasks.items()},
        }

    def form(self) -> Json:
        """Returns the fields of a record, and the options that its texts are written with."""
        template = self.writer.encoder.template
        fields = {"source": self.columns.of("source") or (template.source_name,), "extras": template.extra_names}
        if template.needs_answer:
            fields["answer"] = self.columns.of("answer") or ("answer",)
        return {"fields": fields, "options": asdict(self.writer.config)}

    def model(self, name: str) -> Json:
        """Describes the model, or a task of its adapters, as OpenAI's API does."""
        model = {"id": name, "object": "model", "created": self.started, "owned_by": "glm"}
        return model if name == self.name else model | {"parent": self.name}

    def models(self) -> Json:
        """Lists the model and the tasks of its adapters, as OpenAI's API does."""
        return {"object": "list", "data": [self.model(name) for name in (self.name, *self.of_tasks)]}
