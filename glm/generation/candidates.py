"""Log-probabilities of candidates after their prompts, by one decoding step for each token."""

from collections.abc import Sequence

import numpy as np

from glm.models.protocol import Decodable, Prompt, TokenScores


def log_probs(
    model: Decodable, prompts: Sequence[Prompt], candidates: Sequence[Sequence[Sequence[int]]], *, top: int = 0
) -> list[list[TokenScores]]:
    """Scores candidates, see `glm.models.protocol.Scorable`: in the model's own way, or step by step."""
    if hasattr(model, "log_probs"):
        return model.log_probs(prompts, candidates, top=top)
    return log_probs_by_steps(model, prompts, candidates, top=top)


def log_probs_by_steps(
    model: Decodable, prompts: Sequence[Prompt], candidates: Sequence[Sequence[Sequence[int]]], *, top: int = 0
) -> list[list[TokenScores]]:
    """Scores candidates step by step; for models that have no faster way of their own."""
    logits, cache = model.prefill(prompts)  # [B, V]
    B, K = len(prompts), max(map(len, candidates))
    tokens = np.zeros((B, K, max(len(ids) for found in candidates for ids in found)), np.int64)
    for b, found in enumerate(candidates):
        for k, ids in enumerate(found):
            tokens[b, k, : len(ids)] = ids
    cache.reorder(np.zeros((B, K), np.int64))
    steps = [_scores(np.repeat(logits[:, None], K, axis=1), tokens[:, :, 0], top)]
    for number in range(tokens.shape[2] - 1):
        logits = model.step(tokens[:, :, number], np.full(B, number), cache)  # [B, K, V]
        steps.append(_scores(logits, tokens[:, :, number + 1], top))
    log_probs, likely, values = (np.stack(part, axis=2) for part in zip(*steps, strict=True))  # [B, K, T, …]

    def scores(b: int, k: int, n: int) -> TokenScores:
        of_top = (likely[b, k, :n], values[b, k, :n]) if top else None
        return TokenScores(log_probs[b, k, :n], likely[b, k, :n, 0], of_top)

    return [[scores(b, k, len(ids)) for k, ids in enumerate(found)] for b, found in enumerate(candidates)]


def _scores(logits: np.ndarray, labels: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns, from logits [B, K, V], the log-probability of each label [B, K], the `top` likeliest tokens (at least
    one) [B, K, top], and their log-probabilities."""
    logits = logits.astype(np.float64)
    most = logits.max(-1)
    normalizers = np.log(np.exp(logits - most[..., None]).sum(-1)) + most
    chosen = np.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
    if top <= 1:
        likely = logits.argmax(-1)[..., None]
    else:
        likely = np.argpartition(logits, -top, axis=-1)[..., -top:]
        order = np.argsort(-np.take_along_axis(logits, likely, axis=-1), axis=-1, kind="stable")
        likely = np.take_along_axis(likely, order, axis=-1)
    values = np.take_along_axis(logits, likely, axis=-1) - normalizers[..., None]
    return chosen - normalizers, likely, values
