"""From examples to the padded batch a training step reads."""

from collections.abc import Sequence

import numpy as np

from glm.blank_infilling import IGNORE_INDEX, BlankInfilling, Example, attention_mask
from glm.data.examples import pad_rows


class Collator:
    """Pads Part A and Part B of a batch, each to its longest, and adds who sees whom.

    Args:
        geometry: numbers the positions of the padding too, so that no two layouts exist.
        pad_token_id: fills both parts; nobody sees the padding of Part A, and that of Part B comes after all else.
    """

    def __init__(self, geometry: BlankInfilling, *, pad_token_id: int):
        self.geometry = geometry
        self.pad_token_id = pad_token_id

    def __call__(self, examples: Sequence[Example]) -> dict[str, np.ndarray]:
        """
        Returns:
            input_ids [B, L], position_ids [B, 2, L], attention_mask [B, 1, L, L], labels [B, L] with -100 where there
            is no loss; L = S + T.
        """
        lengths = [len(example.source_ids) for example in examples]
        S, T = max(lengths), max(len(example.target_ids) for example in examples)
        source_ids = pad_rows([example.source_ids for example in examples], S, self.pad_token_id)
        target_ids = pad_rows([example.target_ids for example in examples], T, self.pad_token_id)
        labels = pad_rows([example.labels for example in examples], T, IGNORE_INDEX)
        return {
            "input_ids": np.concatenate([source_ids, target_ids], axis=1),  # [B, S + T]
            "position_ids": np.stack([self._position_ids(example, S, T) for example in examples]),
            "attention_mask": attention_mask(lengths, S, T),
            "labels": np.concatenate([np.full_like(source_ids, IGNORE_INDEX), labels], axis=1),  # [B, S + T]
        }

    def _position_ids(self, example: Example, S: int, T: int) -> np.ndarray:
        """[2, S + T]; the padding of Part B goes on as its last span does."""
        place, block = example.target_position_ids[:, -1]
        padding = self.geometry.span_positions(place, int(block), T - len(example.target_ids))
        return np.concatenate([self.geometry.source_positions(S), example.target_position_ids, padding], axis=1)
