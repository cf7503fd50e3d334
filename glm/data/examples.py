"""From a record to what the model reads: template, tokenizer and geometry in one place for training and prediction."""

from collections.abc import Sequence

import numpy as np

from glm.blank_infilling import BlankInfilling, Example, Prompt
from glm.data.records import Record
from glm.data.templates import Template
from glm.data.truncation import shorten_context
from glm.errors import InputError
from glm.tokenization import GLMTokenizer


class ExampleEncoder:
    """Lays out records as `[CLS] source [gMASK] <|endoftext|>` and `sop opening question`.

    Args:
        src_length: most tokens of the source, its special tokens included.
        tgt_length: most tokens of the target, opening and `eop` included.
        min_tgt_length: fewest tokens to generate after the opening.
        block_position: see `glm.blank_infilling`.

    Raises:
        InputError: `tgt_length` leaves no room for them.
    """

    def __init__(
        self,
        tokenizer: GLMTokenizer,
        template: Template,
        *,
        src_length: int,
        tgt_length: int,
        min_tgt_length: int = 0,
        block_position: bool = True,
    ):
        self.tokenizer = tokenizer
        self.template = template
        self.src_length = src_length
        self.tgt_length = tgt_length
        self.blank_id = tokenizer.mask_token_ids[-1]
        self.geometry = BlankInfilling(
            tokenizer.mask_token_ids, tokenizer.sop_token_id, tokenizer.eop_token_id, block_position
        )
        # Opening and question are encoded apart, so that the ids of the opening never depend on the question.
        self.opening_ids = tokenizer.encode_text(template.target_prefix)
        if tgt_length - len(self.opening_ids) <= min_tgt_length:
            raise InputError(
                f"tgt_length {tgt_length}: no room for min_tgt_length {min_tgt_length} tokens and eop after the "
                f"constant opening {template.target_prefix} ({len(self.opening_ids)} tokens); raise tgt_length"
            )

    def source_ids(self, record: Record) -> list[int]:
        """Ids of Part A; a passage that is too long is cut around the answer's sentence.

        Raises:
            InputError: not even the answer fits into `src_length`.
        """
        budget = self.src_length - 3  # [CLS], the blank, <|endoftext|>

        def encode(context: str) -> list[int]:
            return self.tokenizer.encode_text(self.template.source_text(record, context))

        ids = encode(record.context)
        if len(ids) > budget:
            context = shorten_context(record.context, record.answer, lambda part: len(encode(part)) <= budget)
            if context is None:
                raise InputError(f"{record.origin}, field answer: does not fit into src_length {self.src_length}")
            ids = encode(context)
        return [self.tokenizer.cls_token_id, *ids, self.blank_id, self.tokenizer.eos_token_id]

    def example(self, record: Record) -> Example:
        """The training example of a record with a question. Raises as `source_ids`."""
        span = [*self.opening_ids, *self.tokenizer.encode_text(record.question)]
        return self.geometry.example(self.source_ids(record), [span], tgt_length=self.tgt_length)

    def prompt(self, source_ids: Sequence[int], prefix_ids: Sequence[int] = ()) -> Prompt:
        """What generation starts from, of `source_ids` of a record; the span starts with opening and prefix."""
        return self.geometry.prompt(source_ids, opening=[*self.opening_ids, *prefix_ids])


def pad_rows(rows: Sequence[Sequence[int]], width: int, pad: int) -> np.ndarray:
    """Rows of ids as [B, width] int64, padded on the right."""
    table = np.full((len(rows), width), pad, dtype=np.int64)
    for line, row in zip(table, rows, strict=True):
        line[: len(row)] = row
    return table
