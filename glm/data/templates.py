"""The text frame of a task, written once and used by training, evaluation and prediction alike."""

from dataclasses import dataclass

from glm.data.records import Record
from glm.errors import InputError

GENERATION_BLANK = "[gMASK]"


@dataclass(frozen=True)
class Template:
    """How a record becomes source and target.

    Args:
        source: Part A with named fields and one blank, e.g. `答案：{answer}，上下文：{context}[gMASK]`.
        target_prefix: constant opening of the target: given to the model at generation, and no part of what is scored.
    """

    source: str
    target_prefix: str

    def source_text(self, record: Record, context: str) -> str:
        """The source before its blank, with `context` in place of the record's (which may be too long)."""
        return self.source.removesuffix(GENERATION_BLANK).format(answer=record.answer, context=context)


NO_TEMPLATE = Template(source=GENERATION_BLANK, target_prefix="")  # texts that bring their own blanks

TEMPLATES = {
    # PaddleNLP's GLM example, llm/glm/data.py
    "dureader_qg": Template(
        source="答案：{answer}，上下文：{context}[gMASK]", target_prefix="在已知答案的前提下，问题："
    ),
}


def find_template(task_name: str) -> Template:
    """The template of a task.

    Raises:
        InputError: there is no such task.
    """
    if task_name not in TEMPLATES:
        raise InputError(f"task_name {task_name}: unknown; known tasks: {', '.join(TEMPLATES)}")
    return TEMPLATES[task_name]
