"""Writes texts for records of several tasks that share a model, in common batches."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from glm.data.mixed_records import TASK
from glm.data.records import BadRecord, Record
from glm.data.tasks import GENERATE
from glm.generation.search import decode
from glm.models.protocol import Prompt
from glm.prediction.predictions import Cut, Prediction
from glm.prediction.writer import Writer


@dataclass(frozen=True)
class MixedWriter:
    """Writes texts for records of several tasks, each with its own options and frame.

    Args:
        writers: writer of each task, all with the same model; an empty name is for records of no task.
    """

    writers: Mapping[str, Writer]

    kind = GENERATE
    notes = ()

    def with_all_beams(self) -> "MixedWriter":
        """Returns a writer that keeps all hypotheses of a record."""
        return replace(self, writers={task: writer.with_all_beams() for task, writer in self.writers.items()})

    def predict(self, records: Mapping[int, Record | BadRecord]) -> Iterator[tuple[int, Prediction]]:
        """As `Writer.predict`; records of any task share batches if their options allow it."""
        own = {number: self.writers[task_of(record)] for number, record in records.items()}
        prompts: dict[int, Prompt] = {}
        cut: dict[int, Cut] = {}
        for task, writer in self.writers.items():
            of_task = {number: record for number, record in records.items() if task_of(record) == task}
            found, errors, lost = writer.lay_out(of_task)
            prompts, cut = prompts | found, cut | lost
            for number, error in errors.items():
                yield number, Prediction(records[number], [], error)
        groups: dict[tuple, list[int]] = {}
        for number in prompts:
            groups.setdefault(own[number].config.batch_options, []).append(number)
        for numbers in groups.values():
            yield from self._write(numbers, prompts, own, records, cut)

    def _write(self, numbers, prompts, own, records, cut) -> Iterator[tuple[int, Prediction]]:
        """Writes records whose options can share batches."""
        first = own[numbers[0]]
        found = decode(
            first.decoder(first.config),
            [prompts[number] for number in numbers],
            batch_size=first.batch_size,
            record_ids=numbers,
            configs=[own[number].config for number in numbers],
        )
        for place, hypotheses in found:
            number = numbers[place]
            texts = [own[number].finished(hypothesis) for hypothesis in hypotheses]
            yield number, Prediction(records[number], texts, cut=cut.get(number))


def task_of(record: Record | BadRecord) -> str:
    """Returns the name of a record's task; empty for none."""
    return record.kept.get(TASK, "") if isinstance(record, Record) else ""
