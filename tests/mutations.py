"""Takes each guard of a run away, one at a time, and sees a test fail; says which guards no test misses.

python tests/mutations.py [FIRST [LAST]]: of the list below, from 1. The tree is copied; nothing in it is changed.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

LONGEST = 300  # seconds; without some guards a test waits for ever
ROOT = Path(__file__).resolve().parent.parent
COPIED = ("glm", "tests", "configs", "data", "finetune_generation.py", "predict.py", "pyproject.toml")


@dataclass(frozen=True)
class Mutation:
    """A guard, the line that is it, what takes its place, and the tests that have to fail (`-k`)."""

    guard: str
    file: str
    line: str
    instead: str
    tests: str
    only: str = ""


CHECKPOINTS = "tests/training/test_checkpoints.py"
FOLDER = "tests/training/test_run_folder.py"
FAULTS = "tests/training/test_faults.py"
RESUME = "tests/training/test_exact_resume.py"
STATE = "tests/training/test_optimizer_state.py"
GUARDS = "tests/training/test_guards.py"
SETTINGS = "tests/runtime/test_settings_file.py"
ADAPTER = "tests/adapters/test_schema.py"
RUN_CONFIG = "tests/options/test_run_config.py"
BODIES = "tests/serving/test_bodies.py"
HOSTS = "tests/serving/test_hosts.py"
PARSER = "tests/options/test_parser.py"
ACCEPTOR = "tests/serving/test_acceptor.py"

MUTATIONS = [
    Mutation("files are synced", "glm/runtime/atomic.py", "            _sync_one(Path(root, name))", "            pass", "tests/runtime/test_atomic.py"),
    Mutation("a save is one rename", "glm/training/checkpoints.py", "with new_folder(target) as aside:", "target.mkdir()\n        aside = target\n        if True:", CHECKPOINTS, "killed"),
    Mutation("hashes are compared", "glm/training/checkpoints.py", 'if _digest(folder / name, bar) != entry["sha256"]:', "if False:", CHECKPOINTS, "flipped or another_step"),
    Mutation("sizes are compared", "glm/training/checkpoints.py", 'if path.stat().st_size != entry["bytes"]:', "if False:", FAULTS, "spoilt_checkpoint_that_is_named"),
    Mutation("the manifest is guarded", "glm/training/checkpoints.py", "if manifest is None or _manifest_bytes(manifest) != path.read_bytes():", "if manifest is None:", CHECKPOINTS, "flipped or another_manifest"),
    Mutation("a missing file is found", "glm/training/checkpoints.py", 'raise InputError(f"{folder}: {name} is missing")', "continue", CHECKPOINTS, "newest_whole"),
    Mutation("a checkpoint has its step's name", "glm/training/checkpoints.py", 'if step_of(folder) not in (None, manifest["step"]):', "if False:", CHECKPOINTS, "another_manifest"),
    Mutation("steps are ordered as numbers", "glm/training/checkpoints.py", "return sorted(found, key=step_of)", "return sorted(found)", CHECKPOINTS, "numbers"),
    Mutation("rotation renames first", "glm/training/checkpoints.py", "_remove(folder.rename(dead))", "_remove(folder)", CHECKPOINTS, "killed"),
    Mutation("rotation keeps the best", "glm/training/checkpoints.py", "*(folder.name for folder in folders if folder.name == best)", "", CHECKPOINTS, "rotation_keeps"),
    Mutation("deleting follows no link", "glm/training/checkpoints.py", "        folder.unlink()\n    elif", "        shutil.rmtree(folder.resolve())\n        folder.unlink()\n    elif", CHECKPOINTS, "no_link"),
    Mutation("what a killed run left is swept", "glm/training/checkpoints.py", "        _remove(folder)\n\n\ndef _delete", "        pass\n\n\ndef _delete", CHECKPOINTS, "killed"),
    Mutation("one run holds a folder", "glm/training/run_folder.py", "fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)", "pass", FOLDER, "second_run"),
    Mutation("the lock is a process's own", "glm/training/run_folder.py", "fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)", "fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)", FOLDER, "second_run"),
    Mutation("the disk is looked at", "glm/training/run_folder.py", "    if free < needed:", "    if False:", FOLDER, "too_small"),
    Mutation("the folder is written to first", "glm/training/run_folder.py", "    _probe(output_dir)", "    pass", FOLDER, "cannot_be_written"),
    Mutation("the limit of files is looked at", "glm/training/run_folder.py", "if most != resource.RLIM_INFINITY and largest > most:", "if False:", FOLDER, "limit_of_files"),
    Mutation("done is said last", "finetune_generation.py", "        on_main(lambda: write_done(Path(arguments.training.output_dir), facts))", "        pass", FAULTS, "says_so_last"),
    Mutation("changes are an error", "glm/training/fingerprint.py", "    if changes and not training.resume_with_changes:", "    if False:", FAULTS, "changed_settings"),
    Mutation("data are compared", "glm/training/fingerprint.py", '        "training data (SHA-256)": data.train_digest,\n', "", FAULTS, "changed_data"),
    Mutation("changes are noted", "glm/training/fingerprint.py", 'return {**facts, "changes": before["changes"] + changes}', "return facts", FAULTS, "noted"),
    Mutation("the rate follows from the step", "glm/training/resumable.py", '        self.lr_scheduler.step(self._resumed["scheduler_step"])\n', "", RESUME, "killed_and_started_again"),
    Mutation("the random state follows from the step", "glm/training/resumable.py", "        seed_step(\n", "        (lambda *seeds, **ranks: None)(\n", RESUME, "started_again"),
    Mutation("batches that were seen are left out", "glm/training/resumable.py", "        self.sampler.start = state", "        self.unused = state", RESUME, "started_again"),
    Mutation("the log goes on", "glm/training/resumable.py", '            self._carried_loss = self._resumed["loss_since_log"]\n', "", RESUME, "started_again"),
    Mutation("what was lost leaves the log", "glm/training/setup.py", "        rewind_metrics(output_dir, checkpoint.step if checkpoint else 0)", "        pass", RESUME, "started_again"),
    Mutation("the optimizer's state is loaded", "glm/training/optimizer_state.py", "    optimizer.set_state_dict(state)", "    pass", RESUME, "started_again"),
    Mutation("weights are finite", "glm/training/optimizer_state.py", "        if not _is_finite(numbers, tensor.dtype):", "        if False:", STATE, "not_finite"),
    Mutation("losses are finite", "glm/training/guards.py", "        if not math.isfinite(loss):", "        if False:", GUARDS),
    Mutation("gradients are finite", "glm/training/guards.py", "        if wrong:", "        if False:", GUARDS),
    Mutation("gradients exist", "glm/training/guards.py", "        if without:", "        if False:", GUARDS),
    Mutation("weights move", "glm/training/guards.py", "            if all(float(", "            if False and all(float(", GUARDS),
    Mutation("a signal is heard after the step", "glm/training/resumable.py", "        self.trainer.is_stopping = anywhere(self.trainer.signals.number)", "        pass", FAULTS, "signal_ends"),
    Mutation("a signal ends an evaluation", "glm/training/resumable.py", "return nullcontext() if self.args.world_size > 1 else self.signals.at_once()", "return nullcontext()", FAULTS, "while_evaluating"),
    Mutation("an evaluation that was stopped is made up for", "glm/training/resumable.py", "        self.trainer.evaluate_if_due()", "        pass", FAULTS, "while_evaluating"),
    Mutation("the second signal ends the process", "glm/runtime/signals.py", "        if self.number:\n            os._exit(128 + number)", "        if self.number:\n            return", "tests/runtime/test_signals.py"),
    Mutation("a dead worker is an error", "glm/training/resumable.py", "                _check_workers_live(error)\n", "", FAULTS, "dead_worker and before"),
    Mutation("a stopped worker is seen", "glm/runtime/watchdog.py", "                if count >= STRIKES:", "                if False:", FAULTS, "stopped_worker"),
    Mutation("workers end with the run", "glm/training/resumable.py", "        loader.worker_init_fn = end_with_run\n", "", FAULTS, "workers_end_with"),
    Mutation("memory that runs out is explained", "glm/training/resumable.py", "            if \"MemoryError\" not in", "            if True or \"MemoryError\" not in", FAULTS, "out_of_memory and forward"),
    Mutation("a dead worker is heard of in a backward", "glm/training/resumable.py", "except (SystemError, OSError) as error:", "except SystemError as error:", FAULTS, "dead_worker and backward"),
    Mutation("memory that runs out in a backward is explained", "glm/training/resumable.py", "except (MemoryError, OSError) as error:", "except MemoryError as error:", FAULTS, "out_of_memory and backward"),
    Mutation("a run that is refused leaves no lock", "glm/training/run_folder.py", "if _others(output_dir) == others and (is_new or not others):", "if not _others(output_dir):", FOLDER, "refused_leaves"),
    Mutation("results are written whole", "glm/training/resumable.py", "            write_whole(path, json.dumps", "            path.write_text(json.dumps", FAULTS, "results_are_written"),
    Mutation("the summary of a run is logged at all", "glm/training/resumable.py", "        self.log(metrics)\n", "", FAULTS, "results_are_written"),
    Mutation("a full disk does not end a run for its log", "glm/training/progress.py", "            except OSError as error:", "            except KeyError as error:", FAULTS, "cannot_be_written_does"),
    Mutation("a folder's settings are of a closed list", "glm/options/run_config.py", "found = checked(settings, TrainedWith, path).model_dump(exclude_unset=True)", "found = {name: value for name, value in settings.items() if name in TrainedWith.model_fields}", RUN_CONFIG, "list or becomes_a_word"),
    Mutation("settings are typed strictly", "glm/runtime/settings_file.py", "ConfigDict(strict=True, ", "ConfigDict(", SETTINGS, "deviation"),
    Mutation("unknown settings are refused", "glm/runtime/settings_file.py", 'extra="forbid", ', "", SETTINGS, "deviation"),
    Mutation("settings have a size", "glm/runtime/settings_file.py", "    if len(data) > most_bytes:", "    if False:", SETTINGS, "no_settings"),
    Mutation("settings have a depth", "glm/runtime/settings_file.py", "if structure(data).depth > MOST_DEPTH:", "if False:", SETTINGS, "no_settings"),
    Mutation("settings are in a plain file", "glm/runtime/settings_file.py", "if not stat.S_ISREG(path.stat().st_mode):", "if path.name == 'pipe':", SETTINGS, "no_pipe"),
    Mutation("messages are escaped", "glm/errors.py", "c if c.isprintable() or c in kept else ascii(c)[1:-1]", "c", SETTINGS, "safe_to_print"),
    Mutation("messages are cut", "glm/errors.py", "text if len(text) <= most else", "text if True else", SETTINGS, "safe_to_print"),
    Mutation("no expression of a file is run", "glm/adapters/schema.py", "if not set(form) <= OF_A_NAME or", "if", ADAPTER, "no_other_expression"),
    Mutation("a manifest names files of its folder", "glm/training/checkpoints.py", "    checked(manifest, Manifest, path)\n", "", CHECKPOINTS, "leads_elsewhere"),
    Mutation("a file's list is no words of a command line", "glm/options/parser.py", "if not takes_list or not value or any(", "if not value or any(", PARSER, "wrong_values_of_a_file"),
    Mutation("items of a body are counted", "glm/serving/bodies.py", "if found.items > self.max_request_items:", "if False:", BODIES, "little_memory or limit"),
    Mutation("lists in lists of a body are counted", "glm/serving/bodies.py", "if found.depth > self.max_request_depth:", "if False:", BODIES, "limit"),
    Mutation("characters of a body are counted", "glm/serving/bodies.py", "if (size := characters(content)) > limits.max_request_characters:", "if (size := 0):", BODIES, "limit"),
    Mutation("unknown fields are cut", "glm/serving/bodies.py", "name not in unknown[MOST_NAMED:]}", "True}", BODIES, "little_memory or first_errors"),
    Mutation("requests are laid out in slices", "glm/serving/bodies.py", "if size >= SLICE or len(part) == MOST_ITEMS:", "if False:", BODIES, "slices or turns"),
    Mutation("another host is refused", "glm/serving/hosts.py", "if host is not None and (asked is None or not self._is_own(asked[0])):", "if False:", HOSTS, "names"),
    Mutation("another site is refused", "glm/serving/hosts.py", "if page is not None and (page[0] in self.others or _with_port(page) == _with_port(asked, page[2])):", "if True:", HOSTS, "names"),
    Mutation("the program looks at hosts", "glm/serving/server.py", "        hosts=Hosts(arguments.host, arguments.other_names),\n", "", HOSTS, "another_name"),
    Mutation("errors of a loader come to the run", "glm/training/resumable.py", "        check_batch(inputs)\n", "", FAULTS, "cannot_be_read and OSError-0"),
    Mutation("a damaged cache is found", "glm/training/run_data.py", "            verify_store(folder)", "            pass", "tests/training/test_run_data.py", "damaged_cache"),
    Mutation("the seal of a cache is compared", "glm/data/store.py", "        if found != sealed:", "        if False:", "tests/data/test_store.py", "damaged_is_found"),
    Mutation("jieba's cache is the user's own", "glm/evaluation/jieba_words.py", "    path = private_cache(f\"jieba-{version('jieba')}-{digest[:16]}\") / CACHE_NAME", "    path = __import__(\"pathlib\").Path(\"/tmp\", \"jieba.cache\")", "tests/evaluation/test_segmentation.py", "planted"),
    Mutation("a private cache is private", "glm/runtime/caches.py", "if _is_private(folder) and ", "if ", "tests/runtime/test_caches.py"),
    Mutation("a late kill repeats no evaluation", "glm/training/progress.py", 'takewhile(lambda line: "train_loss" not in _row(line), ', "list(", "tests/training/test_published_folder.py", "late_kill"),
    Mutation("an evaluation of the last step is found again", "glm/training/trainer.py", "if is_last and (metrics := ", "if (metrics := {}) and (", "tests/training/test_published_folder.py", "late_kill"),
    Mutation("commands are published without the home", "glm/report/provenance.py", "return published_command(shlex.join(", "return (shlex.join(", "tests/training/test_published_folder.py", "names_the_user"),
    Mutation("sizes of a configuration have a range", "glm/checkpoint/configuration.py", "        _check_range(name, value, origin)\n", "", "tests/checkpoint/test_folder_fuzz.py", "cannot_be_built"),
    Mutation("a line has a size", "glm/data/formats.py", "            if len(line) > most:\n                raise RecordError", "            if False:\n                raise RecordError", "tests/data/test_bounds.py", "a_line"),
    Mutation("a line of a table has a size", "glm/data/formats.py", "        if len(line) > most:\n            raise InputError", "        if False:\n            raise InputError", "tests/data/test_bounds.py", "of_a_table"),
    Mutation("what is packed has a size", "glm/data/formats.py", "    if not packed:\n", "    if True:\n", "tests/data/test_bounds.py", "packed_document"),
    Mutation("a header of safetensors has a size", "glm/checkpoint/safetensors_files.py", "        if length > HEADER_LIMIT:", "        if False:", "tests/checkpoint/test_safetensors_files.py", "little_memory"),
    Mutation("a disk without syncs and locks will do", "glm/runtime/atomic.py", "        if error.errno not in UNSUPPORTED:", "        if True:", "tests/runtime/test_atomic.py", "can_do_less"),
    Mutation("a disk that breaks will not", "glm/runtime/atomic.py", "        if error.errno not in UNSUPPORTED:", "        if False:", "tests/runtime/test_atomic.py", "found_by_the_probe"),
    Mutation("ranks end with their launcher", "glm/runtime/watchdog.py", "if self.launcher is not None and os.getppid() != self.launcher.process:", "if False:", "tests/runtime/test_watchdog.py", "end_with"),
    Mutation("products have the threads that were asked for", "glm/runtime/device.py", "    paddle.base.core.set_num_threads(cpu_threads())", "    pass", "tests/runtime/test_device.py", "test_threads"),
    Mutation("products keep their threads when loops start theirs", "glm/cpu/loops.py", "    paddle.base.core.set_num_threads(cpu_threads())", "    pass", "tests/cpu/test_loops.py", "products_keep"),
    Mutation("neighbours in memory change no bit", "glm/cpu/rows.py", "    _write_normal(x, mean, scale, weight, bias, output)", "    for h in range(len(x)):\n        output[h] = (x[h] - mean) * scale * weight[h] + bias[h]", "tests/cpu/test_rows.py", "neighbours"),
    Mutation("another number of threads is said", "glm/training/fingerprint.py", ', ("machine", "processor or number of threads")', ",", FAULTS, "number_of_threads"),
    Mutation("values of YAML are counted as often as they are meant", "glm/options/run_config.py", "    _check_size(node.items, node.height)", "    pass", RUN_CONFIG, "yaml_is_bounded"),
    Mutation("YAML has a size", "glm/options/run_config.py", 'read_plain(path, "YAML", MOST_YAML_BYTES)', 'read_plain(path, "YAML", 1 << 30)', RUN_CONFIG, "yaml_is_bounded"),
    Mutation("errors are safe to print", "glm/errors.py", "tuple(map(_printable, messages))", "messages", RUN_CONFIG, "safe_to_print"),
    Mutation("a path is one", "glm/options/parser.py", "if wrong := [text for text in texts if not _can_be_a_path(text)]:", "if wrong := []:", RUN_CONFIG, "safe_to_print"),
    Mutation("threads of a server share a heap", "glm/runtime/device.py", "mallopt(M_ARENA_MAX, 1)", "mallopt(M_ARENA_MAX, 0)", "tests/runtime/test_device.py", "given_back"),
    Mutation("what a killed run left in the cache is swept", "glm/data/store.py", "        if TEMPORARY.fullmatch(path.name):", "        if False:", "tests/data/test_store.py", "swept"),
    Mutation("what is being written is not swept", "glm/data/store.py", "                    if lock(descriptor):", "                    if True:", "tests/data/test_store.py", "swept"),
    Mutation("what was loaded is the optimizer's at once", "glm/training/optimizer_state.py", "    _take_over(optimizer, [*restored.values()])", "    pass", STATE, "no_step"),
    Mutation("zeros are no gradient", "glm/training/resumable.py", "            self.optimizer.clear_grad(set_to_zero=False)", "            pass", RESUME, "started_again and release"),
    Mutation("health is answered apart", "glm/serving/acceptor.py", "and end > 3:", "and False:", ACCEPTOR, "board or takes_nothing"),
    Mutation("the acceptor looks at hosts", "glm/serving/acceptor.py", "self.hosts.refusal(host, origin) is not None", "False", ACCEPTOR, "all_else"),
    Mutation("a full channel keeps nobody waiting", "glm/serving/acceptor.py", "self.channel.setblocking(False)", "pass", ACCEPTOR, "takes_nothing"),
    Mutation("a server that gives no sign is stalled", "glm/serving/status.py", "now - self._since > STALLED_SECONDS", "False", ACCEPTOR, "gives_no_sign"),
    Mutation("a server goes on without its acceptor", "glm/serving/front.py", "            self.lost()", "            pass", ACCEPTOR, "may_be_killed"),
    Mutation("the acceptor ends with its server", "glm/serving/acceptor.py", "                    is_open = False", "                    pass", ACCEPTOR, "killed"),
    Mutation("who leaves is no error of the server", "glm/serving/app.py", "    @app.exception_handler(ClientDisconnect)\n", "", "tests/serving/test_server.py", "leaves_no_traceback"),
]  # fmt: skip


def is_missed(mutation: Mutation, folder: Path) -> bool:
    """Whether the tests of a guard fail without it."""
    path = folder / mutation.file
    text = path.read_text(encoding="utf-8")
    if text.count(mutation.line) != 1:
        raise SystemExit(f"{mutation.guard}: {mutation.file} has {text.count(mutation.line)} times: {mutation.line}")
    path.write_text(text.replace(mutation.line, mutation.instead), encoding="utf-8")
    try:
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", mutation.tests]
        command += ["-k", mutation.only] if mutation.only else []
        code, said = _run(command, folder)
        if code > 1:
            raise SystemExit(f"{mutation.guard}: the tests did not run\n{said[-2000:]}")
        return code != 0  # or they were killed, as where all memory is asked for, or hung
    finally:
        path.write_text(text, encoding="utf-8")


def _run(command: list[str], folder: Path) -> tuple[int, str]:
    """Exit code and output; what runs longer than LONGEST is killed, with all that it has started."""
    process = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        said, _ = process.communicate(timeout=LONGEST)
        return process.returncode, said
    except subprocess.TimeoutExpired:
        return -signal.SIGKILL, ""
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def main(argv: list[str]) -> int:
    first, last = (int(argv[0]) if argv else 1), (int(argv[1]) if len(argv) > 1 else len(MUTATIONS))
    chosen, unmissed = MUTATIONS[first - 1 : last], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in COPIED:
            source = ROOT / part
            (shutil.copytree if source.is_dir() else shutil.copy)(source, folder / part)
        for mutation in tqdm(chosen, desc="guards", disable=None):
            if not is_missed(mutation, folder):
                unmissed.append(mutation.guard)
                print(f"no test misses: {mutation.guard}", flush=True)
    print(f"{len(chosen) - len(unmissed)} of {len(chosen)} guards are missed by a test when they are gone")
    return 1 if unmissed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
