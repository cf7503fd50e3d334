"""BLEU of lists of tokens, by sacrebleu: the counts of a record, and the scores of summed counts."""

from collections.abc import Sequence
from functools import cache

BLEU_COUNTS = (
    "length",
    "reference length",
    *(f"{n}-gram matches" for n in (1, 2, 3, 4)),
    *(f"{n}-grams" for n in (1, 2, 3, 4)),
)


@cache
def _sacrebleu():
    from sacrebleu.metrics import BLEU

    # force only silences the warning about text that looks tokenized, which ours is on purpose.
    return BLEU(tokenize="none", force=True)


def bleu_counts(prediction: Sequence[str], references: Sequence[Sequence[str]]) -> list[int]:
    """Returns the counts of a record, as named in `BLEU_COUNTS`; the BLEU of a corpus follows from their sums.

    Matches are clipped to the largest count in any one reference. The reference length is the one closest to the
    prediction's, the shorter one on a tie (Papineni et al. 2002).

    Args:
        prediction: tokens; they may be white space.
        references: tokens of each reference.
    """
    codes: dict[str, str] = {}  # sacrebleu takes text, and would drop tokens of white space

    def text(tokens: Sequence[str]) -> str:
        return " ".join(codes.setdefault(token, str(len(codes))) for token in tokens)

    bleu = _sacrebleu().corpus_score([text(prediction)], [[text(reference)] for reference in references])
    return [bleu.sys_len, bleu.ref_len, *bleu.counts, *bleu.totals]


def corpus_bleu(counts: Sequence[int], order: int = 4) -> float:
    """Computes BLEU from summed counts, in percent, with brevity penalty and without smoothing.

    An order without a match makes it 0, so a corpus without a single 4-gram scores 0 even if predictions and
    references are equal.

    Args:
        counts: as of `bleu_counts`.
        order: the longest n-grams that count.
    """
    length, reference_length, *ngrams = counts
    matches, totals = ngrams[:order], ngrams[4 : 4 + order]
    return _sacrebleu().compute_bleu(matches, totals, length, reference_length, "none", max_ngram_order=order).score


def sentence_bleu(counts: Sequence[int]) -> float:
    """Computes BLEU-4 of one record, 0 to 1, like nltk's `sentence_bleu` with smoothing method 3.

    The k-th order without a match counts 1 / 2**k matches (Chen and Cherry 2014, method 3); an order without an n-gram
    counts one n-gram.
    """
    length, reference_length, *ngrams = counts
    totals = [max(1, total) for total in ngrams[4:]]
    return _sacrebleu().compute_bleu(ngrams[:4], totals, length, reference_length, "exp").score / 100
