"""How a text differs from its reference: by which edits, and by how many."""

import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

from rapidfuzz.distance import Levenshtein

from glm.evaluation.segmentation import normalized, squeezed
from glm.report.copied import tokens_of

SAME, MISSING, ADDED = "same", "missing", "added"


class Edit(NamedTuple):
    """A part of a text or of its reference: in both, in the reference only, or in the text only."""

    kind: str
    text: str


def similarity(text: str, reference: str) -> float:
    """1 minus the edit distance (Levenshtein 1966) in characters by the length of the longer one, 0 to 1; in NFKC,
    without regard to case and white space."""
    return Levenshtein.normalized_similarity(*(squeezed(normalized(one)).casefold() for one in (text, reference)))


def nearest(text: str, references: Sequence[str]) -> tuple[str, float]:
    """The reference that is most similar to a text, and how much; of equal ones the first."""
    return max(((one, similarity(text, one)) for one in references), key=lambda found: found[1])


def edits(text: str, reference: str) -> list[Edit]:
    """What makes the text of its reference, in the text's order: Latin words and numbers whole, else characters."""
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
