"""The size and shape of a multilingual GLM."""

import dataclasses

from glm.errors import InputError
from glm.models.glm.configuration import GLMConfig
from glm.models.mglm.weights import PROMPT_FUNCTIONS, table_rows
from glm.modules.block import BlockOptions
from glm.modules.sandwich import RelaxedLayerNorm


class MGLMConfig(GLMConfig):
    """Configuration of a multilingual GLM. What is not listed is as in `GLMConfig`.

    Args:
        max_sequence_length: rows of each position table: of a text's Part A the first positions, of Part B the block
            positions 1, 2, 3, ... (GLM's tables have one row more than it says).
        additional_sequence_length: rows that were added to both tables for longer texts.
        sandwich_ln: a LayerNorm behind attention and MLP, too.
        pb_relax: every LayerNorm divides by the largest number of the batch first; results then depend on who shares
            it, so for import only.
        prefix_prompt: N vectors in front of each layer's attention; 0 for none.
        prompt_func: what the vectors pass through first: `none`, `mlp` or `lstm`.

    Raises:
        InputError: as `GLMConfig`; or a number is negative, or `prompt_func` is unknown or without a prompt.
    """

    model_type = "mglm"
    pretrained_init_configuration = {}

    def __init__(
        self,
        vocab_size: int = 250112,
        max_sequence_length: int = 1025,
        additional_sequence_length: int = 0,
        sandwich_ln: bool = False,
        pb_relax: bool = False,
        prefix_prompt: int = 0,
        prompt_func: str = "none",
        **kwargs,
    ):
        super().__init__(vocab_size=vocab_size, max_sequence_length=max_sequence_length, **kwargs)
        counts = {"additional_sequence_length": additional_sequence_length, "prefix_prompt": prefix_prompt}
        for name, value in counts.items():
            if value < 0:
                raise InputError(f"{name} {value}: use 0 or more")
        if prompt_func not in PROMPT_FUNCTIONS:
            raise InputError(f"prompt_func {prompt_func}: use {', '.join(PROMPT_FUNCTIONS)}")
        if prompt_func != "none" and not prefix_prompt:
            raise InputError(f"prompt_func {prompt_func}: has no effect without prefix_prompt")
        self.additional_sequence_length = additional_sequence_length
        self.sandwich_ln = sandwich_ln
        self.pb_relax = pb_relax
        self.prefix_prompt = prefix_prompt
        self.prompt_func = prompt_func

    @property
    def position_rows(self) -> int:
        """Rows of each position table without the additional ones."""
        return self.max_sequence_length

    @property
    def most_positions(self) -> int:
        """Rows of each position table, the additional ones included."""
        return table_rows(vars(self))

    @property
    def block(self) -> BlockOptions:
        """The settings of its blocks."""
        options = super().block
        return dataclasses.replace(options, norm=RelaxedLayerNorm) if self.pb_relax else options
