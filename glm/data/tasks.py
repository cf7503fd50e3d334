"""Declares what a task asks, and how; knows no family.

A task is of one of three kinds. `generate` writes a text (`glm.data.templates`), `choose` says which of some
candidates fits a blank, `extract` finds the answer to a question in a passage.
"""

import json
import re
import string
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from glm.data.problems import Kind
from glm.data.templates import BLANKS, Template
from glm.errors import InputError
from glm.models.protocol import Family
from glm.runtime.json_structure import json_problem
from glm.runtime.settings_file import MOST_BYTES, as_utf8, read_plain

GENERATE, CHOOSE, EXTRACT = "generate", "choose", "extract"
PRETRAIN = "pretrain"  # not a kind of task: running text
MASK = "[MASK]"
PARTS_FILE = ".json"  # suffix of files with the parts of a template
CHOICE_FILE = "multichoice"  # the task of files that bring their own texts and choices
LAST_WORD = "lambada"
HALF_WIDTH = str.maketrans("，＝", ",=")
FULL_WIDTH_BLANK = re.compile(r"[【［〔]\s*\w{0,8}MASK\s*[】］〕]")
OWN = "own"  # of a template and labels of the user's


class FieldProblem(ValueError):
    """A field of a row that cannot be used."""

    def __init__(self, kind: Kind, name: str, message: str):
        super().__init__(message)
        self.kind, self.name, self.message = kind, name, message


@dataclass(frozen=True)
class Cut:
    """A part of a pattern that may be shortened.

    Args:
        text: with fields in braces.
        group: tokens are taken from the group with most of them, and in it from its last part that has any.
        keeps_end: its start is cut, not its end.
    """

    text: str
    group: int = 0
    keeps_end: bool = False


@dataclass(frozen=True)
class Bare:
    """A part that continues the one before it: no blank in front of its first piece."""

    text: str


Part = str | Cut | Bare


def text_of_part(part: Part) -> str:
    """Returns the text of a part, with fields in braces."""
    return part if isinstance(part, str) else part.text


@dataclass(frozen=True)
class Item:
    """One question of a row.

    Args:
        fields: texts by name, as patterns name them.
        label: what the row says is right: a label's name, or the number of a choice; None if it does not say.
        choices: the candidates that the row brings; the labels' words if there are none.
        right: numbers of the candidates that are right, where the reader knows; else they follow from `label`.
        answers: texts that are right, of a task that extracts.
        lone: its one candidate is to be what the model writes.
        equality: whether the label says so; None if it does not say.
        key: tells the questions of a row apart.
        group: what questions of the same group share.
        language: language of the question.
    """

    fields: Mapping[str, str]
    label: str | int | None = None
    choices: tuple[str, ...] = ()
    right: tuple[int, ...] = ()
    answers: tuple[str, ...] | None = None
    lone: bool = False
    equality: bool | None = None
    key: str | int | None = None
    group: str | None = None
    language: str | None = None


@dataclass(frozen=True)
class Pattern:
    """How a question becomes a text with one blank.

    Args:
        parts: texts, each encoded for itself, with fields in braces and one blank; or a function that gives them for
            the fields of a question.
        labels: the word that stands for each label, in the order of candidates.
    """

    parts: tuple[Part, ...] | Callable[[Mapping[str, str]], tuple[Part, ...]]
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def constant_text(self) -> str:
        """Constant text of all questions."""
        parts = () if callable(self.parts) else self.parts
        texts = [text for part in parts for text, _, _, _ in string.Formatter().parse(text_of_part(part))]
        return BLANKS.sub("", "".join(texts))

    def parts_of(self, fields: Mapping[str, str]) -> tuple[Part, ...]:
        """Returns the parts for a question, with its values filled in."""
        parts = self.parts(fields) if callable(self.parts) else self.parts
        return tuple(
            part.format(**fields) if isinstance(part, str) else replace(part, text=part.text.format(**fields))
            for part in parts
        )


@dataclass(frozen=True)
class Task:
    """A task that chooses or extracts.

    Args:
        name: for `--task_name`.
        kind: CHOOSE or EXTRACT.
        read: the questions of a row of a data file; raises FieldProblem.
        patterns: by `--pattern_id`; the first is the default.
        aliases: other names of labels in data files.
        several: whether a candidate is always scored piece by piece, although it may be a single one.
        ends: whether its end counts then.
        figure: what the best model is chosen by.
        assigned: whether the candidates of a group are exclusive: each is right for one of its questions.
        exact: right only if every token of the answer is the likeliest (LAMBADA).
        no_answer: what a window without the answer is to say; None leaves such windows out of training.
        windows_as_published: windows end where the originals' do, and the last may lose the end of a passage; an
            answer counts as in a window although what does not fit is cut off behind it.
        closed: see `GeometryOptions`.
        language: language of the task, where rows do not say.
        languages: languages that its metrics have rules for; None for all.
    """

    name: str
    kind: str
    read: Callable[[Mapping[str, Any]], Iterator[Item]]
    patterns: Mapping[int, Pattern]
    aliases: Mapping[str, str] = field(default_factory=dict)
    several: bool = False
    ends: bool = True
    figure: str = "accuracy"
    assigned: bool = False
    exact: bool = False
    no_answer: str | None = None
    windows_as_published: bool = False
    closed: bool = True
    language: str = "en"
    languages: tuple[str, ...] | None = None

    def pattern(self, number: int | None) -> Pattern:
        """Returns the pattern of a number, the first if it is None. Raises InputError if there is none."""
        if number is None:
            return next(iter(self.patterns.values()))
        if number not in self.patterns:
            known = ", ".join(map(str, self.patterns))
            raise InputError(f"pattern_id {number}: {self.name} has the patterns {known}")
        return self.patterns[number]

    def described(self, number: int | None) -> list[str]:
        """Everything beside lengths and tokenizer that the ids of a question depend on."""
        pattern = self.pattern(number)
        parts = pattern.parts.__name__ if callable(pattern.parts) else str(pattern.parts)
        return [self.name, parts, str(dict(pattern.labels))]

    def with_only(self, pattern: Pattern) -> "Task":
        """Returns the task with this pattern instead of its own."""
        return replace(self, patterns={0: pattern})


def blank_of(parts: Sequence[Part]) -> str:
    """Returns the only blank among parts.

    Raises:
        ValueError: there is none, or there are two.
    """
    found = [blank for part in parts for blank in BLANKS.findall(text_of_part(part))]
    if len(found) != 1:
        raise ValueError(f"{'no blank' if not found else 'more than one blank'} in it; one {MASK} is expected")
    return found[0]


def english_words(task: Task, constant_text: str) -> str:
    """Returns the English words that a task puts around texts of another language; none of the user's own."""
    if task.language == "en" or task.name == OWN:
        return ""
    return " ".join(re.findall(r"[A-Za-z]+", constant_text))


# -- the user's own


def parse_labels(text: str) -> dict[str, str]:
    """Parses words and their labels, `对=entailment,错=contradiction`; a word without `=` is its own label.

    The signs may also be full-width (`，` and `＝`).

    Raises:
        InputError: a word or a label stands twice, or is empty, or there are not two.
    """
    words: dict[str, str] = {}
    for pair in text.translate(HALF_WIDTH).split(","):
        word, _, label = pair.partition("=")
        word, label = word.strip(), label.strip() or word.strip()
        if not word:
            raise InputError(f"labels {text}: write WORD=LABEL,WORD=LABEL; {pair or 'an empty pair'} has no word")
        if label in words or word in words.values():
            raise InputError(f"labels {text}: {pair} stands twice; each word and each label once")
        words[label] = word
    if len(words) < 2:
        raise InputError(f"labels {text}: at least two are needed to choose from")
    return words


def parse_parts(text: str) -> tuple[Part, ...]:
    """Parses the parts of a user's template: texts, fields and blank; each field may be cut, the longest first.

    Args:
        text: the template; or a JSON list of its parts, or the name of a file with one.

    Raises:
        InputError: it has not exactly one blank, or no field, or its braces are wrong.
    """
    pieces = [piece for piece in _pieces(text) if piece]
    try:
        fields = [found for piece in pieces for found in string.Formatter().parse(piece)]
    except ValueError as error:
        raise InputError(f"template {text}: {error}; a brace that is text is written twice") from error
    if any(name is not None and (not name.isidentifier() or kind or form) for _, name, form, kind in fields):
        raise InputError(f"template {text}: a field is a name in braces and nothing else")
    if not any(name for _, name, _, _ in fields):
        raise InputError(f"template {text}: no field in it, such as {{premise}}: every record would be the same")
    try:
        blank_of(pieces)
    except ValueError as error:
        found = FULL_WIDTH_BLANK.search(text)
        hint = f"; {found[0]} is text: its brackets are full-width" if found else ""
        raise InputError(f"template {text}: {error}{hint}") from error
    groups = iter(range(len(pieces)))
    return tuple(Cut(piece, next(groups)) if re.fullmatch(r"\{\w+\}", piece) else piece for piece in pieces)


def _pieces(text: str) -> list[str]:
    if text.endswith(PARTS_FILE):
        return json.loads(parts_text(text))
    try:
        parts = json.loads(text)
    except (ValueError, RecursionError):
        return re.split(r"(\{[^{}]*\}|\[\w{0,8}MASK\])", text)
    return parts if _are_texts(parts) else [text]


def parts_text(template: str) -> str:
    """Returns a template as a text that does not depend on files: the parts themselves instead of the name of a file
    with them.

    Raises:
        InputError: the file cannot be read, or holds something else.
    """
    if not template.endswith(PARTS_FILE):
        return template
    try:
        data = read_plain(Path(template), "JSON", MOST_BYTES)
    except InputError as error:
        raise InputError(f"template {error}") from error
    try:
        parts = json.loads(as_utf8(data).decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"template {template}: cannot be read as JSON ({json_problem(error)})") from error
    if not _are_texts(parts):
        raise InputError(f"template {template}: a list of texts is expected: parts, fields in braces, one {MASK}")
    return json.dumps(parts, ensure_ascii=False)


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(part, str) for part in value)


def field_names(parts: Sequence[Part]) -> tuple[str, ...]:
    """Returns the names of the fields in parts, in order."""
    texts = [text_of_part(part) for part in parts]
    found = (name for text in texts for _, name, _, _ in string.Formatter().parse(text) if name)
    return tuple(dict.fromkeys(found))


def check_pattern(pattern: Pattern, family: Family, *, subject: str) -> None:
    """Raises InputError for a pattern whose constant texts or words a family reads as commands.

    Args:
        subject: what the message is about.
    """
    texts = () if callable(pattern.parts) else pattern.parts
    rest = "".join(BLANKS.sub("", text_of_part(part)) for part in texts)
    if held := [text for text in family.reserved if text in rest]:
        raise InputError(f"{subject}: one blank and no other command token ({', '.join(held)}) is expected")
    for label, word in pattern.labels.items():
        if held := [text for text in (*family.reserved, *family.blanks) if text in word]:
            raise InputError(f"{subject}: the word {word} of the label {label} is a command token ({held[0]})")


Frame = Template | Task  # how records of a run are laid out
