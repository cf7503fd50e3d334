"""`score`, `report` and `compare` of files of predictions that were damaged, or made by someone else: figures, or an
error of ours.

100 files of each command; with GLM_FUZZ=N there are N.
"""

import json
import os
import random

import pytest

from glm.__main__ import main
from glm.errors import InputError
from tools.changed_files import ODD, corrupted, mutated_json

TRIES = int(os.environ.get("GLM_FUZZ", 100))
CANDIDATES = [
    {"label": "好", "score": -0.5, "probability": 0.6, "mean": -0.25},
    {"label": "坏", "score": -0.9, "probability": 0.4, "mean": -0.45},
]
WRITTEN = [
    {
        "id": number,
        "source": "青石镇位于河边，人口大约3万。",
        "answer": "河边",
        "cut": 2,
        "seen": [0, 5],
        "predictions": [{"text": f"青石镇在哪里？{number}", "score": -0.5, "finish_reason": "length"}],
        "reference": "青石镇在哪里？" if number % 2 else ["青石镇在哪里？", "河边是哪里？"],
    }
    for number in range(8)
]
CHOSEN = [
    {
        "id": number,
        "source": "春天来了。",
        "prediction": "好",
        "reference": "好" if number % 2 else ["坏"],
        "candidates": CANDIDATES,
        "language": "zh",
        "group": number // 2,
        "exclusive": True,
    }
    for number in range(8)
]
EXTRACTED = [
    {
        "id": number,
        "question": "青石镇在哪里？",
        "context": "青石镇位于河边。",
        "prediction": "河边",
        "references": ["河边", "河"],
        "score": -0.3,
        "window": 0,
        "windows": 2,
        "window_text": "青石镇位于河边。",
        "language": "zh",
    }
    for number in range(8)
]
FILES = [[json.dumps(row, ensure_ascii=False).encode() for row in rows] for rows in (WRITTEN, CHOSEN, EXTRACTED)]
COMMANDS = {
    "score": ("score", "{changed}"),
    "all protocols": ("score", "{changed}", "--protocols", "all"),
    "report": ("report", "{changed}", "--output_dir", "{folder}", "--overwrite_output"),
    "compare": ("compare", "{changed}", "{intact}"),
}


def changed_deeper(draw: random.Random, row: bytes) -> bytes:
    """A row with another value in one of its texts or candidates, or without one."""
    content = json.loads(row)
    lists = [value for value in content.values() if isinstance(value, list) and isinstance(value[0], dict)]
    for items in lists:
        item = draw.choice(items)
        name = draw.choice(list(item))
        item[name] = draw.choice(ODD)
        if draw.random() < 0.2:
            del item[name]
    return json.dumps(content).encode()


@pytest.mark.fault
@pytest.mark.parametrize("name", COMMANDS)
def test_changed_rows(tmp_path, name):
    intact, changed = tmp_path / "intact.jsonl", tmp_path / "changed.jsonl"
    places = {"intact": intact, "changed": changed, "folder": tmp_path / "page"}
    argv = [part.format_map(places) for part in COMMANDS[name]]
    fine = 0
    for seed in range(TRIES):
        draw = random.Random(seed)
        rows = draw.choice(FILES if name != "all protocols" else [FILES[0], FILES[2]])  # a choice has one
        intact.write_bytes(b"\n".join(rows))
        chosen = draw.sample(range(len(rows)), draw.randint(1, 2))
        changes = {place: draw.choices([mutated_json, changed_deeper, corrupted], [3, 2, 1])[0] for place in chosen}
        lines = [changes[place](draw, row) if place in changes else row for place, row in enumerate(rows)]
        changed.write_bytes(b"\n".join(lines))
        try:
            assert not main(argv), seed
            fine += 1
        except InputError as error:
            assert str(changed) in str(error) and len(str(error)) < 6000, seed
        except BaseException as error:
            raise AssertionError(f"{seed}: {error!r} of {[lines[place] for place in chosen]}") from error
    assert TRIES / 20 < fine < TRIES  # some changes mean nothing, or another value that may be
