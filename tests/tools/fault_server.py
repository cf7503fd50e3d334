"""Runs `finetune_generation.py` in processes forked from one that has imported everything, so that a fault costs no
import.

Where `pretrain` is the first argument it is a run of `python -m glm pretrain`.

python tests/tools/fault_server.py [by_hand]: reads jobs, JSON lines `[name of a fault, its arguments, [argument, ...],
log file]`, from standard input, and answers each with the exit code (negative: the signal that ended it). Faults are
those of `tests/tools/faults.py`.
"""

import importlib
import json
import os
import signal
import sys
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import finetune_generation  # noqa: E402
import glm.training.pages  # noqa: E402
import glm.training.trainer  # noqa: E402
from glm.runtime.entry import run  # noqa: E402
from glm.training import pretrain  # noqa: E402
from tools import faults  # noqa: E402  (the path has to be set first)


def serve() -> None:
    """Answers jobs until standard input ends."""
    # Drawing pages would take most of the time of these runs, and has tests of its own.
    glm.training.pages.TrainingPage._write = lambda *arguments: None
    glm.training.trainer.write_evaluation_report = lambda *arguments: None
    if sys.argv[1:] == ["by_hand"]:
        for name in ("glm.cpu.arrays", "glm.cpu.two_part", "glm.modules.attention", "glm.modules.layers"):
            importlib.import_module(name).MIN_PARALLEL_SIZE = 0
    for line in sys.stdin:
        fault, values, argv, log = json.loads(line)
        process = os.fork()
        if process == 0:
            _run(fault, values, argv, log)
        _, status = os.waitpid(process, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _run(fault: str, values: list, argv: list[str], log: str) -> None:
    """The run, in a process of its own; never returns."""
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for descriptor in (1, 2):
        os.dup2(output, descriptor)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # shells let background jobs ignore it
    script = pretrain.main if argv[0] == "pretrain" else finetune_generation.main
    sys.argv = ["finetune_generation.py", *argv] if argv[0] != "pretrain" else argv
    code = 70
    try:
        getattr(faults, fault)(*values)
        code = run(script)
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve()
    os._exit(0)  # unloading Paddle is slow
