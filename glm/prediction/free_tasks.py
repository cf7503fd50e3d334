"""Choices and answers from any model, whatever its own task: a text with candidates, a question about a passage."""

from dataclasses import replace
from typing import Any

from glm.data.choices import ChoiceEncoder
from glm.data.examples import ExampleEncoder
from glm.data.task_table import TASKS
from glm.data.tasks import CHOICE_FILE
from glm.data.templates import TEMPLATES
from glm.data.windows import WindowEncoder
from glm.prediction.answers import Answerer
from glm.prediction.choosing import Chooser
from glm.prediction.writer import Writer

ANY_CHOICE = replace(TASKS[CHOICE_FILE], name="choose", ends=True)  # of any text with candidates
ANY_QUESTION = {"zh": TASKS["cmrc2018"], "en": TASKS["squad"]}


def text_writer(own: Writer | Chooser | Answerer, generation: Any) -> Writer:
    """Returns a writer of texts with the model of a task of any kind."""
    if isinstance(own, Writer):
        return own
    if isinstance(own, Answerer):
        return own.writer
    encoder = own.encoder
    plain = ExampleEncoder(
        encoder.family,
        encoder.tokenizer,
        TEMPLATES["pair"],
        src_length=encoder.src_length,
        tgt_length=generation.tgt_length,
    )
    return Writer(own.model, plain, generation, own.batch_size)


def any_chooser(writer: Writer) -> Chooser:
    """Makes a chooser among candidates. Raises InputError if the family cannot lay them out."""
    encoder = ChoiceEncoder(writer.encoder.family, writer.encoder.tokenizer, ANY_CHOICE, **_lengths(writer))
    return Chooser(writer.model, encoder, writer.batch_size)


def any_answerer(writer: Writer, language: str) -> Answerer:
    """Makes an answerer of questions in a language, a key of `ANY_QUESTION`. Raises InputError as `any_chooser`."""
    encoder, task = writer.encoder, ANY_QUESTION[language]
    return Answerer(writer, WindowEncoder(encoder.family, encoder.tokenizer, task, **_lengths(writer)))


def _lengths(writer: Writer) -> dict[str, Any]:
    return {"src_length": writer.encoder.src_length, "tgt_length": writer.encoder.tgt_length}
