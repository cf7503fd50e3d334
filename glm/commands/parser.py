"""The command-line parser of verbs."""

import json
import math
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from glm.errors import UsageError, shown
from glm.options.suggestions import option_advice
from glm.runtime.environment import user_path


class Parser(ArgumentParser):
    """An ArgumentParser that raises instead of exiting, allows no abbreviations, and suggests similar options."""

    def __init__(self, **options: object):
        super().__init__(allow_abbrev=False, **options)
        self.register("type", int, whole_number)
        self.register("type", float, finite_number)

    def parse_args(self, args: Sequence[str] | None = None, namespace: Namespace | None = None) -> Namespace:
        words = [with_home(word) for word in (sys.argv[1:] if args is None else args)]
        values, rest = self.parse_known_args(list(self._with_dashes(words)), namespace)
        if rest:
            self.error(self._unknown(rest))
        return values

    def _with_dashes(self, words: Sequence[str]) -> Iterator[str]:
        """Yields the words with `NAME=VALUE` as an option, where NAME is one and no file is called so."""
        wants_value = False
        for word in words:
            name = f"--{word.partition('=')[0]}"
            if not wants_value and "=" in word and name in self._option_string_actions and not _is_file(word):
                word = f"--{word}"
            action = self._option_string_actions.get(word)
            wants_value = action is not None and action.nargs != 0
            yield word

    def _unknown(self, rest: Sequence[str]) -> str:
        known = [option[2:] for option in self._option_string_actions if option.startswith("--")]
        names = [word[2:].partition("=")[0] for word in rest if word.startswith("--")]
        if not names:
            return f"{' '.join(rest)} belongs to no option"
        return ", ".join(f"unknown option {name}{option_advice(name, known)}" for name in names)

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; --help lists the options")


def whole_number(text: str) -> int:
    """Parses a whole number that any computation takes."""
    if abs(value := int(text)) >= 1 << 63:
        raise ArgumentTypeError(f"{shown(text)}: is beyond every size")
    return value


def finite_number(text: str) -> float:
    """Parses a number that is neither infinite nor NaN."""
    if not math.isfinite(value := float(text)):
        raise ArgumentTypeError(f"{shown(text)}: use a finite number")
    return value


def _is_file(word: str) -> bool:
    try:
        return Path(word).exists()
    except OSError:  # a name that is too long
        return False


def with_home(word: str) -> str:
    """Expands `~` in a word of a command line, which shells do not do behind `--name=`."""
    name, equals, value = word.partition("=")
    return f"{name}={user_path(value)}" if word.startswith("--") and equals else user_path(word)


def print_json(value: Any) -> None:
    """Prints a value as JSON; in ASCII if the console is not UTF-8, so that no character is lost."""
    is_utf8 = (sys.stdout.encoding or "utf-8").lower().startswith("utf")
    print(json.dumps(value, ensure_ascii=not is_utf8, indent=2))
