"""Faults for a run, set up before it starts: kills at a chosen call, full disks, dead workers."""

import builtins
import io
import os
import resource
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

CHECKPOINTS = "checkpoint-"  # part of the names of a checkpoint's files and of its folder, which is synced too


def nothing() -> None:
    """Sets up no fault."""


# -- kills


def kill_at_step(step: int) -> None:
    """Kills with SIGKILL at the beginning of an optimizer step (counted from 0)."""
    _at_step(step, lambda: os.kill(os.getpid(), signal.SIGKILL))


def kill_after(seconds: float) -> None:
    """Kills with SIGKILL some time after the start."""
    threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGKILL)).start()


def signal_at_step(step: int, number: int, again_after: float = 0.0) -> None:
    """Sends a signal at the beginning of a step, and again some seconds later."""

    def send() -> None:
        os.kill(os.getpid(), number)
        if again_after:
            threading.Timer(again_after, os.kill, (os.getpid(), number)).start()

    _at_step(step, send)


def signal_after(seconds: float, number: int) -> None:
    """Sends a signal some time after training has begun."""
    _at_step(0, lambda: threading.Timer(seconds, os.kill, (os.getpid(), number)).start())


def signal_in_evaluation(number: int, record: int = 0) -> None:
    """Sends a signal while evaluation generates for a record."""
    import glm.training.trainer as module

    predict = module.predicted_rows

    def signalling(*arguments, **options):
        os.kill(os.getpid(), number)
        return predict(*arguments, **options)

    module.predicted_rows = signalling


def signal_in_save(number: int) -> None:
    """Sends a signal while a checkpoint is being written, and another one right after it."""
    from glm.training import resumable

    write = resumable.write_tensors

    def signalling(path: Path, tensors) -> None:
        for _ in range(2):
            os.kill(os.getpid(), number)
        write(path, tensors)

    resumable.write_tensors = signalling


# -- examples that cannot be read


def unreadable_example(index: int, kind: str) -> None:
    """Raises an error of a type when an example is read, or (None) when its batch is made."""
    from glm.data.collator import Collator
    from glm.data.store import ExampleStore
    from glm.errors import InputError

    class OddError(InputError):
        def __init__(self, one, two):  # cannot be pickled and rebuilt from its text
            super().__init__(f"{one} {two}")

    errors = {"OSError": OSError(5, "I/O"), "ValueError": ValueError("\x1b[2J"), "OddError": OddError("a", "b")}
    errors |= {"StopIteration": StopIteration(), "MemoryError": MemoryError()}
    draw = ExampleStore.draw

    def failing(self, number, random):
        if number == index:
            raise errors[kind]
        return draw(self, number, random)

    def failing_batch(self, examples):
        raise ValueError("a batch")

    if kind == "batch":
        Collator.__call__ = failing_batch
    else:
        ExampleStore.draw = failing


def _at_step(step: int, act: Callable[[], None]) -> None:
    from glm.training.resumable import ResumableTrainer

    begin = ResumableTrainer.begin_step

    def acting(self) -> None:
        begin(self)
        if self.state.global_step == step:
            act()

    ResumableTrainer.begin_step = acting


# -- every write, rename, sync and unlink


def kill_at_call(number: int, folder: str, among: str = CHECKPOINTS) -> None:
    """Kills with SIGKILL right before a call (counted from 1) that changes a folder and has this in its path."""

    def act(count: int) -> None:
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)

    _watch_calls(folder, among, act)


def kill_after_call(number: int, folder: str, among: str = CHECKPOINTS) -> None:
    """Kills with SIGKILL half way through a write, or right after another call."""

    def act(count: int) -> None:
        if count == number:
            _Half.wanted = True

    _watch_calls(folder, among, act)


def count_calls(folder: str, into: str, among: str = CHECKPOINTS) -> None:
    """Writes the number of such calls in a whole run to a file."""
    _watch_calls(folder, among, lambda count: _write_count(into, count))


def fail_at_call(number: int, folder: str, error: int, among: str = CHECKPOINTS) -> None:
    """Raises OSError at a call and at all that follow, as for a full (28), broken (5) or read-only (30) disk."""

    def act(count: int) -> None:
        if count >= number:
            raise OSError(error, os.strerror(error))

    _watch_calls(folder, among, act)


class _Half:
    wanted = False


def _write_count(into: str, count: int) -> None:
    descriptor = _open_plain(into, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    _write_plain(descriptor, str(count).encode())
    os.close(descriptor)


_open_plain, _write_plain = os.open, os.write


def _watch_calls(folder: str, among: str, act: Callable[[int], None]) -> None:
    """Counts calls with paths in a folder: those that write files, and those of os and shutil."""
    count = 0

    def seen(*paths) -> bool:
        texts = [str(path) for path in paths]
        return any(
            text.startswith(folder) and (among in text or text == folder and among == CHECKPOINTS) for text in texts
        )

    def note() -> None:
        nonlocal count
        count += 1
        act(count)

    def end_half() -> None:
        if _Half.wanted:
            os.kill(os.getpid(), signal.SIGKILL)

    def wrap(module, name: str, paths: int) -> None:
        plain = getattr(module, name)

        def watched(*arguments, **options):
            if not seen(*arguments[:paths]):
                return plain(*arguments, **options)
            note()
            result = plain(*arguments, **options)
            end_half()
            return result

        setattr(module, name, watched)

    for name in ("rename", "replace"):
        wrap(os, name, 2)
    for name in ("mkdir", "unlink", "rmdir", "remove"):
        wrap(os, name, 1)
    _watch_tree_removal(wrap, seen, note, end_half)
    _watch_files(seen, note, end_half)
    _watch_syncs(seen, note, end_half)


def _watch_tree_removal(wrap, seen, note, end_half) -> None:
    """Removes trees one entry at a time by full paths, so that each is a call of its own."""

    def rmtree(path, ignore_errors=False, **options) -> None:
        try:
            for root, _, names in os.walk(path, topdown=False):
                for name in names:
                    os.unlink(os.path.join(root, name))
                os.rmdir(root)
        except OSError:
            if not ignore_errors:
                raise

    shutil.rmtree = rmtree


def _watch_files(seen, note, end_half) -> None:
    """Counts each write to files opened for writing; an interrupted one leaves its first half."""
    plain = io.open

    def watched(file, mode="r", *arguments, **options):
        stream = plain(file, mode, *arguments, **options)
        if not seen(file) or not set(mode) & set("wax+"):
            return stream
        note()
        end_half()
        write = stream.write

        def writing(data):
            note()
            if _Half.wanted:
                write(data[: len(data) // 2])
                stream.flush()
                end_half()
            return write(data)

        return _Stream(stream, writing)

    builtins.open = io.open = watched


class _Stream:
    """A stream with another `write`."""

    def __init__(self, stream, write: Callable):
        self._stream, self.write = stream, write

    def __getattr__(self, name: str):
        return getattr(self._stream, name)

    def __enter__(self):
        self._stream.__enter__()
        return self

    def __exit__(self, *reason):
        return self._stream.__exit__(*reason)


def _watch_syncs(seen, note, end_half) -> None:
    plain = os.fsync

    def watched(descriptor):
        number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
        if not seen(os.readlink(f"/proc/self/fd/{number}")):
            return plain(descriptor)
        note()
        plain(descriptor)
        end_half()

    os.fsync = watched


# -- limits


def limit_file_size(size: int) -> None:
    """Limits the size of files."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def limit_file_size_in_training(size: int) -> None:
    """Limits the size of files from the third step on, after the disk was checked."""
    _at_step(2, lambda: limit_file_size(size))


def full_log(path: str) -> None:
    """Fills a log's disk from the first step on."""
    _at_step(0, lambda: os.symlink("/dev/full", path))


def limit_memory(library: str, place: str) -> None:
    """Gives the process only 64 MiB more in the third step, in which Paddle or NumPy asks for 1 TiB."""
    import numpy as np
    import paddle

    def want() -> None:
        most = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + (1 << 26)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        {"paddle": paddle, "numpy": np}[library].ones([1 << 19, 1 << 19], dtype="float32")

    {"forward": _in_forward, "backward": _in_backward}[place](2, want)


def _in_forward(step: int, act: Callable[[], None]) -> None:
    from glm.training.trainer import GenerationTrainer

    compute = GenerationTrainer.compute_loss

    def acting(self, *arguments, **options):
        if self.state.global_step == step:
            act()
        return compute(self, *arguments, **options)

    GenerationTrainer.compute_loss = acting


def _in_backward(step: int, act: Callable[[], None]) -> None:
    """Raises where Paddle calls Python, which changes the types of Python's errors."""
    from glm.modules.attention import TwoPartAttention

    backward = TwoPartAttention.backward

    def acting(*arguments):
        act()
        return backward(*arguments)

    def patch() -> None:
        TwoPartAttention.backward = staticmethod(acting)

    _at_step(step, patch)


def clock_goes_back(seconds: float) -> None:
    """Changes the clock to another day from the third step on."""
    plain = time.time

    def turn() -> None:
        time.time = lambda: plain() - seconds

    _at_step(2, turn)


# -- what a step computes


def spoil_weight(step: int, value: float) -> None:
    """Sets a number of a weight after a step's gradient was checked, as faulty memory would."""
    import paddle

    from glm.training.guards import Guard

    end = Guard.on_optimizer_end

    def spoiling(self, args, state, control, model=None, **options):
        end(self, args, state, control, model=model, **options)
        if state.global_step == step:
            weight = next(iter(model.parameters()))
            weight.set_value(paddle.full(weight.shape, value))

    Guard.on_optimizer_end = spoiling


def signal_worker(step: int, number: int, place: str = "before") -> None:
    """Sends a signal to the first worker of the data loader, whose next batch never comes."""
    import multiprocessing

    def send() -> None:
        os.kill(min(child.pid for child in multiprocessing.active_children()), number)
        time.sleep(0.1)  # here Paddle notices it

    {"before": _at_step, "backward": _in_backward}[place](step, send)


def quick_watch(interval: float, step: int, number: int) -> None:
    """As `signal_worker`, with a watchdog that checks more often."""
    import glm.runtime.watchdog as watchdog

    watchdog.INTERVAL = interval
    signal_worker(step, number)
