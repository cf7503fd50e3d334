"""Memory and time of converting a large checkpoint: a synthetic one is written, each conversion is a process.

    python benchmarks/conversion.py --gigabytes 6 --folder /scratch

Prints a Markdown table. It needs twice the size on the disk of `--folder`.
"""

import argparse
import json
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from glm.checkpoint.convert import ITERATION, RANKED, WRITERS  # noqa: E402
from glm.checkpoint.formats import CONFIG_NAME, MODULE, RANK_FILE, TRACKERS  # noqa: E402
from glm.checkpoint.names import transposed_linears  # noqa: E402
from glm.checkpoint.ranks import split_weights  # noqa: E402
from glm.checkpoint.tensors import LazyTensor  # noqa: E402
from glm.checkpoint.torch_files import write_torch  # noqa: E402
from glm.models.glm import FAMILY as GLM  # noqa: E402

RANKS = 2  # of the source, and of what is written where a format has ranks
# The largest resident set is read from the process itself: what its parent is told counts the parent's own pages too.
CONVERT = """
import re, sys
from pathlib import Path
from glm.checkpoint.convert import export_checkpoint

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024

before = peak()
export_checkpoint(sys.argv[1], sys.argv[2], to=sys.argv[3], degree=int(sys.argv[4]))
print(before, peak())
"""


def write_synthetic(folder: Path, gigabytes: float) -> int:
    """Writes float16 weights of about that size, those of glm-2b's width from 1 GB on, in Megatron ranks.

    Returns:
        Bytes of the largest tensor.
    """
    large = gigabytes >= 1
    hidden, words = (2048, 50304) if large else (512, 1024)
    config = {
        "num_layers": max(round((gigabytes * 1e9 / 2 - words * hidden) / (12 * hidden**2)), 1),
        "vocab_size": words,
        "hidden_size": hidden,
        "max_sequence_length": 1024,
        "block_position_encoding": True,
        "num_attention_heads": 16,
    }

    def numbers(shape: tuple[int, ...]) -> np.ndarray:
        return np.arange(np.prod(shape), dtype=np.uint16).view(np.float16).reshape(shape)

    weights = {
        name: LazyTensor(shape, "float16", lambda shape=shape: numbers(shape))
        for name, shape in GLM.weights.shapes(config).items()
    }
    (folder / ITERATION).mkdir(parents=True)
    (folder / TRACKERS[0]).write_text(ITERATION)
    (folder / CONFIG_NAME).write_text(json.dumps(config))
    for rank in range(RANKS):
        part = transposed_linears(GLM.weights, split_weights(GLM.weights.plan, weights, rank=rank, degree=RANKS))
        write_torch(folder / ITERATION / RANK_FILE.format(rank), {MODULE: part})
    return max(tensor.nbytes for tensor in weights.values())


def measure(source: Path, target: Path, to: str) -> tuple[int, int, float]:
    """Converts a folder in a process of its own.

    Returns:
        Bytes of its largest resident set, those before it began (the libraries), and seconds with imports.
    """
    degree = RANKS if to in RANKED else 1
    start = time.perf_counter()
    command = [sys.executable, "-c", CONVERT, str(source), str(target), to, str(degree)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    before, peak = map(int, done.stdout.split())
    return peak, before, time.perf_counter() - start


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=6, help="size of the checkpoint")
    parser.add_argument(
        "--folder", type=Path, default=None, help="where to write; default the system's temporary folder"
    )
    parser.add_argument("--formats", nargs="+", choices=WRITERS, default=list(WRITERS), metavar="FORMAT")
    options = parser.parse_args(argv)
    print(f"`python benchmarks/conversion.py {' '.join(argv if argv is not None else sys.argv[1:])}`\n")
    with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
        source, target = Path(scratch, "source"), Path(scratch, "target")
        largest = write_synthetic(source, options.gigabytes)
        print(f"| megatron, {RANKS} ranks, to | GB | largest tensor MB | peak MB | of which libraries MB | seconds |")
        print("| --- | --- | --- | --- | --- | --- |")
        for to in options.formats:
            peak, before, seconds = measure(source, target, to)
            megabytes = " | ".join(f"{number / 1e6:.0f}" for number in (largest, peak, before))
            print(f"| {to} | {size_of(target) / 1e9:.2f} | {megabytes} | {seconds:.0f} |", flush=True)
            shutil.rmtree(target)
    print(f"\npython {platform.python_version()}, numpy {np.__version__}; the seconds depend on the disk.")


if __name__ == "__main__":
    main()
