"""The one error that is the user's to mend: the scripts print its text without a traceback."""


class InputError(ValueError):
    """A file, a record or an option cannot be used; the text names it, its value and what to do."""


class UsageError(InputError):
    """The command line or its configuration file is wrong."""
