"""Runs a script's `main`: exit codes, and readable errors."""

import gc
import io
import os
import sys
import traceback
from collections.abc import Callable

from glm.errors import InputError, Stopped, UsageError, shown

MOST_SHOWN = 4000  # characters of an error
LINES = "\n\t"
OF_TRAINING = ("paddlenlp", "datasets")  # packages of requirements-train.txt
INCOMPLETE = 3  # exit code of a run that finished, but in which records failed


def show_what_can_be_shown() -> None:
    """Makes a console that is not UTF-8 (GBK, ASCII) print characters that it lacks as escapes.

    Otherwise such a character would end a run with an error.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and not stream.encoding.lower().startswith("utf"):
            stream.reconfigure(errors="backslashreplace")


def run(main: Callable[[list[str]], int | None]) -> int:
    """Runs a script's `main` on the command line; it may return an exit code.

    `--debug` anywhere on it prints tracebacks.

    Returns:
        The exit code: 0 done, 1 failed, 2 wrong usage, 3 done but for records that failed, 130 interrupted, 141
        standard output closed, 143 terminated.
    """
    show_what_can_be_shown()
    argv = sys.argv[1:]
    debug = "--debug" in argv
    try:
        return main([argument for argument in argv if argument != "--debug"]) or 0
    except InputError as error:
        if debug:
            traceback.print_exc()
        for message in error.messages:
            print(f"error: {message}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if debug or package not in OF_TRAINING:
            raise
        print(f"error: this needs {package}; in the toolkit's folder: pip install '.[train]'", file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader of standard output has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except MemoryError:
        if debug:
            traceback.print_exc()
        print("error: out of memory; use smaller batches, fewer beams or shorter texts", file=sys.stderr)
        return 1
    except OSError as error:  # a full disk, a read-only folder
        if debug:
            traceback.print_exc()
        print(f"error: {shown(str(error), MOST_SHOWN, kept=LINES)}", file=sys.stderr)
        return 1
    except Stopped as stopped:
        print(stopped, file=sys.stderr)
        return 128 + stopped.number
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    finally:
        gc.freeze()  # else the interpreter ends by searching all objects for cycles: 0.03 s of a short verb's 0.5
