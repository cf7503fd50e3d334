"""Reads options from a command line and a configuration file that it overrides; options are fields of dataclasses."""

import dataclasses
import json
import os
import re
import sys
from argparse import (
    SUPPRESS,
    Action,
    ArgumentDefaultsHelpFormatter,
    ArgumentError,
    ArgumentParser,
    ArgumentTypeError,
    Namespace,
)
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, NoReturn, Union, get_args, get_origin, get_type_hints

from glm.data.mixture import named_file
from glm.errors import InputError, UsageError, shown
from glm.options.run_config import CONFIG_SUFFIXES, read_config
from glm.options.suggestions import option_advice
from glm.runtime.environment import user_path

TRUE, FALSE = ("yes", "true", "t", "y", "1"), ("no", "false", "f", "n", "0")
UNSET = ("none", "null")  # as a value: unset the option, as if it had not been given
KEY_VALUE = re.compile(r"([A-Za-z_][\w-]*)=(.*)", re.S)
MOST_NAME, MOST_PATH = 255, 4000  # bytes
# Options that name inputs, which are also looked for beside the configuration file, and options that name outputs.
INPUTS = ("model_name_or_path", "tokenizer_name_or_path", "train_file", "dev_file", "test_file", "fill_file")
INPUTS += ("allowed_outputs_file", "resume_from_checkpoint", "train_data", "dev_data", "multi_task_data")
INPUTS += ("adapters", "api_key_file")
JOINED = ("adapters", "train_data", "dev_data")  # several, separated by commas
MAY_BE_FILES = {"template": ".json"}  # a file, where the value ends so; else a text
OUTPUTS = ("output_dir", "logging_dir", "data_cache_dir", "output_file", "metrics_file", "report")


@dataclass
class Reading:
    """The options of a command line and its configuration file.

    Attributes:
        values: of all options, defaults included.
        given: the options that were set, by name.
        typed: names of those set on the command line; the others are set by the file.
        unset: names that the command line unsets.
        file: the configuration file, if there is one.
        errors: all errors, one line each.
    """

    values: Namespace
    given: dict[str, Any] = field(default_factory=dict)
    typed: set[str] = field(default_factory=set)
    unset: set[str] = field(default_factory=set)
    file: str = ""
    errors: list[str] = field(default_factory=list)

    def give_way(self, name: str, other: str, default: Any) -> None:
        """Unsets an option that only the file has set, if it conflicts with one on the command line."""
        if name in self.given and name not in self.typed and other in self.typed:
            print(f"{self.file}: {name} {self.given[name]} gives way to --{other}", file=sys.stderr)
            del self.given[name]
            setattr(self.values, name, default)


class OptionParser(ArgumentParser):
    """A parser whose options are the fields of dataclasses; a field's metadata are arguments of `add_argument`.

    The syntax is that of PaddleNLP's PdArgumentParser, so that its users' commands mean the same. A `bool` may stand
    alone (`--recompute`) or have a value; one that defaults to True also has `--no_NAME`. A list takes several values,
    an enum one of its values. `NAME=VALUE` works without dashes. `none` unsets what the file has set. Names cannot be
    abbreviated.

    Args:
        groups: dataclasses without common fields. `HIDDEN` of a class names fields that --help does not show;
            `BASE_TITLE` is the heading of its base class's fields there.
        description: the first line of `--help`.
        elsewhere: names of options of another script, and that script.
    """

    def __init__(self, groups: tuple[type, ...], description: str, elsewhere: tuple[Collection[str], str] = ((), "")):
        usage = "%(prog)s [FILE.json | FILE.yaml] [--OPTION VALUE | OPTION=VALUE ...]"
        super().__init__(
            usage=usage, description=description, allow_abbrev=False, formatter_class=ArgumentDefaultsHelpFormatter
        )
        self.groups = groups
        self.elsewhere = elsewhere
        self.defaults: dict[str, Any] = {}
        for group in groups:
            types, own = get_type_hints(group), self.add_argument_group(_title(group))
            base = None
            for item in sorted(dataclasses.fields(group), key=lambda item: not _is_own(group, item.name)):
                if item.init:
                    if not _is_own(group, item.name) and base is None:
                        base = self.add_argument_group(group.BASE_TITLE)
                    shown = item.name not in getattr(group, "HIDDEN", ())
                    self._add_option(base or own, item, without_none(types[item.name]), shown=shown)
        self.known = {option[2:]: action for option, action in self._option_string_actions.items()}

    def _add_option(self, group: Any, item: dataclasses.Field, kind: Any, *, shown: bool) -> None:
        has_factory = item.default_factory is not dataclasses.MISSING
        default = item.default_factory() if has_factory else item.default
        how = how_to_read(kind, default) | dict(item.metadata)
        how |= {"required": True} if default is dataclasses.MISSING else {"default": default}
        how |= {} if shown else {"help": SUPPRESS}
        group.add_argument(f"--{item.name}", **how)
        self.defaults[item.name] = None if default is dataclasses.MISSING else default
        if kind is bool and default is True:
            # It sets the value of the option added before; the default False is only for --help.
            opposite = dict(item.metadata) | {"action": "store_false", "dest": item.name, "default": False}
            group.add_argument(f"--no_{item.name}", **opposite | ({} if shown else {"help": SUPPRESS}))

    def error(self, message: str) -> NoReturn:
        raise UsageError(message)

    # -- reading

    def read(self, argv: list[str], *, inherited: dict[str, Any] | None = None) -> Reading:
        """Parses a command line: `[FILE] [--option value | option=value ...]`.

        Args:
            inherited: settings that replace defaults and do not count as given.
        """
        if {"-h", "--help"} & set(argv):
            self.print_help()
            raise SystemExit(0)
        reading = Reading(Namespace(**self.defaults))
        for name, value in (inherited or {}).items():  # already checked and of the right types
            setattr(reading.values, name, value)
        if argv and not argv[0].startswith("-") and not self._is_pair(argv[0]):
            reading.file = argv[0]
            self._take_file(reading, Path(user_path(argv[0])))
            argv = argv[1:]
        before = dict(reading.given)
        is_unreadable = bool(reading.errors) and not before  # the file; it may have what seems to be missing
        reading.given = {}
        pairs, rest = self._pairs(argv)
        self._take(reading, pairs, where="command line", before=before)
        reading.typed = set(reading.given)
        reading.given = {name: value for name, value in before.items() if name not in reading.unset} | reading.given
        if rest:
            reading.errors.append(f"command line: {' '.join(rest)} belongs to no option")
        missing = [f"--{a.dest}" for a in self.known.values() if a.required and a.dest not in reading.given]
        if missing and not is_unreadable:
            reading.errors.append(f"the following arguments are required: {', '.join(missing)}")
        return reading

    def _take_file(self, reading: Reading, path: Path) -> None:
        if not path.name.endswith(CONFIG_SUFFIXES):
            kinds = f"{', '.join(CONFIG_SUFFIXES[:-1])} or {CONFIG_SUFFIXES[-1]}"
            reading.errors.append(f"{path}: a configuration file ending in {kinds}, or an option, is expected first")
            return
        try:
            settings = read_config(path)
        except UsageError as error:
            reading.errors += error.messages
            return
        beside = {name: _beside(path, name, value) for name, value in settings.items() if name not in OUTPUTS}
        pairs = []
        for name, value in (settings | beside).items():
            try:
                pairs.append((name, self._words(name, value)))
            except UsageError as error:
                reading.errors += [f"{path}: {message}" for message in error.messages]
        self._take(reading, pairs, where=str(path))

    def _words(self, name: str, value: Any) -> list[str]:
        """Converts a value of a file to command-line words; each is a value, even if it looks like an option.

        Raises:
            UsageError: a list is given where one value is expected, or an empty one where a list is.
        """
        action = self.known.get(self._known_name(name))
        if action is not None and action.nargs == 0:
            raise UsageError(f"{name}: set {action.dest} to false")
        takes_list = action is not None and action.nargs == "+"
        if isinstance(value, list) and action is not None:
            if not takes_list or not value or any(isinstance(item, list) for item in value):
                expected = "a list with an item at least" if takes_list else "one value, not a list,"
                raise UsageError(f"{name} {shown(json.dumps(value, ensure_ascii=False))}: {expected} is expected")
        items = value if isinstance(value, list) else [value]
        return [json.dumps(item) if isinstance(item, dict) else str(item) for item in items]

    def _pairs(self, argv: list[str]) -> tuple[list[tuple[str, list[str]]], list[str]]:
        """Splits a command line into names with their values, and words that belong to no option."""
        pairs: list[tuple[str, list[str]]] = []
        rest: list[str] = []
        for word in argv:
            if word.startswith("--") and len(word) > 2:
                name, equals, value = word[2:].partition("=")
                pairs.append((name, [value] if equals else []))
            elif pairs and self._wants(pairs[-1], word):
                pairs[-1][1].append(word)
            elif self._is_pair(word):
                name, _, value = word.partition("=")
                pairs.append((name, [value]))
            else:
                rest.append(word)
        return pairs, rest

    def _wants(self, pair: tuple[str, list[str]], word: str) -> bool:
        """Whether a word can be another value of an option."""
        name, texts = pair
        action = self.known.get(self._known_name(name))
        if action is None:
            return not texts
        if isinstance(action, OneOrMore):  # NAME=PATH is a value, unless NAME is an option
            return not word.partition("=")[1] or self._known_name(word.partition("=")[0]) not in self.known
        if action.nargs == "+":
            return not self._is_pair(word)
        if action.nargs == "?":
            return not texts and not self._is_pair(word)
        return action.nargs is None and not texts

    def _is_pair(self, word: str) -> bool:
        """Whether a word is `NAME=VALUE` with an option's name, or a similar one."""
        found = KEY_VALUE.fullmatch(word)
        return bool(found) and (
            self._known_name(found[1]) in self.known or bool(option_advice(found[1], self.known)) or "/" not in word
        )

    def _known_name(self, name: str) -> str:
        return name if name in self.known else name.replace("-", "_")

    def _unsets(self, action: Any, texts: list[str], before: Collection[str]) -> bool:
        """Whether a value unsets an option: one of `UNSET`, or an empty one in place of what the file has set."""
        if len(texts) != 1:
            return False
        words = {word for word in UNSET if word not in (action.choices or ()) and action.dest != "report_to"}
        return texts[0].lower() in words or (texts[0] == "" and action.default is None and action.dest in before)

    def _take(
        self, reading: Reading, pairs: Iterable[tuple[str, list[str]]], *, where: str, before: Collection[str] = ()
    ) -> None:
        """Adds settings to the reading, errors included.

        Args:
            before: the options that the file has set.
        """
        for name, texts in pairs:
            action = self.known.get(self._known_name(name))
            if action is None:
                reading.errors.append(f"{where}: unknown option {name}{self._advice(name)}")
            elif self._unsets(action, texts, before):
                reading.given.pop(action.dest, None)
                reading.unset.add(action.dest)
                setattr(reading.values, action.dest, self.defaults[action.dest])
            else:
                try:
                    value = self._value(action, texts)
                except ArgumentError as error:
                    reading.errors.append(f"{error}" if where == "command line" else f"{where}: {error}")
                    continue
                if type(action).__name__ == "_AppendAction":
                    value = [*(reading.given.get(action.dest) or ()), value]
                setattr(reading.values, action.dest, value)
                reading.given[action.dest] = value
                reading.unset.discard(action.dest)

    def _value(self, action: Any, texts: list[str]) -> Any:
        """Returns the value of an option. Raises ArgumentError if its words are not valid."""
        if action.nargs == 0:
            if texts:
                raise ArgumentError(action, f"has no value, and {texts[0]} is given")
            return action.const
        if not texts and action.nargs == "?":
            return action.const
        if not texts:
            raise ArgumentError(action, f"expected {'at least ' if action.nargs == '+' else ''}one argument")
        if _is_path(action.dest, texts):
            if wrong := [text for text in texts if not _can_be_a_path(text)]:
                raise ArgumentError(action, f"{shown(wrong[0])}: is no path")
            texts = [_each(_user_file, action.dest, text) for text in texts]
        if isinstance(action, OneOrMore) and len(texts) == 1:
            return self._get_values(action, texts)[0]
        if action.nargs == "+":
            return self._get_values(action, texts)
        return self._get_values(action, texts[:1])

    def _advice(self, name: str) -> str:
        names, script = self.elsewhere
        visible = [known for known, action in self.known.items() if action.help != SUPPRESS]
        if name in names:
            return f"; it is an option of {script}"
        return option_advice(name, visible, elsewhere=script)

    def build(self, reading: Reading) -> list[Any]:
        """Creates the dataclasses, which check their values; a failed one is None, and its error is noted."""
        built = []
        for group in self.groups:
            names = [item.name for item in dataclasses.fields(group) if item.init]
            if any(self.known[name].required and getattr(reading.values, name) is None for name in names):
                built.append(None)  # which is said already
                continue
            try:
                built.append(group(**{name: getattr(reading.values, name) for name in names}))
            except (InputError, ValueError, AssertionError, TypeError, OverflowError) as error:
                # The last four are PaddleNLP's own checks.
                reading.errors += getattr(error, "messages", [f"{_title(group)}: {error}"])
                built.append(None)
        return built


def _is_path(name: str, texts: list[str]) -> bool:
    """Whether an option's values are paths."""
    ending = MAY_BE_FILES.get(name)
    return name in (*INPUTS, *OUTPUTS) or (ending is not None and all(text.endswith(ending) for text in texts))


def _each(change: Callable[[str], str], name: str, text: str) -> str:
    """Applies a change to a path, or to each of several that stand in one value."""
    return ",".join(map(change, text.split(","))) if name in JOINED else change(text)


def _user_file(text: str) -> str:
    """Expands `~` in a path, or in the path of `NAME=PATH`."""
    file = named_file(text)
    return f"{file.name}={user_path(file.path)}" if file.name else user_path(text)


def _can_be_a_path(text: str) -> bool:
    """Whether an operating system would take this for a path; asked for others it raises errors of its own."""
    path = text.encode("utf-8", "surrogatepass")
    return b"\0" not in path and max(map(len, path.split(b"/"))) <= MOST_NAME and len(path) <= MOST_PATH


def _title(group: type) -> str:
    return (group.__doc__ or group.__name__).strip().splitlines()[0].rstrip(".")


def _is_own(group: type, name: str) -> bool:
    """Whether a field is defined by the class, not by its base class."""
    return name in group.__annotations__


def _beside(config: Path, name: str, value: Any) -> Any:
    """Resolves paths that a configuration file names: beside the file, if there is none in the working directory."""
    if isinstance(value, list):
        return [_beside(config, name, one) for one in value]
    if not isinstance(value, str) or not _is_path(name, [value]):
        return value
    return _each(partial(_found_beside, config), name, value)


def _found_beside(config: Path, text: str) -> str:
    file = named_file(text)
    path = user_path(file.path if file.name else text)
    beside = str(config.parent / path)
    if os.path.exists(path) or not os.path.exists(beside):
        return text
    return f"{file.name}={beside}" if file.name else beside


def without_none(hint: Any) -> Any:
    """Returns X for an annotation `X | None` or `Optional[X]`, and any other annotation unchanged."""
    if get_origin(hint) not in (Union, UnionType):
        return hint
    kinds = [kind for kind in get_args(hint) if kind is not NoneType]
    return kinds[0] if len(kinds) == 1 else kinds[0] | kinds[1]


class OneOrMore(Action):
    """An action that stores one value as it is, several as a list."""

    def __call__(self, parser, namespace, values, option_string=None):
        setattr(namespace, self.dest, values[0] if len(values) == 1 else values)


def how_to_read(kind: Any, default: Any) -> dict[str, Any]:
    """Returns argparse's arguments for an option of a type.

    Args:
        kind: str, int, float, bool, an enum, a list of these, one or a list (`str | list[str]`), or a list of lists,
            one for each time it is given.
    """
    if get_origin(kind) is UnionType:
        return {"type": get_args(kind)[0], "nargs": "+", "action": OneOrMore}
    if kind is bool:
        return {"type": truth} | ({} if default is None else {"nargs": "?", "const": True})
    if get_origin(kind) is list:
        (item,) = get_args(kind)
        if get_origin(item) is list:
            return {"type": get_args(item)[0], "nargs": "+", "action": "append"}
        return {"type": item, "nargs": "+"}
    if issubclass(kind, Enum):
        return {"type": str, "choices": [member.value for member in kind]}
    return {"type": kind}


def truth(text: str) -> bool:
    """Parses a boolean in any of its usual spellings."""
    if text.lower() not in TRUE + FALSE:
        pairs = ", ".join(f"{yes}/{no}" for yes, no in zip(TRUE, FALSE, strict=True))
        raise ArgumentTypeError(f"Truthy value expected: got {text} but expected one of {pairs} (case insensitive).")
    return text.lower() in TRUE
