"""A run that is killed and started again is, bit for bit, the run that was not: every kind of run there is, killed at
nine steps, on one, two and three threads and over two processes; and chains of 20 kills."""

import json
import random
import shutil
import signal

import pytest

from glm.training.checkpoints import newest_whole
from tools import rank_jobs
from tools.fault_tools import FaultServer, checkpoint_names, outcome
from tools.kinds_of_runs import EVERY, MODELS, STEPS, TOKENIZERS, forgotten, kinds
from tools.rank_tools import run_ranks
from tools.run_tools import arguments, make_workspace

pytestmark = pytest.mark.fault

KINDS = kinds()
KILLED_AT = [1, 2, 4, 5, 6, 7, 9, 10, 11]  # also within an epoch, at its last step and at its boundary
SMOKE = [
    ("plain", 5),
    ("update_freq 3", 7),
    ("logging_steps 5", 7),
    ("dataloader_num_workers 2", 4),
    ("load_best_model_at_end", 10),
    ("save_strategy epoch", 9),
    ("lora", 7),  # each of these two has made the steps behind a start differ from those of a run that had computed
    ("prefix_projection", 7),
    ("adapter_bottleneck 6", 7),
    ("joint tasks", 1),  # a task that has had no example has no state in the optimizer
    ("joint tasks", 7),
    ("joint tasks, release_grads", 2),  # a gradient of zeros is not none
    ("objective pseudo_masked", 7),
    ("ganlm", 7),
    ("bf16", 7),
]
LAYERS = {"of Paddle": {}, "by hand": {"hidden_size": 128, "num_attention_heads": 2}}  # heads of 64 are compiled
THREADS = [(1, "by hand"), (2, "of Paddle"), (3, "by hand")]  # fewer than there are cores, as many, or more
PROCESSES = {
    "tensor parallel": {"tensor_parallel_degree": 2},
    "tensor parallel, recompute": {"tensor_parallel_degree": 2, "recompute": True, "update_freq": 2},
    "tensor parallel, adapter_bottleneck": {"tensor_parallel_degree": 2, "adapter_bottleneck": 6},
    "data parallel": {"per_device_train_batch_size": 2},
    "data parallel, max_tokens": {"per_device_train_batch_size": None, "max_tokens": 150},
    "data parallel, lora": {"per_device_train_batch_size": 2, "lora": True},
    "data parallel, prefix_tuning": {"per_device_train_batch_size": 2, "prefix_tuning": True, "num_prefix_tokens": 4},
    "stage1": {"per_device_train_batch_size": 2, "sharding": "stage1"},
    "stage2": {"per_device_train_batch_size": 2, "sharding": "stage2"},
}
# The kind of run that each adapter of several processes starts as.
ADAPTED = {"lora": "lora", "prefix_tuning": "prefix_tuning", "adapter_bottleneck": "adapter_bottleneck 6"}


def test_no_option_is_forgotten():
    """Each is a kind of run, or is said to be none, in tests/tools/kinds_of_runs.py."""
    assert forgotten() == []


@pytest.fixture(scope="module")
def server_of(server, tmp_path_factory, sentencepiece_file):
    """A server of runs on so many threads, with layers of one sort."""
    started = {(1, "of Paddle"): server}

    def of(threads: int, layers: str) -> FaultServer:
        if (threads, layers) not in started:
            workspace = make_workspace(tmp_path_factory.mktemp("faults"), sentencepiece_file, **LAYERS[layers])
            started[threads, layers] = FaultServer(workspace, threads=threads, by_hand=layers == "by hand")
        return started[threads, layers]

    yield of
    for one in started.values():
        if one is not server:
            one.close()


def options_of(server: FaultServer, kind: str) -> dict:
    """With the folder's files, and a model that has learnt a little, made when it is first wanted."""
    options, folder = dict(KINDS[kind]), server.workspace.folder
    family = options.pop("family", None)
    own = {} if family is None else of_family(folder, family)
    if options.get("model_name_or_path") == "base":
        name = f"base {family or ''}".strip()
        if not (folder / name).exists():
            assert server.run(name, max_steps=15, **{**own, "learning_rate": 1e-2}) == 0, server.said()
        options["model_name_or_path"] = folder / name
    if "dev_file" in options:
        options["dev_file"] = folder / options["dev_file"]
    if "train_file" in options:
        options["train_file"] = [file.replace("=", f"={folder}/") for file in options["train_file"]]
    return own | options


def of_family(folder, name: str) -> dict:
    """Options of a run of another family, from random weights."""
    model = folder / f"{name}.json"
    settings = {"model_type": name, **MODELS[name]}
    model.write_text(json.dumps(settings), encoding="utf-8")
    found = {"model_name_or_path": model}
    return found | ({"tokenizer_name_or_path": TOKENIZERS[name]} if name in TOKENIZERS else {})


def whole(server: FaultServer, kind: str) -> dict:
    """The outcome of a run of some kind that nothing befalls. One that its family refuses by name is no kind."""
    name = f"whole {kind}"
    if not (server.workspace.folder / name).exists():
        code = server.run(name, **options_of(server, kind))
        if code in (1, 2) and any(f"error: {option}" in server.said() for option in KINDS[kind]):
            pytest.skip(server.errors()[0])
        assert code == 0, server.said()
    return outcome(server.workspace.folder / name, last=STEPS)


def check_killed(server: FaultServer, kind: str, steps: list[int]) -> None:
    """Of a run that is killed at these steps, one after the other."""
    expected = whole(server, kind)
    name, options = f"{kind} killed at {steps}", options_of(server, kind)
    for step in steps:
        assert server.run(name, "kill_at_step", step, **options) == -signal.SIGKILL, server.said()
    assert server.run(name, **options) == 0, server.said()
    assert outcome(server.workspace.folder / name, last=STEPS) == expected


@pytest.mark.parametrize(("kind", "step"), SMOKE)
def test_killed_and_started_again(server, kind, step):
    check_killed(server, kind, [step])


@pytest.mark.parametrize("threads", [2])
def test_killed_with_layers_written_by_hand(server_of, threads):
    check_killed(server_of(threads, "by hand"), "lora, recompute", [7])


@pytest.mark.sweep
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("threads", "layers"), THREADS)
def test_every_kind_killed_at_every_kind_of_step(server_of, threads, layers, kind):
    check_killed(server_of(threads, layers), kind, KILLED_AT)


# -- two processes


def check_two_processes(server: FaultServer, *names: str) -> None:
    """Runs over two processes, and what goes on in others from the middle of each."""
    folder, settings = server.workspace.folder / f"two processes, {', '.join(names)}", {}
    folder.mkdir()
    for name in names:
        start = options_of(server, next((ADAPTED[kind] for kind in PROCESSES[name] if kind in ADAPTED), "plain"))
        start |= PROCESSES[name]
        settings[name] = {**server.workspace.options, **start, "output_dir": folder / name}

    def run() -> None:
        commands = [{key: value for key, value in of_run.items() if value is not None} for of_run in settings.values()]
        run_ranks(rank_jobs.run_scripts, 2, *(("finetune", list(arguments(options))) for options in commands))

    run()
    expected = {name: outcome(folder / name, last=STEPS) for name in names}
    for name in names:
        (folder / name / "done.json").unlink()
        for step in range(STEPS // 2 + 1, STEPS + 1):
            shutil.rmtree(folder / name / f"checkpoint-{step}")
    run()
    for name in names:
        assert outcome(folder / name, last=STEPS) == expected[name], name


def test_two_processes_go_on(server):
    check_two_processes(server, "tensor parallel", "data parallel")


@pytest.mark.sweep
@pytest.mark.parametrize("name", PROCESSES)
def test_every_kind_of_two_processes_goes_on(server, name):
    check_two_processes(server, name)


# -- seeds, chains


def test_the_same_seed_gives_the_same_run(server):
    assert server.run("twin", **EVERY) == 0
    assert outcome(server.workspace.folder / "twin", last=STEPS) == whole(server, "plain")
    assert server.run("another", **EVERY, seed=7) == 0
    assert outcome(server.workspace.folder / "another", last=STEPS)["model"] != whole(server, "plain")["model"]


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
