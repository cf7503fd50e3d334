"""Writes two further tasks of the bundled data: polite questions, and questions that say what kind of thing is asked.

python data/make_tasks.py FOLDER
"""

import json
import sys
from pathlib import Path

from make_cloze import label_of

HERE = Path(__file__).resolve().parent
TASKS = {
    "polite": lambda row: f"{row['question'][:-1]}，请问？",
    "kind": lambda row: f"{row['question']}问的是{label_of(row['question'])}。",
}


def main(folder: Path) -> None:
    """Writes TASK.train.json and TASK.dev.json of each task, and mixed.json: the dev records of all three tasks."""
    folder.mkdir(parents=True, exist_ok=True)
    for split in ("train", "dev"):
        rows = [json.loads(line) for line in (HERE / f"{split}.json").read_text(encoding="utf-8").splitlines()]
        of_tasks = {task: [{**row, "question": target(row)} for row in rows] for task, target in TASKS.items()}
        for task, own in of_tasks.items():
            write(folder / f"{task}.{split}.json", own)
    named = ([{**row, "task": task} for row in own] for task, own in of_tasks.items())
    write(folder / "mixed.json", [row for together in zip(rows, *named, strict=True) for row in together])


def write(path: Path, rows: list[dict]) -> None:
    """One JSON object a line."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
