"""The protocols of VLM's five tasks: multi-bleu, its own ROUGE, CoQA's F1, BLEU and NIST of the E2E challenge.

Texts are taken as they are."""

import math
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from sacrebleu.metrics import BLEU
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

from glm.evaluation.answers import squad_tokens
from glm.evaluation.rouge import lcs_length
from glm.evaluation.statistics import Pair

Tokens = Sequence[str]
ALMOST_NOTHING = 1e-12  # added to a recall by VLM's ROUGE-L
MOST_WORDS = 5  # largest n of NIST's n-grams
# NIST's penalty is 0.5 for an output two thirds as long as its references.
NIST_BETA = math.log(0.5) / math.log(1.5) ** 2
WORDS = re.compile(r"[a-z0-9]+")  # words of Google's rouge-score, in lower case


def multi_bleu(pairs: Sequence[Pair]) -> float:
    """Computes Moses' multi-bleu.perl in percent: case-sensitive, split at spaces, no smoothing."""
    return _bleu(pairs, BLEU(tokenize="none", smooth_method="none", force=True))


def e2e_bleu(pairs: Sequence[Pair]) -> float:
    """Computes BLEU of the E2E challenge in percent (Dušek et al. 2020): lower case, mteval's tokens, no smoothing."""
    return _bleu(pairs, BLEU(tokenize="13a", lowercase=True, smooth_method="none", force=True))


def _bleu(pairs: Sequence[Pair], bleu: BLEU) -> float:
    most = max(len(pair.references) for pair in pairs)
    streams = [
        [pair.references[place] if place < len(pair.references) else None for pair in pairs] for place in range(most)
    ]
    return bleu.corpus_score([pair.prediction for pair in pairs], streams).score


def vlm_rouge(pairs: Sequence[Pair]) -> dict[str, float]:
    """Computes VLM's own ROUGE, 0 to 1, as its program prints it: mean F over pairs (first references); n-grams count
    once, tokens are split at single spaces, and beta of ROUGE-L is precision / recall."""
    rows = [_vlm_rouge(pair.prediction.split(" "), pair.references[0].split(" ")) for pair in pairs]
    return dict(zip(("rouge-1", "rouge-2", "rouge-l"), np.mean(rows, axis=0).tolist(), strict=True))


def _vlm_rouge(prediction: Tokens, reference: Tokens) -> tuple[float, float, float]:
    found = []
    for n in (1, 2):
        ours, theirs = ({*_ngrams(tokens, n)} for tokens in (prediction, reference))
        shared = len(ours & theirs)
        precision, recall = (shared / len(grams) if grams else 0.0 for grams in (ours, theirs))
        found.append(2.0 * precision * recall / (precision + recall + 1e-8))
    length = lcs_length(prediction, reference)
    precision, recall = length / len(prediction), length / len(reference)
    beta = precision / (recall + ALMOST_NOTHING)
    below = recall + beta**2 * precision
    found.append((1 + beta**2) * recall * precision / below if below else 0.0)
    return tuple(found)


def google_rouge(pairs: Sequence[Pair]) -> dict[str, float]:
    """Computes Google's rouge-score without stemming: mean F over pairs (first references), 0 to 1."""
    rows = []
    for pair in pairs:
        ours, theirs = (WORDS.findall(text.lower()) for text in (pair.prediction, pair.references[0]))
        row = []
        for n in (1, 2):
            grams = Counter(_ngrams(ours, n)), Counter(_ngrams(theirs, n))
            row.append(_f1((grams[0] & grams[1]).total(), grams[0].total(), grams[1].total()))
        rows.append([*row, _f1(lcs_length(ours, theirs), len(ours), len(theirs))])
    return dict(zip(("rouge-1", "rouge-2", "rouge-l"), np.mean(rows, axis=0).tolist(), strict=True))


def _f1(shared: int, predicted: int, expected: int) -> float:
    return 2 * shared / (predicted + expected) if shared else 0.0


def coqa(prediction: str, golds: Sequence[str]) -> tuple[float, float]:
    """Computes exact match and F1 of an answer by CoQA's rule (Reddy et al. 2019), 0 to 1.

    Of several right answers it is the mean over leaving one out of the best against the others, as people are scored.
    """
    words = squad_tokens(prediction, "en")
    of_gold = [(float(words == squad_tokens(gold, "en")), _token_f1(prediction, gold)) for gold in golds]
    if len(golds) == 1:
        return of_gold[0]
    rest = [np.max(of_gold[:place] + of_gold[place + 1 :], axis=0) for place in range(len(golds))]
    return tuple(np.mean(rest, axis=0).tolist())


def _token_f1(prediction: str, gold: str) -> float:
    ours, theirs = squad_tokens(prediction, "en"), squad_tokens(gold, "en")
    if not ours or not theirs:
        return float(ours == theirs)
    shared = (Counter(ours) & Counter(theirs)).total()
    precision, recall = shared / len(ours), shared / len(theirs)
    return 2 * precision * recall / (precision + recall) if shared else 0.0


def nist(pairs: Sequence[Pair]) -> float:
    """Computes NIST-5 as the E2E challenge's Python script (Doddington 2002): n-grams are weighted by their
    information."""
    cut = Tokenizer13a()
    texts = [
        (cut(pair.prediction).lower().split(), [cut(text).lower().split() for text in pair.references])
        for pair in pairs
    ]
    counts = [Counter() for _ in range(MOST_WORDS + 1)]
    for _, references in texts:
        for tokens in references:
            for n in range(1, MOST_WORDS + 1):
                counts[n].update(_ngrams(tokens, n))
    words = counts[1].total()
    sums, totals = np.zeros(MOST_WORDS), np.zeros(MOST_WORDS)
    for prediction, references in texts:
        for n in range(1, MOST_WORDS + 1):
            ours, most = Counter(_ngrams(prediction, n)), Counter()
            for tokens in references:
                most |= Counter(_ngrams(tokens, n))
            for gram, count in (ours & most).items():
                before = counts[n - 1][gram[:-1]] if n > 1 else words
                sums[n - 1] += count * math.log2(before / counts[n][gram])
            totals[n - 1] += ours.total()
    output = sum(len(prediction) for prediction, _ in texts)
    expected = sum(np.mean([len(tokens) for tokens in references]) for _, references in texts)
    ratio = min(1.0, output / expected) if expected else 0.0
    penalty = math.exp(NIST_BETA * math.log(ratio) ** 2) if ratio else 0.0
    return float(sum(part / total for part, total in zip(sums, totals, strict=True) if total) * penalty)


def _ngrams(tokens: Tokens, n: int) -> list[tuple[str, ...]]:
    return list(zip(*(tokens[start:] for start in range(n)), strict=False))
