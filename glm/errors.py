"""Errors of the user's input, which the scripts print without a traceback."""

import unicodedata

MOST_CHARACTERS = 2000  # of a line of a message


def shown(text: str, most: int = 200, *, kept: str = "") -> str:
    """Makes a text safe to print in a message, whoever wrote it: cuts it, and escapes what a terminal should not be
    sent.

    Args:
        most: characters of it that are shown.
        kept: characters that stay although they cannot be printed.
    """
    cut = text if len(text) <= most else text[:most] + "…"
    return "".join(c if c.isprintable() or c in kept else ascii(c)[1:-1] for c in cut)


def _printable(message: str) -> str:
    """Removes from a message what controls a terminal or disguises text, and limits its lines."""
    lines = message.split("\n")
    cut = "\n".join(line if len(line) <= MOST_CHARACTERS else line[:MOST_CHARACTERS] + "…" for line in lines)
    return "".join(c if c == "\n" or unicodedata.category(c)[0] != "C" else ascii(c)[1:-1] for c in cut)


class InputError(ValueError):
    """A file, a record or an option cannot be used; the text names it, its value and what to do. Safe to print.

    Args:
        messages: one, or all that is wrong, each a line.
    """

    def __init__(self, *messages: str):
        self.messages = tuple(map(_printable, messages))
        super().__init__("\n".join(self.messages))


class UsageError(InputError):
    """An error in the command line or its configuration file."""


class Stopped(BaseException):
    """A signal asks the run to end; like KeyboardInterrupt it is not an Exception, so error handlers do not catch it.

    Args:
        number: the signal's number; the exit code is 128 more.
    """

    def __init__(self, number: int, text: str = "stopped"):
        super().__init__(text)
        self.number = number
