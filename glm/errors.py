"""What ends a run that has no fault of its own: the scripts print its text without a traceback."""


def shown(text: str, most: int = 200, *, kept: str = "") -> str:
    """A text as it may stand in a message, whoever wrote it: cut, and what no terminal should be sent is escaped.

    Args:
        most: characters of it that are shown.
        kept: characters that stay although they cannot be printed.
    """
    cut = text if len(text) <= most else text[:most] + "…"
    return "".join(c if c.isprintable() or c in kept else ascii(c)[1:-1] for c in cut)


class InputError(ValueError):
    """A file, a record or an option cannot be used; the text names it, its value and what to do.

    Args:
        messages: one, or all that is wrong, each a line.
    """

    def __init__(self, *messages: str):
        super().__init__("\n".join(messages))
        self.messages = messages


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
