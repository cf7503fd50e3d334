"""Writes two further tasks of the bundled data: polite questions, and cards with a question and its answer.

python data/make_tasks.py FOLDER
"""

import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
TASKS = {
    "polite": lambda row: f"请问，{row['question']}",
    "card": lambda row: f"题目：{row['question']}答案：{row['answer']}。",
}


def main(folder: Path) -> None:
    """Writes TASK.train.json and TASK.dev.json of each task, and mixed.json: the dev records of all three tasks."""
    folder.mkdir(parents=True, exist_ok=True)
    mixed = []
    for split in ("train", "dev"):
        rows = [json.loads(line) for line in (HERE / f"{split}.json").read_text(encoding="utf-8").splitlines()]
        for task, target in TASKS.items():
            write(folder / f"{task}.{split}.json", [{**row, "question": target(row)} for row in rows])
        if split == "dev":
            mixed = [row for row in rows for row in (row, *({**row, "task": task} for task in TASKS))]
    write(folder / "mixed.json", mixed)


def write(path: Path, rows: list[dict]) -> None:
    """One JSON object a line."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
