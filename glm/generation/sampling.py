"""Choosing the candidates of a step: the best ones, or ones drawn from the distribution."""

import numpy as np
import paddle
from paddle import Tensor

from glm.generation.config import GenerationConfig


def log_softmax(logits: Tensor) -> Tensor:
    """[..., V] -> [..., V] in float32. F.log_softmax takes time quadratic in V on a CPU."""
    logits = logits.astype("float32")
    logits = logits - logits.max(axis=-1, keepdim=True)
    return logits - logits.exp().sum(axis=-1, keepdim=True).log()


def best_candidates(totals: Tensor, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The best `count` of each row of `totals` [B, n]: their scores and indices, [B, count] each, best first."""
    values, indices = paddle.topk(totals, min(count, totals.shape[1]), axis=-1)
    return values.numpy(), indices.numpy()


def keep_likely(scores: np.ndarray, *, top_k: int, top_p: float) -> np.ndarray:
    """Sets all but the likeliest tokens of each row to -inf and normalises what is left.

    Args:
        scores: [rows, V] log-probabilities, -inf where a rule forbids a token.
        top_k: keep this many; 0 keeps all.
        top_p: then keep the smallest set whose probability reaches this; 0 keeps all (Holtzman et al. 2020).
    """
    if top_k:
        kth = np.partition(scores, -min(top_k, scores.shape[1]), axis=1)[:, -min(top_k, scores.shape[1]), None]
        scores = np.where(scores >= kth, scores, -np.inf)
    scores = _normalised(scores)
    if top_p:
        order = np.argsort(-scores, axis=1, kind="stable")
        probabilities = np.exp(np.take_along_axis(scores, order, axis=1))
        before = np.cumsum(probabilities, axis=1) - probabilities  # mass of the likelier ones
        keep = np.zeros_like(scores, dtype=bool)
        np.put_along_axis(keep, order, before < top_p, axis=1)
        scores = _normalised(np.where(keep, scores, -np.inf))
    return scores


def _normalised(scores: np.ndarray) -> np.ndarray:
    top = scores.max(axis=1, keepdims=True)
    top = np.where(np.isfinite(top), top, 0.0)  # a row of -inf stays one
    total = np.exp(scores - top).sum(axis=1, keepdims=True)
    return scores - top - np.log(np.where(total > 0, total, 1.0))


class Drawing:
    """Draws candidates without replacement, each example from a random stream of its own.

    An example's stream depends on (generation_seed, its record number), so its text does not depend on the batch.
    Adding Gumbel noise to log-probabilities and taking the largest draws without replacement (Kool et al. 2019).
    """

    def __init__(self, config: GenerationConfig, record_ids: np.ndarray):
        self.config = config
        self.streams = [np.random.default_rng([config.generation_seed, int(number)]) for number in record_ids]

    def keep(self, examples: np.ndarray) -> None:
        """Only these examples of the batch go on."""
        self.streams = [self.streams[example] for example in examples]

    def candidates(self, scores: Tensor, sums: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Draws `count` candidates per example from the softmax of the running sums, then sorts them by score.

        Args:
            scores: [B, R, V] log-probabilities of the next tokens.
            sums: [B, R] scores of the live rows.

        Returns:
            Scores and indices into R * V, [B, count] each, best first.
        """
        B, R, V = scores.shape
        likely = keep_likely(
            scores.numpy().reshape([B * R, V]), top_k=self.config.top_k, top_p=self.config.top_p
        ).reshape([B, R, V])
        totals = (sums[:, :, None] + likely).reshape([B, R * V])
        noisy = totals + np.stack([stream.gumbel(size=R * V) for stream in self.streams])
        count = min(count, R * V)
        drawn = np.argpartition(-noisy, count - 1, axis=1)[:, :count]
        drawn = np.take_along_axis(drawn, np.argsort(-np.take_along_axis(totals, drawn, 1), axis=1, kind="stable"), 1)
        return np.take_along_axis(totals, drawn, axis=1), drawn
