"""How scripts end: exit codes, one line for what the user can mend, a traceback for what is our fault."""

import subprocess
import sys
from pathlib import Path

import pytest

from glm.errors import InputError, UsageError
from glm.runtime.entry import INCOMPLETE, run

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def command_line(monkeypatch):
    def give(*argv: str) -> None:
        monkeypatch.setattr(sys, "argv", ["script.py", *argv])

    give()
    return give


def raising(error: BaseException):
    def main(argv):
        raise error

    return main


def test_done(command_line, capsys):
    command_line("a.json", "--num_beams", "3")
    seen = []
    assert run(seen.append) == 0
    assert seen == [["a.json", "--num_beams", "3"]]
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("returned", "code"), [(None, 0), (0, 0), (INCOMPLETE, 3)])
def test_code_of_a_run_that_came_to_its_end(command_line, returned, code):
    assert run(lambda argv: returned) == code


@pytest.mark.parametrize(
    ("error", "code"),
    [(InputError("train.json, line 3: 没有答案"), 1), (UsageError("num_beam: unknown"), 2)],
)
def test_what_the_user_can_mend(command_line, capsys, error, code):
    assert run(raising(error)) == code
    assert capsys.readouterr() == ("", f"error: {error}\n")


def test_what_a_file_says_is_no_control_of_the_terminal(command_line, capsys):
    assert run(raising(InputError("a.json: \x1b]0;title\x07 \u202e" + "x" * 10**6 + "\n"))) == 1
    text = capsys.readouterr().err
    assert text.startswith("error: a.json: \\x1b]0;title\\x07 \\u202exxx") and len(text) < 5000


def test_interrupted(command_line, capsys):
    assert run(raising(KeyboardInterrupt())) == 130
    assert capsys.readouterr() == ("", "interrupted\n")


@pytest.mark.parametrize("argv", [["--debug", "a.json"], ["a.json", "--debug"]])
def test_debug_shows_where(command_line, capsys, argv):
    command_line(*argv)
    seen = []

    def main(argv):
        seen.append(argv)
        raise UsageError("num_beam: unknown")

    assert run(main) == 2
    assert seen == [["a.json"]]
    errors = capsys.readouterr().err
    assert errors.startswith("Traceback (most recent call last):") and "in main" in errors
    assert errors.endswith("error: num_beam: unknown\n")


@pytest.mark.parametrize("error", [ValueError("ours"), RuntimeError("ours"), SystemExit(0)])
def test_anything_else_goes_through(command_line, error):
    with pytest.raises(type(error)):
        run(raising(error))


def test_errors_are_value_errors():
    assert issubclass(UsageError, InputError) and issubclass(InputError, ValueError)


def test_full_disk(command_line, capsys):
    assert run(raising(OSError(28, "No space left on device", "out.jsonl"))) == 1
    assert capsys.readouterr().err == "error: [Errno 28] No space left on device: 'out.jsonl'\n"


@pytest.mark.fault
def test_closed_standard_output():
    """As in `predict.py ... | head -1` with much to print: no traceback."""
    code = (
        "import sys; from glm.runtime.entry import run\n"
        "def main(argv):\n    for _ in range(100_000): print('x' * 100)\n"
        "sys.exit(run(main))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=60) == 141
    assert process.stderr.read() == ""
