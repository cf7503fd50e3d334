"""The results of an evaluation by dev set, and their files: `eval/step-N.jsonl` and `step-N.metrics.json` for a single
set; `step-N.SET.jsonl` and `step-N.SET.metrics.json` for each of several, with all of them in `step-N.metrics.json`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glm.data.frames import Encoder
from glm.evaluation.data_sets import named
from glm.evaluation.metrics import Scores
from glm.evaluation.symptoms import Symptoms
from glm.prediction.kinds import KINDS
from glm.prediction.predictions import write_rows
from glm.prediction.scoring import more_figures, with_more, write_scores, write_set_scores


@dataclass(frozen=True)
class SetEvaluation:
    """The results on one dev set.

    Args:
        name: empty where there is one set without a name.
        kind: kind of its task, a key of `glm.prediction.kinds.KINDS`.
        loss: mean per labelled token, or per question.
        rows: what was predicted.
    """

    name: str
    kind: str
    loss: float
    rows: list[dict[str, Any]]
    scores: Scores

    @property
    def figures(self) -> dict[str, float]:
        """Loss and scores, by name."""
        return {"loss": self.loss, **self.scores.figures}


def scores_of_rows(rows: Sequence[dict[str, Any]], encoder: Encoder, *, task: str | None) -> Scores:
    """Scores predicted rows of records that this encoder lays out."""
    good = [row for row in rows if "error" not in row]
    more = more_figures(task, encoder)
    for figures in more:
        for row in good:
            figures.add_row(row)
    return with_more(KINDS[encoder.kind].score(good), more)


def figures_of(found: Sequence[SetEvaluation]) -> dict[str, float]:
    """Returns all figures by name; for several sets `SET/FIGURE`, and their mean as `FIGURE`."""
    return found[0].figures if len(found) == 1 else named({of_set.name: of_set.figures for of_set in found})


def write_evaluation(output_dir: Path, step: int, found: Sequence[SetEvaluation], *, most_texts: int) -> None:
    """Writes predictions and scores of each set, and for several sets a table of all."""
    folder = output_dir / "eval"
    for of_set in found:
        stem = f"step-{step}.{of_set.name}" if len(found) > 1 else f"step-{step}"
        write_rows(folder / f"{stem}.jsonl", of_set.rows, most_texts=most_texts)
        write_scores(folder / f"{stem}.metrics.json", of_set.scores)
    if len(found) > 1:
        scores = {of_set.name: of_set.scores for of_set in found}
        write_set_scores(folder / f"step-{step}.metrics.json", scores, single=False)


def symptoms_of(rows: Sequence[dict[str, Any]]) -> Symptoms:
    """Finds the symptoms of predicted rows."""
    found = Symptoms()
    for row in rows:
        found.add_row(row)
    return found
