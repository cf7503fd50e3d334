"""Runs training under faults: a server that forks the runs, and hashes of their results."""

import contextlib
import hashlib
import json
import os
import select
import subprocess
import sys
from pathlib import Path

import psutil

from tools.run_tools import Workspace, arguments

ROOT = Path(__file__).resolve().parents[2]


class FaultServer:
    """Runs `finetune_generation.py` with faults, one after the other; see `fault_server`.

    Args:
        threads: of the runs. Paddle's import has set OMP_NUM_THREADS here, which they would take for the user's wish.
        by_hand: layers that are written by hand compute what would be too little for them, too.
    """

    def __init__(self, workspace: Workspace, *, threads: int = 1, by_hand: bool = False):
        self.workspace = workspace
        self.log = workspace.folder / "log.txt"
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "tests" / "tools" / "fault_server.py"), *["by_hand"] * by_hand],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(
        self, name: str, fault: str = "nothing", *values, config: Path | None = None, timeout: float = 120.0, **options
    ) -> int:
        """Runs into the folder `name`, with a configuration file if one is given; options with the value None are left
        out.

        Returns:
            Its exit code, -9 if SIGKILL ended it.
        """
        settings = {**self.workspace.options, "output_dir": self.workspace.folder / name, **options}
        argv = [str(part) for part in arguments({key: value for key, value in settings.items() if value is not None})]
        return self.call([*([str(config)] if config else []), *argv], fault, *values, timeout=timeout)

    def call(self, argv: list[str], fault: str = "nothing", *values, timeout: float = 120.0) -> int:
        """Runs this command line; one that begins with `pretrain` is of `python -m glm`."""
        self.log.write_text("")
        self.process.stdin.write(json.dumps([fault, values, argv, str(self.log)]) + "\n")
        self.process.stdin.flush()
        ready, _, _ = select.select([self.process.stdout], [], [], timeout)
        assert ready, f"the run hangs; what it said: {self.said()[-2000:]}"
        return int(self.process.stdout.readline())

    def said(self) -> str:
        """Everything that the last run printed."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def errors(self) -> list[str]:
        """The lines of the last run that begin with `error:`, and those of tracebacks."""
        return [line for line in self.said().splitlines() if line.startswith(("error:", "Traceback"))]

    def processes(self) -> list[int]:
        """Processes of the last run that still exist: they have its log open."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if str(self.log) in [file.path for file in process.open_files()]:
                    found.append(process.pid)
        return found

    def close(self) -> None:
        """Ends the server."""
        self.process.kill()  # closing its input is not enough: processes forked by other tests may have that open too
        self.process.wait(timeout=30)


def tree(folder: Path) -> list[str]:
    """Returns the names of what is in a folder."""
    return sorted(path.name for path in folder.iterdir())


def checkpoint_names(folder: Path) -> list[str]:
    """Returns the names of everything in a folder that belongs to checkpoints, hidden files included."""
    return [name for name in tree(folder) if "checkpoint" in name or name.endswith(".partial")]


def sha256(path: Path) -> str:
    """Returns the SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def figures(folder: Path) -> list[dict]:
    """Returns losses, rates and scores in `metrics.jsonl`: everything but times, speeds and memory."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    timed = ("second", "runtime", "flos", "memory")
    return [{name: value for name, value in row.items() if not any(part in name for part in timed)} for row in rows]


def last_logged(folder: Path) -> int:
    """Returns the last step in `metrics.jsonl`; 0 if there is none."""
    path = folder / "metrics.jsonl"
    rows = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return max((json.loads(row)["step"] for row in rows), default=0)


def outcome(folder: Path, *, last: int) -> dict:
    """Returns everything that has to be equal bit for bit: log, final model, and the last checkpoint's tensors and
    numbers."""
    checkpoint = folder / f"checkpoint-{last}"
    (model,) = folder.glob("*.safetensors")  # an adapter's has another name
    names = (model.name, "optimizer.safetensors", "run_state.json")
    return {
        "figures": figures(folder),
        "model": sha256(model),
        **{name: sha256(checkpoint / name) for name in names},
    }
