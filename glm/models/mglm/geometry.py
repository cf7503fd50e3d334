"""The multilingual GLM's geometry: GLM's, but each part has a position table of its own. Loads no Paddle."""

from typing import Any

from glm.errors import InputError
from glm.models.glm.geometry import GLMGeometry
from glm.models.mglm.weights import table_rows


class MGLMGeometry(GLMGeometry):
    """As `GLMGeometry`, but Part A and Part B may each be as long as a position table."""

    def room(self, config: Any, src_length: int) -> int:
        """Longest Part B: block position 0 belongs to Part A."""
        return table_rows(vars(config)) - 1

    def check_lengths(self, config: Any, src_length: int, tgt_length: int) -> None:
        """Raises InputError if one of the parts is longer than its table of positions."""
        rows = table_rows(vars(config))
        for name, length, most in (("src_length", src_length, rows), ("tgt_length", tgt_length, rows - 1)):
            if length > most:
                raise InputError(
                    f"{name} {length}: the model has positions for {most} (max_sequence_length "
                    f"{config.max_sequence_length} + additional_sequence_length {config.additional_sequence_length}); "
                    "shorten it"
                )
