"""Fills the blanks of texts from left to right, so that each blank sees those before it."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from glm.data.records import SURROGATE
from glm.data.templates import GENERATION_BLANK
from glm.errors import InputError
from glm.generation.search import Hypothesis
from glm.models.protocol import Prompt
from glm.prediction.predictions import Text, text_row
from glm.prediction.writer import Writer


@dataclass(frozen=True)
class BadText:
    """A line of a file that cannot be used."""

    error: str


def stream_texts(lines: Iterable[bytes], *, name: str) -> Iterator[str | BadText]:
    """Yields the text of each line that is not empty; a line that cannot be used is a `BadText`, not an error."""
    for number, line in enumerate(lines, start=1):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
        except UnicodeDecodeError as error:
            yield BadText(f"{name}, line {number}: not UTF-8 (byte {error.start + 1}); convert the file to UTF-8")
            continue
        if text:
            yield text


@dataclass
class BlankText:
    """A text with blanks, encoded as a source, with the hypotheses of each filled blank; the best one is kept.

    `parts` are the texts between the blanks, and the blanks.
    """

    parts: list[str]
    source_ids: list[int]
    filled: list[list[Hypothesis]] = field(default_factory=list)

    @property
    def is_full(self) -> bool:
        """Whether every blank is filled."""
        return len(self.filled) == len(self.parts) // 2

    def prompt(self, writer: Writer) -> Prompt:
        """Returns the prompt of the next blank: the text, and the best hypotheses of the blanks before it."""
        spans = [hypotheses[0].tokens if hypotheses else () for hypotheses in self.filled]
        return writer.encoder.geometry.prompt(
            self.source_ids, filled=[[*writer.prefix_ids, *span] for span in spans], opening=writer.prefix_ids
        )


def lay_out(writer: Writer, text: str) -> BlankText:
    """Encodes a text with blanks as a source. A text without a blank gets one at its end; a family without blanks
    writes there.

    Raises:
        InputError: the text does not fit into `src_length`, or holds half of a surrogate pair.
    """
    if SURROGATE.search(text):
        raise InputError("text: holds half of a surrogate pair; write it as UTF-8, or escape whole characters")
    encoder = writer.encoder
    if not encoder.family.blanks:
        ids = encoder.geometry.lay_out(encoder.tokenizer.encode_text(text), [])
        return BlankText([text, "", ""], _checked(ids, encoder.src_length, text))
    blank = re.compile(f"({'|'.join(map(re.escape, encoder.family.blanks))})")
    parts = blank.split(text if blank.search(text) else f"{text}{GENERATION_BLANK}")
    if (blanks := len(parts) // 2) > encoder.src_length:
        raise InputError(f"{blanks} blanks do not fit into src_length {encoder.src_length}: {text[:40]}…")
    laid_out = [part if place % 2 else encoder.tokenizer.encode_text(part) for place, part in enumerate(parts) if part]
    return BlankText(parts, _checked(encoder.geometry.lay_out_blanks(laid_out), encoder.src_length, text))


def _checked(ids: list[int], most: int, text: str) -> list[int]:
    if len(ids) > most:
        raise InputError(f"{len(ids)} tokens do not fit into src_length {most}, shorten the text: {text[:40]}…")
    return ids


def lay_out_all(
    writer: Writer, texts: Mapping[int, str | BadText]
) -> tuple[dict[int, BlankText], dict[int, dict[str, Any]]]:
    """Returns encoded texts by number, and the JSON objects of those that cannot be used."""
    usable: dict[int, BlankText] = {}
    bad_rows: dict[int, dict[str, Any]] = {}
    for number, text in texts.items():
        if isinstance(text, BadText):
            bad_rows[number] = {"id": number + 1, "text": None, "error": text.error}
            continue
        try:
            usable[number] = lay_out(writer, text)
        except InputError as error:
            bad_rows[number] = {"id": number + 1, "text": text, "error": str(error)}
    return usable, bad_rows


def fill(
    writer: Writer, texts: Mapping[int, str | BadText], *, token_scores: bool = False
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Fills the blanks of numbered texts: yields (number, JSON object) as they finish, unusable ones first.

    All texts have their first blank filled, then those with more blanks their second, and so on.
    """
    unfinished, bad_rows = lay_out_all(writer, texts)
    yield from bad_rows.items()
    blank = 0
    while unfinished:
        prompts = [text.prompt(writer) for text in unfinished.values()]
        for number, hypotheses in writer.write(prompts, [(number, blank) for number in unfinished]):
            unfinished[number[0]].filled.append(hypotheses)
        for number in [number for number, text in unfinished.items() if text.is_full]:
            yield number, as_row(writer, number, unfinished.pop(number), token_scores=token_scores)
        blank += 1


def as_row(writer: Writer, number: int, text: BlankText, *, token_scores: bool) -> dict[str, Any]:
    """Makes the JSON object of a filled text: as given, filled, and the hypotheses of each blank, best first."""
    blanks: list[list[Text]] = [[writer.finished(hypothesis) for hypothesis in found] for found in text.filled]
    parts = text.parts.copy()
    parts[1::2] = [found[0].text if found else "" for found in blanks]
    return {
        "id": number + 1,
        "text": "".join(text.parts),
        "filled": "".join(parts),
        "blanks": [[text_row(found, token_scores=token_scores) for found in blank] for blank in blanks],
    }
