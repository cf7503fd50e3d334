"""Writes texts for records with a model."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from tqdm import tqdm

from glm.data.examples import ExampleEncoder
from glm.data.punctuation import to_full_width
from glm.data.records import BadRecord, Record
from glm.errors import InputError
from glm.evaluation.metrics import Scores
from glm.evaluation.metrics import score as score_pairs
from glm.evaluation.scored_file import references_of
from glm.evaluation.statistics import Pair
from glm.generation.config import GenerationConfig
from glm.generation.sampling import RecordId
from glm.generation.search import Decoder, Hypothesis, build_decoder, decode
from glm.models.protocol import Decodable, Prompt, Tokenizer
from glm.prediction.predictions import Cut, Prediction, Text


@dataclass(frozen=True)
class Writer:
    """Writes texts with a model and a set of decoding options.

    Args:
        prefix_ids: what every text starts with; given to the model, not generated.
        prefix: how that is written; as the tokenizer writes it if not given.
        punctuation: `fullwidth` writes Chinese marks as wide as Chinese texts have them (`--punctuation`).
        allowed_outputs: if there are any, nothing but these (token ids, behind the prefix) is written.
    """

    model: Decodable
    encoder: ExampleEncoder
    config: GenerationConfig
    batch_size: int
    prefix_ids: Sequence[int] = ()
    allowed_outputs: Sequence[Sequence[int]] = ()
    prefix: str | None = None
    punctuation: str | None = None

    def with_all_beams(self) -> "Writer":
        """Returns a writer that keeps all hypotheses of a record."""
        return replace(self, config=replace(self.config, num_return_sequences=self.config.num_beams))

    @cached_property
    def banned_ids(self) -> list[int]:
        """Ids that are never generated: those without text, and the model's own."""
        config, tokenizer = self.model.config, self.encoder.tokenizer
        banned = tokenizer.ids_without_text(config.vocab_size) | {*config.banned_ids}
        return sorted(banned - {tokenizer.end_token_id})

    @property
    def opening(self) -> str:
        """The beginning of every text."""
        return self.encoder.tokenizer.decode_ids(self.prefix_ids) if self.prefix is None else self.prefix

    def decoder(self, config: GenerationConfig) -> Decoder:
        """Makes a decoder with these options instead of the writer's own."""
        self.model.eval()
        return build_decoder(
            self.model,
            config,
            end_token_id=self.encoder.tokenizer.end_token_id,
            banned_token_ids=self.banned_ids,
            allowed_outputs=self.allowed_outputs,
            ignored_token_ids=ignored_ids(config.no_repeat_ignore, self.encoder.tokenizer),
        )

    def write(self, prompts: Sequence[Prompt], numbers: Sequence[RecordId]) -> Iterator[tuple[Any, list[Hypothesis]]]:
        """Generates for each prompt; yields (its number, hypotheses) as they finish.

        Args:
            numbers: numbers of the prompts' records, which choose the random streams.
        """
        if self.encoder.family.own_search:
            yield from self._searched(prompts, numbers)
            return
        decoder = self.decoder(self.config)
        for place, hypotheses in decode(decoder, prompts, batch_size=self.batch_size, record_ids=numbers):
            yield numbers[place], hypotheses

    def _searched(
        self, prompts: Sequence[Prompt], numbers: Sequence[RecordId]
    ) -> Iterator[tuple[Any, list[Hypothesis]]]:
        """Generates with the model's own search, longest prompts first."""
        self.model.eval()
        order = sorted(range(len(prompts)), key=lambda place: -len(prompts[place]))
        for start in range(0, len(order), self.batch_size):
            places = order[start : start + self.batch_size]
            found = self.model.search([prompts[place] for place in places], self.config)
            for place, texts in zip(places, found, strict=True):
                yield numbers[place], [Hypothesis(tuple(tokens), score, ()) for tokens, score in texts]

    def text(self, hypothesis: Hypothesis) -> Text:
        """Decodes a hypothesis, the prefix included."""
        tokenizer = self.encoder.tokenizer
        pieces = map(tokenizer.token_of, [*hypothesis.tokens, tokenizer.end_token_id])
        text = tokenizer.decode_ids([*self.prefix_ids, *hypothesis.tokens])
        return Text(
            self.opening + text.removeprefix(tokenizer.decode_ids(self.prefix_ids)),
            hypothesis.score,
            # A text that reached the length limit has no eop.
            list(zip(pieces, hypothesis.token_scores, strict=False)),
            at_limit=len(hypothesis.token_scores) == len(hypothesis.tokens),
        )

    def finished(self, hypothesis: Hypothesis) -> Text:
        """Returns a hypothesis as a record's final text, with the chosen punctuation."""
        text = self.text(hypothesis)
        if self.punctuation != "fullwidth":
            return text
        return replace(text, text=self.opening + to_full_width(text.text.removeprefix(self.opening)))

    def lay_out(
        self, records: Mapping[int, Record | BadRecord]
    ) -> tuple[dict[int, Prompt], dict[int, str], dict[int, Cut]]:
        """Returns, by number, the prompts of records, the errors of the others, and what was cut from sources."""
        usable = {number: record for number, record in records.items() if isinstance(record, Record)}
        encoded = dict(zip(usable, self.encoder.encode(list(usable.values())), strict=True))
        prompts, errors, cut = {}, {}, {}
        for number, record in records.items():
            try:
                if isinstance(record, BadRecord):
                    raise InputError(record.error)
                source_ids = self.encoder.lay_out_source(encoded[number])
                if (lost := self.encoder.uncut_length(encoded[number]) - len(source_ids)) > 0:
                    cut[number] = Cut(lost, self.encoder.seen(encoded[number]))
                prompts[number] = self.encoder.prompt(source_ids, self.prefix_ids)
            except InputError as error:
                errors[number] = str(error)
        return prompts, errors, cut

    def predict(self, records: Mapping[int, Record | BadRecord]) -> Iterator[tuple[int, Prediction]]:
        """Generates text for numbered records; yields them as they finish, unusable ones first.

        Records of like length are decoded together; what is generated for one depends on no other.
        """
        prompts, errors, cut = self.lay_out(records)
        for number, error in errors.items():
            yield number, Prediction(records[number], [], error)
        for number, hypotheses in self.write(list(prompts.values()), list(prompts)):
            texts = [self.finished(hypothesis) for hypothesis in hypotheses]
            yield number, Prediction(records[number], texts, cut=cut.get(number))


def ignored_ids(words: str | None, tokenizer: Tokenizer) -> list[int]:
    """Returns the tokens that the n-gram ban ignores (`no_repeat_ignore`).

    Raises:
        InputError: a word is no single token.
    """
    found = []
    for word in (words or "").split("|") if words else ():
        if word.startswith("[") and word.endswith("]") and word.upper() in tokenizer.special_ids:
            found.append(tokenizer.special_ids[word.upper()])
            continue
        ids = tokenizer.encode_text(word)
        if len(ids) != 1 or ids[0] == tokenizer.unknown_token_id:
            raise InputError(f"no_repeat_ignore {words}: {word!r} is no single token of the vocabulary")
        found += ids
    return found


def predict_rows(
    writer: Writer, records: Mapping[int, Record | BadRecord], *, token_scores: bool = False
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Generates text for numbered records; yields (number, JSON object) as they finish."""
    for number, prediction in writer.predict(records):
        yield number, prediction.as_row(token_scores=token_scores)


def score(rows: Iterable[dict[str, Any]]) -> Scores:
    """Scores rows that have a reference: ROUGE, BLEU, and the task's other metrics."""
    return score_pairs(
        Pair(
            row["predictions"][0]["text"] if row["predictions"] else "",
            references_of(row),
            row.get("source"),
            row.get("answer"),
        )
        for row in rows
    )


def predict(
    writer: Writer,
    records: Sequence[Record | BadRecord],
    *,
    description: str = "generating",
    progress: bool = True,
) -> list[Prediction]:
    """Generates text for each record, in order; unusable ones have an error."""
    found: dict[int, Prediction] = {}
    with tqdm(
        total=len(records), desc=description, unit="record", disable=None if progress else True, leave=False
    ) as bar:
        for number, prediction in writer.predict(dict(enumerate(records))):
            found[number] = prediction
            bar.update()
    return [found[number] for number in range(len(records))]
