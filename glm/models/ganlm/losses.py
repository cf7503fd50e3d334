"""GanLM's three losses: the generator writes, the discriminator judges tokens drawn from it, and the generator writes
again where the discriminator erred.

Source: Yang et al. 2023, section 3; as the criterion electra_encoder_decoder_v6 of CSJianYang/GanLM, but that padding
is never drawn, and that the second draw masks logits, not probabilities.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from glm.cpu.arrays import draw_seed
from glm.models.ganlm.draws import draw_tokens
from glm.modules.packing import Packing
from glm.modules.tensors import as_tensor

# [n] each: tokens drawn from the generator, and drawn tokens that are never the label.
Drawn = tuple[np.ndarray, np.ndarray]
COUNTS = ("tp", "fp", "tn", "fn")  # counts of judged tokens by verdict; positive = judged original


@dataclass(frozen=True)
class Batch:
    """Sources and targets of a batch without padding.

    Attributes:
        source_ids, target_ids: [m] and [n], one example behind the other.
        sources, targets: tokens of each.
        target_places: [n], of each target token in the flattened batch.
    """

    source_ids: Tensor
    target_ids: Tensor
    sources: tuple[int, ...]
    targets: tuple[int, ...]
    target_places: np.ndarray

    @classmethod
    def of(cls, input_ids: Tensor, segments: Tensor) -> "Batch":
        """Builds it from `input_ids` [B, L] and `segments` [B, 1, 2].

        Raises:
            ValueError: a row has more tokens than the batch is wide, or no source or target.
        """
        L, parts = input_ids.shape[1], segments.numpy()[:, 0]
        if (parts < 1).any() or (parts.sum(axis=1) > L).any():
            raise ValueError(f"segments {parts.tolist()} do not fit into rows of {L} tokens, or are empty")
        places = [row * L + np.arange(S) for row, (S, _) in enumerate(parts)]
        target_places = np.concatenate([row * L + S + np.arange(T) for row, (S, T) in enumerate(parts)])
        flat = input_ids.flatten()
        ids = (flat.gather(as_tensor(part)) for part in (np.concatenate(places), target_places))
        return cls(*ids, *(tuple(part.tolist()) for part in parts.T), target_places)

    def packing(self, *, causal: bool) -> Packing:
        """Packs the targets: each token sees its whole target, or with `causal` only its own past."""
        return Packing(np.arange(sum(self.targets)), [(0, T) if causal else (T, 0) for T in self.targets])

    def padded(self, table: Tensor) -> Tensor:
        """[n, V] -> [B, T, V], with 0 at padding."""
        B, T = len(self.targets), max(self.targets)
        places = np.concatenate([row * T + np.arange(length) for row, length in enumerate(self.targets)])
        whole = paddle.zeros([B * T, table.shape[1]], table.dtype)
        return paddle.scatter(whole, as_tensor(places), table).reshape([B, T, -1])

    @property
    def is_last(self) -> np.ndarray:
        """[n] bool, True at the last token of each target."""
        last = np.zeros(sum(self.targets), dtype=bool)
        last[np.cumsum(self.targets) - 1] = True
        return last


def fairseq_smoothing(share: float, vocabulary: int) -> float:
    """Converts fairseq's label smoothing e to that of `glm.modules.loss`: fairseq gives each of the other ids e / (V -
    1)."""
    return share * vocabulary / (vocabulary - 1)


def three_losses(
    model: nn.Layer,
    batch: Batch,
    memory: Tensor,
    states: Tensor,
    labels: Tensor,
    text_ids: int,
    *,
    label_smoothing: float,
    num_items: int,
    drawn: Drawn | None = None,
) -> tuple[Tensor, dict[str, float]]:
    """Computes (G + w_d D + w_i I) / num_items.

    Args:
        model: a `GanLMForConditionalGeneration`; its `weights` are w_d and w_i, of which one is not 0.
        memory: [m, H], the encoder's states.
        states: [n, H], the generator's of what it was given.
        labels: [n].
        text_ids: how many ids stand for text or end it; labels beyond are not judged.
        label_smoothing: e, as `glm.modules.loss` has it.
        num_items: labels that the loss is a mean over.
        drawn: tokens in place of those that would be drawn.

    Returns:
        [], and the terms: sums and counts of this batch.
    """
    w_discriminator, w_inconsistency = model.weights
    options = {"label_smoothing": label_smoothing, "num_items": num_items}
    gold, n = labels.numpy(), len(labels)
    x, r = drawn or _draw(model, states, gold)
    judged, is_original = gold < text_ids, x == gold  # judged: W
    with paddle.set_grad_enabled(w_discriminator > 0):
        logits = model.judge(as_tensor(x), batch, memory)  # [n, 2]
    verdicts = logits.detach().numpy()
    generated = model.head.loss(states, labels, **options)
    loss, terms = generated, {"items": n, "judged": int(judged.sum()), "generator": float(generated) * num_items}
    if judged.any():
        places = as_tensor(np.flatnonzero(judged))
        classes = as_tensor(is_original[judged].astype(np.int64))
        costs = F.cross_entropy(logits.gather(places), classes, reduction="sum") * (n / int(judged.sum()))
        loss = loss + costs * (w_discriminator / num_items) if w_discriminator else loss
        terms["discriminator"] = float(costs)
    spoiled, errors = spoiled_inputs(batch, x, r, verdicts, judged, is_original, text_ids)
    terms |= _counts(verdicts[judged], is_original[judged]) | errors
    if w_inconsistency:
        rewritten = model.head.loss(model.generate_from(as_tensor(spoiled), batch, memory), labels, **options)
        loss = loss + rewritten * w_inconsistency
        terms["inconsistency"] = float(rewritten) * num_items
    return loss, terms


@paddle.no_grad()
def _draw(model: nn.Layer, states: Tensor, gold: np.ndarray) -> Drawn:
    temperature = model.config.discriminator_sampling_temperature
    return draw_tokens(model.head.logits(states.detach()), gold, temperature=temperature, seed=draw_seed())


def _counts(verdicts: np.ndarray, is_original: np.ndarray) -> dict[str, float]:
    """Counts judged tokens by verdict and truth. A tie counts as original here, as in the original's log."""
    says_original = verdicts[:, 1] >= verdicts[:, 0]
    pairs = {"tp": (True, True), "fp": (True, False), "tn": (False, False), "fn": (False, True)}
    return {
        name: int(((says_original == says) & (is_original == truth)).sum()) for name, (says, truth) in pairs.items()
    }


def spoiled_inputs(
    batch: Batch,
    x: np.ndarray,
    r: np.ndarray,
    verdicts: np.ndarray,
    judged: np.ndarray,
    is_original: np.ndarray,
    text_ids: int,
) -> tuple[np.ndarray, dict[str, int]]:
    """Returns what the generator reads the second time: where the discriminator misjudged a token, another one
    follows.

    Args:
        x, r: [n] drawn tokens, the second never the label.
        verdicts: [n, 2] logits; on a tie the token is taken for replaced.
        judged: [n] whether a label is a token to be judged.
        is_original: [n] whether x is the label.

    Returns:
        [n], and how many were wrongly judged original, and wrongly judged replaced.
    """
    ids = batch.target_ids.numpy().copy()
    says_original = verdicts[:, 1] > verdicts[:, 0]
    open_ = judged & ~batch.is_last & (x < text_ids)
    missed, doubted = open_ & ~is_original & says_original, open_ & is_original & ~says_original
    following = np.flatnonzero(missed) + 1
    ids[following] = x[following - 1]
    following = np.flatnonzero(doubted) + 1
    ids[following] = r[following - 1]
    return ids, {"wrong_judged_original": int(missed.sum()), "right_judged_replaced": int(doubted.sum())}


def figures_of(terms: Mapping[str, float]) -> dict[str, float]:
    """Turns sums over many batches into logged figures: loss per label, shares of judged tokens.

    Args:
        terms: sums of `terms` of a model, by name.
    """
    items = max(terms.get("items", 0), 1)
    losses = ("generator", "discriminator", "inconsistency")
    figures = {f"{name}_loss": terms[name] / items for name in losses if name in terms}
    if not terms.get("judged"):
        return figures
    tp, fp, tn, fn = (terms[name] for name in COUNTS)
    shares = {
        "replace_rate": (tn + fp, terms["judged"]),
        "replace_accuracy": (tn, tn + fp),
        "keep_accuracy": (tp, tp + fn),
        "wrong_judged_original": (terms["wrong_judged_original"], terms["judged"]),
        "right_judged_replaced": (terms["right_judged_replaced"], terms["judged"]),
    }
    return figures | {name: part / whole for name, (part, whole) in shares.items() if whole}
