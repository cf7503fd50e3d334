"""Holds `make demo-tasks` against its goals; ends with 1 where one is missed.

python benchmarks/demo_tasks.py            what the demo has left in runs/demo-tasks
python benchmarks/demo_tasks.py --full     trains the whole model on each task too, as long as its adapter was trained

Goals: an adapter has under 5 % of the model's weights; the rows of the first task, which has none, are those of the
model alone, where batches are the same in every digit, and in the one call, where products are of other rows too, in
every text and but for rounding in scores; the scores of a task are within 3 points BLEU-4 of those of the whole model
trained on it.
"""

import argparse
import json
import math
import shlex
import subprocess
import sys
from pathlib import Path

from safetensors import safe_open

ROOT = Path(__file__).resolve().parents[1]
TASKS = ("polite", "kind")
FIGURE = "bleu-4 (char, corpus)"
MOST_SHARE, MOST_POINTS, ROUNDING = 0.05, 3.0, 2e-6
# Of whole training the best of these rates counts.
RATES = (5e-4, 2e-3)


def main() -> int:
    """Prints a line a goal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/demo-tasks"))
    parser.add_argument("--full", action="store_true", help="train the whole model on each task, to compare")
    arguments = parser.parse_args()
    folder = arguments.folder
    found = [*sizes(folder), *first_task(folder)]
    scores = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    for task in TASKS if arguments.full else ():
        whole = max(full_score(folder, task, rate) for rate in RATES)
        own = scores[task][FIGURE]
        found.append((own >= whole - MOST_POINTS, f"{task}: {FIGURE} {own:.2f}, of the whole model {whole:.2f}"))
    for holds, line in found:
        print(f"{'holds ' if holds else 'MISSED'} {line}")
    return 0 if all(holds for holds, _ in found) else 1


def sizes(folder: Path) -> list[tuple[bool, str]]:
    """Weights of each adapter against those of the model."""
    whole, found = weights_in(folder / "base" / "model.safetensors"), []
    for task in TASKS:
        own = weights_in(folder / task / "peft_model.safetensors")
        found.append((own < MOST_SHARE * whole, f"{task}: {own} weights, {100 * own / whole:.2f} % of {whole}"))
    return found


def weights_in(path: Path) -> int:
    """Numbers in a file."""
    with safe_open(path, "np") as file:
        return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118, no mapping


def first_task(folder: Path) -> list[tuple[bool, str]]:
    """The rows of the first task against those of the model alone: of the one call, and of one beside the adapters."""
    alone = [row["predictions"][0] for row in rows_of(folder / "alone.jsonl")]
    mixed = [row["predictions"][0] for row in rows_of(folder / "predictions.jsonl") if "task" not in row]
    pairs = list(zip(mixed, alone, strict=True))
    texts = sum(one["text"] == other["text"] for one, other in pairs)
    most = max(abs(one["score"] - other["score"]) for one, other in pairs)
    holds = texts == len(pairs) and most <= ROUNDING
    found = [(holds, f"first task, in the one call: {texts} of {len(pairs)} texts equal, scores within {most:.1e}")]
    beside = folder / "beside.jsonl"
    command = [sys.executable, "predict.py", f"--model_name_or_path={folder / 'base'}", "--test_file=data/dev.json"]
    command += [f"--adapters={folder / 'all'}", f"--output_file={beside}", "--device=cpu", "--show=0"]
    run([*command, "--overwrite_output"])
    rows = [row["predictions"][0] for row in rows_of(beside)]
    equal = sum(one == other for one, other in zip(rows, alone, strict=True))
    found.append(
        (equal == len(rows), f"first task, beside the adapters: {equal} of {len(rows)} rows equal, scores too")
    )
    return found


def run(command: list[str]) -> None:
    """Runs a script of the project. Ends with what it said if it fails."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{shlex.join(command)}: {done.stderr}")


def rows_of(path: Path) -> list[dict]:
    """Predictions of a file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def full_score(folder: Path, task: str, rate: float) -> float:
    """The figure of the whole model, trained on a task with the data and epochs of its adapter."""
    data, output = folder / "data", folder / f"full-{task}-{rate}"
    settings = json.loads((ROOT / "configs" / "adapters" / "demo.json").read_text(encoding="utf-8"))
    command = [sys.executable, "finetune_generation.py", "configs/demo.json", f"--learning_rate={rate}"]
    command += [f"--{name}={settings[name]}" for name in ("num_train_epochs", "src_length", "tgt_length")]
    command += [f"--model_name_or_path={folder / 'base'}", f"--output_dir={output}"]
    command += [f"--train_file={data / f'{task}.train.json'}", f"--dev_file={data / f'{task}.dev.json'}"]
    run(command)
    return json.loads((output / "eval_results.json").read_text(encoding="utf-8"))[f"eval_{FIGURE}"]


if __name__ == "__main__":
    sys.exit(main())
