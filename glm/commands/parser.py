"""The command line of a verb."""

from argparse import ArgumentParser
from typing import NoReturn

from glm.errors import UsageError


class Parser(ArgumentParser):
    """An ArgumentParser that raises instead of exiting, and knows no abbreviations."""

    def __init__(self, **options: object):
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; --help lists the options")
