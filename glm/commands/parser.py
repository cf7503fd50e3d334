"""The command line of a verb."""

import json
import sys
from argparse import ArgumentParser
from typing import Any, NoReturn

from glm.errors import UsageError


class Parser(ArgumentParser):
    """An ArgumentParser that raises instead of exiting, and knows no abbreviations."""

    def __init__(self, **options: object):
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; --help lists the options")


def print_json(value: Any) -> None:
    """Prints a value as JSON; in ASCII where the console is not UTF-8, so that no character of it is lost."""
    is_utf8 = (sys.stdout.encoding or "utf-8").lower().startswith("utf")
    print(json.dumps(value, ensure_ascii=not is_utf8, indent=2))
