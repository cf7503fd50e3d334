"""Scores several candidates of a prompt in one pass, side by side: their places, mask, and token probabilities."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import paddle
from paddle import Tensor

from glm.modules.loss import Smoothing, costs_and_slopes
from glm.modules.tensors import as_tensor

CHUNK = 512  # tokens whose logits exist at the same time
MOST_ROWS = 128  # tokens of an example's candidates that are read together, unless one candidate has more

Candidates = Sequence[Sequence[Sequence[int]]]  # [B][candidates][n] ids


def parts_of(candidates: Candidates) -> list[list[list[Sequence[int]]]]:
    """Splits candidates into parts that are read one after the other: as many per example as MOST_ROWS allows."""
    found: list[list[list[Sequence[int]]]] = []
    for place, own in enumerate(candidates):
        part, rows = 0, 0
        for ids in own:
            rows += len(ids) - 1
            if rows > MOST_ROWS and rows > len(ids) - 1:
                part, rows = part + 1, len(ids) - 1
            while len(found) <= part:
                found.append([[] for _ in candidates])
            found[part][place].append(ids)
    return found


@dataclass(frozen=True)
class Branches:
    """The candidates of B prompts, side by side in R rows each: all their tokens but the last.

    Args:
        candidates: [B][candidates][n] ids.
        tokens: [B, R] int64, what is read; 0 in rows that no candidate needs.
        numbers: [B, R] int64, which token of its candidate each is, from 0.
        sees: [B, R, R] bool, True = row may attend to column: to those of its own candidate up to itself.
    """

    candidates: Candidates
    tokens: np.ndarray
    numbers: np.ndarray
    sees: np.ndarray

    @classmethod
    def of(cls, candidates: Candidates) -> "Branches":
        """Lays out candidates.

        Raises:
            ValueError: one has no token.
        """
        if any(not len(ids) for found in candidates for ids in found):
            raise ValueError("a candidate has no token")
        B = len(candidates)
        R = max((sum(len(ids) - 1 for ids in found) for found in candidates), default=0)
        tokens, numbers = np.zeros((B, R), np.int64), np.zeros((B, R), np.int64)
        sees = np.repeat(np.eye(R, dtype=bool)[None], B, axis=0)
        for b, found in enumerate(candidates):
            start = 0
            for ids in found:
                end = start + len(ids) - 1
                tokens[b, start:end] = ids[:-1]
                numbers[b, start:end] = np.arange(end - start)
                sees[b, start:end, start:end] = np.tril(np.ones((end - start, end - start), dtype=bool))
                start = end
        return cls(candidates, tokens, numbers, sees)

    @property
    def rows(self) -> int:
        """R; 0 if every candidate is a single token."""
        return self.tokens.shape[1]

    def token_scores(self, head, states: Tensor, *, top: int = 0) -> list[list[tuple]]:
        """Returns the log-probability of each token of every candidate, and the likeliest token in each place.

        Args:
            head: with `logits`, see `glm.modules.head`.
            states: [B + B * R, H], after the prompts, then after each token that was read.
            top: how many of the likeliest tokens of each place are told, too.

        Returns:
            [B][candidates] of [n] float64 and [n] int64; and, if they are told, [n, top] int64 and float64 of the
            likeliest tokens.
        """
        B, R = self.tokens.shape
        places, labels = [], []
        for b, found in enumerate(self.candidates):
            start = B + b * R
            for ids in found:
                places += [b, *range(start, start + len(ids) - 1)]
                labels += ids
                start += len(ids) - 1
        log_probs, likely, their_log_probs = _label_scores(
            head, states, np.array(places), np.array(labels), top=max(top, 1)
        )
        spans, start = [], 0
        for found in self.candidates:
            spans.append([])
            for ids in found:
                spans[-1].append(slice(start, start + len(ids)))
                start += len(ids)
        best = likely[:, 0]
        if not top:
            return [[(log_probs[span], best[span]) for span in found] for found in spans]
        return [
            [(log_probs[span], best[span], (likely[span], their_log_probs[span])) for span in found] for found in spans
        ]


def _label_scores(
    head, states: Tensor, places: np.ndarray, labels: np.ndarray, *, top: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the log-probability of each label [n] after the state of its place [n], the likeliest tokens there [n,
    top], and their log-probabilities."""
    log_probs, likely = np.empty(len(labels)), np.empty((len(labels), top), np.int64)
    their_log_probs = np.empty(likely.shape)
    order = np.argsort(places, kind="stable")  # candidates start after the same state, whose logits are computed once
    for start in range(0, len(labels), CHUNK):
        chunk = order[start : start + CHUNK]
        own, which = np.unique(places[chunk], return_inverse=True)
        logits = head.logits(states.gather(as_tensor(own)))  # [m, V]
        logits = logits if logits.dtype == paddle.float64 else logits.astype("float32")
        ids, values = _likeliest(logits, top)  # [m, top] each
        pairs = as_tensor(np.stack([which, labels[chunk]], axis=1).astype(np.int64))  # [chunk, 2]
        found = logits.gather_nd(pairs).numpy().astype(np.float64)
        costs, _ = costs_and_slopes(logits, as_tensor(ids[:, 0]), Smoothing(), False)  # overwrites the logits
        normalizers = costs.numpy() + values[:, 0]
        log_probs[chunk] = found - normalizers[which]
        likely[chunk], their_log_probs[chunk] = ids[which], (values - normalizers[:, None])[which]
    return log_probs, likely, their_log_probs


def _likeliest(logits: Tensor, top: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the largest elements of each row, [m, top]: indices and values."""
    if top == 1:  # far cheaper than `topk`
        ids = logits.argmax(-1, keepdim=True)
        values = paddle.take_along_axis(logits, ids, axis=-1)
    else:
        values, ids = logits.topk(top, axis=-1)
    return ids.numpy(), values.numpy().astype(np.float64)
