"""One record as the model sees it in training and in prediction, and that the two are laid out alike."""

from dataclasses import dataclass

import numpy as np

from glm.data.examples import ExampleEncoder
from glm.data.records import Record
from glm.models.glm.geometry import Example, Prompt, attention_mask, prefix_mask


@dataclass(frozen=True)
class Layout:
    """A record in one row: Part A, then Part B.

    Args:
        source_length: S, tokens of Part A.
        training: [4, S + T]: ids, both position rows, labels; None for a record without target.
        prediction: [3, S + P]: ids and both position rows of what generation starts from.
        sees: [L, L] bool, True = row may attend to column; L is the width of `training`, else of `prediction`.
        lost_source, lost_target: tokens that were cut.
    """

    source_length: int
    training: np.ndarray | None
    prediction: np.ndarray
    sees: np.ndarray
    lost_source: int
    lost_target: int

    @property
    def ids(self) -> np.ndarray:
        """[L]"""
        return (self.prediction if self.training is None else self.training)[0]


def lay_out(record: Record, encoder: ExampleEncoder) -> Layout:
    """The layout of a record.

    Raises:
        RecordError: the record does not fit, see `ExampleEncoder`.
        AssertionError: training and prediction are laid out differently, which would be an error of this program.
    """
    (encoded,) = encoder.encode([record])
    source_ids = encoder.lay_out_source(encoded)
    prompt = encoder.prompt(source_ids)
    example = None
    if encoded.target is not None:
        example = encoder.example_of(source_ids, encoder.lay_out_span(encoded))
        check_alike(example, prompt)
    S, T = len(source_ids), len(example.target_ids if example else prompt.opening_ids)
    return Layout(
        source_length=S,
        training=training_rows(example, encoder) if example else None,
        prediction=np.concatenate([prompt.input_ids[None], prompt.position_ids]),
        sees=attention_mask([S], S, T)[0, 0],
        lost_source=encoder.uncut_length(encoded) - S,
        lost_target=max(0, len(encoded.target or ()) - encoder.target_budget),
    )


def training_rows(example: Example, encoder: ExampleEncoder) -> np.ndarray:
    """[4, S + T]: ids, both position rows, labels (-100 where there is no loss) of a training example."""
    S = len(example.source_ids)
    positions = np.concatenate([encoder.geometry.source_positions(S), example.target_position_ids], axis=1)
    ids = np.concatenate([example.source_ids, example.target_ids])
    return np.concatenate([ids[None], positions, np.concatenate([np.full(S, -100), example.labels])[None]])


def check_alike(example: Example, prompt: Prompt) -> None:
    """Asserts that generation starts from, and goes on at, the ids and positions that training had.

    The tokens generated are those of the target: each is read at its training position, and sees what it saw then.
    """
    S, P, T = len(example.source_ids), len(prompt.opening_ids), len(example.target_ids)
    given = min(P, T)  # a target that was cut may end within the opening
    assert (prompt.source_ids == example.source_ids).all(), "the sources differ"
    assert (prompt.opening_ids[:given] == example.target_ids[:given]).all(), "the openings differ"
    positions = [prompt.opening_position_ids, *(prompt.step_position_ids(step) for step in range(T - P))]
    positions = np.concatenate(positions, axis=1)[:, :T]
    assert (positions == example.target_position_ids).all(), "the positions of the target differ"
    assert (attention_mask([S], S, T)[0, 0] == prefix_mask([S], S + T)[0]).all(), "who sees whom differs"
