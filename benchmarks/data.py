"""Times what is done to data: tokenizing, checking, the store of training examples, scoring.

python benchmarks/data.py [--measure tokenize check store score] [--records FILE] [--tokenizer FILE]

Rows are those of a file, repeated with changes so that no two are equal. Each measurement but the first is a process
of its own; its seconds have all imports in them, its peak memory is the largest resident set.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
CHECKED_ROWS, STORED_ROWS, SCORED_ROWS = 100_000, 1_000_000, 10_000
STORE = """
import sys
from pathlib import Path
import numpy as np
from glm.models.glm import FAMILY as GLM
from glm.options.finetune import parse_finetune_arguments
from glm.checkpoint.tokenizers import load_tokenizer
from glm.prediction.setup import build_encoder
from glm.training.run_data import read_run_data
path, folder, tokenizer = sys.argv[1:]
options = ["--train_file", path, "--data_cache_dir", folder, "--output_dir", "none", "--do_train", "--device", "cpu"]
arguments = parse_finetune_arguments(options)
encoder = build_encoder(GLM, load_tokenizer(GLM, tokenizer), arguments.data, arguments.generation)
examples = read_run_data(arguments, encoder).train_examples
for index in np.random.default_rng(0).permutation(len(examples)):
    examples[int(index)]
assert len(examples) == examples.report.read
"""
VERB = """
import sys
from glm.__main__ import main
main(sys.argv[1:])
"""
PEAK = """
from pathlib import Path
print(next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")))
"""


def main() -> None:
    """Prints one line per measurement."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--measure", nargs="+", choices=MEASUREMENTS, default=list(MEASUREMENTS))
    parser.add_argument("--records", type=Path, default=ROOT / "data" / "train.json", help="Of question generation.")
    parser.add_argument("--tokenizer", default=str(ROOT / "data" / "tokenizer" / "spm.model"))
    values = parser.parse_args()
    for name in values.measure:
        with tempfile.TemporaryDirectory() as folder:
            print(f"{name}: {MEASUREMENTS[name](values.records, values.tokenizer, Path(folder))}", flush=True)


def measure_tokenizing(records: Path, tokenizer: str, folder: Path) -> str:
    """Characters per second of a list of texts, and of PaddleNLP's class called on the same list."""
    from paddlenlp.transformers import GLMChineseTokenizer

    from glm.models.glm.tokenization import GLMSentencePieceTokenizer

    texts = [row["context"] for row in numbered_rows(records, 20_000)]
    pieces, theirs = GLMSentencePieceTokenizer(tokenizer), GLMChineseTokenizer(tokenizer)
    few = texts[:1000]
    assert pieces.encode_text(few) == [theirs.convert_tokens_to_ids(theirs.tokenize(text)) for text in few]
    ours_speed = speed(pieces.encode_text, texts)
    their_speed = speed(lambda batch: theirs(batch, add_special_tokens=False)["input_ids"], few)
    return (
        f"{ours_speed / 1e6:.1f} M characters/s, PaddleNLP's GLMChineseTokenizer {their_speed / 1e6:.2f}: "
        f"{ours_speed / their_speed:.1f} times faster ({os.cpu_count()} processors)"
    )


def measure_check(records: Path, tokenizer: str, folder: Path) -> str:
    """`python -m glm check` of 100,000 rows."""
    path = write_rows(folder / "rows.json", numbered_rows(records, CHECKED_ROWS))
    return f"{size_of(path, CHECKED_ROWS)} in {run(VERB, 'check', str(path), '--tokenizer_name_or_path', tokenizer)}"


def measure_store(records: Path, tokenizer: str, folder: Path) -> str:
    """A million rows as training reads them: checked, encoded, written, and each read once in random order."""
    path = write_rows(folder / "rows.json", numbered_rows(records, STORED_ROWS))
    return f"{size_of(path, STORED_ROWS)} in {run(STORE, str(path), str(folder / 'store'), tokenizer)}"


def measure_score(records: Path, tokenizer: str, folder: Path) -> str:
    """`python -m glm score` of 10,000 questions, each row's prediction the question of the row before."""
    questions = [row["question"] for row in numbered_rows(records, SCORED_ROWS + 1)]
    pairs = zip(questions, questions[1:], strict=False)
    path = write_rows(
        folder / "predictions.jsonl", ({"prediction": left, "reference": right} for left, right in pairs)
    )
    ours, everyones = (run(VERB, "score", str(path), "--protocols", name) for name in ("ours", "all"))
    return f"{size_of(path, SCORED_ROWS)} in {ours}; with --protocols all in {everyones}"


MEASUREMENTS = {
    "tokenize": measure_tokenizing,
    "check": measure_check,
    "store": measure_store,
    "score": measure_score,
}


def numbered_rows(records: Path, count: int) -> Iterator[dict[str, Any]]:
    """So many rows of a file, from its start again where it ends, each with a number of its own."""
    rows = [json.loads(line) for line in records.read_text(encoding="utf-8").splitlines()]
    for number, row in enumerate(islice(cycle(rows), count)):
        yield {**row, "id": number, "context": f"{row['context']}{number}"}


def write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    """Writes JSON lines."""
    with open(path, "w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return path


def size_of(path: Path, rows: int) -> str:
    """Rows and bytes, for people."""
    return f"{rows:,} rows ({path.stat().st_size / 1e6:.0f} MB)"


def run(code: str, *arguments: str) -> str:
    """Seconds and peak memory of a Python process of its own."""
    start = time.perf_counter()
    command = [sys.executable, "-c", code + PEAK, *arguments]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    return f"{seconds:.1f} s, peak {int(done.stdout.split()[-2]) / 1e6:.2f} GB"


def speed(encode, texts: list[str]) -> float:
    """Characters per second, the best of three."""
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        encode(texts)
        seconds.append(time.perf_counter() - start)
    return sum(map(len, texts)) / min(seconds)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
