"""A long run that fifty faults of all kinds befall, one after the other, ends as one that nothing befalls.

A sweep: `GLM_SOAK_STEPS` (2000) steps and `GLM_SOAK_FAULTS` (50) faults; the small version is the chain of kills in
`test_exact_resume.py`.
"""

import errno
import os
import random
import signal

import pytest

from glm.training.checkpoints import newest_whole
from tools.fault_tools import FaultServer, checkpoint_names, outcome

pytestmark = pytest.mark.fault

STEPS = int(os.environ.get("GLM_SOAK_STEPS", "2000"))
FAULTS = int(os.environ.get("GLM_SOAK_FAULTS", "50"))
OPTIONS = {"max_steps": STEPS, "save_strategy": "steps", "save_steps": 10, "save_total_limit": 3, "logging_steps": 10}


def befall(server: FaultServer, name: str, draw: random.Random, step: int) -> None:
    """One fault at about this step, of a run that stands some steps before it."""
    folder = str(server.workspace.folder / name)
    match draw.randrange(6):
        case 0:
            assert server.run(name, "kill_at_step", step, **OPTIONS) == -signal.SIGKILL, server.said()
        case 1:
            number = draw.choice([signal.SIGTERM, signal.SIGINT])
            assert server.run(name, "signal_at_step", step, number, **OPTIONS) == 128 + number, server.said()
        case 2:
            code = server.run(name, "kill_at_call", draw.randrange(1, 40), folder, **OPTIONS)
            assert code == -signal.SIGKILL, server.said()
        case 3:
            code = server.run(name, "fail_at_call", draw.randrange(1, 40), folder, errno.ENOSPC, **OPTIONS)
            assert code == 1 and len(server.errors()) == 1, server.said()
        case 4:
            assert server.run(name, "spoil_weight", step, float("nan"), **OPTIONS) == 1, server.said()
        case _:  # what lies there is damaged while nothing runs
            found = newest_whole(server.workspace.folder / name)
            if found is not None:
                file = found.folder / "model.safetensors"
                data = bytearray(file.read_bytes())
                data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
                file.write_bytes(data)


@pytest.mark.sweep
def test_a_soak(server):
    assert server.run("at peace", timeout=1200, **OPTIONS) == 0, server.said()
    draw, name = random.Random(5), "befallen"
    folder = server.workspace.folder / name
    for number in range(FAULTS):
        befall(server, name, draw, max(1, (number + 1) * STEPS // (FAULTS + 1) - draw.randrange(5)))
    assert server.run(name, timeout=1200, **OPTIONS) == 0, server.said()
    found = [outcome(server.workspace.folder / one, last=STEPS) for one in ("at peace", name)]
    assert found[0] == found[1]
    kept = [one for one in checkpoint_names(folder) if one.startswith("checkpoint-")]
    assert len([one for one in kept if not one.endswith(".damaged")]) == 3, kept  # a user is to see what was damaged
