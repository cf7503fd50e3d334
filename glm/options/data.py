"""The options of reading and laying out records, common to training, prediction, `check` and `show`."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from glm.data.columns import ColumnOptions
from glm.data.forms import DIALOGUE, QA
from glm.data.pairs import POOLS
from glm.data.task_table import find_frame
from glm.data.tasks import CHOOSE, EXTRACT, GENERATE, Frame, Task
from glm.data.templates import asks_questions
from glm.errors import InputError, UsageError
from glm.generation.config import GenerationConfig, option

MOST_RECORD_BYTES = 1 << 40
# Any of them defines another frame, which the other options of a trained model do not fit.
FRAME = {"task_name", "template", "labels"}
OF_FRAME = {
    "template",
    "target_prefix",
    "labels",
    "pattern_id",
    "multi_token",
    "unidirectional",
    "classification_head",
}
# Options that have a meaning only for tasks of some kinds.
ONLY_OF = {
    "pattern_id": (CHOOSE, EXTRACT),
    "multi_token": (CHOOSE,),
    "candidate_length_penalty": (CHOOSE,),
    "unidirectional": (CHOOSE,),
    "classification_head": (CHOOSE,),
    "visible_pads": (GENERATE, EXTRACT),
}

# Options of decoding without meaning for a kind of task.
WITHOUT_DECODING = [
    item.name for item in fields(GenerationConfig) if item.name not in ("tgt_length", "length_penalty")
]
WITHOUT_MEANING = {GENERATE: (), EXTRACT: ("min_tgt_length", "prefix", "allowed_outputs_file", "token_scores")}
WITHOUT_MEANING[CHOOSE] = (*WITHOUT_DECODING, *WITHOUT_MEANING[EXTRACT], "length_penalty")


def meaningless(kind: str | None, given: Mapping[str, Any]) -> Iterator[str]:
    """Returns an error for each given option that has no meaning for a kind of task; None stands for any kind."""
    for name in WITHOUT_MEANING.get(kind, ()):
        if name in given:
            advice = "use candidate_length_penalty" if name == "length_penalty" else "leave it out"
            yield f"{name} {given[name]}: has no effect on a task of kind {kind}; {advice}"


SRC_LENGTH = 608  # the default


@dataclass
class DataArguments:
    """How a record is laid out."""

    task_name: str = option("dureader_qg", "Template or task; without files also the data set to download.")
    template: str | None = option(
        None,
        "Template of your own instead of the task's, e.g. 答案：{answer}，上下文：{context}[gMASK]: named fields and "
        "one blank. {source} or {context} is cut if it is too long; other names are columns. With --labels also a "
        ".json file with a list of its parts.",
    )
    target_prefix: str | None = option(
        None, "Constant opening of the target instead of the task's (none with --template): given, not generated."
    )
    source_column: str | None = option(
        None, "Column of the source; several, separated by commas, are joined. Recognised if not given."
    )
    answer_column: str | None = option(None, "Column of the answer. Recognised if not given.")
    target_column: str | None = option(None, "Column of the target, or of the label. Recognised if not given.")
    labels: str | None = option(
        None,
        "Words that may stand in the blank and the labels they mean, one of which is chosen, e.g. "
        "对=entailment,错=contradiction,可能=neutral.",
    )
    pattern_id: int | None = option(None, "Which of the task's patterns to use; the first if not given.")
    multi_token: bool | None = option(
        None,
        "True scores words piece by piece with their end, False refuses words of several pieces [what they need].",
        nargs="?",
        const=True,
    )
    candidate_length_penalty: float = option(
        0.0, "A candidate of n tokens scores sum(log p) / n**candidate_length_penalty."
    )
    classification_head: str | None = option(
        None,
        "Classify with a head on a hidden state instead of a blank: that of its end (pad), of its first token "
        "(cls) or of the one behind its end (start) [pad, where the option stands alone].",
        nargs="?",
        const=POOLS[0],
        choices=list(POOLS),
    )
    unidirectional: bool = option(False, "For files of choices and last words: read the text from left to right only.")
    multi_turn: str = option(
        "error",
        "What to do with conversations of several turns, or with a system text: error, or use their last turn.",
        choices=["error", "last"],
    )
    punctuation: str | None = option(
        None,
        "Punctuation of generated texts, which tokenizers make half-width; that of the training targets if not given.",
        choices=["fullwidth", "halfwidth"],
    )
    max_history: int | None = option(
        None, "h: of a conversation the last 2 h + 1 turns before a reply are read [2; qa 1]."
    )
    document_length: int | None = option(None, "Most tokens of a document about which questions are asked (qa) [400].")
    src_length: int = option(SRC_LENGTH, "Most source tokens; a longer passage is cut around the answer's sentence.")
    max_seq_length: int | None = option(
        None,
        "Most tokens of source and target together, in place of src_length: of a training pair the longer part is cut "
        "(the target of equal ones), a source to generate for is cut to what tgt_length leaves (UniLM).",
    )
    max_record_bytes: int = option(32 << 20, "Most bytes of a record in a file; a larger one is refused.")
    no_block_position: bool = option(False, "Write 1 at every block position (THUDM/GLM's --no-block-position).")
    visible_pads: bool = option(
        False, "Fill every source up to src_length with padding that the model sees, as THUDM/Multilingual-GLM does."
    )

    # Options above that the user did not give and that come from the model's training.
    inherited = frozenset()

    def __post_init__(self):
        if not 1 <= self.max_record_bytes <= MOST_RECORD_BYTES:
            raise UsageError(f"max_record_bytes {self.max_record_bytes}: use 1 to {MOST_RECORD_BYTES}")
        if self.src_length < 8:
            raise UsageError(f"src_length {self.src_length}: use 8 or more")
        if not math.isfinite(self.candidate_length_penalty):
            raise UsageError(f"candidate_length_penalty {self.candidate_length_penalty}: use a finite number")
        for name in ("multi_token", "unidirectional", "candidate_length_penalty"):
            if self.classification_head is not None and (value := getattr(self, name)):
                raise UsageError(f"{name} {value}: has no effect beside classification_head; leave one of them out")
        if self.max_seq_length is None:
            return
        if self.max_seq_length < 8:
            raise UsageError(f"max_seq_length {self.max_seq_length}: use 8 or more")
        if self.src_length != SRC_LENGTH:
            raise UsageError(
                f"src_length {self.src_length}: has no effect beside max_seq_length {self.max_seq_length}; leave "
                "one out"
            )

    def find_template(self, own: Mapping[str, str] | None = None) -> Frame:
        """Returns the template or task of these options; a family may have its own for a task (`Family.templates`).

        Raises:
            InputError: there is no such task, or the user's own template or labels cannot be used.
            UsageError: an option has no effect on the task.
        """
        frame = find_frame(self.task_name, self.template, self.target_prefix, self.labels, own or {})
        kind = frame.kind if isinstance(frame, Task) else GENERATE
        for name, kinds in ONLY_OF.items():
            if kind not in kinds and (value := getattr(self, name)) not in (None, False, 0.0):
                raise UsageError(f"{name} {value}: has no effect on the task {self.task_name}; leave it out")
        return self._with_form(frame)

    def _with_form(self, frame: Frame) -> Frame:
        """Returns a conversation template with its limits set. Raises UsageError for other templates."""
        form = getattr(frame, "form", None)
        given = {
            name: value for name in ("max_history", "document_length") if (value := getattr(self, name)) is not None
        }
        for name, value in given.items():
            needed = {"max_history": (DIALOGUE, QA), "document_length": (QA,)}[name]
            if form is None or form.kind not in needed:
                raise UsageError(f"{name} {value}: has no effect on the task {self.task_name}; leave it out")
            if value < (0 if name == "max_history" else 1):
                raise UsageError(f"{name} {value}: use a larger number")
        return frame if form is None else replace(frame, form=replace(form, **given))

    @property
    def kind(self) -> str:
        """The kind of the task. Raises as `find_template`."""
        frame = self.find_template()
        return frame.kind if isinstance(frame, Task) else GENERATE

    @property
    def of_questions(self) -> bool:
        """Whether the texts to generate are questions."""
        return asks_questions(self.task_name, self.template)

    @property
    def known_kind(self) -> str | None:
        """The kind of the task; None if its template or task cannot be used, which is reported where it is needed."""
        try:
            return self.kind
        except InputError:
            return None

    @property
    def layout(self) -> dict[str, Any]:
        """Options of `glm.data.frames.encoder_of` beside lengths."""
        return {
            "block_position": not self.no_block_position,
            "pattern_id": self.pattern_id,
            "multi_token": self.multi_token,
            "unidirectional": self.unidirectional,
            "classification_head": self.classification_head,
            "max_seq_length": self.max_seq_length,
            "visible_pads": self.visible_pads,
        }

    @property
    def columns(self) -> ColumnOptions:
        """The columns that the user named."""
        return ColumnOptions(
            self.source_column,
            self.answer_column,
            self.target_column,
            inherited=self.inherited,
            multi_turn=self.multi_turn,
            max_record_bytes=self.max_record_bytes,
        )
