"""Computes a model's next logits by whole forward passes in the layout of `reference.geometry`: no cache, no batch."""

from collections.abc import Callable, Sequence

import numpy as np
import paddle

from glm.models.glm.modeling import GLMForConditionalGeneration
from glm.models.glm.paddlenlp_tokenizer import GLMTokenizer
from reference.geometry import build_example


def next_logits(
    model: GLMForConditionalGeneration,
    tokenizer: GLMTokenizer,
    source: Sequence[int],
    *,
    filled: Sequence[Sequence[int]] = (),
    opening: Sequence[int] = (),
    block_position: bool = True,
) -> Callable[[tuple[int, ...]], np.ndarray]:
    """Returns a function for `reference.beam_search` from the tokens of a blank so far to the logits [V] of the next.

    Args:
        source: Part A with its special tokens.
        filled: the tokens of the blanks before this one.
        opening: what the span starts with.
    """
    masks = set(tokenizer.mask_token_ids)
    unfilled = sum(token in masks for token in source) - len(filled) - 1

    def logits(tokens: tuple[int, ...]) -> np.ndarray:
        spans = [*map(list, filled), [*opening, *tokens]]
        length = sum(len(span) + 1 for span in spans)
        example = build_example(
            list(source),
            [*spans, *[[]] * unfilled],
            mask_ids=masks,
            sop=tokenizer.sop_token_id,
            eop=tokenizer.eop_token_id,
            pad=tokenizer.pad_token_id,
            src_length=len(source),
            tgt_length=length,  # leaves no room behind the span
            block_position=block_position,
        )
        ids = paddle.to_tensor(np.array([example["input_ids"]], dtype=np.int64))
        positions = paddle.to_tensor(np.array([example["position_ids"]], dtype=np.int64))
        segments = paddle.to_tensor(np.array([[[len(source), length]]], dtype=np.int64))
        with paddle.no_grad():
            return model(ids, positions, segments)[0, -1].numpy()

    return logits


def log_probabilities(logits: np.ndarray) -> np.ndarray:
    """[V] -> [V], in float64."""
    logits = np.asarray(logits, dtype=np.float64)
    return logits - logits.max() - np.log(np.exp(logits - logits.max()).sum())


def token_scores(logits: Callable[[tuple[int, ...]], np.ndarray], tokens: Sequence[int]) -> list[float]:
    """Returns the log-probability of each token, given those before it."""
    return [float(log_probabilities(logits(tuple(tokens[:place])))[token]) for place, token in enumerate(tokens)]
