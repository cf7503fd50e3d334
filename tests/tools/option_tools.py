"""Helpers for tests of options: the shortest command lines, and the error of a wrong one."""

from collections.abc import Callable

import pytest

from glm.errors import UsageError

CPU = ["--device", "cpu"]
TRAIN = ["--output_dir", "out", "--do_train", *CPU]


def usage_error(parse: Callable[[list[str]], object], *argv: str) -> str:
    """Returns the message of the UsageError that a command line raises."""
    with pytest.raises(UsageError) as caught:
        parse(list(argv))
    return str(caught.value)
