"""How the two scripts end: exit codes, and errors a person can read."""

import os
import sys
import traceback
from collections.abc import Callable

from glm.errors import InputError, UsageError


def run(main: Callable[[list[str]], None]) -> int:
    """Runs a script's `main` on the command line.

    `--debug` anywhere on it prints tracebacks.

    Returns:
        The exit code: 0 done, 1 failed, 2 wrong usage, 130 interrupted, 141 standard output closed.
    """
    argv = sys.argv[1:]
    debug = "--debug" in argv
    try:
        main([argument for argument in argv if argument != "--debug"])
    except InputError as error:
        if debug:
            traceback.print_exc()
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except BrokenPipeError:  # whoever read standard output wants no more of it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:  # a full disk, a folder that may not be written
        if debug:
            traceback.print_exc()
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0
