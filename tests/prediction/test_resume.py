"""A prediction that is killed and resumed: the file of a run that was not, and nothing decoded twice."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import glm.prediction.writer
import predict
from glm.errors import InputError
from glm.models.glm.modeling import GLMForConditionalGeneration
from glm.prediction.output import PredictionsFile
from glm.runtime.entry import run
from tools.run_tools import Workspace, arguments, make_workspace, read_lines, write_records

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, sentencepiece_file) -> Workspace:
    return make_workspace(tmp_path_factory.mktemp("resume"), sentencepiece_file)


@pytest.fixture(scope="module")
def checkpoint(workspace) -> Path:
    return workspace.finetune("checkpoint", max_steps=15, learning_rate=5e-3, logging_steps=5)


@pytest.fixture
def options(workspace, checkpoint, tmp_path, monkeypatch) -> dict:
    """20 records in windows of 6, one at a time: what is decoded together changes the last digit of a score."""
    monkeypatch.setattr(predict, "WINDOW", 6)
    return {
        "model_name_or_path": checkpoint,
        "test_file": workspace.folder / "train.json",
        "output_file": tmp_path / "out.jsonl",
        "metrics_file": tmp_path / "metrics.json",
        "num_beams": 2,
        "tgt_length": 18,
        "per_device_eval_batch_size": 1,
        "show": 0,
    }


class Killed(BaseException):
    """Stands for a kill: no program catches it."""


@pytest.fixture
def decoded(monkeypatch) -> list:
    """The numbers of the records that are decoded."""
    numbers, decode = [], glm.prediction.writer.decode

    def counting(*args, record_ids, **options):
        numbers.extend(record_ids)
        return decode(*args, record_ids=record_ids, **options)

    monkeypatch.setattr(glm.prediction.writer, "decode", counting)
    return numbers


def kill_at(monkeypatch, name: str, call: int, *, before: bool) -> list:
    """Lets a method of `PredictionsFile` kill at one of its calls (from 1); returns the numbers that were added."""
    method, calls, added = getattr(PredictionsFile, name), [], []
    add = PredictionsFile.add

    def noting(self, number, row):
        add(self, number, row)
        added.append(number)

    monkeypatch.setattr(PredictionsFile, "add", noting)
    method = noting if name == "add" else method

    def killing(self, *args):
        calls.append(name)
        if before and len(calls) == call:
            raise Killed
        method(self, *args)
        if len(calls) == call:
            raise Killed

    monkeypatch.setattr(PredictionsFile, name, killing)
    return added


def figures(path: Path) -> dict:
    """Scores, but for the speed."""
    return {name: value for name, value in json.loads(path.read_text()).items() if name != "records per second"}


@pytest.fixture(scope="module")
def whole(workspace, checkpoint, tmp_path_factory):
    """A function: bytes and scores of a run with these options that nothing interrupts."""
    known = {}

    def of(options: dict) -> tuple[bytes, dict]:
        key = str({name: value for name, value in options.items() if name not in ("output_file", "metrics_file")})
        if key not in known:
            folder = tmp_path_factory.mktemp("whole")
            workspace.predict(**{**options, "output_file": folder / "out", "metrics_file": folder / "m"})
            known[key] = (folder / "out").read_bytes(), figures(folder / "m")
        return known[key]

    return of


@pytest.mark.fault
@pytest.mark.parametrize(
    ("name", "call", "before"),
    [
        ("begin", 1, False),
        ("add", 1, True),
        ("add", 1, False),
        ("add", 4, False),
        ("add", 6, False),
        ("close_window", 1, True),
        ("close_window", 1, False),
        ("add", 11, False),
        ("_write_journal", 3, True),  # that of the second window, whose rows are in the file by then
        ("close_window", 4, False),
        ("finish", 1, True),
        ("finish", 1, False),
    ],
)
def test_killed_at_any_moment(workspace, options, whole, decoded, monkeypatch, name, call, before):
    expected = whole(options)
    decoded.clear()
    with monkeypatch.context() as patch:
        added = kill_at(patch, name, call, before=before)
        with pytest.raises(Killed):
            workspace.predict(**options)
    assert not options["metrics_file"].exists()
    decoded.clear()
    assert workspace.predict(**options, resume=True) == 0
    assert sorted(decoded) == sorted(set(range(20)) - set(added))
    assert options["output_file"].read_bytes() == expected[0]
    assert figures(options["metrics_file"]) == expected[1]
    assert {path.name for path in options["output_file"].parent.iterdir()} == {"out.jsonl", "metrics.json"}


@pytest.mark.fault
def test_killed_again_and_again(workspace, options, whole, decoded, monkeypatch):
    """And with records that fail, and other batches: texts are the same."""
    records = read_lines(options["test_file"])
    del records[3]["answer"], records[13]["context"]
    options = {**options, "test_file": options["output_file"].parent / "bad.json"}
    write_records(options["test_file"], records)
    expected = whole(options)
    decoded.clear()
    done = []
    for size, call in enumerate((3, 5, 2, 4), start=1):
        with monkeypatch.context() as patch:
            added = kill_at(patch, "add", call, before=False)
            with pytest.raises(Killed):
                workspace.predict(**{**options, "per_device_eval_batch_size": size}, resume=True)
        done += added
    assert len(done) == len(set(done)) == 14
    decoded.clear()
    assert workspace.predict(**options, resume=True) == 3
    assert sorted(decoded) == sorted(set(range(20)) - set(done) - {3, 13})
    rows = read_lines(options["output_file"])
    for row, other in zip(rows, map(json.loads, expected[0].splitlines()), strict=True):
        assert [text["text"] for text in row["predictions"]] == [text["text"] for text in other["predictions"]]
        for text, same in zip(row.pop("predictions"), other.pop("predictions"), strict=True):
            assert text["score"] == pytest.approx(same["score"], abs=1e-5)
        assert row == other
    assert figures(options["metrics_file"]) == expected[1]
    assert (expected[1]["records"], expected[1]["failed records"]) == (18, 2)


@pytest.mark.parametrize("drawing", [{"select_topk": "False"}, {"token_scores": True}])
def test_other_options_survive_too(workspace, options, whole, monkeypatch, drawing):
    options |= drawing
    expected = whole(options)
    with monkeypatch.context() as patch:
        kill_at(patch, "add", 9, before=False)
        with pytest.raises(Killed):
            workspace.predict(**options)
    workspace.predict(**options, resume=True)
    assert options["output_file"].read_bytes() == expected[0]


def test_filling_is_resumed(workspace, options, decoded, monkeypatch, tmp_path):
    (tmp_path / "in.txt").write_text("松江[MASK]，[MASK]。\n青石镇\n" * 5, encoding="utf-8")
    texts = {"fill_file": tmp_path / "in.txt", "output_file": tmp_path / "out"}
    options = {name: options[name] for name in ("model_name_or_path", "num_beams", "tgt_length")} | texts
    options["per_device_eval_batch_size"] = 1
    workspace.predict(**{**options, "output_file": tmp_path / "whole"})
    decoded.clear()
    with monkeypatch.context() as patch:
        done = kill_at(patch, "add", 4, before=False)
        with pytest.raises(Killed):
            workspace.predict(**options)
    assert len(done) == 4
    decoded.clear()
    workspace.predict(**options, resume=True)
    blanks = {(number, blank) for number in range(10) for blank in range(2 - number % 2)}
    assert sorted(decoded) == sorted(pair for pair in blanks if pair[0] not in done)
    assert (tmp_path / "out").read_bytes() == (tmp_path / "whole").read_bytes()


def test_resume_of_a_finished_run(workspace, options, decoded):
    """Nothing is decoded or written but the scores, also if they were not asked for before."""
    metrics = options.pop("metrics_file")
    workspace.predict(**options)
    before = options["output_file"].read_bytes(), options["output_file"].stat().st_mtime_ns
    decoded.clear()
    assert workspace.predict(**options, resume=True, metrics_file=metrics) == 0
    assert (options["output_file"].read_bytes(), options["output_file"].stat().st_mtime_ns) == before
    assert decoded == [] and figures(metrics)["records"] == 20
    assert json.loads(metrics.read_text())["records per second"] == 0
    assert len(list(metrics.parent.iterdir())) == 2
    metrics.write_text("{}")
    assert workspace.predict(**options, resume=True, metrics_file=metrics) == 0  # written anew
    assert figures(metrics)["records"] == 20
    metrics.unlink()
    workspace.predict(**{**options, "overwrite_output": True, "metrics_file": metrics})
    assert len(decoded) == 20


def test_scores_of_a_finished_run_without_questions(workspace, options, tmp_path):
    write_records(tmp_path / "in.json", [{"context": "青石镇", "answer": "镇"}])
    options["test_file"], metrics = tmp_path / "in.json", options.pop("metrics_file")
    workspace.predict(**options)
    with pytest.raises(InputError, match="no column is recognised as the target"):
        workspace.predict(**options, resume=True, metrics_file=metrics)
    assert not metrics.exists()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"num_beams": 3}, "num_beams: 2 then, 3 now"),
        ({"tgt_length": 19}, "tgt_length: 18 then, 19 now"),
        ({"src_length": 59}, "src_length: 60 then, 59 now"),
        ({"prefix": "甲"}, 'prefix: "" then, "甲" now'),
        ({"token_scores": True}, "token_scores: false then, true now"),
        ({"decode_dtype": "bfloat16"}, 'decode_dtype: "float32" then, "bfloat16" now'),
        ({"no_block_position": True}, "no_block_position: false then, true now"),
        ({"tokenizer_name_or_path": "x"}, 'tokenizer_name_or_path: null then, "x" now'),
        ({"allowed_outputs_file": "x"}, 'allowed_outputs_file: null then, "x" now'),
        ({"test_file": "dev.json"}, "dev.json"),
    ],
    ids=str,
)
def test_other_settings_are_refused(workspace, options, monkeypatch, changed, message):
    with monkeypatch.context() as patch:
        kill_at(patch, "add", 9, before=False)
        with pytest.raises(Killed):
            workspace.predict(**options)
    if "test_file" in changed:
        changed = {"test_file": workspace.folder / "dev.json"}
    files = {path: path.read_bytes() for path in options["output_file"].parent.iterdir()}
    with pytest.raises(InputError, match="the unfinished run had other settings") as caught:
        workspace.predict(**{**options, **changed}, resume=True)
    assert message in str(caught.value)
    assert {path: path.read_bytes() for path in options["output_file"].parent.iterdir()} == files
    with pytest.raises(InputError, match=r"out\.jsonl\.partial beside it is of an unfinished run"):
        workspace.predict(**options)


def test_input_that_has_changed_is_refused(workspace, options, monkeypatch, tmp_path):
    path = tmp_path / "in.json"
    path.write_bytes(options["test_file"].read_bytes())
    options["test_file"] = path
    with monkeypatch.context() as patch:
        kill_at(patch, "add", 2, before=False)
        with pytest.raises(Killed):
            workspace.predict(**options)
    path.write_bytes(path.read_bytes() + path.read_bytes().splitlines()[0])
    with pytest.raises(InputError, match="sha256 of the input"):
        workspace.predict(**options, resume=True)


def test_resume_changes_what_does_not_matter(workspace, options, monkeypatch, whole):
    """Batch size, table, where scores go."""
    expected = whole(options)
    metrics = options["metrics_file"].with_name("elsewhere.json")
    with monkeypatch.context() as patch:
        kill_at(patch, "add", 8, before=False)
        with pytest.raises(Killed):
            workspace.predict(**options)
    changes = {"per_device_eval_batch_size": 7, "show": 3, "metrics_file": metrics}
    assert workspace.predict(**{**options, **changes}, resume=True) == 0
    assert len(read_lines(options["output_file"])) == 20 and figures(metrics) == expected[1]


def test_foreign_output_is_not_continued(workspace, options):
    options["output_file"].write_text('{"id": 1}\n')
    with pytest.raises(InputError, match="holds 1 rows for 20 records"):
        workspace.predict(**options, resume=True)
    assert options["output_file"].read_text() == '{"id": 1}\n'


def test_interruption_leaves_whole_lines(workspace, options, monkeypatch, capsys, whole):
    expected = whole(options)
    step, calls = GLMForConditionalGeneration.step, []

    def interrupted(self, *args):
        calls.append(1)
        if len(calls) == 60:
            raise KeyboardInterrupt
        return step(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(GLMForConditionalGeneration, "step", interrupted)
        patch.setattr(sys, "argv", ["predict.py", *arguments({"device": "cpu", **options})])
        assert run(predict.main) == 130
    assert capsys.readouterr().err.endswith("interrupted\n")
    left = options["output_file"].read_bytes()
    assert expected[0].startswith(left) and left.endswith(b"\n" if left else b"")
    journal = options["output_file"].with_name("out.jsonl.partial").read_bytes()
    assert journal.endswith(b"\n") and len([json.loads(line) for line in journal.splitlines()]) > 1
    assert workspace.predict(**options, resume=True) == 0
    assert options["output_file"].read_bytes() == expected[0]


# -- the program itself


def start(options: dict) -> subprocess.Popen:
    command = [sys.executable, str(ROOT / "predict.py"), *arguments({"device": "cpu", **options})]
    return subprocess.Popen(command, cwd=ROOT, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))


def rows_done(journal: Path) -> int:
    """Whole lines behind the settings."""
    return max(0, journal.read_bytes().count(b"\n") - 1) if journal.exists() else 0


@pytest.mark.fault
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX signals")
def test_the_program_is_killed(workspace, checkpoint, tmp_path):
    """Killed twice, interrupted once, and run to its end."""
    records = read_lines(workspace.folder / "train.json") * 2
    write_records(tmp_path / "in.json", records)
    options = {
        "model_name_or_path": checkpoint,
        "test_file": tmp_path / "in.json",
        "num_beams": 5,
        "min_tgt_length": 15,
        "per_device_eval_batch_size": 1,
        "show": 0,
    }
    whole = start({**options, "output_file": tmp_path / "whole", "metrics_file": tmp_path / "whole.json"})
    assert whole.wait(timeout=180) == 0
    options |= {"output_file": tmp_path / "out", "metrics_file": tmp_path / "out.json"}
    journal = tmp_path / "out.partial"
    before = {}
    for end, code in ((signal.SIGKILL, -9), (signal.SIGKILL, -9), (signal.SIGINT, 130)):
        process = start({**options, "resume": True})
        deadline, goal = time.monotonic() + 120, rows_done(journal) + 5
        while rows_done(journal) < goal:
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.002)
        os.kill(process.pid, end)
        assert process.wait(timeout=60) == code
        lines = journal.read_bytes().split(b"\n")
        rows = {entry["number"]: entry["row"] for entry in map(json.loads, lines[1:-1])}
        assert goal <= len(rows) < 40 and rows.items() >= before.items()
        assert len(rows) == len(lines) - 2, "a record was decoded twice"
        before = rows
    assert start({**options, "resume": True}).wait(timeout=180) == 0
    assert (tmp_path / "out").read_bytes() == (tmp_path / "whole").read_bytes()
    assert figures(tmp_path / "out.json") == figures(tmp_path / "whole.json")
    assert not journal.exists()
