"""From records to generated text and its scores: what evaluation in training and `predict.py` share."""

import json
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from glm.arguments import DataArguments
from glm.configuration import GLMConfig
from glm.data.examples import ExampleEncoder
from glm.data.records import Record
from glm.data.templates import find_template
from glm.errors import InputError
from glm.evaluation.metrics import score
from glm.generation.config import GenerationConfig
from glm.generation.search import generate
from glm.modeling import GLMForConditionalGeneration
from glm.tokenization import GLMTokenizer


def build_encoder(tokenizer: GLMTokenizer, data: DataArguments, generation: GenerationConfig) -> ExampleEncoder:
    """How the records of a task are laid out."""
    return ExampleEncoder(
        tokenizer,
        find_template(data.task_name),
        src_length=data.src_length,
        tgt_length=generation.tgt_length,
        min_tgt_length=generation.min_tgt_length,
        block_position=not data.no_block_position,
    )


def check_positions(config: GLMConfig, data: DataArguments, generation: GenerationConfig) -> None:
    """Raises InputError if source and target together are longer than the model's positions."""
    length = data.src_length + generation.tgt_length
    if length > config.max_sequence_length:
        raise InputError(
            f"src_length {data.src_length} + tgt_length {generation.tgt_length} = {length}: the model has "
            f"{config.max_sequence_length} positions (max_sequence_length); shorten one of them"
        )


@dataclass(frozen=True)
class Prediction:
    """What was generated for a record: texts with their scores, best first."""

    record: Record
    texts: list[tuple[str, float]]

    @property
    def best(self) -> str:
        """The best text; empty if there is none."""
        return self.texts[0][0] if self.texts else ""

    def as_row(self) -> dict[str, Any]:
        """The JSON object of one line of a predictions file."""
        row = {
            "id": self.record.id,
            "source": self.record.context,
            "answer": self.record.answer,
            "predictions": [{"text": text, "score": round(value, 6)} for text, value in self.texts],
        }
        return row if self.record.question is None else row | {"reference": self.record.question}


def predict(
    model: GLMForConditionalGeneration,
    encoder: ExampleEncoder,
    records: Sequence[Record],
    config: GenerationConfig,
    *,
    batch_size: int,
    description: str = "generating",
    progress: bool = True,
) -> list[Prediction]:
    """Generates text for each record, in the order of the records.

    Records of like length are decoded together; what is generated for one depends on no other.

    Raises:
        InputError: a record does not fit into `src_length`.
    """
    model.eval()
    tokenizer = encoder.tokenizer
    sources = [encoder.source_ids(record) for record in records]
    order = sorted(range(len(records)), key=lambda index: -len(sources[index]))
    never = _never_generated(model, encoder)
    predictions: dict[int, Prediction] = {}
    with tqdm(total=len(records), desc=description, unit="record", disable=not progress, leave=False) as bar:
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            hypotheses = generate(
                model,
                encoder.prompts([sources[index] for index in batch]),
                config,
                eop_token_id=tokenizer.eop_token_id,
                banned_token_ids=never,
                record_ids=batch,
            )
            for index, found in zip(batch, hypotheses, strict=True):
                texts = [(tokenizer.decode_ids(hypothesis.tokens), hypothesis.score) for hypothesis in found]
                predictions[index] = Prediction(records[index], texts)
            bar.update(len(batch))
    return [predictions[index] for index in range(len(records))]


def _never_generated(model: GLMForConditionalGeneration, encoder: ExampleEncoder) -> list[int]:
    """Ids that are no text: unknown and control pieces, command tokens but `eop`, rows of padding, the model's own."""
    pieces = encoder.tokenizer.sp_model
    no_text = {piece for piece in range(len(pieces)) if pieces.is_unknown(piece) or pieces.is_control(piece)}
    no_text |= {*range(len(pieces), model.config.vocab_size), *model.config.bad_words_id}
    return sorted(no_text - {encoder.tokenizer.eop_token_id})


def score_predictions(predictions: Sequence[Prediction]) -> dict[str, float]:
    """Scores of the best texts against the references, see `glm.evaluation.metrics.score`.

    Both are compared in Unicode's NFKC form: GLM's tokenizer writes full-width punctuation half-width, and that is no
    error of the model.
    """

    def comparable(text: str) -> str:
        return unicodedata.normalize("NFKC", text)

    return score(
        [comparable(prediction.best) for prediction in predictions],
        [comparable(prediction.record.question) for prediction in predictions],
    )


def write_predictions(path: Path, predictions: Sequence[Prediction]) -> None:
    """Writes one JSON line per record."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for prediction in predictions:
            file.write(json.dumps(prediction.as_row(), ensure_ascii=False) + "\n")


def write_scores(path: Path, scores: dict[str, float]) -> None:
    """Writes figures as a JSON object."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(scores, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
