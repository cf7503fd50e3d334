"""From records to generated text and its scores: what evaluation in training and `predict.py` share."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from tqdm import tqdm

from glm.checkpoint.loading import load_config, load_model, load_tokenizer
from glm.data.check import unknown_pieces
from glm.data.examples import ExampleEncoder
from glm.data.records import BadRecord, Record
from glm.data.templates import NO_TEMPLATE, Template
from glm.errors import InputError
from glm.evaluation.metrics import Scorer, Scores, score
from glm.evaluation.scored_file import references_of
from glm.evaluation.statistics import Pair
from glm.evaluation.symptoms import Symptoms
from glm.generation.config import GenerationConfig
from glm.generation.sampling import RecordId
from glm.generation.search import Decoder, Hypothesis, build_decoder, decode
from glm.models.glm.configuration import GLMConfig
from glm.models.glm.geometry import Prompt
from glm.models.glm.modeling import GLMForConditionalGeneration
from glm.models.glm.paddlenlp_tokenizer import GLMTokenizer
from glm.modules.decoding import prepare_decoding
from glm.options.data import DataArguments
from glm.options.predict import PredictOptions


def build_encoder(
    tokenizer: GLMTokenizer,
    data: DataArguments,
    generation: GenerationConfig,
    *,
    template: Template | None = None,
    allow_cut_targets: bool = False,
) -> ExampleEncoder:
    """How records are laid out: by the template of the options, if no other is given."""
    return ExampleEncoder(
        tokenizer,
        template or data.find_template(),
        src_length=data.src_length,
        tgt_length=generation.tgt_length,
        min_tgt_length=generation.min_tgt_length,
        block_position=not data.no_block_position,
        allow_cut_targets=allow_cut_targets,
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
class Text:
    """A generated text, its score, and the pieces it was made of with their log-probabilities (`eop` last).

    Args:
        at_limit: the length limit ended it: it has no `eop`.
    """

    text: str
    score: float
    token_scores: list[tuple[str, float]]
    at_limit: bool = False


@dataclass(frozen=True)
class Prediction:
    """What was generated for a record, best first; or why nothing was.

    Args:
        cut: tokens that its source lost.
    """

    record: Record | BadRecord
    texts: list[Text]
    error: str | None = None
    cut: int = 0

    @property
    def best(self) -> str:
        """The best text; empty if there is none."""
        return self.texts[0].text if self.texts else ""

    def as_row(self, *, token_scores: bool = False, most_texts: int | None = None) -> dict[str, Any]:
        """The JSON object of one line of a predictions file, with so many texts at most."""
        row: dict[str, Any] = {"id": self.record.id}
        if isinstance(self.record, Record):
            row["source"] = self.record.source
            if self.record.answer is not None:
                row["answer"] = self.record.answer
        if self.cut:
            row["cut"] = self.cut
        row["predictions"] = [
            text_row(text, token_scores=token_scores) | ({"finish_reason": "length"} if text.at_limit else {})
            for text in self.texts[:most_texts]
        ]
        if isinstance(self.record, Record) and self.record.references:
            one, *more = self.record.references
            row["reference"] = [one, *more] if more else one
        return row if self.error is None else row | {"error": self.error}


def text_row(text: Text, *, token_scores: bool) -> dict[str, Any]:
    """The JSON object of a generated text."""
    row: dict[str, Any] = {"text": text.text, "score": round(text.score, 6)}
    if token_scores:
        row["token_scores"] = [[piece, round(score, 6)] for piece, score in text.token_scores]
    return row


@dataclass(frozen=True)
class Writer:
    """Writes texts: a model with all that decoding needs to know.

    Args:
        prefix_ids: what every text starts with; given to the model, not generated.
        prefix: how that is written; as the tokenizer writes it if not given.
        allowed_outputs: if there are any, nothing but these (token ids, behind the prefix) is written.
    """

    model: GLMForConditionalGeneration
    encoder: ExampleEncoder
    config: GenerationConfig
    batch_size: int
    prefix_ids: Sequence[int] = ()
    allowed_outputs: Sequence[Sequence[int]] = ()
    prefix: str | None = None

    def with_all_beams(self) -> "Writer":
        """Writes the same, and returns all hypotheses of a record."""
        return replace(self, config=replace(self.config, num_return_sequences=self.config.num_beams))

    @cached_property
    def never(self) -> list[int]:
        """Ids that are no text: unknown and control pieces, command tokens but `eop`, padding, the model's own."""
        pieces = self.encoder.tokenizer.sp_model
        no_text = {piece for piece in range(len(pieces)) if pieces.is_unknown(piece) or pieces.is_control(piece)}
        no_text |= {*range(len(pieces), self.model.config.vocab_size), *self.model.config.bad_words_id}
        return sorted(no_text - {self.encoder.tokenizer.eop_token_id})

    @property
    def opening(self) -> str:
        """What every text starts with."""
        return self.encoder.tokenizer.decode_ids(self.prefix_ids) if self.prefix is None else self.prefix

    def decoder(self, config: GenerationConfig) -> Decoder:
        """A decoder with these options in place of the writer's own."""
        self.model.eval()
        return build_decoder(
            self.model,
            config,
            eop_token_id=self.encoder.tokenizer.eop_token_id,
            banned_token_ids=self.never,
            allowed_outputs=self.allowed_outputs,
        )

    def write(self, prompts: Sequence[Prompt], numbers: Sequence[RecordId]) -> Iterator[tuple[Any, list[Hypothesis]]]:
        """Generates for each prompt: (its number, hypotheses), in the order of finishing.

        Args:
            numbers: of the prompts' records; they choose the random streams.
        """
        decoder = self.decoder(self.config)
        for place, hypotheses in decode(decoder, prompts, batch_size=self.batch_size, record_ids=numbers):
            yield numbers[place], hypotheses

    def text(self, hypothesis: Hypothesis) -> Text:
        """A hypothesis as text, the prefix included."""
        tokenizer = self.encoder.tokenizer
        pieces = tokenizer.convert_ids_to_tokens([*hypothesis.tokens, tokenizer.eop_token_id])
        text = tokenizer.decode_ids([*self.prefix_ids, *hypothesis.tokens])
        return Text(
            self.opening + text.removeprefix(tokenizer.decode_ids(self.prefix_ids)),
            hypothesis.score,
            list(zip(pieces, hypothesis.token_scores, strict=False)),  # no eop in a text that was cut
            at_limit=len(hypothesis.token_scores) == len(hypothesis.tokens),
        )

    def lay_out(
        self, records: Mapping[int, Record | BadRecord]
    ) -> tuple[dict[int, Prompt], dict[int, str], dict[int, int]]:
        """By number: the prompts of records, why there is none for the others, and the tokens that sources lost."""
        usable = {number: record for number, record in records.items() if isinstance(record, Record)}
        encoded = dict(zip(usable, self.encoder.encode(list(usable.values())), strict=True))
        prompts, errors, cut = {}, {}, {}
        for number, record in records.items():
            try:
                if isinstance(record, BadRecord):
                    raise InputError(record.error)
                source_ids = self.encoder.lay_out_source(encoded[number])
                cut[number] = self.encoder.uncut_length(encoded[number]) - len(source_ids)
                prompts[number] = self.encoder.prompt(source_ids, self.prefix_ids)
            except InputError as error:
                errors[number] = str(error)
        return prompts, errors, cut

    def predict(self, records: Mapping[int, Record | BadRecord]) -> Iterator[tuple[int, Prediction]]:
        """Generates text for records by number, in the order of finishing; what is unusable comes first.

        Records of like length are decoded together; what is generated for one depends on no other.
        """
        prompts, errors, cut = self.lay_out(records)
        for number, error in errors.items():
            yield number, Prediction(records[number], [], error)
        for number, hypotheses in self.write(list(prompts.values()), list(prompts)):
            texts = [self.text(hypothesis) for hypothesis in hypotheses]
            yield number, Prediction(records[number], texts, cut=cut[number])


def build_prediction_encoder(options: PredictOptions) -> ExampleEncoder:
    """How the options of prediction lay out records, or texts with blanks. Raises InputError as `build_writer`."""
    tokenizer = load_tokenizer(options.model.tokenizer_name_or_path or options.model.model_name_or_path)
    template = NO_TEMPLATE if options.prediction.fills else None
    return build_encoder(tokenizer, options.data, options.generation, template=template)


def build_writer(options: PredictOptions, *, rank: int = 0) -> Writer:
    """The writer that the options ask for.

    Args:
        rank: of this process, among those that the model is split over.

    Raises:
        InputError: something cannot be loaded, or does not fit together.
    """
    model, generation, arguments = options.model, options.generation, options.prediction
    encoder = build_prediction_encoder(options)
    tokenizer = encoder.tokenizer
    ranks = {"tensor_parallel_degree": arguments.tensor_parallel_degree, "tensor_parallel_rank": rank}
    config = load_config(model.model_name_or_path, tokenizer, settings=ranks)
    check_positions(config, options.data, generation)
    prefix_ids = tokenizer.encode_text(arguments.prefix)
    if unknown := " ".join(unknown_pieces(encoder, arguments.prefix)):
        raise InputError(f"prefix {arguments.prefix}: the tokenizer has no piece for {unknown}; write it otherwise")
    most = generation.tgt_length - 1 - len(encoder.opening_ids) - len(prefix_ids)
    if most < max(generation.min_tgt_length, 1):
        raise InputError(
            f"prefix {arguments.prefix} ({len(prefix_ids)} tokens): leaves no room for min_tgt_length "
            f"{generation.min_tgt_length} tokens and eop in tgt_length {generation.tgt_length}; raise tgt_length"
        )
    allowed = []
    if arguments.allowed_outputs_file is not None:
        allowed = read_allowed_outputs(arguments.allowed_outputs_file, tokenizer, generation, most=most)
    glm = load_model(model.model_name_or_path, config)
    prepare_decoding(glm, arguments.decode_dtype, arguments.device)
    return Writer(
        glm, encoder, generation, arguments.per_device_eval_batch_size, prefix_ids, allowed, arguments.prefix
    )


def read_allowed_outputs(
    path: str, tokenizer: GLMTokenizer, generation: GenerationConfig, *, most: int
) -> list[list[int]]:
    """The ids of the outputs in a file, one per line.

    Args:
        most: most tokens of an output.

    Raises:
        InputError: the file cannot be read or has no output in it, or an output can never be generated; its line is
            named.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as UTF-8 text ({error})") from error
    outputs = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        ids = outputs[line.strip()] = tokenizer.encode_text(line.strip())
        n = generation.no_repeat_ngram_size
        grams = [tuple(ids[place : place + n]) for place in range(len(ids) - n + 1)] if n else []
        never = None
        if len(ids) > most:
            never = f"tgt_length {generation.tgt_length} leaves room for {most} tokens, it has {len(ids)}"
        elif len(ids) < generation.min_tgt_length:
            never = f"min_tgt_length {generation.min_tgt_length} forbids its {len(ids)} tokens"
        elif len(set(grams)) < len(grams):
            never = f"no_repeat_ngram_size {n} forbids what repeats in it; 0 allows all"
        elif tokenizer.unk_token_id in ids or any(tokenizer.sp_model.is_unknown(number) for number in ids):
            never = "the tokenizer has no pieces for all of it"
        if never:
            raise InputError(f"{path}, line {number}: {line.strip()} can never be generated: {never}")
    if not outputs:
        raise InputError(f"{path}: no output in it; one per line is expected")
    return list(outputs.values())


def predict_rows(
    writer: Writer, records: Mapping[int, Record | BadRecord], *, token_scores: bool = False
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Generates text for records by number: (number, JSON object) in the order of finishing."""
    for number, prediction in writer.predict(records):
        yield number, prediction.as_row(token_scores=token_scores)


def predict(
    writer: Writer,
    records: Sequence[Record | BadRecord],
    *,
    description: str = "generating",
    progress: bool = True,
) -> list[Prediction]:
    """Generates text for each record, in the order of the records; what is unusable has an error."""
    found: dict[int, Prediction] = {}
    with tqdm(
        total=len(records), desc=description, unit="record", disable=None if progress else True, leave=False
    ) as bar:
        for number, prediction in writer.predict(dict(enumerate(records))):
            found[number] = prediction
            bar.update()
    return [found[number] for number in range(len(records))]


def coverage(scored: int, records: int) -> str:
    """How many records have a reference, in words."""
    return f"{scored} of {records} records {'has' if scored == 1 else 'have'} a reference"


def score_predictions(predictions: Sequence[Prediction]) -> Scores:
    """Scores of the best texts against the references, see `glm.evaluation.metrics.score`."""
    return score(
        Pair(prediction.best, record.references, record.source, record.answer)
        for prediction in predictions
        for record in (prediction.record,)
    )


class Tally:
    """Counts and scores rows of a predictions file, in any order; none is kept.

    Attributes:
        rows, failed, scored: number of rows, of those that failed, and of those that have a reference.
        first_error: of the first row that failed.
        symptoms: what is wrong with the texts.
    """

    def __init__(self):
        self.rows = 0
        self.failed = 0
        self.first_error: str | None = None
        self.scored = 0
        self.symptoms = Symptoms()
        self._scorer = Scorer()

    def add(self, row: dict[str, Any]) -> None:
        """Takes a row in; one that failed is counted, not scored."""
        self.rows += 1
        self.symptoms.add_row(row)
        if "error" in row:
            self.failed += 1
            self.first_error = self.first_error or row["error"]
        elif "reference" in row:
            best = row["predictions"][0]["text"] if row["predictions"] else ""
            self._scorer.add([Pair(best, references_of(row), row.get("source"), row.get("answer"))])
            self.scored += 1

    def scores(self) -> Scores:
        """Scores of all rows, see `glm.evaluation.metrics.score`, and how many failed.

        Raises:
            InputError: every row failed, or none has a reference.
        """
        if self.failed == self.rows:
            raise InputError(f"all {self.rows} records failed, the first with: {self.first_error}")
        if not self.scored:
            raise InputError("no record has a reference, so there is nothing to score")
        return self._scorer.result().with_figures({"failed records": self.failed})


def write_predictions(path: Path, predictions: Sequence[Prediction], *, most_texts: int | None = None) -> None:
    """Writes one JSON line per record, see `Prediction.as_row`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for prediction in predictions:
            file.write(json.dumps(prediction.as_row(most_texts=most_texts), ensure_ascii=False) + "\n")


def write_scores(path: Path, scores: Scores) -> None:
    """Writes figures, their signatures and the figures by length of the source as a JSON object."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(scores.as_json(), ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
