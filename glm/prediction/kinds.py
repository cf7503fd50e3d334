"""The kinds of task, and how each predicts and scores; used by training, `predict.py` and the server."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tqdm import tqdm

from glm.data.frames import Encoder
from glm.data.records import BadRecord, Record
from glm.data.tasks import CHOOSE, EXTRACT, GENERATE
from glm.evaluation.metrics import Scores
from glm.generation.config import GenerationConfig
from glm.prediction import answers, choosing, writer
from glm.prediction.answers import Answerer
from glm.prediction.choosing import Chooser
from glm.prediction.mixed import MixedWriter
from glm.prediction.writer import Writer


@dataclass(frozen=True)
class KindOfTask:
    """How records of a kind of task are predicted and scored.

    Args:
        predict: a writer and records by number -> (number, JSON object) in the order of finishing; a record that
            cannot be used has an `error`.
        score: rows without error and with what is right in them -> figures; raises ValueError if there are none.
        reference: the field of a row that says what is right.
    """

    predict: Callable[..., Iterator[tuple[int, dict[str, Any]]]]
    score: Callable[[Iterable[dict[str, Any]]], Scores]
    reference: str


KINDS = {
    GENERATE: KindOfTask(writer.predict_rows, writer.score, "reference"),
    CHOOSE: KindOfTask(choosing.predict, choosing.score, "reference"),
    EXTRACT: KindOfTask(answers.predict, answers.score, "references"),
}


def writer_of(
    model: Any,
    encoder: Encoder,
    generation: GenerationConfig,
    batch_size: int,
    *,
    length_penalty: float = 0.0,
    punctuation: str | None = None,
) -> Any:
    """Makes the predictor of the encoder's kind of task.

    Args:
        length_penalty: length penalty for candidates, see `Chooser`.
        punctuation: punctuation of generated texts, see `Writer`.
    """
    if encoder.kind == CHOOSE:
        return Chooser(model, encoder, batch_size, length_penalty)
    if encoder.kind == EXTRACT:
        return Answerer(Writer(model, encoder.base, generation, batch_size, punctuation=punctuation), encoder)
    return Writer(model, encoder, generation, batch_size, punctuation=punctuation)


def with_encoder(writer: Any, encoder: Encoder) -> Any:
    """Returns a predictor with the same model for records laid out by this encoder."""
    if isinstance(writer, Answerer):
        return Answerer(replace(writer.writer, encoder=encoder.base), encoder)
    if isinstance(writer, MixedWriter):  # each of a mixed writer's tasks has its own
        return writer
    return replace(writer, encoder=encoder)


def predicted_rows(
    writer: Any,
    kind: str,
    records: Sequence[Record | BadRecord],
    *,
    description: str = "predicting",
    progress: bool = True,
    all_beams: bool = True,
) -> list[dict[str, Any]]:
    """Returns the row of each record, in order; with `all_beams`, a task that generates returns all hypotheses."""
    writer = writer.with_all_beams() if kind == GENERATE and all_beams else writer
    found: dict[int, dict[str, Any]] = {}
    with tqdm(
        total=len(records), desc=description, unit="record", disable=None if progress else True, leave=False
    ) as bar:
        for number, row in KINDS[kind].predict(writer, dict(enumerate(records))):
            found[number] = row
            bar.update()
    return [found[number] for number in range(len(records))]
