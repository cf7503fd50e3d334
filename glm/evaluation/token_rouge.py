"""ROUGE on token ids, as in the multilingual GLM's and its mT5 baseline's figures for summaries.

Prediction and reference are encoded by the model's tokenizer, and their ids are the words of rouge_score 0.1.2
(rouge1, rouge2 and rougeLsum without line breaks, F). Source: THUDM/Multilingual-GLM, generation_utils.py.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

from glm.evaluation.rouge import lcs_length
from glm.evaluation.scored_file import references_of

SENTENCE_MARK = "[SEP]"  # between the sentences of a summary
Encode = Callable[[list[str]], list[list[int]]]
"""A tokenizer's ids of texts."""

MOST_SEEN = 0.7  # a sentence is left out if more than this share of its words occurred before
NAMES = ("rouge-1 (ids)", "rouge-2 (ids)", "rouge-l (ids)")


def without_repeats(text: str) -> str:
    """Removes sentences whose words nearly all occurred before; sentence marks become spaces."""
    kept, seen = [], set()
    for sentence in text.split(SENTENCE_MARK):
        words = set(sentence.lower().split())
        if words and len(words & seen) / len(words) <= MOST_SEEN:
            kept.append(sentence.strip())
        seen |= words
    return " ".join(kept)


def token_rouge(prediction: str, reference: str, encode: Encode) -> tuple[float, float, float]:
    """Computes ROUGE-1, ROUGE-2 and ROUGE-L, 0 to 1, of a text without its repeated sentences; 0 for an empty one."""
    texts = [without_repeats(prediction), " ".join(reference.split(SENTENCE_MARK))]
    ours, theirs = ([str(number) for number in ids] for ids in encode(texts))
    grams = [[Counter(ids), Counter(pairwise(ids))] for ids in (ours, theirs)]
    shared = [(own & other).total() for own, other in zip(*grams, strict=True)]
    sizes = [[counts.total() for counts in both] for both in grams]
    of_grams = [_f(*counts) for counts in zip(shared, *sizes, strict=True)]
    return *of_grams, _f(lcs_length(ours, theirs), len(ours), len(theirs))


def _f(shared: int, ours: int, theirs: int) -> float:
    return 2 * shared / (ours + theirs) if shared else 0.0


class TokenRouge:
    """Collects the figures of best texts of `predict.py`'s rows: means over rows with a reference; the best reference
    counts.

    Args:
        encode: the model's tokenizer.
        digest: digest of all that ids depend on.
    """

    def __init__(self, encode: Encode, digest: str):
        self.encode, self.digest = encode, digest
        self._found: list[list[float]] = []

    def add_row(self, row: Mapping[str, Any]) -> None:
        """Adds a row."""
        if not (references := references_of(row)):
            return
        text = row["predictions"][0]["text"] if row["predictions"] else ""
        scores = [token_rouge(text, reference, self.encode) for reference in references]
        self._found.append([max(values) for values in zip(*scores, strict=True)])

    def figures(self) -> dict[str, float]:
        """Returns the figures in percent; none if no row has a reference."""
        columns = zip(NAMES, zip(*self._found, strict=True), strict=True) if self._found else ()
        return {name: 100 * sum(values) / len(values) for name, values in columns}

    def signatures(self) -> dict[str, str]:
        """Returns the signature of each figure, which names the tokenizer."""
        tokens = f"tok:ids-{self.digest[:12]}"
        signature = f"{tokens}|repeated-sentences:out|f-1|refs:best|avg:records|empty:0|as:rouge-score-0.1.2"
        return dict.fromkeys(NAMES, signature)
