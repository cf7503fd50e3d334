"""Mixes examples of tasks, in cloze form, into pretraining on running text.

A task is drawn by its size to the power 0.8, then one of its patterns and one of its examples, all alike. Of a
question that is answered by choosing the row of the right candidate is learnt; a single piece as it is, several with
their `eop`.

Source: Du et al. 2022, section 2.2; the power and the limit of sizes as THUDM/GLM.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from glm.data.choices import ChoiceEncoder, EncodedChoice
from glm.data.mixture import probabilities
from glm.data.task_examples import choice_example
from glm.models.protocol import Example, Sample

POWER, LARGEST = 0.8, 200_000  # exponent and upper limit of task sizes
TASKS = "tasks"  # the objective of their samples


def task_shares(sizes: Sequence[int]) -> np.ndarray:
    """Returns the probability of each task: [tasks]."""
    return probabilities(sizes, POWER, limit=LARGEST)


def right_examples(encoded: EncodedChoice, encoder: ChoiceEncoder) -> tuple[Example, ...]:
    """Returns the rows of a question's right candidates. Raises RecordError as the encoder."""
    example = choice_example(encoded, encoder)
    if not example.candidates:
        return example.right_alone.rows
    source_ids, opening = encoder.lay_out_source(encoded), encoded.opening
    return tuple(
        encoder.geometry.example(source_ids, [*opening, example.candidates[place]], tgt_length=len(opening) + 1)
        for place in example.right
    )


class TaskPool:
    """Examples of tasks, in memory.

    Args:
        tasks: for each task its examples by pattern: [patterns][questions], each the rows of a question.
        share: share of samples that are examples of tasks.
    """

    def __init__(self, tasks: Mapping[str, Sequence[Sequence[tuple[Example, ...]]]], share: float):
        self.tasks = list(tasks.values())
        self.share = share
        self.shares = task_shares([len(patterns[0]) for patterns in self.tasks])

    def draw(self, random: np.random.Generator) -> Sample:
        """Draws a question of a task."""
        patterns = self.tasks[int(random.choice(len(self.tasks), p=self.shares))]
        questions = patterns[int(random.integers(len(patterns)))]
        return Sample(TASKS, questions[int(random.integers(len(questions)))])
