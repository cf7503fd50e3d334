"""One process of a split model, started by `python -m paddle.distributed.launch --nproc_per_node 2 glm/doctor/ranks.py
WAY FILE`.

The first process writes the outcome.
"""

import json
import os
import pickle
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import paddle

from glm.doctor.runs import Outcome, Way, run, tried_family

SECONDS = 300  # for all processes


def run_split(way: Way) -> Outcome:
    """Starts several processes for a way of computing, and returns their outcome.

    Raises:
        RuntimeError: they failed; the last lines of their log are in the text.
    """
    with tempfile.TemporaryDirectory() as folder:
        file, log = Path(folder) / "outcome", Path(folder) / "log"
        command = [sys.executable, "-m", "paddle.distributed.launch", f"--nproc_per_node={way.degree}"]
        command += [f"--log_dir={log}", *(["--backend=gloo"] if way.device == "cpu" else [])]
        command += [__file__, json.dumps(asdict(way)), str(file)]
        places = [str(Path(__file__).resolve().parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places)}
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, env=environment)
        if done.returncode or not file.is_file():
            said = "\n".join(path.read_text(errors="replace") for path in sorted(log.glob("workerlog.*")))
            raise RuntimeError((said or done.stderr).strip()[-2000:])
        return pickle.loads(file.read_bytes())  # written by this program a moment ago


def main(argv: list[str]) -> None:
    """Runs, and writes the outcome in the first process."""
    way, file = Way(**json.loads(argv[0])), Path(argv[1])
    outcome = run(tried_family(), way)
    if paddle.distributed.get_rank() == 0:
        file.write_bytes(pickle.dumps(outcome))


if __name__ == "__main__":
    main(sys.argv[1:])
