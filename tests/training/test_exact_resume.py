"""A run that is killed and started again is, bit for bit, the run that was not: 70 cases, and chains of 20 kills."""

import random
import signal

import pytest

from glm.training.checkpoints import newest_whole
from tools.fault_tools import FaultServer, checkpoint_names, outcome

pytestmark = pytest.mark.fault

STEPS = 12
EVERY = {"max_steps": STEPS, "save_strategy": "steps", "save_steps": 1}  # 5 steps an epoch, but where it says so
KINDS = {
    "plain": EVERY,
    "accumulated": {**EVERY, "gradient_accumulation_steps": 2, "per_device_train_batch_size": 2, "logging_steps": 5},
    "workers": {**EVERY, "dataloader_num_workers": 2, "save_total_limit": 2},
    "by length": {**EVERY, "max_tokens": 250, "update_freq": 2, "per_device_train_batch_size": None},
    "packed": {**EVERY, "packing": True, "recompute": True, "lr_scheduler_type": "cosine", "warmup_steps": 4},
    "evaluated": {
        **EVERY,
        **{"do_eval": True, "eval_steps": 3, "save_steps": 3, "evaluation_strategy": "steps"},
        **{"load_best_model_at_end": True, "save_total_limit": 1, "metric_for_best_model": "loss"},
    },
    "by epoch": {**EVERY, "save_strategy": "epoch", "logging_strategy": "epoch"},
}
KILLED_AT = [1, 2, 4, 5, 6, 7, 9, 10, 11]  # also within an epoch, at its last step and at its boundary
SMOKE = [("plain", 5), ("accumulated", 7), ("workers", 4), ("evaluated", 10), ("by epoch", 9)]


def options_of(server: FaultServer, kind: str) -> dict:
    options = dict(KINDS[kind])
    return options | {"dev_file": server.workspace.folder / "dev.json"} if "do_eval" in options else options


@pytest.fixture(scope="module")
def whole(server):
    """The outcome of a run of some kind that nothing befalls."""
    known = {}

    def of(kind: str) -> dict:
        if kind not in known:
            name = f"whole {kind}"
            assert server.run(name, **options_of(server, kind)) == 0, server.said()
            known[kind] = outcome(server.workspace.folder / name, last=STEPS)
        return known[kind]

    return of


def check_killed(server, whole, kind: str, step: int) -> None:
    name, options = f"{kind} killed at {step}", options_of(server, kind)
    assert server.run(name, "kill_at_step", step, **options) == -signal.SIGKILL
    assert server.run(name, **options) == 0, server.said()
    assert outcome(server.workspace.folder / name, last=STEPS) == whole(kind)


@pytest.mark.parametrize(("kind", "step"), SMOKE)
def test_killed_and_started_again(server, whole, kind, step):
    check_killed(server, whole, kind, step)


@pytest.mark.sweep
@pytest.mark.parametrize("step", KILLED_AT)
@pytest.mark.parametrize("kind", KINDS)
def test_killed_at_every_kind_of_step(server, whole, kind, step):
    check_killed(server, whole, kind, step)


def test_the_same_seed_gives_the_same_run(server, whole):
    assert server.run("twin", **EVERY) == 0
    assert outcome(server.workspace.folder / "twin", last=STEPS) == whole("plain")
    assert server.run("another", **EVERY, seed=7) == 0
    assert outcome(server.workspace.folder / "another", last=STEPS)["model"] != whole("plain")["model"]


def chain(server: FaultServer, seed: int, *, kills: int, steps: int) -> None:
    """A run that is killed at random steps, over and over, and one that is not."""
    options = {"max_steps": steps, "save_strategy": "steps", "save_steps": 2, "save_total_limit": 3, "seed": seed}
    assert server.run(f"unchained {seed}", **options) == 0, server.said()
    draw, folder, last = random.Random(seed), server.workspace.folder / f"chained {seed}", 0
    for number in range(kills):
        step = min(last + draw.randrange(4), steps - 1)
        assert server.run(folder.name, "kill_at_step", step, **options) == -signal.SIGKILL, f"kill {number}"
        found = newest_whole(folder)
        assert step - (found.step if found else 0) < 2, "more than an interval is lost"
        last = found.step if found else 0
    assert server.run(folder.name, **options) == 0
    runs = [outcome(server.workspace.folder / f"{name} {seed}", last=steps) for name in ("chained", "unchained")]
    assert runs[0] == runs[1] and len(checkpoint_names(folder)) == 3


def test_a_chain_of_kills(server):
    chain(server, 1, kills=3, steps=8)


@pytest.mark.sweep
@pytest.mark.parametrize("seed", range(10))
def test_chains_of_twenty_kills(server, seed):
    chain(server, 100 + seed, kills=20, steps=40)
