"""Encodes records with template, tokenizer and geometry, identically for training and prediction."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from glm.data.problems import Kind, RecordError
from glm.data.records import Record
from glm.data.templates import Template
from glm.data.truncation import find_answer, shorten_context, window_around
from glm.errors import InputError
from glm.models.protocol import NO_TASK, Example, Family, GeometryOptions, Prompt, Tokenizer

NO_TOKEN = "has no token: the tokenizer drops all of it"
NO_CHOICE: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class EncodedRecord:
    """A record in its template as ids, uncut and without special tokens."""

    record: Record
    before: list[int]  # before and after the blank
    after: list[int]
    target: list[int] | None  # None without target; without the constant opening


class ExampleEncoder:
    """Lays out records for a family's model.

    Args:
        family: brings the geometry.
        src_length: most tokens of the source, its special tokens included.
        tgt_length: most tokens of the target, opening and `eop` included.
        min_tgt_length: fewest tokens to generate after the opening.
        block_position: see `GeometryOptions`.
        allow_cut_targets: a target that does not fit is cut, and loses its `eop`; it is an error otherwise.
        max_seq_length: most tokens of source and target together, in place of `src_length`; see `GeometryOptions`.
        visible_pads: every source is filled up to `src_length` with padding that is seen like text.
        task: the number of the task of all records, see `GeometryOptions`.
        objective: what training draws and predicts, by the names of `GeometryOptions`; the family's own if left out.

    Raises:
        InputError: the lengths leave no room, or the family cannot lay out the template or has no such objective.
    """

    kind = "generate"
    pattern_id = None
    notes: Sequence[str] = ()  # hints for the user

    def __init__(
        self,
        family: Family,
        tokenizer: Tokenizer,
        template: Template,
        *,
        src_length: int,
        tgt_length: int,
        min_tgt_length: int = 0,
        block_position: bool = True,
        allow_cut_targets: bool = False,
        max_seq_length: int | None = None,
        visible_pads: bool = False,
        objective: Mapping[str, Any] = NO_CHOICE,
        task: int = NO_TASK,
    ):
        template.check(family)
        self.family = family
        self.tokenizer = tokenizer
        self.template = template
        # In a pair that is cut together, either part may take nearly all of it.
        self.src_length = src_length if max_seq_length is None else max_seq_length - 1
        self.tgt_length = tgt_length
        self.min_tgt_length = min_tgt_length
        self.task = task
        self.allow_cut_targets = allow_cut_targets or max_seq_length is not None
        self.visible_pads = visible_pads
        layout = GeometryOptions(
            template.blank,
            block_position,
            closed=template.closed,
            max_seq_length=max_seq_length,
            tgt_length=tgt_length,
            task=task,
            **objective,
        )
        self.geometry = family.geometry(tokenizer, layout)
        # Opening and target are encoded separately, so that the ids of the opening never depend on the target.
        self.opening_ids = tokenizer.encode_text(template.target_prefix)
        self._check_room(max_seq_length)

    def _check_room(self, max_seq_length: int | None) -> None:
        if max_seq_length is not None and self.tgt_length >= max_seq_length - self.special_tokens:
            message = f"leaves no room for a source in max_seq_length {max_seq_length}; shorten it"
            raise InputError(f"tgt_length {self.tgt_length}: {message}")
        opening = self.template.target_prefix
        if self.opening_ids and self.family.own_search:
            raise InputError(
                f"target_prefix {opening}: {self.family.title}'s search writes whole texts; choose a task or template "
                "without a constant opening"
            )
        if self.target_budget < self.min_tgt_length:
            raise InputError(
                f"tgt_length {self.tgt_length}: no room for min_tgt_length {self.min_tgt_length} tokens and eop after "
                f"the constant opening {opening} ({len(self.opening_ids)} tokens); raise tgt_length"
            )

    @property
    def described(self) -> list[str]:
        """Everything beside lengths and tokenizer that the ids of a record depend on."""
        template = self.template
        marks = {
            "open": not template.closed,
            "cuts tokens": template.cuts_tokens,
            "visible pads": self.visible_pads,
            f"fewest {template.fewest_tokens}": template.fewest_tokens > 0,
        }
        found = [template.source, template.target_prefix, *(name for name, holds in marks.items() if holds)]
        return [*found, *(str(part) for part in (template.summaries, template.form) if part is not None)]

    @property
    def constant_text(self) -> str:
        """Text that every source and target holds."""
        extras = dict.fromkeys(self.template.extra_names, "")
        return "".join([*self.template.texts("", answer="", extras=extras), self.template.target_prefix])

    @property
    def special_tokens(self) -> int:
        """Number of tokens of a source beside its text."""
        return self.geometry.special_tokens

    @property
    def source_budget(self) -> int:
        """Most tokens of a source without special ones."""
        return self.src_length - self.special_tokens

    @property
    def target_budget(self) -> int:
        """Most tokens of a target without opening and `eop`."""
        return self.tgt_length - len(self.opening_ids) - 1

    # -- many records at once

    def encode(self, records: Sequence[Record]) -> list[EncodedRecord]:
        """Encodes records; SentencePiece uses several threads."""
        if hasattr(self.geometry, "lay_out_parts") and any(record.parts for record in records):
            return [self._encode_parts(record) for record in records]
        frames = [self._texts(record, record.source) for record in records]
        texts = [text for frame in frames for text in frame]
        ids = iter(self.tokenizer.encode_text([*texts, *(record.target or "" for record in records)]))
        sources = [(next(ids), next(ids)) for _ in records]
        return [
            EncodedRecord(record, before, after, target if record.target is not None else None)
            for record, (before, after), target in zip(records, sources, ids, strict=True)
        ]

    def _encode_parts(self, record: Record) -> EncodedRecord:
        """Encodes a record whose source is in parts, each of them separately; only a document is cut."""
        ids = self.tokenizer.encode_text([text for _, text in record.parts])
        named = [(name, own) for (name, _), own in zip(record.parts, ids, strict=True)]
        before = self.geometry.lay_out_parts(named, document_length=self.template.form.document_length)
        target = None if record.target is None else self.tokenizer.encode_text(record.target)
        return EncodedRecord(record, before, [], target)

    def source_problem(self, encoded: EncodedRecord) -> RecordError | None:
        """Says why a source cannot be laid out: it has no token, or what must not be cut does not fit."""
        record = encoded.record
        if not encoded.before and not encoded.after:
            return RecordError(Kind.EMPTY, record.origin, NO_TOKEN, field="source")
        if not self.overflow(encoded):
            return None
        if record.parts:
            message = (
                f"{self.uncut_length(encoded)} tokens do not fit into src_length {self.src_length}; raise it, or read "
                "less with --max_history or --document_length"
            )
            return RecordError(Kind.SOURCE_LENGTH, record.origin, message, field="source")
        start, end = find_answer(record.source, record.answer) or (0, 0)
        if self._fits(record, record.source[start:end]):
            return None
        message = f"does not fit into src_length {self.src_length}"
        field = "answer" if record.answer else "template"
        return RecordError(Kind.SOURCE_LENGTH, record.origin, message, field=field)

    def target_problem(self, encoded: EncodedRecord) -> RecordError | None:
        """Says why a target, if there is one, cannot be learnt: it has no token, or would be cut."""
        tokens = len(encoded.target or ())
        if encoded.target is not None and not tokens:
            return RecordError(Kind.EMPTY, encoded.record.origin, NO_TOKEN, field="target")
        if self.allow_cut_targets or tokens <= self.target_budget:
            return None
        message = (
            f"{tokens} tokens, and tgt_length {self.tgt_length} has room for {self.target_budget}; raise it, or let "
            "targets be cut with --allow_cut_targets"
        )
        return RecordError(Kind.TARGET_LENGTH, encoded.record.origin, message, field="target")

    def shortness(self, encoded: EncodedRecord) -> RecordError | None:
        """Why a record is too short to be one of training."""
        fewest = self.template.fewest_tokens
        for field, ids in (("source", [*encoded.before, *encoded.after]), ("target", encoded.target or ())):
            if len(ids) < fewest:
                message = f"{len(ids)} of at least {fewest} tokens that training wants; leave it out"
                return RecordError(Kind.FEW_TOKENS, encoded.record.origin, message, field=field)
        return None

    def overflow(self, encoded: EncodedRecord) -> int:
        """Returns by how many tokens the source is longer than `src_length`."""
        return max(0, len(encoded.before) + len(encoded.after) - self.source_budget)

    def uncut_length(self, encoded: EncodedRecord) -> int:
        """Returns the number of tokens of the source without any cut."""
        return len(encoded.before) + len(encoded.after) + self.special_tokens

    def lay_out_source(self, encoded: EncodedRecord) -> list[int]:
        """Returns the ids of a source; if it is too long it is cut around the answer's sentence, or at its end.

        Raises:
            RecordError: see `source_problem`.
        """
        if error := self.source_problem(encoded):
            raise error
        record, before, after = encoded.record, encoded.before, encoded.after
        if self.overflow(encoded) and self._cuts_tokens:
            before = self._without_last_tokens(record)
        elif self.overflow(encoded):
            part = shorten_context(record.source, record.answer or "", lambda part: self._fits(record, part))
            before, after = self.tokenizer.encode_text(self._texts(record, part))
        return self.lay_out_ids(before, after)

    @property
    def _cuts_tokens(self) -> bool:
        """Whether a source that is too long is cut at its last tokens."""
        return self.template.cuts_tokens or (self.family.cuts_tokens and self.template.is_bare)

    def _without_last_tokens(self, record: Record) -> list[int]:
        """Cuts the last tokens of a source so that it fits before what the template has behind it."""
        frame, _ = self._texts(record, "")
        source, behind = self.tokenizer.encode_text([record.source, frame])
        return [*source[: self.source_budget - len(behind)], *behind]

    def lay_out_ids(self, before: Sequence[int], after: Sequence[int]) -> list[int]:
        """Returns the ids of a source from those before and after its blank, with visible padding if the options ask
        for it."""
        ids = self.geometry.lay_out(before, after)
        if not self.visible_pads:
            return ids
        return [*ids, *[self.tokenizer.pad_token_id] * (self.src_length - len(ids))]

    def seen(self, encoded: EncodedRecord) -> tuple[int, int]:
        """Returns the range, in characters, of the part of a source that `lay_out_source` keeps."""
        record, source = encoded.record, encoded.record.source
        if not self.overflow(encoded):
            return 0, len(source)
        if self.family.cuts_tokens and self.template.is_bare:
            return 0, bisect_right(
                range(1, len(source) + 1), False, key=lambda end: not self._fits(record, source[:end])
            )
        return window_around(source, record.answer or "", lambda part: self._fits(record, part)) or (0, 0)

    def lay_out_span(self, encoded: EncodedRecord) -> list[int]:
        """Returns the ids of the span: constant opening and target; the geometry adds the tokens that open and close
        it.

        Raises:
            RecordError: see `target_problem`.
        """
        if error := self.target_problem(encoded):
            raise error
        return [*self.opening_ids, *encoded.target]

    # -- one record

    def source_ids(self, record: Record) -> list[int]:
        """Returns the ids of a record's source. Raises as `lay_out_source`."""
        return self.lay_out_source(*self.encode([record]))

    def example(self, record: Record) -> Example:
        """Returns the example that evaluation uses of a record with a target. Raises as `lay_out_source` and
        `lay_out_span`."""
        (encoded,) = self.encode([record])
        return self.example_of(self.lay_out_source(encoded), self.lay_out_span(encoded))

    def example_of(
        self, source_ids: Sequence[int], span: Sequence[int], random: np.random.Generator | None = None
    ) -> Example:
        """Makes the example of a source and its span; with `random` for training, see `Geometry.example`."""
        return self.geometry.example(source_ids, span, tgt_length=self.tgt_length, random=random)

    def prompt(self, source_ids: Sequence[int], prefix_ids: Sequence[int] = ()) -> Prompt:
        """Returns the prompt of a record's `source_ids`; the text starts with opening and prefix."""
        return self.geometry.prompt(source_ids, opening=[*self.opening_ids, *prefix_ids])

    def _texts(self, record: Record, source: str) -> list[str]:
        return self.template.texts(source, answer=record.answer, extras=record.extras)

    def _fits(self, record: Record, source: str) -> bool:
        """Whether a record is short enough with this text as its source."""
        return sum(map(len, self.tokenizer.encode_text(self._texts(record, source)))) <= self.source_budget
