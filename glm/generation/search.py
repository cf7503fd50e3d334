"""The decoding loop: beam search, greedy search and sampling over any model with `prefill` and `step`.

Beam search follows THUDM/GLM (tasks/seq2seq/evaluate.py). Each step takes the best 2K candidates of an example's K
beams. A candidate that ends the text (`eop`) and ranks among the first K becomes a hypothesis; the best others are
the next K beams. Of the hypotheses the best K are kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import paddle
from paddle import Tensor

from glm.blank_infilling import PromptBatch
from glm.generation.config import GenerationConfig
from glm.generation.logits_processors import build_logits_processors
from glm.generation.sampling import Drawing, best_candidates, log_softmax

# Examples that are done leave the batch once no more than this share of it is unfinished: leaving copies the cache of
# those that stay, staying costs their rows in every step.
MOST_UNFINISHED = 0.75


class Cache(Protocol):
    """What a model keeps between steps."""

    def reorder(self, beam_idx: np.ndarray) -> None:
        """Row k of the next step continues row `beam_idx[:, k]` ([B, K]) of the last one."""

    def keep(self, examples: np.ndarray) -> None:
        """Only these examples of the batch go on."""


class Decodable(Protocol):
    """A model that can be decoded."""

    def prefill(
        self,
        source_ids: np.ndarray,
        source_position_ids: np.ndarray,
        source_lengths: np.ndarray,
        opening_ids: np.ndarray,
        opening_position_ids: np.ndarray,
    ) -> tuple[Tensor, Cache]:
        """Reads sources [B, S] and openings [B, P]: logits [B, V] of the first generated token, and the cache."""

    def step(self, tokens: np.ndarray, position_ids: np.ndarray, cache: Cache) -> Tensor:
        """Reads one token per row, [B, R] with positions [B, 2, R]: logits [B, R, V] of the next."""


@dataclass(frozen=True)
class Hypothesis:
    """A generated text: `tokens` without opening and `eop`, `score` = sum of log-probabilities / n**length_penalty."""

    tokens: tuple[int, ...]
    score: float


class ExampleSearch:
    """The hypotheses of one example (its `place` in the batch), and whether it is done."""

    def __init__(self, config: GenerationConfig, max_length: int, *, place: int = 0):
        self.place = place
        self.config = config
        self.max_length = max_length
        self.hypotheses: list[Hypothesis] = []
        self.done = False

    def add(self, tokens: Sequence[int], total: float) -> None:
        """Keeps a text if it is among the best K; `total` is its sum of log-probabilities."""
        score = total / max(len(tokens), 1) ** self.config.length_penalty
        self.hypotheses.append(Hypothesis(tuple(int(token) for token in tokens), float(score)))
        self.hypotheses.sort(key=lambda hypothesis: -hypothesis.score)  # stable: of equals the earlier stays
        del self.hypotheses[self.config.num_beams :]

    def check_done(self, best_live: float, length: int) -> None:
        """Decides after a step if live beams (of `length` tokens, the best summing to `best_live`) can still win."""
        if not np.isfinite(best_live):
            self.done = True
        elif len(self.hypotheses) == self.config.num_beams:
            if self.config.early_stopping == "true" or self.config.num_beams == 1:
                self.done = True
                return
            if self.config.early_stopping == "never" and self.config.length_penalty > 0:
                length = self.max_length  # sums are negative: the longest text divides best
            self.done = self.hypotheses[-1].score >= best_live / length**self.config.length_penalty


def generate(
    model: Decodable,
    prompts: PromptBatch,
    config: GenerationConfig,
    *,
    eop_token_id: int,
    banned_token_ids: Sequence[int] = (),
    record_ids: Sequence[int] | None = None,
) -> list[list[Hypothesis]]:
    """Generates the span of one blank for each example of a batch.

    Args:
        model: in evaluation mode, or its dropout blurs the result.
        prompts: sources, the blank to fill and the opening of its span.
        config: the options. At most `tgt_length` tokens are made, the opening (after `sop`) and `eop` among them.
        eop_token_id: ends a span.
        banned_token_ids: never generated.
        record_ids: [B], numbers that choose each example's random stream when candidates are drawn; its place in the
            batch if not given.

    Returns:
        For each example at most `num_return_sequences` hypotheses, best first.

    Raises:
        ValueError: `tgt_length` leaves no room for `min_tgt_length` tokens and `eop` after the opening.
    """
    B, opening = len(prompts.source_ids), len(prompts.opening_ids)
    K = config.num_beams
    max_length = config.tgt_length - (opening - 1)
    if max_length <= config.min_tgt_length:
        raise ValueError(
            f"tgt_length {config.tgt_length}: no room for min_tgt_length {config.min_tgt_length} tokens after the "
            f"opening's {opening - 1}"
        )
    processors = build_logits_processors(config, eop_token_id=eop_token_id, banned_token_ids=banned_token_ids)
    drawing = None if config.select_topk else Drawing(config, np.arange(B) if record_ids is None else record_ids)
    searches = [ExampleSearch(config, max_length, place=place) for place in range(B)]

    live = searches  # those still in the batch; all arrays below follow it
    tokens = np.zeros((B, 1, 0), dtype=np.int64)  # [B, R, t] generated so far by each live row
    sums = np.zeros((B, 1), dtype=np.float32)  # [B, R]
    logits, cache = model.prefill(
        prompts.source_ids,
        prompts.source_position_ids,
        prompts.source_lengths,
        np.broadcast_to(prompts.opening_ids, (B, opening)),
        prompts.span_position_ids(0, opening),
    )
    logits = logits.unsqueeze(1)  # [B, V] -> [B, 1, V]
    for length in range(1, max_length + 1):
        B, R, V = logits.shape
        scores = log_softmax(logits / config.temperature).reshape([B * R, V])
        for process in processors:
            scores = process(tokens.reshape(B * R, length - 1), scores)
        scores = scores.reshape([B, R, V])
        if drawing:
            totals, picks = drawing.candidates(scores, sums, 2 * K if K > 1 else 1)
        else:
            totals, picks = best_candidates((scores + paddle.to_tensor(sums).unsqueeze(-1)).reshape([B, R * V]), 2 * K)

        beam_idx, next_tokens, sums = _advance(live, tokens, totals, picks, V=V, eop_token_id=eop_token_id)
        tokens = np.concatenate([np.take_along_axis(tokens, beam_idx[:, :, None], 1), next_tokens[:, :, None]], axis=2)
        for example, search in enumerate(live):
            search.check_done(sums[example, 0], length)
        unfinished = np.array([example for example, search in enumerate(live) if not search.done], dtype=np.int64)
        if not unfinished.size or length == max_length:
            break
        cache.reorder(beam_idx)
        if len(unfinished) <= MOST_UNFINISHED * len(live):
            live = [live[example] for example in unfinished]
            tokens, sums, next_tokens = tokens[unfinished], sums[unfinished], next_tokens[unfinished]
            cache.keep(unfinished)
            if drawing:
                drawing.keep(unfinished)
        position_ids = prompts.span_position_ids(opening + length - 1, 1)[[search.place for search in live]]
        logits = model.step(next_tokens, np.repeat(position_ids, K, axis=2), cache)  # [B, 2, 1] -> [B, 2, K]

    for example, search in enumerate(live):
        if not search.done:
            for row in np.flatnonzero(np.isfinite(sums[example])):
                search.add(tokens[example, row], sums[example, row])
    return [search.hypotheses[: config.num_return_sequences] for search in searches]


def _advance(
    searches: list[ExampleSearch],
    tokens: np.ndarray,
    totals: np.ndarray,
    picks: np.ndarray,
    *,
    V: int,
    eop_token_id: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sorts each example's candidates ([B, <= 2K], best first) into hypotheses and the next live beams.

    Returns:
        beam_idx, next tokens and sums of the live beams, [B, K] each, best first; an empty place has the sum -inf.
    """
    B, K = len(searches), searches[0].config.num_beams
    beam_idx = np.zeros((B, K), dtype=np.int64)
    next_tokens = np.full((B, K), eop_token_id, dtype=np.int64)
    sums = np.full((B, K), -np.inf, dtype=np.float32)
    for example, search in enumerate(searches):
        if search.done:
            continue
        live = 0
        for rank, (total, pick) in enumerate(zip(totals[example], picks[example], strict=True)):
            if not np.isfinite(total) or live == K:
                break
            row, token = divmod(int(pick), V)
            if token != eop_token_id:
                beam_idx[example, live], next_tokens[example, live], sums[example, live] = row, token, total
                live += 1
            elif rank < K:
                search.add(tokens[example, row], float(total))
    return beam_idx, next_tokens, sums
