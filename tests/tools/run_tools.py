"""Runs the two scripts in tests: a folder with everything a run needs, and calls as from the command line."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from paddle.utils import unique_name

import finetune_generation
import predict

PLACES = ["青石镇", "白鹿湖", "松江", "云台山", "金沙岛", "梅花村", "长乐城", "北原县", "石桥市", "红叶谷"]


def arguments(options: dict) -> Iterator[str]:
    """Formats options for the command line; True is a flag without value, a list several values."""
    for name, value in options.items():
        yield f"--{name}"
        if value is not True:
            yield from map(str, value if isinstance(value, list) else [value])


@dataclass(frozen=True)
class Workspace:
    """A folder with data, a tokenizer and a model configuration."""

    folder: Path
    tokenizer_file: Path

    @property
    def options(self) -> dict:
        """Returns what every run needs: 20 training records in batches of 4 (5 steps an epoch), 4 dev records."""
        return {
            "model_name_or_path": self.folder / "model.json",
            "tokenizer_name_or_path": self.tokenizer_file,
            "train_file": self.folder / "train.json",
            "src_length": 60,
            "tgt_length": 30,
            "num_beams": 2,
            "per_device_train_batch_size": 4,
            "learning_rate": 5e-3,
            "logging_steps": 1,
            "save_strategy": "no",
            "device": "cpu",
            "report_to": "none",
            "disable_tqdm": "true",
            "do_train": True,
        }

    def finetune(self, name: str, **options) -> Path:
        """Runs `finetune_generation.py` into the folder `name`; options with the value None are left out."""
        settings = {**self.options, "output_dir": self.folder / name, **options}
        settings = {key: value for key, value in settings.items() if value is not None}
        with unique_name.guard():  # optimizer states are named by counters, which start anew in a new process
            finetune_generation.main(list(arguments(settings)))
        return self.folder / name

    def predict(self, **options) -> int:
        """Runs `predict.py`; returns its exit code."""
        return predict.main(list(arguments({"device": "cpu", **options})))


def make_workspace(folder: Path, tokenizer_file: Path, **sizes: int) -> Workspace:
    """Writes data and configuration, with these sizes instead of the usual ones, into an empty folder."""
    records = [
        {
            "context": f"{place}位于河的北岸，人口大约{number}万。",
            "answer": f"{number}万",
            "question": f"{place}有多少人口？",
        }
        for place in PLACES
        for number in (2, 3)
    ]
    write_records(folder / "train.json", records)
    write_records(folder / "dev.json", records[::5])
    settings = {
        "num_layers": 2,
        "hidden_size": 32,
        "initializer_range": 0.1,
        "num_attention_heads": 4,
        "max_sequence_length": 100,
        **sizes,
    }
    (folder / "model.json").write_text(json.dumps(settings), encoding="utf-8")
    return Workspace(folder, tokenizer_file)


def write_records(path: Path, records: list[dict]) -> None:
    """Writes one JSON object per line."""
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")


def read_lines(path: Path) -> list[dict]:
    """Returns the JSON objects of a file's lines, which nothing but a line feed ends."""
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def logged(output_dir: Path, name: str) -> list:
    """Returns a figure from each line of `metrics.jsonl` that has it."""
    return [row[name] for row in read_lines(output_dir / "metrics.jsonl") if name in row]
