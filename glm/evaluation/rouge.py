"""ROUGE of lists of tokens as the packages `rouge` and `rouge_chinese` compute it, for texts of any length."""

import re
from collections.abc import Iterable, Sequence
from itertools import chain, product

import numpy as np

Rouge = tuple[float, float, float]
"""F of ROUGE-1, ROUGE-2 and ROUGE-L, 0 to 1."""


def rouge(prediction: Sequence[str], reference: Sequence[str]) -> Rouge:
    """Computes F as the `rouge` package 1.0.1 does (Lin 2004, section 3 for ROUGE-L).

    The package counts distinct n-grams and ends a sentence at each ".". Where it raises (an empty text, or one of dots
    alone), the figures are 0. Its ROUGE-L recurses once per token; this one does not.
    """
    from rouge.rouge_score import rouge_n

    predicted, expected = _sentences(" ".join(prediction)), _sentences(" ".join(reference))
    if not predicted or not expected:
        return 0.0, 0.0, 0.0
    unigrams, bigrams = (rouge_n(predicted, expected, n)["f"] for n in (1, 2))
    return unigrams, bigrams, _rouge_l(predicted, expected)


def best_rouge(prediction: Sequence[str], references: Iterable[Sequence[str]]) -> Rouge:
    """`rouge` with several references: each score is the best over the references."""
    return tuple(map(max, zip(*(rouge(prediction, reference) for reference in references), strict=True)))


def _sentences(text: str) -> list[str]:
    # Like `rouge.Rouge.get_scores`: two dots with a space between them make an empty sentence, which it keeps.
    return [" ".join(part.split()) for part in text.split(".") if part]


def _rouge_l(prediction: list[str], reference: list[str]) -> float:
    """Computes F of ROUGE-L, 0 to 1, of two lists of sentences.

    The result equals `rouge.rouge_score.rouge_l_summary_level`, which cannot take long texts: it recurses once per
    token and stores a dictionary entry for each pair of tokens.
    """
    from rouge.rouge_score import f_r_p_rouge_n

    predicted = [sentence.split(" ") for sentence in prediction]
    expected = [sentence.split(" ") for sentence in reference]
    shared = set().union(*(_common_tokens(left, right) for left, right in product(predicted, expected)))
    predicted_count, expected_count = (len(set(chain.from_iterable(tokens))) for tokens in (predicted, expected))
    return f_r_p_rouge_n(predicted_count, expected_count, len(shared))["f"]


def _common_tokens(prediction: list[str], reference: list[str]) -> set[str]:
    """Returns the distinct tokens of a longest common subsequence, the same one that the `rouge` package takes."""
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


# Where `rouge_chinese` ends a sentence: between the two groups.
_SENTENCE_ENDS = tuple(
    re.compile(pattern)
    for pattern in (r"([。！？?])([^”’])", r"(\.{6})([^”’])", r"(…{2})([^”’])", r"([。！？?][”’])([^，。！？?])")
)


def rouge_chinese(prediction: Sequence[str], reference: Sequence[str]) -> Rouge:
    """Computes F as the `rouge_chinese` package 1.0.3 does; 0 for an empty text, where the package raises.

    ROUGE-1 and ROUGE-2 are of distinct n-grams, ROUGE-L of the longest common subsequence of the whole texts.
    """
    predicted, expected = _tokens_of_rouge_chinese(prediction), _tokens_of_rouge_chinese(reference)
    unigrams, bigrams = (_f_of_sets(ngrams(predicted, n), ngrams(expected, n)) for n in (1, 2))
    return unigrams, bigrams, _f(lcs_length(predicted, expected), len(predicted), len(expected))


def _tokens_of_rouge_chinese(tokens: Sequence[str]) -> list[str]:
    """Splits tokens like the package, which joins them and cuts sentences; a blank sentence is an empty token."""
    text = " ".join(tokens)
    for end in _SENTENCE_ENDS:
        text = end.sub(r"\1\n\2", text)
    sentences = (sentence for sentence in text.rstrip().split("\n") if sentence)
    return [token for sentence in sentences for token in " ".join(sentence.split()).split(" ")]


def _f_of_sets(predicted: set, expected: set) -> float:
    return _f(len(predicted & expected), len(predicted), len(expected))


def _f(shared: int, predicted: int, expected: int) -> float:
    precision = shared / predicted if predicted else 0.0
    recall = shared / expected if expected else 0.0
    return 2 * precision * recall / (precision + recall + 1e-8)  # the package's guard against 0 / 0


def ngrams(tokens: Sequence[str], n: int) -> set[tuple[str, ...]]:
    """Returns the distinct n-grams of a text."""
    return set(zip(*(tokens[start:] for start in range(n)), strict=False))


def lcs_length(left: Sequence[str], right: Sequence[str]) -> int:
    """Returns the length of the longest common subsequence, with a row of the table as the bits of an integer.

    Hyyrö 2004.
    """
    places: dict[str, int] = {}  # token -> a bit for each of its positions in `left`
    for place, token in enumerate(left):
        places[token] = places.get(token, 0) | 1 << place
    full = (1 << len(left)) - 1
    row = full  # a zero bit where the length grows by one
    for token in right:
        matches = row & places.get(token, 0)
        row = (row + matches | row - matches) & full
    return len(left) - row.bit_count()
