"""Compares a text with its reference: by which edits they differ, and how much."""

import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

from rapidfuzz.distance import Levenshtein

from glm.evaluation.segmentation import normalized, squeezed
from glm.report.copied import tokens_of

SAME, MISSING, ADDED = "same", "missing", "added"


class Edit(NamedTuple):
    """A part that is in both texts, in the reference only, or in the generated text only."""

    kind: str
    text: str


def similarity(text: str, reference: str) -> float:
    """Returns 1 - edit distance (Levenshtein 1966) / length of the longer text, in characters: 0 to 1; after NFKC,
    without case and white space."""
    return Levenshtein.normalized_similarity(*(squeezed(normalized(one)).casefold() for one in (text, reference)))


def nearest(text: str, references: Sequence[str]) -> tuple[str, float]:
    """Returns the reference most similar to a text, and the similarity; of equal ones the first."""
    return max(((one, similarity(text, one)) for one in references), key=lambda found: found[1])


def edits(text: str, reference: str) -> list[Edit]:
    """Returns the edits from reference to text, by Latin words, numbers, and single other characters."""
    ours, theirs = tokens_of(text), tokens_of(reference)
    found: list[Edit] = []
    for edit in Levenshtein.opcodes(list(map(_compared, theirs)), list(map(_compared, ours))):
        missing, present = (
            "".join(part) for part in (theirs[edit.src_start : edit.src_end], ours[edit.dest_start : edit.dest_end])
        )
        if edit.tag == "equal":
            found.append(Edit(SAME, present))
            continue
        found += [Edit(kind, part) for kind, part in ((MISSING, missing), (ADDED, present)) if part]
    return found


def _compared(token: str) -> str:
    return unicodedata.normalize("NFKC", token).casefold()
