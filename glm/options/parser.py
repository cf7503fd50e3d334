"""A command line whose options are fields of dataclasses, behind a configuration file that it overrides."""

import dataclasses
import difflib
import json
from argparse import (
    Action,
    ArgumentDefaultsHelpFormatter,
    ArgumentError,
    ArgumentParser,
    ArgumentTypeError,
    Namespace,
)
from collections.abc import Iterable, Mapping
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, NoReturn, Union, get_args, get_origin, get_type_hints

from glm.errors import UsageError, shown
from glm.options.run_config import read_config

TRUE, FALSE = ("yes", "true", "t", "y", "1"), ("no", "false", "f", "n", "0")


class OptionParser(ArgumentParser):
    """Reads dataclasses: a field is the option of its name, its metadata what argparse is told beside its type.

    The forms are those of PaddleNLP's PdArgumentParser, so that its users' commands mean the same. A `bool` may stand
    alone (`--recompute`) or have a value, and one that is True has a `--no_NAME` too; a list takes its items one by
    one; an enum is given by its value. What is wrong raises UsageError, and no name may be abbreviated.

    Args:
        groups: dataclasses; no two have a field in common.
        description: what `--help` begins with.
    """

    def __init__(self, groups: tuple[type, ...], description: str):
        super().__init__(description=description, allow_abbrev=False, formatter_class=ArgumentDefaultsHelpFormatter)
        self.groups = groups
        for group in groups:
            types = get_type_hints(group)
            for item in dataclasses.fields(group):
                if item.init:
                    self._add_option(item, without_none(types[item.name]))

    def _add_option(self, item: dataclasses.Field, kind: Any) -> None:
        has_factory = item.default_factory is not dataclasses.MISSING
        default = item.default_factory() if has_factory else item.default
        how = dict(item.metadata) | how_to_read(kind, default)
        how |= {"required": True} if default is dataclasses.MISSING else {"default": default}
        self.add_argument(f"--{item.name}", **how)
        if kind is bool and default is True:
            # Its value is the other option's, which is added first; False is what --help says of it.
            opposite = dict(item.metadata) | {"action": "store_false", "dest": item.name, "default": False}
            self.add_argument(f"--no_{item.name}", **opposite)

    def error(self, message: str) -> NoReturn:
        raise UsageError(message)

    def read(self, argv: list[str], inherited: Mapping[str, Any] | None = None) -> tuple[Namespace, dict[str, Any]]:
        """The values of all options, and those of the options that were set, by name.

        Args:
            argv: options, behind a configuration file if there is one; they win over it.
            inherited: values that take the defaults' places.

        Raises:
            UsageError: an option is unknown or malformed, or one that is needed is missing; the file cannot be read;
                or what comes first is neither file nor option.
        """
        settings: dict[str, Any] = {}
        if argv and not argv[0].startswith("-"):
            settings = self._settings_of(argv[0])
            argv = argv[1:]
        names = [argument[2:].partition("=")[0] for argument in argv if argument.startswith("--")]
        self._check_names(names, where="command line")
        for name in settings:
            self._option_string_actions[f"--{name}"].required = False
        values, rest = self.parse_known_args(argv, Namespace(**{**(inherited or {}), **settings}))
        if rest:
            raise UsageError(f"command line: {' '.join(rest)} belongs to no option")
        given = {self._option_string_actions[f"--{name}"].dest for name in [*settings, *names]}
        return values, {name: getattr(values, name) for name in sorted(given)}

    def _settings_of(self, path: str) -> dict[str, Any]:
        """The values in a configuration file. They are values, not words of a command line, whatever they look like.

        Raises:
            UsageError: the file cannot be read, or has an unknown option or a value of another type.
        """
        if not path.endswith(".json"):
            raise UsageError(f"{path}: a configuration file ending in .json, or an option, is expected first")
        settings = read_config(Path(path))
        self._check_names(settings, where=path)
        try:
            return {name: self._value_of(name, value, path) for name, value in settings.items()}
        except ArgumentError as error:
            raise UsageError(f"{path}: {error}") from error

    def _value_of(self, name: str, value: Any, path: str) -> Any:
        """A value of JSON as the option takes it: by the conversion of its words, but one by one."""
        action = self._option_string_actions[f"--{name}"]
        if action.nargs == 0:
            raise UsageError(f"{path}: {name}: set {action.dest} to false")
        takes_list, is_list = action.nargs == "+", isinstance(value, list)
        if is_list and (not takes_list or not value or any(isinstance(item, list) for item in value)):
            expected = "a list with an item at least" if takes_list else "one value, not a list,"
            raise UsageError(f"{path}: {name} {shown(json.dumps(value, ensure_ascii=False))}: {expected} is expected")
        found = [self._converted(action, item) for item in (value if is_list else [value])]
        if not takes_list or (isinstance(action, OneOrMore) and len(found) == 1):
            return found[0]
        return [found] if action.const is None and type(action).__name__ == "_AppendAction" else found

    def _converted(self, action: Action, value: Any) -> Any:
        found = self._get_value(action, json.dumps(value) if isinstance(value, dict) else str(value))
        self._check_value(action, found)
        return found

    def build(self, values: Namespace) -> list[Any]:
        """The groups of options, each checked by itself.

        Raises:
            UsageError: a group does not take its values.
        """
        try:
            return [
                group(**{item.name: getattr(values, item.name) for item in dataclasses.fields(group) if item.init})
                for group in self.groups
            ]
        except UsageError:
            raise
        except (ValueError, AssertionError) as error:  # of GenerationConfig, and PaddleNLP's own checks
            raise UsageError(str(error)) from error

    def _check_names(self, names: Iterable[str], *, where: str) -> None:
        known = [option[2:] for option in self._option_string_actions if option.startswith("--")]
        for name in names:
            if name not in known:
                close = difflib.get_close_matches(name, known, n=1)
                raise UsageError(f"{where}: unknown option {name}" + (f"; did you mean {close[0]}?" if close else ""))


def without_none(hint: Any) -> Any:
    """The type X of an annotation `X | None` or `Optional[X]`; of any other, itself. `str | list[str]` stays."""
    if get_origin(hint) not in (Union, UnionType):
        return hint
    kinds = [kind for kind in get_args(hint) if kind is not NoneType]
    return kinds[0] if len(kinds) == 1 else kinds[0] | kinds[1]


class OneOrMore(Action):
    """Takes one value as it is, several as a list."""

    def __call__(self, parser, namespace, values, option_string=None):
        setattr(namespace, self.dest, values[0] if len(values) == 1 else values)


def how_to_read(kind: Any, default: Any) -> dict[str, Any]:
    """What argparse is to be told of an option of a type.

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
    """The value of a switch, in any of the words that are used for it."""
    if text.lower() not in TRUE + FALSE:
        pairs = ", ".join(f"{yes}/{no}" for yes, no in zip(TRUE, FALSE, strict=True))
        raise ArgumentTypeError(f"Truthy value expected: got {text} but expected one of {pairs} (case insensitive).")
    return text.lower() in TRUE
