"""Finds the columns of source, answer and target in a file, by their names or by the user's options."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from glm.data.templates import Template
from glm.errors import InputError

ROLES = ("source", "answer", "target")
# Usual names of columns, as (source, answer, target); several columns are joined by a line break. This table takes
# precedence over `MORE_COLUMN_SETS`, and a task's own names for its target over both.
COLUMN_SETS = (
    (("context",), ("answer",), ("question",)),
    (("source",), ("title",), ("target",)),  # DuReaderQG's loaders
    (("source",), None, ("target",)),
    (("src",), None, ("tgt",)),
    (("instruction", "input"), None, ("output",)),
    (("query",), None, ("response",)),
    (("content",), None, ("summary",)),
)
OPTIONAL = "input"  # of the set with an instruction
# Usual names of the source text.
TEXTS = ("content", "text", "article", "document", "passage", "paragraph", "context", "source", "abst", "abstract")
TEXTS += ("body", "dialogue", "context_text", "news", "para", "story", "paper", "review", "review_body", "full_text")
TEXTS += (
    "source_text",
    "input_text",
    "content_text",
    "正文",
    "原文",
    "文章",
    "内容",
    "段落",
    "文本",
    "上下文",
    "新闻",
)
ANSWERS, QUESTIONS = ("answer", "answer_text", "ans", "答案"), ("question", "query_text", "ques", "问题")
REFERENCES = ("reference", "references")
MORE_COLUMN_SETS = (
    *(((text,), (answer,), (question,)) for text in TEXTS for answer in ANSWERS for question in QUESTIONS),
    *(((text,), None, (target,)) for text in TEXTS for target in ("summary", "highlights", "摘要")),
    *((("prompt",), None, (target,)) for target in ("response", "completion", "output", "answer", "chosen")),
    *((("instruction",), None, (target,)) for target in ("response", "answer", "completion")),
    *(((source,), None, (target,)) for source, target in (("input", "output"), ("inputs", "targets"))),
    *(((question,), None, (answer,)) for question in QUESTIONS for answer in (*ANSWERS, "回答")),
    *(((source,), None, (target,)) for source, target in (("input", "target"), ("q", "a"), ("输入", "输出"))),
    *(((f"{name}1",), None, (f"{name}2",)) for name in ("sentence", "text", "sent", "question")),
    *(((text,), None, ("abstract",)) for text in ("document", "article", "paper", "story", "full_text", "body")),
    *(((text,), None, ("paraphrase",)) for text in ("original", "sentence", "text", "source")),
    *(((text,), None, ("target_text",)) for text in ("source_text", "input_text")),
    *(((text,), None, (f"{text}_title",)) for text in ("review", "news")),
    (("src_text",), None, ("tgt_text",)),  # UniLM's
)
# Names in files of predictions, which are predicted again.
OF_PREDICTIONS = (
    *(((text,), (answer,), (name,)) for text in TEXTS for answer in ANSWERS for name in REFERENCES),
    *(((text,), None, (name,)) for text in TEXTS for name in REFERENCES),
)
# Ignored around a column's name: blanks of all widths, and what has none.
CLEARED = " \t\r\n\v\f\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
CLEARED += "\ufeff\u200b\u200c\u200d\u200e\u200f\u2060"


@dataclass(frozen=True)
class Columns:
    """The columns of a file by their role; several columns of a role are joined by line breaks.

    Args:
        answer: None if the template has no field for it.
        target: None if the file has no targets.
        extras: other columns that the template names.
        kept: columns that are copied into predictions.
    """

    source: tuple[str, ...]
    answer: tuple[str, ...] | None
    target: tuple[str, ...] | None
    extras: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()

    def __str__(self) -> str:
        roles = {role: getattr(self, role) for role in ROLES}
        named = {role: " + ".join(columns) for role, columns in roles.items() if columns}
        return ", ".join(
            f"{role} = {column}" for role, column in (named | {name: name for name in self.extras}).items()
        )


@dataclass(frozen=True)
class ColumnOptions:
    """The user's options for columns; several columns are separated by commas.

    Args:
        keep_columns: columns to copy into predictions, or `all`.
        multi_turn: `error` refuses conversations of more than one turn, `last` takes the last turn.
        max_record_bytes: largest size of a row.
        inherited: options taken over from a model's training. If a column that they name is missing, it is recognised
            by its name as if the option had not been given.
    """

    source_column: str | tuple[str, ...] | None = None
    answer_column: str | tuple[str, ...] | None = None
    target_column: str | tuple[str, ...] | None = None
    inherited: frozenset[str] = frozenset()
    keep_columns: str | None = None
    multi_turn: str = "error"
    max_record_bytes: int = 32 << 20

    def of(self, role: str) -> tuple[str, ...] | None:
        """Returns the columns named for a role; None if it is to be recognised."""
        wish = getattr(self, f"{role}_column")
        return tuple(name.strip() for name in wish.split(",")) if isinstance(wish, str) else wish

    def found_in(self, present: Sequence[str]) -> "ColumnOptions":
        """Returns the options in the file's spelling, without inherited ones whose column is missing."""
        found = {}
        for option in (f"{role}_column" for role in ROLES):
            columns = [actual_name(name, present) or name for name in self.of(option.removesuffix("_column")) or ()]
            is_missing = option in self.inherited and not set(columns) <= set(present)
            found[option] = None if is_missing or not columns else tuple(columns)
        return replace(self, **found)


RECOGNISED = ColumnOptions()  # all roles are recognised


class Names(tuple[str, ...]):
    """Looks columns of a file up by many possible names; written for requests with thousands of columns."""

    @cached_property
    def exact(self) -> frozenset[str]:
        """The columns as they are written."""
        return frozenset(self)

    @cached_property
    def by_form(self) -> list[dict[str, list[str]]]:
        """Maps columns without surrounding blanks, and then without case, to the file's spelling."""
        found: list[dict[str, list[str]]] = [{}, {}]
        for column in self:
            for forms, form in zip(found, FORMS, strict=True):
                forms.setdefault(form(column.strip(CLEARED)), []).append(column)
        return found


FORMS = (str, str.casefold)


def actual_name(name: str, present: Sequence[str]) -> str | None:
    """Returns the column that a name means, ignoring case and surrounding blanks if that is unambiguous; else None."""
    names = present if isinstance(present, Names) else Names(present)
    if name in names.exact:
        return name
    for forms, form in zip(names.by_form, FORMS, strict=True):
        found = forms.get(form(name.strip(CLEARED)), [])
        if len(found) == 1:
            return found[0]
    return None


def choose_columns(
    present: Sequence[str], template: Template, wishes: ColumnOptions, *, name: str, need_target: bool
) -> Columns:
    """Chooses the columns of source, answer and target.

    The first set whose columns are all present is taken: the task's own, then `COLUMN_SETS`, then
    `MORE_COLUMN_SETS`. If there is none, each role is recognised by itself.

    Args:
        present: the columns of the file.
        template: says whether there is an answer, how the target is called, and which other columns are needed.
        wishes: the user's options.
        name: name of the file, for messages.
        need_target: whether a file without targets is an error.

    Raises:
        InputError: a column is missing, or more than one choice is possible.
    """
    present = Names(present)
    if wishes.answer_column is not None and not template.needs_answer:
        raise InputError(f"answer_column {wishes.answer_column}: the template has no field {{answer}}; leave it out")
    wishes = wishes.found_in(present)
    needed = ["source", *(["answer"] if template.needs_answer else []), *(["target"] if need_target else [])]
    _check_named(present, template, wishes, name)
    tables = [COLUMN_SETS, MORE_COLUMN_SETS, OF_PREDICTIONS, _task_column_sets(template.other_targets)]
    if template.targets:
        tables.insert(0, _task_column_sets(template.targets))
    choices = []
    for table in tables:
        choices = [_columns_of_set(names, present, wishes) for names in table]
        own = actual_name(template.source_name, present)
        if template.source_name not in ("source", "context") and own and not wishes.source_column:
            choices = [((own,), *choice[1:]) for choice in choices]
        if whole := _whole_choices(choices, needed, template):
            (source, answer, target), *_ = whole
            _check_one_reading(whole, needed, name)
            break
    else:
        source, answer, target = _each_by_name(present, wishes, needed, name)
    kept = _kept(wishes.keep_columns, present, name)
    return Columns(source, answer if template.needs_answer else None, target, template.extra_names, kept)


def _check_named(present: Sequence[str], template: Template, wishes: ColumnOptions, name: str) -> None:
    for role in ROLES:
        missing = [column for column in wishes.of(role) or () if column not in present]
        if missing:
            raise _error(f"{role}_column {missing[0]}", f"no such column in {name}", present)
    missing = [column for column in template.extra_names if column not in present]
    if missing:
        raise _error("template", f"its field {missing[0]} is no column of {name}", present)


def _task_column_sets(targets: Sequence[str]) -> tuple:
    """Returns the sets of columns of a task whose target has one of these names."""
    return tuple(((text,), None, (target,)) for target in targets for text in TEXTS if text != target)


def _whole_choices(choices: Sequence[tuple], needed: Sequence[str], template: Template) -> list[tuple]:
    """Returns the complete choices without duplicates; of a task's own targets only the first one present."""
    whole: dict[tuple, tuple] = {}
    for choice in choices:
        key = tuple(choice[ROLES.index(role)] for role in needed)
        if all(key):
            whole.setdefault(key, choice)
    found = list(whole.values())
    first = found[0][2] if found else None
    is_tasks = first and first[0].strip(CLEARED).casefold() in (*template.targets, *template.other_targets)
    return [choice for choice in found if not is_tasks or choice[2] == first]


def _check_one_reading(whole: Sequence[tuple], needed: Sequence[str], name: str) -> None:
    if len(whole) > 1:
        listed = "; or ".join(
            " ".join(f"--{role}_column {','.join(choice[ROLES.index(role)])}" for role in needed) for choice in whole
        )
        raise InputError(f"{name}: its columns can be read in more than one way; say which: {listed}")


def _kept(wish: str | None, present: Sequence[str], name: str) -> tuple[str, ...]:
    """Returns the columns that are copied into predictions (`--keep_columns`)."""
    if wish is None:
        return ()
    if wish.strip() == "all":
        return tuple(present)
    found = {text.strip(): actual_name(text, present) for text in wish.split(",")}
    for text, column in found.items():
        if column is None:
            raise _error(f"keep_columns {text}", f"no such column in {name}", present)
    return tuple(found.values())


def _columns_of_set(column_set: tuple, present: Sequence[str], wishes: ColumnOptions) -> tuple:
    """Returns source, answer and target of a set, None where columns are missing; the user's options win."""
    found = []
    for role, names in zip(ROLES, column_set, strict=True):
        columns = [actual_name(name, present) for name in names or ()]
        columns = [column for column, name in zip(columns, names or (), strict=True) if column or name != OPTIONAL]
        wished = wishes.of(role)
        found.append(wished or (tuple(columns) if columns and all(columns) else None))
    return tuple(found)


def _each_by_name(present: Sequence[str], wishes: ColumnOptions, needed: Sequence[str], name: str) -> list:
    """Recognises source, answer and target each by itself; None for a role that is not needed.

    Raises:
        InputError: roles are not recognised (the text names all), or could be more than one column.
    """
    found, missing = [], []
    for role in ROLES:
        columns = []
        for table in (COLUMN_SETS, MORE_COLUMN_SETS):
            choices = {_columns_of_set(names, present, wishes)[ROLES.index(role)] for names in table} - {None}
            columns = columns or sorted(choices)
        taken = [column for column in found if column]
        columns = [column for column in columns if column not in taken or wishes.of(role)]
        if len(columns) > 1 and role in needed:
            listed = " or ".join(f"--{role}_column {','.join(names)}" for names in columns)
            raise InputError(f"{name}: more than one column can be the {role}; say which: {listed}")
        found.append(columns[0] if len(columns) == 1 else None)
        missing += [role] if role in needed and not columns else []
    if missing:
        raise _unrecognised(missing, found, present, name)
    return found


def _unrecognised(missing: Sequence[str], found: Sequence, present: Sequence[str], name: str) -> InputError:
    """Returns the message for roles without a column, and how to name them."""
    other = ", or take a template without {answer} (--task_name, --template)" if "answer" in missing else ""
    if len(missing) == 1:
        reason = f"no column is recognised as the {missing[0]}; name it with --{missing[0]}_column{other}"
        return _error(name, reason, present)
    free = [column for column in present if column != "id" and (column,) not in found] + list("XYZ")
    options = " ".join(f"--{role}_column {column}" for role, column in zip(missing, free, strict=False))
    reason = f"no column is recognised as the {' nor as the '.join(missing)}; name them, e.g. {options}{other}"
    return _error(name, reason, present)


def _error(subject: str, reason: str, present: Sequence[str]) -> InputError:
    return InputError(f"{subject}: {reason} (columns: {', '.join(present) or 'none'})")
