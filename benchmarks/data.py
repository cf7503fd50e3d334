"""Times what happens to data before training: tokenizing, checking, and the store of training examples.

python benchmarks/data.py --tokenizer FILE [--records FILE] [--rows N] [--store_rows N]

Rows are those of a file, repeated with changes so that no two are equal. Peak memory is that of a process of its own.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STORE = """
import sys
from pathlib import Path
import numpy as np
from glm.arguments import parse_finetune_arguments
from glm.checkpoint.loading import load_tokenizer
from glm.prediction import build_encoder
from glm.training.run_data import read_run_data
path, folder, tokenizer = sys.argv[1:]
options = ["--train_file", path, "--data_cache_dir", folder, "--output_dir", "none", "--do_train", "--device", "cpu"]
arguments = parse_finetune_arguments(options)
encoder = build_encoder(load_tokenizer(tokenizer), arguments.data, arguments.generation)
examples = read_run_data(arguments, encoder).train_examples
for index in np.random.default_rng(0).permutation(len(examples)):
    examples[int(index)]
assert len(examples) == examples.report.read
"""
CHECK = """
import sys
from glm.commands.check import main
main(sys.argv[1:])
"""
PEAK = """
from pathlib import Path
print(next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")))
"""


def main() -> None:
    """Prints one line per measurement."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--records", default=str(ROOT / "data" / "train.json"))
    parser.add_argument("--rows", type=int, default=100_000, help="Of the check.")
    parser.add_argument("--store_rows", type=int, default=0, help="Of the store; 0 leaves it out.")
    values = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.json"
        write_rows(Path(values.records), path, values.rows)
        tokenize(path, values.tokenizer)
        seconds, peak = run(CHECK, str(path), "--tokenizer_name_or_path", values.tokenizer)
        print(f"check: {values.rows} rows ({path.stat().st_size / 1e6:.0f} MB) in {seconds:.1f} s, peak {peak:.2f} GB")
        if values.store_rows:
            write_rows(Path(values.records), path, values.store_rows)
            seconds, peak = run(STORE, str(path), str(Path(folder) / "store"), values.tokenizer)
            size = path.stat().st_size / 1e6
            print(
                f"training data: {values.store_rows} rows ({size:.0f} MB) checked, encoded, written, and each read "
                f"once in random order, with all that training imports: {seconds:.1f} s, peak {peak:.2f} GB"
            )


def write_rows(source: Path, target: Path, count: int) -> None:
    """Writes so many rows, each with a number of its own."""
    rows = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()]
    with open(target, "w", encoding="utf-8") as file:
        for number, row in enumerate(islice(cycle(rows), count)):
            row = {**row, "id": number, "context": f"{row['context']}{number}"}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def run(code: str, *arguments: str) -> tuple[float, float]:
    """Seconds and peak memory (GB) of a Python process of its own."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code + PEAK, *arguments], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
    )
    return time.perf_counter() - start, int(done.stdout.split()[-2]) / 1e6


def tokenize(path: Path, model_file: str) -> None:
    """Characters per second of a list of texts, and of PaddleNLP's class called on the same list."""
    from paddlenlp.transformers import GLMChineseTokenizer

    from glm.pieces import Pieces

    with open(path, encoding="utf-8") as lines:
        texts = [json.loads(line)["context"] for line in islice(lines, 20_000)]
    pieces, theirs = Pieces(model_file), GLMChineseTokenizer(model_file)
    few = texts[:1000]
    assert pieces.encode_text(few) == [theirs.convert_tokens_to_ids(theirs.tokenize(text)) for text in few]
    ours_speed = speed(pieces.encode_text, texts)
    their_speed = speed(lambda batch: theirs(batch, add_special_tokens=False)["input_ids"], few)
    print(
        f"tokenizing: {ours_speed / 1e6:.1f} M characters/s, PaddleNLP's GLMChineseTokenizer {their_speed / 1e6:.2f}: "
        f"{ours_speed / their_speed:.1f} times faster ({os.cpu_count()} processors)"
    )


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
