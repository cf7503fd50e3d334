"""Scores predictions against references: BLEU-4, ROUGE-1/2/L, generated length, empty predictions."""

from collections.abc import Sequence
from fractions import Fraction
from itertools import chain, product

import numpy as np

from glm.evaluation.segmentation import SEGMENTERS


def score(predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """Scores each prediction against the one reference at the same place.

    BLEU-4 is corpus BLEU with a brevity penalty and exponential smoothing of zero counts (Papineni et al. 2002, as
    in sacrebleu). A corpus without a single 4-gram scores 0, even if predictions and references are equal. ROUGE is
    the mean over records of the F measure of the `rouge` package 1.0.1 (Lin 2004, section 3 for ROUGE-L), which
    counts distinct n-grams and ends a sentence at each ".". Two equal texts of one token have no bigram, so their
    ROUGE-2 is 0.

    Args:
        predictions: Generated texts. An empty one, or one of dots alone that leaves the `rouge` package nothing to
            score, counts 0 in every ROUGE mean.
        references: Expected texts.

    Returns:
        For each segmenter s of `SEGMENTERS`: `bleu-4 (s)`, `rouge-1 (s)`, `rouge-2 (s)`, `rouge-l (s)`, in percent
        (0 to 100, not rounded). Then `generated length`, the mean number of characters of a prediction without white
        space, and `empty predictions`, the number of predictions that are empty or white space only.

    Raises:
        ValueError: There are no records, the numbers of predictions and references differ, or a reference is empty
            or white space only (the message names its index).
    """
    scorer = Scorer()
    scorer.add(predictions, references)
    return scorer.result()


class Scorer:
    """Collects what `score` needs, chunk by chunk, in memory that does not grow with the number of records."""

    def __init__(self) -> None:
        from sacrebleu.metrics import BLEU

        # force only silences the warning about text that looks tokenized, which ours is on purpose.
        self._bleu = BLEU(tokenize="none", force=True)
        self._records = self._characters = self._empty = 0
        # Lengths of predictions and references, then n-grams matched and n-grams in predictions, n = 1 to 4.
        self._bleu_counts = {name: np.zeros(2 + 4 + 4, dtype=np.int64) for name in SEGMENTERS}
        # Sums of ROUGE-1, ROUGE-2 and ROUGE-L; exact, so that chunks and order do not show in the last digit.
        self._rouge_sums = {name: [Fraction(0)] * 3 for name in SEGMENTERS}

    def add(self, predictions: Sequence[str], references: Sequence[str]) -> None:
        """Takes in some more records, or none.

        Raises:
            ValueError: As `score`; the index counts from the first chunk on. None of the chunk is taken in then.
        """
        if len(predictions) != len(references):
            raise ValueError(f"{len(predictions)} predictions but {len(references)} references")
        for index, reference in enumerate(references, start=self._records):
            if not reference.strip():
                raise ValueError(f"references[{index}] is empty")
        if not references:
            return  # sacrebleu cannot count none

        for name, segment in SEGMENTERS.items():
            predicted = [" ".join(segment(text)) for text in predictions]
            expected = [" ".join(segment(text)) for text in references]
            bleu = self._bleu.corpus_score(predicted, [expected])
            self._bleu_counts[name] += [bleu.sys_len, bleu.ref_len, *bleu.counts, *bleu.totals]
            rouge = zip(*map(_rouge, predicted, expected), strict=True)  # one row a record -> one column a metric
            self._rouge_sums[name] = [
                sum(map(Fraction, column), start) for column, start in zip(rouge, self._rouge_sums[name], strict=True)
            ]
        lengths = [len(SEGMENTERS["char"](text)) for text in predictions]
        self._records += len(lengths)
        self._characters += sum(lengths)
        self._empty += lengths.count(0)

    def result(self) -> dict[str, float]:
        """The figures of all records so far, as `score` returns them. Raises ValueError if there are none."""
        if not self._records:
            raise ValueError("no records to score")
        figures: dict[str, float] = {}
        for name in SEGMENTERS:
            figures[f"bleu-4 ({name})"] = self._corpus_bleu(name)
            for metric, total in zip(("rouge-1", "rouge-2", "rouge-l"), self._rouge_sums[name], strict=True):
                figures[f"{metric} ({name})"] = 100 * (float(total) / self._records)
        figures["generated length"] = self._characters / self._records
        figures["empty predictions"] = float(self._empty)
        return figures

    def _corpus_bleu(self, segmenter: str) -> float:
        predicted_length, expected_length, *ngrams = self._bleu_counts[segmenter].tolist()
        return self._bleu.compute_bleu(
            ngrams[:4], ngrams[4:], predicted_length, expected_length, smooth_method=self._bleu.smooth_method
        ).score


def _rouge(predicted: str, expected: str) -> tuple[float, float, float]:
    """F of ROUGE-1, ROUGE-2 and ROUGE-L, 0 to 1, of two texts whose tokens are joined by blanks."""
    from rouge.rouge_score import rouge_n

    prediction, reference = _sentences(predicted), _sentences(expected)
    if not prediction or not reference:  # the package raises here
        return 0.0, 0.0, 0.0
    unigrams, bigrams = (rouge_n(prediction, reference, n)["f"] for n in (1, 2))
    return unigrams, bigrams, _rouge_l(prediction, reference)


def _sentences(text: str) -> list[str]:
    # As `rouge.Rouge.get_scores` does it: dots with a blank between them make an empty sentence, which it keeps.
    return [" ".join(part.split()) for part in text.split(".") if part]


def _rouge_l(prediction: list[str], reference: list[str]) -> float:
    """F of ROUGE-L, 0 to 1, of two lists of sentences.

    Equal to `rouge.rouge_score.rouge_l_summary_level`, which cannot take long texts: it recurses once a token and
    keeps a dictionary entry for each pair of tokens.
    """
    from rouge.rouge_score import f_r_p_rouge_n

    predicted = [sentence.split(" ") for sentence in prediction]
    expected = [sentence.split(" ") for sentence in reference]
    shared = set().union(*(_common_tokens(left, right) for left, right in product(predicted, expected)))
    predicted_count, expected_count = (len(set(chain.from_iterable(tokens))) for tokens in (predicted, expected))
    return f_r_p_rouge_n(predicted_count, expected_count, len(shared))["f"]


def _common_tokens(prediction: list[str], reference: list[str]) -> set[str]:
    """Distinct tokens of one longest common subsequence: of several, the one that the `rouge` package takes."""
    codes = {token: code for code, token in enumerate(prediction)}
    prediction_codes = np.array([codes[token] for token in prediction])
    # longest[i, j] is the length for the first i tokens of the reference and the first j of the prediction.
    longest = np.zeros((len(reference) + 1, len(prediction) + 1), dtype=np.int32)
    for i, token in enumerate(reference):
        equal = prediction_codes == codes.get(token, -1)
        longest[i + 1, 1:] = np.maximum.accumulate(np.maximum(longest[i, 1:], longest[i, :-1] + equal))

    common = set()
    i, j = len(reference), len(prediction)
    while i and j:
        if reference[i - 1] == prediction[j - 1]:
            common.add(reference[i - 1])
            i, j = i - 1, j - 1
        elif longest[i - 1, j] > longest[i, j - 1]:  # on a tie the package drops the prediction's token
            i -= 1
        else:
            j -= 1
    return common
