"""The training objective on the tokens of Part B: cross entropy with label smoothing."""

from paddle import Tensor


def smoothed_cross_entropy(logits: Tensor, labels: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Mean over tokens of (1 - e) * (-log p[label]) + e * mean over the vocabulary of (-log p).

    This spreads e / V over the whole vocabulary (THUDM/GLM, finetune_glm.py), not e / (V - 1) over the rest of it.

    Args:
        logits: [n, V].
        labels: [n] int64, all within the vocabulary.
        label_smoothing: e, from 0 to 1.

    Returns:
        [] float32
    """
    # Written out on purpose: F.log_softmax takes time quadratic in V on a CPU.
    logits = logits.astype("float32")
    logits = logits - logits.detach().max(axis=-1, keepdim=True)
    log_total = logits.exp().sum(axis=-1).log()  # [n]
    chosen = logits.take_along_axis(labels.unsqueeze(-1), axis=-1).squeeze(-1)  # [n]
    loss = log_total - (1.0 - label_smoothing) * chosen
    if label_smoothing:
        loss = loss - label_smoothing * logits.mean(axis=-1)
    return loss.mean()
