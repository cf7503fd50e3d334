"""Losses for choosing among candidates (THUDM/GLM, tasks/superglue and finetune_glm.py)."""

import numpy as np
import paddle
from paddle import Tensor

from glm.models.protocol import IGNORE_INDEX
from glm.modules.tensors import as_tensor

HIDDEN = -1e4  # score where a question has no candidate
FLOOR = -20.0  # log-probability below which adapet no longer lowers a wrong word; the original has no bound


def log_normalizers(logits: Tensor) -> Tensor:
    """Computes log sum exp over the last dimension, [n, V] -> [n]; on a CPU Paddle's own is many times slower."""
    most = logits.max(-1, keepdim=True).detach()
    return (logits - most).exp().sum(-1).log() + most.squeeze(-1)


def candidate_scores(
    logits: Tensor, labels: np.ndarray, choice_ids: np.ndarray, choice_rows: np.ndarray, length_penalty: float = 0.0
) -> Tensor:
    """Computes the scores of candidates: log p, summed over tokens if there are several.

    Args:
        logits: [labels, V] of the labelled positions, row by row.
        labels: [rows, L] of the batch.
        choice_ids: [B, K] of single pieces, or [B, 0].
        choice_rows: [B, K], the row of each candidate; -1 where a question has fewer.

    Returns:
        [B, K], HIDDEN where there is no candidate.
    """
    logits = logits.astype("float32") if logits.dtype in (paddle.float16, paddle.bfloat16) else logits
    normalizers = log_normalizers(logits)  # [labels]
    if choice_ids.shape[1]:
        scores = paddle.take_along_axis(logits, as_tensor(choice_ids), axis=1) - normalizers.unsqueeze(1)
    else:
        scored = labels != IGNORE_INDEX  # [rows, L]
        own = paddle.take_along_axis(logits, as_tensor(labels[scored])[:, None], axis=1).squeeze(1)
        counts = scored.sum(axis=1)
        members = np.repeat(np.arange(len(labels)), counts)  # the row of each labelled position
        table = np.zeros((len(labels), len(members)), np.float32)
        table[members, np.arange(len(members))] = 1 / np.repeat(counts**length_penalty, counts)
        sums = paddle.matmul(as_tensor(table).astype(logits.dtype), (own - normalizers).unsqueeze(1)).squeeze(1)
        scores = sums.gather(as_tensor(np.maximum(choice_rows, 0).flatten())).reshape(choice_rows.shape)
    missing = as_tensor(choice_rows < 0)
    return paddle.where(missing, paddle.full_like(scores, HIDDEN), scores)


def choice_losses(scores: Tensor, right: np.ndarray, loss_func: str) -> Tensor:
    """Computes the loss of each question.

    Args:
        scores: [B, K], HIDDEN where there is no candidate.
        right: [B, K], 1 for the right candidates: one, or several of which the model may say any.
        loss_func: `cross_entropy`: -log of the share of the right ones. `hinge`: sum of max(0, 1 + z - z_right) over
            the wrong ones. `generative`: -log p of the right one. `mix`: the sum of the first and the third. `adapet`:
            log p of the wrong ones - log p of the right one, the former no lower than FLOOR.

    Returns:
        [B]
    """
    is_right = as_tensor(right.astype(bool))
    hidden = paddle.full_like(scores, HIDDEN)
    of_right = log_normalizers(paddle.where(is_right, scores, hidden))  # [B]
    cross_entropy = log_normalizers(scores) - of_right
    if loss_func == "cross_entropy":
        return cross_entropy
    if loss_func in ("generative", "mix"):
        return -of_right if loss_func == "generative" else cross_entropy - of_right
    wrong = paddle.logical_and(paddle.logical_not(is_right), scores > HIDDEN / 2)
    if loss_func == "hinge":
        margins = paddle.clip(1.0 + scores - of_right.unsqueeze(1), min=0.0)
        return paddle.where(wrong, margins, paddle.zeros_like(margins)).sum(-1)
    pushed = paddle.where(wrong, paddle.clip(scores, min=FLOOR), paddle.zeros_like(scores))
    return pushed.sum(-1) - of_right
