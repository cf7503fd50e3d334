"""Chooses the candidates of a step: the best ones, or samples from the distribution."""

import math
from collections.abc import Sequence

import numpy as np

from glm.generation.config import GenerationConfig

RecordId = int | tuple[int, ...]
CHUNK = 128  # elements of which only the maximum is looked at first


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Log-softmax over the last axis, in place: [..., V]."""
    logits -= logits.max(axis=-1, keepdims=True)
    logits -= np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    return logits


def best_candidates(totals: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the best `count` of each row of `totals` [B, n]: scores and indices, [B, count] each, best first.

    Ties keep their order. A row with fewer finite totals is filled up with -inf and index 0.
    """
    B, n = totals.shape
    values, indices = np.full((B, count), -np.inf, dtype=totals.dtype), np.zeros((B, count), dtype=np.int64)
    # Only chunks whose maximum is among the `count` largest maxima can hold one of the best.
    maxima = totals.reshape(B, -1, math.gcd(n, CHUNK)).max(axis=2)
    for row in range(B):
        bound = np.partition(maxima[row], -count)[-count] if maxima.shape[1] > count else -np.inf
        places = np.flatnonzero(totals[row] >= bound) if bound > -np.inf else np.flatnonzero(totals[row] > bound)
        places = places[np.argsort(-totals[row, places], kind="stable")[:count]]
        values[row, : len(places)], indices[row, : len(places)] = totals[row, places], places
    return values, indices


def keep_likely(scores: np.ndarray, *, top_k: int, top_p: float, keeps_edge: bool = False) -> np.ndarray:
    """Sets all but the likeliest tokens of each row to -inf and normalises what is left.

    Args:
        scores: [rows, V] log-probabilities, -inf where a rule forbids a token.
        top_k: keep this many; 0 keeps all.
        top_p: then keep the smallest set whose probability reaches this; 0 keeps all (Holtzman et al. 2020).
        keeps_edge: a set that reaches it exactly gets one token more (Hugging Face's of 2019, and VLM's).
    """
    if top_k:
        kth = np.partition(scores, -min(top_k, scores.shape[1]), axis=1)[:, -min(top_k, scores.shape[1]), None]
        scores = np.where(scores >= kth, scores, -np.inf)
    scores = _normalised(scores)
    if top_p:
        order = np.argsort(-scores, axis=1, kind="stable")
        probabilities = np.exp(np.take_along_axis(scores, order, axis=1))
        before = np.cumsum(probabilities, axis=1) - probabilities  # probability of all likelier tokens
        keep, enough = np.zeros_like(scores, dtype=bool), before <= top_p if keeps_edge else before < top_p
        enough[:, 0] = True  # also where top_p is smaller than the dtype can represent
        np.put_along_axis(keep, order, enough, axis=1)
        scores = _normalised(np.where(keep, scores, -np.inf))
    return scores


def _normalised(scores: np.ndarray) -> np.ndarray:
    top = scores.max(axis=1, keepdims=True)
    top = np.where(np.isfinite(top), top, 0.0)  # a row of only -inf stays as it is
    total = np.exp(scores - top).sum(axis=1, keepdims=True)
    return scores - top - np.log(np.where(total > 0, total, 1.0))


def random_stream(config: GenerationConfig, record_id: RecordId) -> np.random.Generator:
    """Returns the random stream of an example; it depends on `generation_seed` and the record, not on the batch."""
    return np.random.default_rng([config.generation_seed, *np.atleast_1d(record_id).tolist()])


def draw_apart(
    scores: np.ndarray,
    sums: np.ndarray,
    count: int,
    *,
    config: GenerationConfig,
    streams: Sequence[np.random.Generator | None],
    keeps_edge: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Draws one token for each live row independently, or `count` tokens where there is only one row.

    Arguments and results as of `draw_candidates`, in the order of the rows.
    """
    B, R, V = scores.shape
    how = {"top_k": config.top_k, "top_p": config.top_p, "keeps_edge": keeps_edge}
    likely = keep_likely(scores.reshape([B * R, V]), **how).reshape([B, R, V])
    values, indices = np.full((B, count), -np.inf, dtype=scores.dtype), np.zeros((B, count), dtype=np.int64)
    for example, stream in enumerate(streams):
        if stream is None:
            continue
        rows = np.flatnonzero(np.isfinite(sums[example]) & np.isfinite(likely[example].max(axis=1)))
        rows = np.resize(rows, count) if R == 1 else rows
        for place, row in enumerate(rows):
            token = int((likely[example, row] + stream.gumbel(size=V)).argmax())
            values[example, place] = sums[example, row] + likely[example, row, token]
            indices[example, place] = row * V + token
    return values, indices


def draw_candidates(
    scores: np.ndarray,
    sums: np.ndarray,
    count: int,
    *,
    config: GenerationConfig,
    streams: Sequence[np.random.Generator | None],
    keeps_edge: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Draws candidates per example from the softmax of the running sums, without replacement.

    Adding Gumbel noise to log-probabilities and taking the largest does that (Kool et al. 2019).

    Args:
        scores: [B, R, V] log-probabilities of the next tokens.
        sums: [B, R] scores of the live rows.
        count: number of candidates.
        streams: [B]; None for an example that is done.
        keeps_edge: see `keep_likely`.

    Returns:
        Scores and indices into R * V, [B, count] each, best first, filled up with -inf and index 0.
    """
    B, R, V = scores.shape
    how = {"top_k": config.top_k, "top_p": config.top_p, "keeps_edge": keeps_edge}
    likely = keep_likely(scores.reshape([B * R, V]), **how).reshape([B, R, V])
    totals = (sums[:, :, None] + likely).reshape([B, R * V])
    values, indices = np.full((B, count), -np.inf, dtype=totals.dtype), np.zeros((B, count), dtype=np.int64)
    for example, stream in enumerate(streams):
        if stream is None:
            continue
        noisy = (totals[example] + stream.gumbel(size=R * V))[None]
        drawn = best_candidates(noisy, count)[1][0, : np.isfinite(totals[example]).sum()]
        drawn = drawn[np.argsort(-totals[example, drawn], kind="stable")]
        values[example, : len(drawn)], indices[example, : len(drawn)] = totals[example, drawn], drawn
    return values, indices
