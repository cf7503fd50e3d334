"""One of the two scripts in a process that knows the stranger's family: python run.py SCRIPT STEP ARGUMENT...

At the begin of optimizer step STEP (from 0; -1 for none) it is killed.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import finetune_generation  # noqa: E402
import predict  # noqa: E402
from glm.models import registry  # noqa: E402
from glm.runtime.entry import run  # noqa: E402
from tools import faults  # noqa: E402

if __name__ == "__main__":
    registry.FAMILIES["gru"] = "stranger.family"
    script, step, *sys.argv[1:] = sys.argv[1:]
    if int(step) >= 0:
        faults.kill_at_step(int(step))
    sys.exit(run({"finetune": finetune_generation.main, "predict": predict.main}[script]))
