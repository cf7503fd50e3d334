"""The templates of generation tasks, written once for training, evaluation and prediction."""

import difflib
import re
import string
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from glm.data.forms import DIALOGUE, NLG, QA, Form
from glm.data.summaries import MULTITASK, NCLS, OF_MT5, Summaries
from glm.errors import InputError
from glm.models.protocol import Family

GENERATION_BLANK = "[gMASK]"  # in the bundled templates; a family without blanks writes in its place
SENTENCE_BLANK = f"[s{GENERATION_BLANK[2:]}"  # for a whole sentence, or several
BLANKS = re.compile(r"(\[\w{0,8}MASK\])")  # what may mark the place of the target; each family supports some of them
SOURCE_NAMES = ("source", "context")  # names for the text that is cut if it is too long


@dataclass(frozen=True)
class Template:
    """How a record becomes source and target.

    Args:
        source: Part A with named fields and one blank, e.g. `答案：{answer}，上下文：{context}[gMASK]`. `{source}` or
            `{context}` is the text that is cut if it is too long, `{answer}` what the cut keeps; any other name is
            that of a column. A field that is the only one is the source, whatever its name.
        targets: columns that are the task's target where they are there, before all other names.
        other_targets: columns that are it if no other name is there.
        form: how rows whose source is in parts are read; None for rows of columns.
        target_prefix: constant opening of the target: given to the model at generation, and no part of what is scored.
        closed: see `GeometryOptions`.
        cuts_tokens: a source that is too long loses its last tokens; else it is cut between sentences, or as the
            family does.
        summaries: makes the rows of a file those of records, where they are not.
        fewest_tokens: of source and of target, that a record of training has.
    """

    source: str
    target_prefix: str = ""
    targets: tuple[str, ...] = ()
    other_targets: tuple[str, ...] = ()
    closed: bool = True
    cuts_tokens: bool = False
    summaries: Summaries | None = None
    form: Form | None = None
    fewest_tokens: int = 0

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of its fields, in order."""
        return tuple(dict.fromkeys(name for _, name, _, _ in string.Formatter().parse(self.source) if name))

    @cached_property
    def source_name(self) -> str | None:
        """The name of the field that is the source; None if there is none."""
        found = [name for name in self.names if name in SOURCE_NAMES]
        if len(self.names) == 1 and self.names[0] != "answer":
            return self.names[0]
        return found[0] if len(found) == 1 else None

    @property
    def needs_answer(self) -> bool:
        """Whether it has the field `{answer}`."""
        return "answer" in self.names

    @property
    def extra_names(self) -> tuple[str, ...]:
        """Names of fields that are columns of their own: neither source nor answer."""
        return tuple(name for name in self.names if name not in (self.source_name, "answer"))

    @cached_property
    def blank(self) -> str:
        """The mark in the place of the target."""
        return BLANKS.search(self.source).group()

    @property
    def is_bare(self) -> bool:
        """Whether the source is everything: no text around it, no answer."""
        return self.source == f"{{{self.source_name}}}{self.blank}"

    def texts(self, source: str, *, answer: str | None = None, extras: Mapping[str, str] | None = None) -> list[str]:
        """Returns the text before and after the blank, with the fields' values filled in."""
        values = {**(extras or {}), "answer": answer, self.source_name: source}
        return [part.format(**values) for part in BLANKS.split(self.source)[::2]]

    def check(self, family: Family) -> None:
        """Raises InputError if it cannot be laid out by a family, or holds a text that is reserved there."""
        family.check_template(self.source, self.blank)
        rest = "".join(BLANKS.split(self.source)[::2])
        if held := [text for text in family.reserved if text in rest]:
            raise _refused(self.source, f"one blank and no other command token ({', '.join(held)})")
        if any(text in self.target_prefix for text in family.reserved):
            raise InputError(f"target_prefix {self.target_prefix}: holds a command token; take it out")


NO_TEMPLATE = Template(source=GENERATION_BLANK)  # for texts that bring their own blanks

# PaddleNLP's GLM example, llm/glm/data.py
QUESTION_GENERATION = Template(
    source="答案：{answer}，上下文：{context}[gMASK]", target_prefix="在已知答案的前提下，问题："
)

TITLES = ("title", "headline", "headlines", "标题")

# THUDM/Multilingual-GLM, data_utils/dataset.py: the request follows the text, and no token closes the source
_SUMMARY = Template("{source}{prompt}" + SENTENCE_BLANK, targets=("target",), closed=False, cuts_tokens=True)

PARAPHRASE = "paraphrase"  # its texts are also compared with their sources and with each other

TEMPLATES = {
    "dureader_qg": QUESTION_GENERATION,
    "question_generation": QUESTION_GENERATION,
    "summary": Template(
        source="正文：{source}，摘要：[gMASK]", targets=("summary", "highlights", "摘要"), other_targets=TITLES
    ),
    "title": Template(source="正文：{source}，标题：[gMASK]", targets=TITLES),
    "advertisement": Template(source="商品属性：{source}，广告文案：[gMASK]"),
    PARAPHRASE: Template(source="原句：{source}，改写：[gMASK]"),
    "pair": Template(source="{source}[gMASK]"),
    "ncls": replace(_SUMMARY, summaries=NCLS),
    "ncls_multitask": replace(_SUMMARY, summaries=MULTITASK),
    "lcsts": replace(_SUMMARY, summaries=MULTITASK),
    "mt5_summary": replace(_SUMMARY, summaries=OF_MT5),
    # VLM's, whose tags say what the parts are.
    "mt": Template(source="{source}[gMASK]", fewest_tokens=2),
    "summarization": Template(source="{source}[gMASK]", targets=("summary", "tgt"), fewest_tokens=2),
    **{
        kind: Template(source="{source}[gMASK]", form=Form(kind, max_history=1 if kind == QA else 2))
        for kind in (DIALOGUE, QA, NLG)
    },
}


def asks_questions(task_name: str | None, template: str | None) -> bool:
    """Whether the texts of a task are questions; unknown, so False, for a user's own template."""
    return template is None and TEMPLATES.get(task_name) is QUESTION_GENERATION


def find_template(task_name: str, *, others: Iterable[str] = ()) -> Template:
    """Returns the template of a task that generates.

    Args:
        others: names of tasks of other kinds, for the message.

    Raises:
        InputError: there is no such task.
    """
    if task_name not in TEMPLATES:
        known = [*TEMPLATES, *others]
        close = difflib.get_close_matches(task_name.lower().replace("-", "_"), known, n=1, cutoff=0.75)
        meant = f"; did you mean {close[0]}?" if close else ""
        raise InputError(f"task_name {task_name}: unknown{meant}; known tasks: {', '.join(known)}")
    return TEMPLATES[task_name]


def own_template(source: str, target_prefix: str = "") -> Template:
    """Makes a template of the user's own.

    Raises:
        InputError: it has not exactly one blank, no field that is the source, or its braces are wrong.
    """
    template = Template(source, target_prefix)
    try:
        fields = list(string.Formatter().parse(source))
    except ValueError as error:
        raise _refused(source, f"{error}; a brace that is text is written twice") from error
    if any(name is not None and (not name.isidentifier() or kind or form) for _, name, form, kind in fields):
        raise _refused(source, "a field is a name in braces and nothing else")
    if len(BLANKS.findall(source)) != 1:
        raise _refused(source, f"one blank, such as {GENERATION_BLANK}")
    if template.source_name is None:
        raise _refused(source, "call the text that may be cut {source} (--source_column says which column it is)")
    return template


def _refused(source: str, reason: str) -> InputError:
    return InputError(f"template {source}: {reason}, e.g. {QUESTION_GENERATION.source}")
