"""An output file that is written in order, refuses what is not its own, and is continued after any kill.

Run as a script it is the process that gets killed: `python tests/prediction/test_output.py FUNCTION FOLDER`.
"""

import builtins
import errno
import io
import json
import os
import random
import signal
import subprocess
import sys
import time
import traceback
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from glm.errors import InputError
from glm.prediction.output import PredictionsFile, PrintedRows, json_line

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = {"model_name_or_path": "runs/demo", "test_file": "dev.json", "num_beams": 5, "top_p": 0.9}
OLD_SETTINGS = {**SETTINGS, "num_beams": 4}
RECORDS, WINDOW = 10, 4  # the last window is a short one


def row_of(number: int) -> dict:
    text = "天地玄黄" * (3000 if number == 5 else number)  # 36,000 bytes: more than one write
    return {"id": f"q{number}", "predictions": [{"text": text, "score": -number / 7}]}


def lines_of(rows: list[dict]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


EXPECTED = lines_of([row_of(number) for number in range(RECORDS)])
OLD = lines_of([{"id": number, "old": True} for number in range(RECORDS)])


def work(folder: Path, *, pause: float = 0, window: int = WINDOW, settings: dict = SETTINGS, **how: bool) -> None:
    """A run as `predict.py` makes it; what it decodes and what it has added is noted in `folder / "log"`."""
    predictions = PredictionsFile(folder / "out.jsonl", settings, **how)
    predictions.begin()
    log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for start in range(0, RECORDS, window):
        end = min(start + window, RECORDS)
        numbers = [number for number in range(start, end) if not predictions.is_done(number)]
        random.Random(start).shuffle(numbers)
        for number in numbers:
            os.write(log, b"decode %d\n" % number)
            time.sleep(pause)
            predictions.add(number, row_of(number))
            os.write(log, b"added %d\n" % number)
        predictions.close_window(end)
    predictions.finish()
    os.close(log)


def check_log(folder: Path) -> None:
    """No record is decoded again once it was added."""
    added = set()
    for line in (folder / "log").read_text().splitlines():
        step, number = line.split()
        assert step == "added" or number not in added, f"record {number} was decoded again"
        if step == "added":
            added.add(number)


def check_finished(folder: Path) -> None:
    assert (folder / "out.jsonl").read_bytes() == EXPECTED
    assert {path.name for path in folder.iterdir()} <= {"out.jsonl", "log"}


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "out.jsonl"


def journal_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.with_name("out.jsonl.partial").read_bytes().splitlines()]


def begun(path: Path, settings: dict = SETTINGS, **how: bool) -> PredictionsFile:
    """A run that has begun."""
    predictions = PredictionsFile(path, settings, **how)
    predictions.begin()
    return predictions


def begin(path: Path, numbers: list[int], *, closed: int = 0) -> PredictionsFile:
    """An unfinished run that has added these records, and closed a window."""
    predictions = begun(path)
    for number in numbers:
        predictions.add(number, row_of(number))
    predictions.close_window(closed)
    return predictions


# -- what is on disk


def test_a_run_leaves_its_rows_in_order_and_nothing_else(path):
    work(path.parent)
    check_finished(path.parent)
    rows = PredictionsFile(path, SETTINGS, resume=True).rows_done()
    assert list(rows) == [row_of(number) for number in range(RECORDS)]


def test_folder_is_made(tmp_path):
    begun(str(tmp_path / "new" / "folder" / "out.jsonl")).finish()
    assert [path.name for path in (tmp_path / "new" / "folder").iterdir()] == ["out.jsonl"]


def test_rows_are_in_the_journal_until_their_window_is_closed(path):
    predictions = begin(path, [2, 0])
    assert path.read_bytes() == b""
    assert journal_of(path) == [SETTINGS, {"number": 2, "row": row_of(2)}, {"number": 0, "row": row_of(0)}]
    assert [predictions.is_done(number) for number in range(4)] == [True, False, True, False]
    predictions.add(1, row_of(1))
    predictions.add(4, row_of(4))  # of the next window
    predictions.close_window(3)
    assert predictions.row_count == 3
    assert list(predictions.rows_done()) == [row_of(0), row_of(1), row_of(2), row_of(4)]
    assert journal_of(path) == [SETTINGS, {"number": 4, "row": row_of(4)}]
    assert [predictions.is_done(number) for number in range(6)] == [True, True, True, False, True, False]


def test_misuse_is_noticed(path):
    predictions = begin(path, [0, 1, 3], closed=2)
    for number in (0, 3):
        with pytest.raises(AssertionError, match=f"record {number} is done"):
            predictions.add(number, row_of(number))
    with pytest.raises(KeyError, match="2"):
        predictions.close_window(4)
    assert path.read_bytes() == lines_of([row_of(0), row_of(1)])
    with pytest.raises(AssertionError, match="a window is open"):
        predictions.finish()


@pytest.mark.fault
@pytest.mark.parametrize("text", ["\ud83d", "😀\udfff", "\u2028\x85\r\n\x00", "\\ud83d", "天"])
def test_any_text_is_one_line_and_comes_back(path, text):
    begun(path, {"test_file": text}).add(0, {"id": text})
    again = begun(path, {"test_file": text}, resume=True)
    assert list(again.rows_done()) == [{"id": text}]
    again.close_window(1)
    again.finish()
    assert path.read_bytes().count(b"\n") == 1
    assert list(again.rows_done()) == [{"id": text}]


def test_json_line():
    assert json_line({"id": "天"}) == '{"id": "天"}\n'.encode()
    assert json_line({"id": "\ud83d"}) == b'{"id": "\\ud83d"}\n'


def test_rows_of_another_kind_of_file(path):
    path.write_text('{"id": 1}\n[2]\n')
    rows = PredictionsFile(path, SETTINGS, resume=True).rows_done()
    assert next(rows) == {"id": 1}
    with pytest.raises(InputError, match=r"out\.jsonl, line 2: no JSON object"):
        next(rows)


# -- what is there already


@pytest.mark.parametrize("content", [b"", b"mine\n"])
def test_existing_file_is_kept(path, content):
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        PredictionsFile(path, SETTINGS)
    assert str(caught.value) == f"output_file {path}: exists; choose another name, or add --overwrite_output"
    assert path.read_bytes() == content and len(list(path.parent.iterdir())) == 1


@pytest.mark.parametrize("file_is_there", [True, False])
def test_unfinished_run_is_kept(path, file_is_there):
    begin(path, [0])
    before = journal_of(path)
    if not file_is_there:
        path.unlink()
    with pytest.raises(InputError) as caught:
        PredictionsFile(path, SETTINGS)
    assert str(caught.value) == (
        f"output_file {path}: out.jsonl.partial beside it is of an unfinished run; continue it with --resume, "
        "or replace it with --overwrite_output"
    )
    assert journal_of(path) == before and path.exists() == file_is_there


def test_overwrite(path):
    path.write_bytes(OLD)
    work(path.parent, overwrite=True)
    check_finished(path.parent)


def test_overwrite_of_an_unfinished_run(path):
    begin(path, [0, 1, 2, 3, 5], closed=3)
    predictions = begun(path, OLD_SETTINGS, overwrite=True)
    assert not any(map(predictions.is_done, range(RECORDS)))
    assert path.read_bytes() == b"" and journal_of(path) == [OLD_SETTINGS]


@pytest.mark.parametrize("how", ["resume", "overwrite"])
def test_no_regular_file(tmp_path, how):
    with pytest.raises(InputError, match="not a regular file"):
        PredictionsFile(tmp_path, SETTINGS, **{how: True})
    with pytest.raises(InputError, match="output_file /dev/null: not a regular file"):
        PredictionsFile("/dev/null", SETTINGS, **{how: True})


@pytest.mark.parametrize("how", ["resume", "overwrite"])
def test_nothing_changes_before_the_run_begins(path, how):
    begin(path, [0, 1, 2], closed=2)
    with open(path, "ab") as file:
        file.write(b'{"torn')
    with open(path.with_name("out.jsonl.partial"), "ab") as file:
        file.write(b'{"torn')
    before = {file: file.read_bytes() for file in path.parent.iterdir()}
    predictions = PredictionsFile(path, SETTINGS, **{how: True})
    assert list(predictions.rows_done()) == ([row_of(0), row_of(1), row_of(2)] if how == "resume" else [])
    assert list(PredictionsFile(path.parent / "new" / "out.jsonl", SETTINGS).rows_done()) == []
    assert {file: file.read_bytes() for file in path.parent.iterdir()} == before


# -- resuming


def test_resume_where_nothing_is(path):
    work(path.parent, resume=True)
    check_finished(path.parent)


def test_resume_of_an_empty_file(path):  # as killed between the first two steps
    path.write_bytes(b"")
    work(path.parent, resume=True)
    check_finished(path.parent)


def test_resume_of_a_finished_run(path):
    work(path.parent)
    changed = path.stat().st_mtime_ns
    (path.parent / "log").unlink()
    predictions = PredictionsFile(path, SETTINGS, resume=True)
    assert predictions.complete and predictions.row_count == RECORDS
    predictions.begin()
    predictions.check_length(RECORDS)
    for records in (RECORDS - 1, RECORDS + 1):
        with pytest.raises(InputError) as caught:
            predictions.check_length(records)
        assert str(caught.value) == (
            f"output_file {path}: holds 10 rows for {records} records and there is no out.jsonl.partial: not an "
            "interrupted run of this program; choose another name, or give --overwrite_output in place of --resume"
        )
    with pytest.raises(AssertionError):
        predictions.add(RECORDS, row_of(0))
    work(path.parent, resume=True)
    check_finished(path.parent)
    assert (path.parent / "log").read_bytes() == b"" and path.stat().st_mtime_ns == changed


@pytest.mark.parametrize("content", [b"a\nb\nno line end", b"no line end"])
def test_foreign_file_is_left_as_it_is(path, content):
    path.write_bytes(content)
    predictions = begun(path, resume=True)
    assert predictions.complete and predictions.row_count == content.count(b"\n")
    assert path.read_bytes() == content and len(list(path.parent.iterdir())) == 1


def test_length_is_nothing_to_check_in_an_unfinished_run(path):
    begin(path, [0, 1], closed=1).check_length(RECORDS)
    PredictionsFile(path, SETTINGS, resume=True).check_length(RECORDS)


@pytest.mark.fault
def test_torn_lines(path):
    begin(path, [0, 1, 2, 3, 5], closed=3)
    file, journal = path.read_bytes(), path.with_name("out.jsonl.partial").read_bytes()
    for cut in range(len(json_line(row_of(2)))):
        path.write_bytes(file[: len(file) - cut])
        path.with_name("out.jsonl.partial").write_bytes(journal + json_line({"number": 2, "row": row_of(2)}))
        predictions = begun(path, resume=True)
        assert predictions.row_count == (2 if cut else 3)
        assert path.read_bytes() == lines_of([row_of(number) for number in range(predictions.row_count)])
        assert all(predictions.is_done(number) for number in (0, 1, 2, 3, 5)) and not predictions.is_done(4)
        numbers = [3, 5, 2] if cut else [3, 5]
        assert list(predictions.rows_done()) == [row_of(n) for n in [*range(predictions.row_count), *numbers]]
        assert journal_of(path) == [SETTINGS, *({"number": number, "row": row_of(number)} for number in numbers)]

    last = json_line({"number": 5, "row": row_of(5)})
    assert journal.endswith(last)
    for cut in (1, 2, 3, 100, 101, 102, len(last) - 1, len(last)):
        path.write_bytes(file)
        path.with_name("out.jsonl.partial").write_bytes(journal[: len(journal) - cut])
        predictions = begun(path, resume=True)
        assert predictions.is_done(3) and predictions.is_done(5) == (cut == 1)  # the line end alone is no loss
        predictions.add(6, row_of(6))
        assert PredictionsFile(path, SETTINGS, resume=True).is_done(6)  # added to a line of its own


def test_other_windows_than_before(path):
    begin(path, [3, 0, 1, 7, 2, 8], closed=3)
    (path.parent / "log").write_text("".join(f"added {number}\n" for number in (0, 1, 2, 3, 7, 8)))
    work(path.parent, window=6, resume=True)
    check_finished(path.parent)
    check_log(path.parent)


def test_other_settings(path):
    begin(path, [0, 1], closed=1)
    before, journal = path.read_bytes() + b'{"torn', journal_of(path)
    path.write_bytes(before)
    settings = {**SETTINGS, "num_beams": 1, "tgt_length": 30}
    del settings["top_p"]
    with pytest.raises(InputError) as caught:
        PredictionsFile(path, settings, resume=True)
    assert str(caught.value) == (
        f"output_file {path}: the unfinished run had other settings (num_beams: 5 then, 1 now; top_p: 0.9 then, not "
        "given now; tgt_length: not given then, 30 now); finish it with the values it had then, or give "
        "--overwrite_output in place of --resume"
    )
    assert (path.read_bytes(), journal_of(path)) == (before, journal)


@pytest.mark.parametrize(("then", "now"), [(1, True), (0, False), (1, 1.0), (None, "null"), ("5", 5), (None, ...)])
def test_settings_that_only_look_equal(path, then, now):
    begun(path, {"option": then})
    with pytest.raises(InputError, match="option: .* then, .* now"):
        PredictionsFile(path, {} if now is ... else {"option": now}, resume=True)


def test_equal_settings(path):
    begun(path, {"a": (1, 2), "b": 0.1, "c": "天"})
    PredictionsFile(path, {"c": "天", "b": 0.1, "a": [1, 2]}, resume=True)


@pytest.mark.parametrize("content", [b"", b"\n", b"[1]\n", b"mine\n", b"\xff\n"])
def test_no_journal(path, content):
    path.with_name("out.jsonl.partial").write_bytes(content)
    with pytest.raises(InputError, match=r"out\.jsonl\.partial, line 1: no JSON object"):
        PredictionsFile(path, SETTINGS, resume=True)
    assert path.with_name("out.jsonl.partial").read_bytes() == content and not path.exists()


@pytest.mark.parametrize("records", range(RECORDS))
def test_interruption(tmp_path, monkeypatch, records):
    """Ctrl-C between two records."""
    add = PredictionsFile.add

    def interrupted(self, number, row):
        if sum(map(self.is_done, range(RECORDS))) == records:
            raise KeyboardInterrupt
        add(self, number, row)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(PredictionsFile, "add", interrupted)
        work(tmp_path)
    work(tmp_path, resume=True)
    check_finished(tmp_path)
    check_log(tmp_path)
    assert (tmp_path / "log").read_text().count("added") == RECORDS


def test_memory_does_not_grow_with_the_file(path):
    begun(path)
    with open(path, "wb") as file:
        file.writelines(json_line({"id": number, "text": "水" * 200}) for number in range(5_000))  # 3 MB
    tracemalloc.start()
    try:
        predictions = begun(path, resume=True)
        assert sum(1 for _ in predictions.rows_done()) == predictions.row_count == 5_000
        for number in range(5_000, 5_100):
            predictions.add(number, row_of(5))
            predictions.close_window(number + 1)
        assert tracemalloc.get_traced_memory()[1] < 500_000
    finally:
        tracemalloc.stop()


# -- standard output


def test_printed_rows(capfdbinary):
    rows = PrintedRows()
    rows.check_length(None)
    rows.begin()
    for window in ([2, 0, 1], [4, 3]):
        for number in window:
            assert not rows.is_done(number)
            rows.add(number, {**row_of(number), "half": "\ud83d"})
            assert rows.is_done(number)
        assert capfdbinary.readouterr().out == b""
        rows.close_window(max(window) + 1)
        printed = capfdbinary.readouterr().out
        assert [json.loads(line)["id"] for line in printed.splitlines()] == [f"q{number}" for number in sorted(window)]
        assert printed.endswith(b"\n") and b'"half": "\\ud83d"' in printed
    rows.finish()
    assert list(rows.rows_done()) == [] and capfdbinary.readouterr().out == b""


def test_printed_window_is_flushed():
    code = (
        "import os; from glm.prediction.output import PrintedRows; rows = PrintedRows(); rows.add(0, {'id': 0}); "
        "rows.close_window(1); rows.add(1, {'id': 1}); os._exit(0)"
    )
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=buffered, capture_output=True, timeout=60)
    assert done.stdout == b'{"id": 0}\n'


# -- killed: each run is a process of its own


class Stop:
    """Ends this process at its `at`-th change of the disk (from 0), when a share of it was written.

    It stands between Python's buffers and the system, so what is not flushed is lost as in a real kill.

    Args:
        full: The disk is full from there on, in place of the kill.
    """

    def __init__(self, at: int | None, share: float = 0, *, full: bool = False):
        self.at, self.share, self.full = at, share, full
        self.points: list[str] = []
        builtins.open = io.open = self.open
        os.fsync = self.reaching("fsync", lambda handle: None)  # only a loss of power asks for it, and it is slow
        for name in ("replace", "rename", "unlink", "remove", "truncate"):
            setattr(os, name, self.reaching(name, getattr(os, name)))

    def reach(self, kind: str, part: Callable[[], object] = lambda: None) -> None:
        if len(self.points) == self.at:
            part()
            if not self.full:
                os.kill(os.getpid(), signal.SIGKILL)
        self.points.append(kind)

    def reaching(self, kind: str, function: Callable) -> Callable:
        def wrapper(*arguments):
            self.reach(kind)
            return function(*arguments)

        return wrapper

    def open(self, path, mode="r", **options):
        if mode[0] not in "wa":
            return OPEN(path, mode, **options)
        self.reach("open")
        stop = self

        class Raw(io.FileIO):
            def write(self, data):
                part = data[: int(stop.share * len(data))]
                if stop.full and len(stop.points) > stop.at:
                    raise OSError(errno.ENOSPC, "no space")
                before = len(stop.points)
                stop.reach("write", lambda: super(Raw, self).write(part))
                return len(part) if stop.full and before == stop.at else super().write(data)

            def truncate(self, size=None):
                stop.reach("truncate")
                return super().truncate(size)

        return io.BufferedWriter(Raw(path, mode.replace("b", "")))


OPEN = open


def in_a_process(function: Callable[[], None]) -> int:
    """The id of a new process that runs a function and ends with 0, or with 1 where it raises."""
    process = os.fork()
    if process:
        return process
    try:
        function()
        os._exit(0)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            traceback.print_exc()
        os._exit(3 if error.errno == errno.ENOSPC else 1)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def end_of(process: int) -> int:
    """The exit code, -9 if it was killed."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def points_of(folder: Path, before: Callable[[Path], None], **how: bool) -> list[str]:
    """Kinds of all changes of the disk in a run that is not killed."""
    folder.mkdir()
    before(folder)

    def counted():
        stop = Stop(None)
        work(folder, **how)
        with OPEN(folder / "points", "w") as file:
            file.write(" ".join(stop.points))

    assert end_of(in_a_process(counted)) == 0
    return (folder / "points").read_text().split()


def stopped(folder: Path, at: int, share: float, *, full: bool = False, **how: bool) -> int:
    def run():
        Stop(at, share, full=full)
        work(folder, **how)

    return end_of(in_a_process(run))


def stops(points: list[str]) -> list[tuple[int, float]]:
    """Every point, and for writes several shares of what is written."""
    shares = [0, 0.15, 0.3, 0.45, 0.6, 0.75, 0.9, 0.9999]
    return [(at, share) for at, kind in enumerate(points) for share in (shares if kind == "write" else [0])]


def at_every_point(folder: Path) -> None:
    """Killed at each point, killed again at some point of the second run, and then continued to the end."""
    points = points_of(folder / "whole", lambda _: None)
    assert set(points) == {"open", "write", "truncate", "fsync", "replace", "unlink"}, set(points)
    generator = random.Random(0)
    again = 0
    for run, (at, share) in enumerate(stops(points)):
        place = folder / str(run)
        place.mkdir()
        assert stopped(place, at, share) == -signal.SIGKILL
        if place.joinpath("out.jsonl").exists():
            assert EXPECTED.startswith(place.joinpath("out.jsonl").read_bytes())
        code = stopped(place, generator.randrange(len(points)), generator.random(), resume=True)
        again += code == -signal.SIGKILL
        if code:
            assert code == -signal.SIGKILL
            assert EXPECTED.startswith(place.joinpath("out.jsonl").read_bytes())
            assert end_of(in_a_process(lambda place=place: work(place, resume=True))) == 0
        check_finished(place)
        check_log(place)
    assert again > len(points) / 4


def on_a_full_disk(folder: Path) -> None:
    """The disk is full from each write on; with space again the run is continued."""
    points = points_of(folder / "whole", lambda _: None)
    for run, (at, share) in enumerate(stops(points)):
        if points[at] == "write":
            place = folder / str(run)
            place.mkdir()
            assert stopped(place, at, share, full=True) == 3
            assert end_of(in_a_process(lambda place=place: work(place, resume=True))) == 0
            check_finished(place)
            check_log(place)


def replacing(folder: Path) -> None:
    """Killed at each point of a run that replaces an older one: never is a row of the older one in the result."""

    def finished(place: Path) -> None:
        (place / "out.jsonl").write_bytes(OLD)

    def unfinished(place: Path) -> None:
        old = begun(place / "out.jsonl", OLD_SETTINGS)
        for number in (0, 1, 3, 2, 5):
            old.add(number, {"id": number, "old": True})
        old.close_window(3)

    def go_on(place: Path) -> None:
        try:
            predictions = PredictionsFile(place / "out.jsonl", SETTINGS, resume=True)
        except InputError as error:
            assert "num_beams: 4 then, 5 now" in str(error)
            return work(place, overwrite=True)
        if predictions.complete and (place / "out.jsonl").read_bytes() == OLD:
            return work(place, overwrite=True)
        return work(place, resume=True)

    for before in (finished, unfinished):
        points = points_of(folder / before.__name__, before, overwrite=True)
        for at in range(len(points)):
            place = folder / f"{before.__name__} {at}"
            place.mkdir()
            before(place)
            assert stopped(place, at, 0.5, overwrite=True) == -signal.SIGKILL
            assert end_of(in_a_process(lambda place=place: go_on(place))) == 0
            check_finished(place)
            check_log(place)


def at_random_moments(folder: Path) -> None:
    """Killed from outside, several times a run, each time when some more records are done."""
    generator = random.Random(1)
    kills = 0
    for run in range(25):
        place = folder / str(run)
        place.mkdir()
        log = place / "log"
        log.touch()
        for _ in range(3):
            enough = log.stat().st_size + generator.randrange(60)
            process = in_a_process(lambda place=place: work(place, resume=True, pause=0.001))
            running = os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT
            while log.stat().st_size < enough and os.waitid(*running) is None:
                time.sleep(0.0002)
            time.sleep(generator.random() * 0.002)
            os.kill(process, signal.SIGKILL)
            code = end_of(process)
            assert code in (0, -signal.SIGKILL)
            kills += code < 0
        assert end_of(in_a_process(lambda place=place: work(place, resume=True))) == 0
        check_finished(place)
        check_log(place)
    assert kills


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs POSIX processes")
@pytest.mark.parametrize("function", [at_every_point, on_a_full_disk, replacing, at_random_moments])
def test_killed(tmp_path, function):
    command = [sys.executable, __file__, function.__name__, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr


if __name__ == "__main__":
    globals()[sys.argv[1]](Path(sys.argv[2]))


def test_a_disk_that_cannot_sync_files(tmp_path, monkeypatch):
    """As some mounted object stores: rows are written all the same, and a disk that breaks is an error."""
    import errno

    def cannot(descriptor, error=errno.EINVAL):
        raise OSError(error, "no")

    monkeypatch.setattr(os, "fsync", cannot)
    file = PredictionsFile(tmp_path / "o.jsonl", {"a": 1})
    file.begin()
    file.add(0, {"id": 0})
    file.close_window(1)
    file.finish()
    assert (tmp_path / "o.jsonl").read_text() == '{"id": 0}\n' and os.listdir(tmp_path) == ["o.jsonl"]
    monkeypatch.setattr(os, "fsync", lambda descriptor: cannot(descriptor, errno.EIO))
    with pytest.raises(OSError, match="no"):
        PredictionsFile(tmp_path / "p.jsonl", {"a": 1}).begin()
