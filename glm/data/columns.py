"""Which columns of a file are source, answer and target: recognised by their names, or as the user says."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from glm.data.templates import Template
from glm.errors import InputError

ROLES = ("source", "answer", "target")
# The names that people's files use, as (source, answer, target); several columns are joined by a line break.
LAYOUTS = (
    (("context",), ("answer",), ("question",)),
    (("source",), ("title",), ("target",)),  # DuReaderQG's loaders
    (("source",), None, ("target",)),
    (("src",), None, ("tgt",)),
    (("instruction", "input"), None, ("output",)),
    (("query",), None, ("response",)),
    (("content",), None, ("summary",)),
)
OPTIONAL = "input"  # of the layout with an instruction


@dataclass(frozen=True)
class Columns:
    """The columns of a file by what they are; a text of several columns is joined by line breaks.

    Args:
        answer: none if the template has no field for it.
        target: none if the file has no targets.
        extras: the other columns that the template names.
    """

    source: tuple[str, ...]
    answer: tuple[str, ...] | None
    target: tuple[str, ...] | None
    extras: tuple[str, ...] = ()

    def __str__(self) -> str:
        roles = {role: getattr(self, role) for role in ROLES}
        named = {role: " + ".join(columns) for role, columns in roles.items() if columns}
        return ", ".join(
            f"{role} = {column}" for role, column in (named | {name: name for name in self.extras}).items()
        )


@dataclass(frozen=True)
class ColumnOptions:
    """The columns that the user named; several are separated by commas.

    Args:
        inherited: options whose value is that of a model's training. What they name may be missing: then the column
            is recognised, as if nothing had been said.
    """

    source_column: str | None = None
    answer_column: str | None = None
    target_column: str | None = None
    inherited: frozenset[str] = frozenset()

    def of(self, role: str) -> tuple[str, ...] | None:
        """The columns of a role, None if it is to be recognised."""
        wish = getattr(self, f"{role}_column")
        return None if wish is None else tuple(name.strip() for name in wish.split(","))

    def found_in(self, present: Sequence[str]) -> "ColumnOptions":
        """These options without inherited ones that name a column which is not there."""
        missing = {
            f"{role}_column": None
            for role in ROLES
            if f"{role}_column" in self.inherited and not set(self.of(role) or ()) <= set(present)
        }
        return replace(self, **missing)


RECOGNISED = ColumnOptions()  # nothing was named


def choose_columns(
    present: Sequence[str], template: Template, wishes: ColumnOptions, *, name: str, need_target: bool
) -> Columns:
    """The columns of a file that are source, answer and target.

    A layout all of whose columns are there is taken; if there is none, each role is recognised for itself.

    Args:
        present: the columns of the file.
        template: says whether there is an answer, and which other columns are needed.
        wishes: what the user said.
        name: stands for the file in messages.
        need_target: whether a file without targets is an error.

    Raises:
        InputError: a column is missing, or more than one choice is possible.
    """
    if wishes.answer_column is not None and not template.needs_answer:
        raise InputError(f"answer_column {wishes.answer_column}: the template has no field {{answer}}; leave it out")
    wishes = wishes.found_in(present)
    needed = ["source", *(["answer"] if template.needs_answer else []), *(["target"] if need_target else [])]
    for role in ROLES:
        missing = [column for column in wishes.of(role) or () if column not in present]
        if missing:
            raise _error(f"{role}_column {missing[0]}", f"no such column in {name}", present)
    missing = [column for column in template.extra_names if column not in present]
    if missing:
        raise _error("template", f"its field {missing[0]} is no column of {name}", present)

    choices = [_layout_columns(layout, present, wishes) for layout in LAYOUTS]
    own = (template.source_name,)
    if template.source_name not in ("source", "context") and own[0] in present and not wishes.source_column:
        choices = [(own, *choice[1:]) for choice in choices]
    whole: dict[tuple, tuple] = {}
    for choice in choices:
        key = tuple(choice[ROLES.index(role)] for role in needed)
        if all(key):
            whole.setdefault(key, choice)
    if len(whole) > 1:
        listed = "; or ".join(
            " ".join(f"--{role}_column {','.join(columns)}" for role, columns in zip(needed, key, strict=True))
            for key in whole
        )
        raise InputError(f"{name}: its columns can be read in more than one way; say which: {listed}")
    if whole:
        ((source, answer, target),) = whole.values()
    else:
        source, answer, target = (_one_by_name(role, choices, role in needed, present, name) for role in ROLES)
    return Columns(source, answer if template.needs_answer else None, target, template.extra_names)


def _layout_columns(layout: tuple, present: Sequence[str], wishes: ColumnOptions) -> tuple:
    """Source, answer and target of a layout, each None where its columns are not there; wishes come first."""
    found = []
    for role, columns in zip(ROLES, layout, strict=True):
        columns = wishes.of(role) or tuple(c for c in columns or () if c in present or c != OPTIONAL)
        found.append(columns if columns and set(columns) <= set(present) else None)
    return tuple(found)


def _one_by_name(role: str, choices: Sequence[tuple], needed: bool, present: Sequence[str], name: str):
    found = sorted({choice[ROLES.index(role)] for choice in choices} - {None})
    if len(found) == 1:
        return found[0]
    if not needed:
        return None
    if not found:
        other = ", or take a template without {answer} (--task_name, --template)" if role == "answer" else ""
        raise _error(name, f"no column is recognised as the {role}; name it with --{role}_column{other}", present)
    listed = " or ".join(f"--{role}_column {','.join(columns)}" for columns in found)
    raise InputError(f"{name}: more than one column can be the {role}; say which: {listed}")


def _error(subject: str, reason: str, present: Sequence[str]) -> InputError:
    return InputError(f"{subject}: {reason} (columns: {', '.join(present) or 'none'})")
