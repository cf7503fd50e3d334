"""Hundreds of hostile lines through check, training and prediction: what goes in comes out, or is named."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from glm.__main__ import main
from tools.run_tools import PLACES, Workspace, make_workspace, read_lines

LINES, GOOD = 320, 20
GIBIBYTE = 1 << 30
ODD_TEXTS = [
    "\u2028",
    "\u0085",
    "\r",
    "\t",
    "\0",
    "\x1b[2J\x07",
    "\ufeff",
    "\u202e\u2066",
    "\U0001f469\u200d\U0001f4bb",
    "\ue000\U000f0000",
    "e\u0301\u1112\u1161\u11ab",
    "\U0010ffff\ufffe",
    "[MASK][gMASK]<|endoftext|><|startofpiece|>[sop]</s><n>",
    "{answer}{context}",
    "</script><img src=x onerror=alert(1)>",
    "--output_file=/dev/full",
    "../../etc/passwd",
    "１２３％",
    " \u3000 ",
    "",
    "的" * 3000,
]
ODD_VALUES = ["null", "true", "0", "-1e400", "NaN", "[]", "{}", '[["a"]]', '"\\ud800"', '"\\udfff\\ud800"', "9" * 5000]
ODD_LINES = [
    b"{",
    b"}",
    b"[]",
    b"[1, 2]",
    b"null",
    b'"a"',
    b"7",
    b"NaN",
    b"{}",
    b"[" * 100_000,
    b'{"a":' * 50_000,
    b"\xff\xfe\x00",
    b"\x80abc",
    b"context,answer",
    b"<!doctype html>",
    b"{'context': 'a'}",
    b"# a comment",
    b'{"context": "a" "answer": "b"}',
]


def hostile(draw: random.Random, number: int) -> bytes:
    """A record with an odd text or value, a name twice, without a field or with other bytes; or no record at all."""
    record = {"context": f"{draw.choice(PLACES)}位于河边。", "answer": "河边", "question": f"{number}在哪里？"}
    field = draw.choice(list(record))
    line = json.dumps(record, ensure_ascii=draw.random() < 0.5)
    match draw.randrange(6):
        case 0:
            place = draw.randrange(len(record[field]) + 1)
            record[field] = record[field][:place] + draw.choice(ODD_TEXTS) + record[field][place:]
            return json.dumps(record, ensure_ascii=draw.random() < 0.5).encode()
        case 1:
            whole = json.dumps({**record, field: "here"})
            return whole.replace('"here"', draw.choice(ODD_VALUES)).encode()
        case 2:
            doubled = f'{line[:-1]}, "{field}": {draw.choice(ODD_VALUES)}}}'
            return doubled.encode()
        case 3:
            record[field] = draw.choice(ODD_TEXTS)
            return json.dumps({name: text for name, text in record.items() if draw.random() < 0.8}).encode()
        case 4:
            data = bytearray(line.encode())
            for _ in range(draw.randrange(1, 5)):
                data[draw.randrange(len(data))] = draw.choice([0, 9, 13, 34, 92, 0xC0, 0xED, 0xFF])
            return bytes(data)
        case _:
            return draw.choice(ODD_LINES)


def hostile_file(path: Path, seed: int) -> list[bytes]:
    """Writes the lines, good ones among them; returns those that are not empty."""
    draw = random.Random(seed)
    places = PLACES * (GOOD // len(PLACES))
    good = [
        {"context": f"{place}人口大约3万。", "answer": "3万", "question": f"{place}有多少人？"} for place in places
    ]
    lines = [hostile(draw, number) for number in range(LINES)]
    lines += [json.dumps(record, ensure_ascii=False).encode() for record in good]
    draw.shuffle(lines)
    path.write_bytes(b"\n".join([lines[-1], b"", *lines[:-1]]))  # without a line feed at the end
    return [line for line in path.read_bytes().split(b"\n") if line.strip()]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, sentencepiece_file) -> Workspace:
    return make_workspace(tmp_path_factory.mktemp("hostile"), sentencepiece_file)


@pytest.mark.fault
@pytest.mark.parametrize("seed", range(2))
def test_as_many_come_out_as_went_in(workspace, tmp_path, seed, capsys):
    lines = hostile_file(tmp_path / "in.jsonl", seed)
    name = f"run {seed}"
    options = {"train_file": tmp_path / "in.jsonl", "max_bad_records": len(lines), "max_steps": 2}
    workspace.finetune(name, **options)
    refused = read_lines(workspace.folder / name / "refused-train.jsonl")
    assert GOOD < len(refused) < LINES
    report = json.loads((workspace.folder / name / "data_report.json").read_text(encoding="utf-8"))
    assert report["train"]["used"] + len(refused) == report["train"]["read"] == len(lines)

    code = workspace.predict(
        model_name_or_path=workspace.folder / name,
        test_file=tmp_path / "in.jsonl",
        output_file=tmp_path / "out.jsonl",
        tgt_length=18,
        show=0,
    )
    rows = read_lines(tmp_path / "out.jsonl")
    assert code == 3 and len(rows) == len(lines)
    assert all(("error" in row) != bool(row.get("predictions")) for row in rows)
    assert sum("error" not in row for row in rows) >= GOOD

    tokenizer = ["--tokenizer_name_or_path", str(workspace.tokenizer_file)]
    assert main(["check", *tokenizer, str(tmp_path / "in.jsonl")]) == 1
    assert "Traceback" not in capsys.readouterr().err


MEASURE = """
import sys
from glm.data.formats import read_rows
from glm.errors import InputError
def resident(name):  # MiB of this process alone: ru_maxrss begins with that of its parent
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name)) // 1024
before = resident("VmRSS")
try:
    for row in read_rows(sys.argv[1]):
        print(row.error)
except InputError as error:
    print(error)
print(resident("VmHWM") - before)
"""


@pytest.mark.fault
@pytest.mark.sweep
def test_a_line_of_a_gibibyte(tmp_path):
    """It is an error that names the line, in less than 64 MiB."""
    path = tmp_path / "in.jsonl"
    with path.open("wb") as file:
        file.write(b'{"context": "')
        file.truncate(GIBIBYTE)  # zeros, which take no place on the disk
        file.seek(0, 2)
        file.write(b'"}\n{"context": "a", "answer": "b", "question": "c"}\n')
    done = subprocess.run([sys.executable, "-c", MEASURE, str(path)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    *said, grown = done.stdout.splitlines()
    assert all("in.jsonl, line 1: more than" in line for line in said) and said[-1].endswith("split the file")
    assert int(grown) < 64
