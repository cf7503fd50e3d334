"""The options that say how a record is read and laid out: the same for training, prediction, `check` and `show`."""

from collections.abc import Mapping
from dataclasses import dataclass

from glm.data.columns import ColumnOptions
from glm.data.templates import Template, find_template, own_template
from glm.errors import UsageError
from glm.generation.config import option

SRC_LENGTH = 608  # the default


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
    src_length: int = option(SRC_LENGTH, "Most source tokens; a longer passage is cut around the answer's sentence.")
    max_seq_length: int | None = option(
        None,
        "Most tokens of source and target together, in place of src_length: of a training pair the longer part is cut "
        "(the target of equal ones), a source to generate for is cut to what tgt_length leaves (UniLM).",
    )
    no_block_position: bool = option(False, "Write 1 at every block position (THUDM/GLM's --no-block-position).")

    # Those of the options above that the user did not give: their values are those of the checkpoint's training.
    inherited = frozenset()

    def __post_init__(self):
        if self.src_length < 8:
            raise UsageError(f"src_length {self.src_length}: use 8 or more")
        if self.max_seq_length is None:
            return
        if self.max_seq_length < 8:
            raise UsageError(f"max_seq_length {self.max_seq_length}: use 8 or more")
        if self.src_length != SRC_LENGTH:
            raise UsageError(
                f"src_length {self.src_length}: has no effect beside max_seq_length {self.max_seq_length}; leave "
                "one out"
            )

    def find_template(self, own: Mapping[str, str] | None = None) -> Template:
        """The template of these options; a family may have its own for a task (`Family.templates`).

        Raises:
            InputError: there is no such task, or the user's template cannot be used.
        """
        if self.template is not None:
            return own_template(self.template, self.target_prefix or "")
        template = find_template(self.task_name)
        if own and self.task_name in own:
            template = own_template(own[self.task_name])
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
