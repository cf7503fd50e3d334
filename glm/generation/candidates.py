"""Log-probabilities of candidates after their prompts, by one decoding step for each token."""

from collections.abc import Sequence

import numpy as np

from glm.models.protocol import Decodable, Prompt, TokenScores


def log_probs_by_steps(
    model: Decodable, prompts: Sequence[Prompt], candidates: Sequence[Sequence[Sequence[int]]]
) -> list[list[TokenScores]]:
    """See `glm.models.protocol.Scorable`; for models that have no faster way of their own."""
    logits, cache = model.prefill(prompts)  # [B, V]
    B, K = len(prompts), max(map(len, candidates))
    tokens = np.zeros((B, K, max(len(ids) for found in candidates for ids in found)), np.int64)
    for b, found in enumerate(candidates):
        for k, ids in enumerate(found):
            tokens[b, k, : len(ids)] = ids
    cache.reorder(np.zeros((B, K), np.int64))
    steps = [_scores(np.repeat(logits[:, None], K, axis=1), tokens[:, :, 0])]
    for number in range(tokens.shape[2] - 1):
        logits = model.step(tokens[:, :, number], np.full(B, number), cache)  # [B, K, V]
        steps.append(_scores(logits, tokens[:, :, number + 1]))
    log_probs, best = (np.stack(part, axis=2) for part in zip(*steps, strict=True))  # [B, K, T]
    return [
        [TokenScores(log_probs[b, k, : len(ids)], best[b, k, : len(ids)]) for k, ids in enumerate(found)]
        for b, found in enumerate(candidates)
    ]


def _scores(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the log-probability of each label [B, K] and the likeliest token there, from logits [B, K, V]."""
    logits = logits.astype(np.float64)
    most = logits.max(-1)
    normalizers = np.log(np.exp(logits - most[..., None]).sum(-1)) + most
    chosen = np.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
    return chosen - normalizers, logits.argmax(-1)
