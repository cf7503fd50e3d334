"""Says in words what is wrong with generated texts as a whole: a broken model must not look well in a table."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from glm.evaluation.segmentation import SEGMENTERS, normalized, squeezed
from glm.evaluation.statistics import repeated_share

FEWEST_TO_JUDGE = 4  # fewer texts may all be alike by chance
ALIKE = 0.9  # share of identical texts from which on they are reported
AT_LIMIT = 0.05  # the same for texts that end at the length limit
REPEATS = 0.25  # share of a text's 4-grams that occurred in it before, from which on it repeats itself
REPEATING = 0.1  # share of such texts from which on they are reported
SHOWN = 20  # characters of a text in a message


class Symptom(NamedTuple):
    """What is wrong, with its figure and what to do, in two languages."""

    english: str
    chinese: str


class Symptoms:
    """Counts problems of texts one by one; keeps a hash of each text, not the text.

    Attributes:
        count: number of texts, the best one of each record.
        empty, at_limit, repeating: number of texts that are empty, ended by the length limit, or repeat themselves.
        cut, lost: number of sources that were cut, and of tokens that they lost.
    """

    def __init__(self) -> None:
        self.count = self.empty = self.at_limit = self.repeating = self.cut = self.lost = 0
        self._texts: Counter[bytes] = Counter()
        self._references: Counter[bytes] = Counter()
        self._first: dict[bytes, str] = {}  # by hash, to show the most frequent one

    def add(self, text: str, *, references: Sequence[str] = (), at_limit: bool = False, cut: int = 0) -> None:
        """Adds the best text of a record.

        Args:
            references: what it is scored against.
            at_limit: whether the length limit ended it.
            cut: number of tokens that its source lost.
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
        """Adds a row of `predict.py`; failed rows and filled blanks are ignored."""
        if "error" in row or not row.keys() & {"predictions", "prediction"}:
            return
        if "predictions" in row:
            best = row["predictions"][0] if row["predictions"] else {"text": ""}
        else:  # a label that was chosen, or an answer
            best = {"text": row["prediction"]}
        references = row.get("reference", row.get("references", ()))
        self.add(
            best["text"],
            references=(references,) if isinstance(references, str) else references,
            at_limit=best.get("finish_reason") == "length",
            cut=row.get("cut", 0),
        )

    def lines(self) -> list[str]:
        """Returns the problems in English, one line each; empty if there is none."""
        return [symptom.english for symptom in self.found()]

    def found(self) -> list[Symptom]:
        """Returns the problems; empty if there is none."""
        found, count = [], self.count
        if self.empty:
            found.append(
                Symptom(
                    f"{self.empty} of {count} texts are empty: the model ends before it has begun; train longer or "
                    "with another --learning_rate, and look at the targets (python -m glm check)",
                    f"{count} 条文本中有 {self.empty} 条为空：模型一开始就结束了生成；请延长训练或调整 "
                    "--learning_rate，并检查训练数据的目标文本（python -m glm check）",
                )
            )
        if alike := self._alike():
            text, number = alike
            found.append(
                Symptom(
                    f"{number} of {count} texts are the same, {text}: the model does not heed its source; train "
                    "longer or with a lower --learning_rate",
                    f"{count} 条文本中有 {number} 条相同：{text}。模型没有利用输入；请延长训练或降低 --learning_rate",
                )
            )
        if self.at_limit > AT_LIMIT * count:
            share = _percent(self.at_limit, count)
            found.append(
                Symptom(
                    f"{share} of the texts end at the length limit: raise --tgt_length if they are good so far; if "
                    "not, train longer, for the model has not learnt to end",
                    f"{share} 的文本因达到长度上限而截断：如果已生成的部分正常，请增大 --tgt_length；"
                    "否则请延长训练，模型还没有学会结束",
                )
            )
        if self.repeating > REPEATING * count:
            share = _percent(self.repeating, count)
            found.append(
                Symptom(
                    f"{share} of the texts repeat themselves: set --no_repeat_ngram_size 3, or train longer",
                    f"{share} 的文本有大量重复：请设置 --no_repeat_ngram_size 3，或延长训练",
                )
            )
        if self.cut:
            found.append(
                Symptom(
                    f"{self.cut} of {count} sources were cut and lost {self.lost} tokens: raise --src_length if what "
                    "matters may be in them",
                    f"{count} 条输入中有 {self.cut} 条被截断，共丢失 {self.lost} 个 token；"
                    "如果其中可能有重要内容，请增大 --src_length",
                )
            )
        return found

    def _alike(self) -> tuple[str, int] | None:
        """Returns the text that nearly all predictions are, and how many, unless the references are as alike."""
        if self.count < FEWEST_TO_JUDGE or not self._texts:
            return None
        (digest, number), *_ = self._texts.most_common(1)
        agreed = self._references.most_common(1)[0][1] / self._references.total() if self._references else 0.0
        if number < ALIKE * self.count or agreed >= ALIKE:
            return None
        text = self._first.get(digest, "")
        return f"“{text[:SHOWN]}{'…' if len(text) > SHOWN else ''}”", number


def loss_symptom(log: Iterable[Mapping[str, Any]], *, learning_rate: float) -> str | None:
    """Returns a warning if the loss of a training did not fall; None if it did, or if there are too few values.

    Args:
        log: lines of `metrics.jsonl`; only those with a loss and a step count.
        learning_rate: learning rate of the run.
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
