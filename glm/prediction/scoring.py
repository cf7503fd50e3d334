"""Scores predictions, all at once or row by row."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from glm.data.frames import Encoder
from glm.data.mixed_records import NO_NAME, TASK
from glm.data.tasks import GENERATE
from glm.data.templates import PARAPHRASE
from glm.errors import InputError
from glm.evaluation.data_sets import table_of
from glm.evaluation.metrics import Scorer, Scores, score
from glm.evaluation.paraphrases import Paraphrases
from glm.evaluation.scored_file import references_of
from glm.evaluation.statistics import Pair
from glm.evaluation.symptoms import Symptoms
from glm.evaluation.token_rouge import TokenRouge
from glm.prediction.kinds import KINDS
from glm.prediction.predictions import Prediction


def coverage(scored: int, records: int) -> str:
    """Says how many records have a reference."""
    return f"{scored} of {records} records {'has' if scored == 1 else 'have'} a reference"


def score_predictions(predictions: Sequence[Prediction], *, of_paraphrases: bool = False) -> Scores:
    """Scores the best texts against the references, see `glm.evaluation.metrics.score`.

    Args:
        of_paraphrases: with the figures of `glm.evaluation.paraphrases`.
    """
    found = Paraphrases()
    for prediction in predictions if of_paraphrases else ():
        found.add(prediction.record.source, [text.text for text in prediction.texts])
    return score(
        Pair(prediction.best, record.references, record.source, record.answer)
        for prediction in predictions
        for record in (prediction.record,)
    ).with_figures(found.figures(), found.signatures())


class Tally:
    """Counts and scores rows of a predictions file, in any order; rows of a task that does not generate are kept.

    Args:
        kind: kind of the task, a key of `glm.prediction.kinds.KINDS`.
        more: figures of texts beside the usual ones, see `more_figures`.
        scores: whether scores will be asked for; if not, rows with a reference are only counted.

    Attributes:
        rows, failed, scored: number of rows, of those that failed, and of those that have a reference.
        first_error: error of the first row that failed.
        symptoms: what is wrong with the texts.
    """

    def __init__(self, kind: str = GENERATE, *, more: Sequence[Any] = (), scores: bool = True):
        self.kind = KINDS[kind]
        self.is_generated = kind == GENERATE
        self.more = more
        self.rows = 0
        self.failed = 0
        self.first_error: str | None = None
        self.scored = 0
        self.symptoms = Symptoms()
        self._scorer = Scorer() if scores else None
        # Kept rows of a task that does not generate, whose metrics need all rows at once.
        self._kept: list[dict[str, Any]] = []

    def add(self, row: dict[str, Any]) -> None:
        """Adds a row; one that failed is counted, not scored."""
        self.rows += 1
        self.symptoms.add_row(row)
        if "error" in row:
            self.failed += 1
            self.first_error = self.first_error or row["error"]
            return
        if not self.is_generated:
            if self.kind.reference in row:
                self._keep(row)
            return
        for figures in self.more if self._scorer is not None else ():
            figures.add_row(row)
        if "reference" in row:
            self._keep(row)

    def _keep(self, row: dict[str, Any]) -> None:
        """Adds a row with a reference."""
        self.scored += 1
        if self._scorer is None:
            return
        if not self.is_generated:
            self._kept.append(row)
            return
        best = row["predictions"][0]["text"] if row["predictions"] else ""
        self._scorer.add([Pair(best, references_of(row), row.get("source"), row.get("answer"))])

    def scores(self) -> Scores:
        """Scores all rows, see `glm.evaluation.metrics.score`, and reports how many failed.

        Raises:
            InputError: every row failed, or none has a reference.
        """
        if self.failed == self.rows:
            raise InputError(f"all {self.rows} records failed, the first with: {self.first_error}")
        if not self.scored:
            raise InputError("no record has a reference, so there is nothing to score")
        scores = self._scorer.result() if self.is_generated else self.kind.score(self._kept)
        scores = scores.with_figures({"failed records": self.failed})
        return with_more(scores, self.more)


class TaskTallies:
    """Scores of each task's rows, where records of several tasks stand in one file.

    Args:
        names: of the tasks in their order; an empty one for the rows of none, which are called `NO_NAME`.
    """

    def __init__(self, names: Iterable[str]):
        self._tallies = {name or NO_NAME: Tally() for name in names}

    @property
    def of_tasks(self) -> dict[str, Tally]:
        """By task, of those that have rows."""
        return {name: tally for name, tally in self._tallies.items() if tally.rows}

    def add(self, row: dict[str, Any]) -> None:
        """Takes a row in; one that failed may be of no task that there is."""
        if "error" not in row:
            self._tallies[row.get(TASK, NO_NAME)].add(row)

    def scores(self) -> dict[str, Scores]:
        """Of each task whose rows have references."""
        return {name: tally.scores() for name, tally in self.of_tasks.items() if tally.scored}


def more_figures(task: str | None, encoder: Encoder) -> list[Any]:
    """Makes the counter of a task's further text metrics: `add_row`, `figures`, `signatures`."""
    found: list[Any] = [Paraphrases()] if task == PARAPHRASE else []
    if encoder.kind == GENERATE and encoder.template.summaries is not None:
        found.append(TokenRouge(encoder.tokenizer.encode_text, encoder.tokenizer.digest))
    return found


def with_more(scores: Scores, more: Sequence[Any]) -> Scores:
    """Merges scores with those of other counters."""
    for figures in more:
        scores = scores.with_figures(figures.figures(), figures.signatures())
    return scores


def write_scores(path: Path, scores: Scores) -> None:
    """Writes scores, their signatures and the scores by length of the source as a JSON object."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(scores.as_json(), ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def write_set_scores(path: Path, scores: Mapping[str, Scores], *, single: bool) -> None:
    """Writes the scores of several data sets, with their mean last; for a single one its own."""
    if single:
        write_scores(path, *scores.values())
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(table_of(scores), ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
