"""What ends a run that has no fault of its own: the scripts print its text without a traceback."""

import unicodedata

MOST_CHARACTERS = 2000  # of a line of a message


def shown(text: str, most: int = 200, *, kept: str = "") -> str:
    """A text as it may stand in a message, whoever wrote it: cut, and what no terminal should be sent is escaped.

    Args:
        most: characters of it that are shown.
        kept: characters that stay although they cannot be printed.
    """
    cut = text if len(text) <= most else text[:most] + "…"
    return "".join(c if c.isprintable() or c in kept else ascii(c)[1:-1] for c in cut)


def _printable(message: str) -> str:
    """A message without what steers a terminal or makes a text look like another, its lines not without end."""
    lines = message.split("\n")
    cut = "\n".join(line if len(line) <= MOST_CHARACTERS else line[:MOST_CHARACTERS] + "…" for line in lines)
    return "".join(c if c == "\n" or unicodedata.category(c)[0] != "C" else ascii(c)[1:-1] for c in cut)


class InputError(ValueError):
    """A file, a record or an option cannot be used; the text names it, its value and what to do. It is safe to print.

    Args:
        messages: one, or all that is wrong, each a line.
    """

    def __init__(self, *messages: str):
        self.messages = tuple(map(_printable, messages))
        super().__init__("\n".join(self.messages))


class UsageError(InputError):
    """The command line or its configuration file is wrong."""


class Stopped(BaseException):
    """A signal asks the run to end; like KeyboardInterrupt it passes by whoever handles errors.

    Args:
        number: of the signal; the exit code is 128 more.
    """

    def __init__(self, number: int, text: str = "stopped"):
        super().__init__(text)
        self.number = number
