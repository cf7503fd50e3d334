"""Chooses the encoder of a template or task."""

from collections.abc import Mapping
from typing import Any

from glm.data.choices import ChoiceEncoder
from glm.data.examples import NO_CHOICE, ExampleEncoder
from glm.data.pairs import PairEncoder
from glm.data.tasks import CHOOSE, Frame
from glm.data.templates import Template
from glm.data.windows import WindowEncoder
from glm.models.protocol import NO_TASK, Family, Tokenizer

Encoder = ExampleEncoder | ChoiceEncoder | PairEncoder | WindowEncoder


def encoder_of(
    family: Family,
    tokenizer: Tokenizer,
    frame: Frame,
    *,
    src_length: int,
    tgt_length: int,
    min_tgt_length: int = 0,
    block_position: bool = True,
    allow_cut_targets: bool = False,
    pattern_id: int | None = None,
    multi_token: bool | None = None,
    unidirectional: bool = False,
    classification_head: str | None = None,
    max_seq_length: int | None = None,
    visible_pads: bool = False,
    objective: Mapping[str, Any] = NO_CHOICE,
    task: int = NO_TASK,
) -> Encoder:
    """Makes the encoder of a frame; options as for the encoders. Raises InputError as they do."""
    lengths: dict[str, Any] = {"src_length": src_length, "tgt_length": tgt_length, "block_position": block_position}
    targets = {"allow_cut_targets": allow_cut_targets, "visible_pads": visible_pads, "objective": objective}
    whole = {"min_tgt_length": min_tgt_length, "max_seq_length": max_seq_length, "task": task}
    scored = {"multi_token": multi_token, "unidirectional": unidirectional}
    if isinstance(frame, Template):
        return ExampleEncoder(family, tokenizer, frame, **lengths, **targets, **whole)
    if classification_head is not None:
        return PairEncoder(
            family, tokenizer, frame, pattern_id=pattern_id, pool=classification_head, src_length=src_length
        )
    if frame.kind == CHOOSE:
        return ChoiceEncoder(family, tokenizer, frame, pattern_id=pattern_id, **lengths, **scored)
    return WindowEncoder(family, tokenizer, frame, pattern_id=pattern_id, **lengths, **targets)
