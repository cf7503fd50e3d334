"""What is wrong with generated texts as a whole, in words: a dead model must not look well in a table of figures."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from glm.evaluation.segmentation import SEGMENTERS, normalized, squeezed
from glm.evaluation.statistics import repeated_share

FEW = 4  # texts that can be alike by chance
ALIKE = 0.9  # share of texts that are the same one
AT_LIMIT = 0.05  # share of texts that end at the length limit
REPEATS = 0.25  # share of a text's 4-grams that stood in it before, from which on it repeats itself
REPEATING = 0.1  # share of texts that do
SHOWN = 20  # characters of a text in a message


class Symptoms:
    """Counts what is wrong in texts, one by one; keeps no text but a digest of each.

    Attributes:
        count: number of texts, the best one of each record.
        empty, at_limit, repeating: texts without a character, that the length limit ended, that repeat themselves.
        cut, lost: sources that were cut, and the tokens that they lost.
    """

    def __init__(self) -> None:
        self.count = self.empty = self.at_limit = self.repeating = self.cut = self.lost = 0
        self._texts: Counter[bytes] = Counter()
        self._references: Counter[bytes] = Counter()
        self._first: dict[bytes, str] = {}  # a text that may turn out to be everybody's

    def add(self, text: str, *, references: Sequence[str] = (), at_limit: bool = False, cut: int = 0) -> None:
        """Takes in the best text of a record.

        Args:
            references: what it is scored against.
            at_limit: the length limit ended it.
            cut: tokens that its source lost.
        """
        self.count += 1
        self.at_limit += at_limit
        self.cut += cut > 0
        self.lost += cut
        if squeezed(text):
            self.repeating += repeated_share(SEGMENTERS["char"](normalized(text))) >= REPEATS
            digest = _digest(text)
            self._texts[digest] += 1
            if len(self._first) < 2:
                self._first.setdefault(digest, text)
        else:
            self.empty += 1
        self._references.update(map(_digest, references[:1]))

    def add_row(self, row: Mapping[str, Any]) -> None:
        """Takes in a row as `predict.py` writes it, but for failed ones and filled blanks."""
        if "error" in row or "predictions" not in row:
            return
        best = row["predictions"][0] if row["predictions"] else {"text": ""}
        references = row.get("reference", ())
        self.add(
            best["text"],
            references=(references,) if isinstance(references, str) else references,
            at_limit=best.get("finish_reason") == "length",
            cut=row.get("cut", 0),
        )

    def lines(self) -> list[str]:
        """What is wrong, each with its figure and what to do; empty if nothing is."""
        found = []
        if self.empty:
            found.append(
                f"{self.empty} of {self.count} texts are empty: the model ends before it has begun; train longer or "
                "with another --learning_rate, and look at the targets (python -m glm check)"
            )
        if alike := self._alike():
            text, number = alike
            found.append(
                f"{number} of {self.count} texts are the same, {text}: the model does not heed its source; train "
                "longer or with a lower --learning_rate"
            )
        if self.at_limit > AT_LIMIT * self.count:
            found.append(
                f"{_percent(self.at_limit, self.count)} of the texts end at the length limit: raise --tgt_length if "
                "they are good so far; if not, train longer, for the model has not learnt to end"
            )
        if self.repeating > REPEATING * self.count:
            found.append(
                f"{_percent(self.repeating, self.count)} of the texts repeat themselves: set "
                "--no_repeat_ngram_size 3, or train longer"
            )
        if self.cut:
            found.append(
                f"{self.cut} of {self.count} sources were cut and lost {self.lost} tokens: raise --src_length if what "
                "matters may be in them"
            )
        return found

    def _alike(self) -> tuple[str, int] | None:
        """The text that nearly all are, with its number, where the references do not agree as much."""
        if self.count < FEW or not self._texts:
            return None
        (digest, number), *_ = self._texts.most_common(1)
        agreed = self._references.most_common(1)[0][1] / self._references.total() if self._references else 0.0
        if number < ALIKE * self.count or agreed >= ALIKE:
            return None
        text = self._first.get(digest, "")
        return f"“{text[:SHOWN]}{'…' if len(text) > SHOWN else ''}”", number


def loss_symptom(log: Iterable[Mapping[str, Any]], *, learning_rate: float) -> str | None:
    """What to say of a training whose loss did not fall; None if it did, or has too few figures to tell.

    Args:
        log: lines of `metrics.jsonl`; those with a loss and a step are looked at.
        learning_rate: of the run.
    """
    losses = [(row["step"], row["loss"]) for row in log if "loss" in row and "step" in row]
    if len(losses) < 2:
        return None
    (first_step, first), last = losses[0], losses[-max(1, len(losses) // 4) :]
    mean = sum(loss for _, loss in last) / len(last)
    if mean < first:
        return None
    return (
        f"the loss did not fall: {first:.4f} at step {first_step}, {mean:.4f} at the end (step {last[-1][0]}); try "
        f"another --learning_rate than {learning_rate:g}, and look at some records (python -m glm show)"
    )


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f} %"


def _digest(text: str) -> bytes:
    return hashlib.blake2b(squeezed(text).encode("utf-8", "surrogatepass"), digest_size=8).digest()
