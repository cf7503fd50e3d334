"""Records what produced a result: the command, the settings, the versions."""

import contextlib
import os
import platform
import shlex
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from glm.runtime.paths import published_command

PACKAGES = (
    "paddlepaddle-gpu",
    "paddlepaddle",
    "paddlenlp",
    "sentencepiece",
    "numpy",
    "numba",
    "sacrebleu",
    "rouge",
    "jieba",
)
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Provenance:
    """The origin of a result.

    Args:
        command: repeats the run, from the folder it was started in.
        settings: all options of the run, and what else decides about its result; paths as `published`.
        device: `cpu`, `gpu` or `gpu:N`.
    """

    command: str
    settings: Mapping[str, Any]
    device: str

    def versions(self) -> dict[str, str]:
        """Returns the versions of everything that affects the result, and the machine."""
        machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPU cores, device {self.device}"
        return {
            "this toolkit": _commit() or "not a git checkout",
            "Python": platform.python_version(),
            **installed(PACKAGES),
            "machine": machine,
        }


def command_of(script: str, argv: Sequence[str]) -> str:
    """Formats the command line for a shell.

    Args:
        script: a file, or a verb of `python -m glm`.
    """
    processes = int(os.environ.get("PADDLE_TRAINERS_NUM", "1"))
    launcher = ["-m", "paddle.distributed.launch"] if processes > 1 else []
    program = [script] if script.endswith(".py") else ["-m", "glm", script]
    return published_command(shlex.join(["python", *launcher, *program, *argv]))


def now() -> str:
    """Returns the present time in UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def installed(packages: Iterable[str]) -> dict[str, str]:
    """Returns the versions of those packages that are installed."""
    found = {}
    for name in packages:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _commit() -> str | None:
    """Returns the commit of this checkout, with `+` if files were changed since; None outside git."""
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), "describe", "--always", "--abbrev=12", "--dirty=+"],
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return f"commit {done.stdout.strip()}" if done.returncode == 0 and (ROOT / ".git").exists() else None
