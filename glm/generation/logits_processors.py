"""Decoding rules: small callables (generated ids, scores) -> scores, built from the options in one place.

`generated` is [rows, t], the tokens each row has generated so far (neither source nor opening); `scores` is [rows, V],
log-probabilities of the next token. A forbidden token gets -inf.
"""

from collections.abc import Callable, Sequence

import numpy as np
import paddle
from paddle import Tensor

from glm.generation.config import GenerationConfig

LogitsProcessor = Callable[[np.ndarray, Tensor], Tensor]
FORBIDDEN = float("-inf")


def build_logits_processors(
    config: GenerationConfig, *, eop_token_id: int, banned_token_ids: Sequence[int] = ()
) -> list[LogitsProcessor]:
    """The rules that `config` asks for, in the order in which they are applied."""
    processors: list[LogitsProcessor] = []
    if config.repetition_penalty != 1.0:
        processors.append(RepetitionPenalty(config.repetition_penalty))
    if banned_token_ids:
        processors.append(BannedTokens(banned_token_ids))
    if config.min_tgt_length:
        processors.append(MinLength(config.min_tgt_length, eop_token_id))
    if config.no_repeat_ngram_size:
        processors.append(NoRepeatNGram(config.no_repeat_ngram_size))
    return processors


def _write(scores: Tensor, rows: np.ndarray, tokens: np.ndarray, values: Tensor) -> Tensor:
    """Writes `values` [n] at (rows, tokens) of `scores` [rows, V]."""
    places = paddle.to_tensor(rows.astype(np.int64) * scores.shape[1] + tokens)
    return paddle.scatter(scores.flatten(), places, values, overwrite=True).reshape(scores.shape)


class RepetitionPenalty:
    """Multiplies the log-probability of every token generated before (Keskar et al. 2019, on log-probabilities)."""

    def __init__(self, penalty: float):
        self.penalty = penalty

    def __call__(self, generated: np.ndarray, scores: Tensor) -> Tensor:
        if not generated.size:
            return scores
        rows = np.repeat(np.arange(len(generated)), generated.shape[1])
        tokens = generated.flatten()
        places = paddle.to_tensor(rows * scores.shape[1] + tokens)
        return _write(scores, rows, tokens, scores.flatten().gather(places) * self.penalty)


class BannedTokens:
    """Forbids tokens at every step."""

    def __init__(self, token_ids: Sequence[int]):
        self.token_ids = np.asarray(token_ids)

    def __call__(self, generated: np.ndarray, scores: Tensor) -> Tensor:
        rows = np.repeat(np.arange(scores.shape[0]), len(self.token_ids))
        tokens = np.tile(self.token_ids, scores.shape[0])
        return _write(scores, rows, tokens, paddle.full([len(rows)], FORBIDDEN, dtype=scores.dtype))


class MinLength:
    """Forbids `eop` until `length` tokens are generated."""

    def __init__(self, length: int, eop_token_id: int):
        self.length = length
        self.ban = BannedTokens([eop_token_id])

    def __call__(self, generated: np.ndarray, scores: Tensor) -> Tensor:
        return self.ban(generated, scores) if generated.shape[1] < self.length else scores


class NoRepeatNGram:
    """Forbids every token that would complete an n-gram of the row's own text a second time."""

    def __init__(self, size: int):
        self.size = size

    def __call__(self, generated: np.ndarray, scores: Tensor) -> Tensor:
        length = generated.shape[1]
        if length < self.size:
            return scores
        grams = np.lib.stride_tricks.sliding_window_view(generated, self.size, axis=1)  # [rows, grams, n]
        ending = generated[:, None, length - self.size + 1 :]  # [rows, 1, n - 1]
        rows, places = np.nonzero((grams[:, :, :-1] == ending).all(axis=2))
        if not rows.size:
            return scores
        values = paddle.full([len(rows)], FORBIDDEN, dtype=scores.dtype)
        return _write(scores, rows, grams[rows, places, -1], values)
