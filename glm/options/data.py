"""The options that say how a record is read and laid out: the same for training, prediction, `check` and `show`."""

from dataclasses import dataclass

from glm.data.columns import ColumnOptions
from glm.data.templates import Template, find_template, own_template
from glm.errors import UsageError
from glm.generation.config import option


@dataclass
class DataArguments:
    """How a record is laid out."""

    task_name: str = option("dureader_qg", "Template, and data set to fetch where no file is given.")
    template: str | None = option(
        None,
        "Template of your own in place of the task's, e.g. 答案：{answer}，上下文：{context}[gMASK]: named fields and "
        "one blank. {source} or {context} is cut if it is too long; other names are columns.",
    )
    target_prefix: str | None = option(
        None, "Constant opening of the target in place of the task's (none with --template): given, not generated."
    )
    source_column: str | None = option(
        None, "Column of the source; several, separated by commas, are joined. Recognised if not given."
    )
    answer_column: str | None = option(None, "Column of the answer. Recognised if not given.")
    target_column: str | None = option(None, "Column of the target. Recognised if not given.")
    multi_turn: str = option(
        "error",
        "What conversations of several turns, or with a system text, are: an error, or their last turn.",
        choices=["error", "last"],
    )
    punctuation: str | None = option(
        None,
        "Punctuation of generated texts, which tokenizers make half-width; that of the training targets if not given.",
        choices=["fullwidth", "halfwidth"],
    )
    src_length: int = option(608, "Most source tokens; a longer passage is cut around the answer's sentence.")
    no_block_position: bool = option(False, "Write 1 at every block position (THUDM/GLM's --no-block-position).")

    # Those of the options above that the user did not give: their values are those of the checkpoint's training.
    inherited = frozenset()

    def __post_init__(self):
        if self.src_length < 8:
            raise UsageError(f"src_length {self.src_length}: use 8 or more")

    def find_template(self) -> Template:
        """The template of these options.

        Raises:
            InputError: there is no such task, or the user's template cannot be used.
        """
        if self.template is not None:
            return own_template(self.template, self.target_prefix or "")
        template = find_template(self.task_name)
        return template if self.target_prefix is None else own_template(template.source, self.target_prefix)

    @property
    def columns(self) -> ColumnOptions:
        """The columns that were named."""
        return ColumnOptions(
            self.source_column,
            self.answer_column,
            self.target_column,
            inherited=self.inherited,
            multi_turn=self.multi_turn,
        )
