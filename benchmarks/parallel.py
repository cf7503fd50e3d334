"""What tensor parallelism exchanges and saves, on CPU processes: python benchmarks/parallel.py [--shapes tiny base].

Tables of communicated bytes against the least that splitting needs, of the share of a step's time in collectives, and
of memory per rank, measured and as `python -m glm memory` computes it. Two cores can show no speed-up.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from parallel_work import Work  # noqa: E402  (the path has to be set first)
from work import SHAPES  # noqa: E402

from glm.models.glm import FAMILY as GLM  # noqa: E402
from glm.models.memory import Training, training_memory  # noqa: E402

MIB = 1 << 20
WORK = ("shape", "tokens", "recompute", "ranks")
TRAFFIC = (*WORK, "least, layer and direction", "layer forward", "layer backward", "step", "least, step", "seconds")
TRAFFIC += ("in collectives",)
MEMORY = (*WORK, "weights", "kept by forward", "most allocated", "resident", "computed", "computed / allocated")
LENGTHS = {"tiny": (608, 160), "base": (152, 40), "large": (152, 40)}  # of source and target


def run(work: Work, threads: int) -> list[dict]:
    """The figures of all ranks, started as users start them."""
    limits = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
    environment = os.environ | limits | {"PYTHONPATH": f"{HERE.parent}{os.pathsep}{HERE}"}
    with tempfile.TemporaryDirectory() as folder:
        launch = [sys.executable, "-m", "paddle.distributed.launch", "--nproc_per_node", str(work.ranks)]
        script = [str(HERE / "peers" / "parallel_rank.py"), json.dumps(asdict(work)), folder]
        done = subprocess.run(
            [*launch, "--log_dir", folder, *script], env=environment, cwd=HERE.parent, capture_output=True, text=True
        )
        if done.returncode:
            sys.exit(f"{work} failed:\n{done.stdout[-3000:]}{done.stderr[-1000:]}")
        print(f"  {work}", file=sys.stderr, flush=True)
        return [json.loads(Path(folder, f"{rank}.json").read_text()) for rank in range(work.ranks)]


def traffic_row(work: Work, ranks: list[dict], one_layer: list[dict]) -> str:
    """A row of the table of traffic: what layers add is the difference to a model of one layer."""
    layers, hidden = SHAPES[work.shape].layers, SHAPES[work.shape].hidden
    least = 2 * work.batch * (work.source + work.target) * hidden * 4
    whole, single = ranks[0]["bytes"], one_layer[0]["bytes"]
    by_layer = {part: (whole[part] - single[part]) / (layers - 1) for part in ("forward", "backward")}
    share = sum(figures["share"] for figures in ranks) / len(ranks)
    return (
        f"| {work.shape} | {work.source} + {work.target} | {'yes' if work.recompute else 'no'} | {work.ranks} "
        f"| {least / MIB:.2f} | {by_layer['forward'] / MIB:.2f} | {by_layer['backward'] / MIB:.2f} "
        f"| {sum(whole.values()) / MIB:.2f} | {2 * layers * least / MIB:.2f} | {ranks[0]['seconds']:.2f} "
        f"| {100 * share:.0f} % |"
    )


def memory_row(work: Work, ranks: list[dict]) -> str:
    """A row of the table of memory: the largest of all ranks."""
    weights, kept, allocated, resident = (
        max(figures[name] for figures in ranks) / MIB for name in ("weights", "kept", "allocated", "resident")
    )
    config = {
        **SHAPES[work.shape].settings(),
        **{"max_sequence_length": 1024, "block_position_encoding": True},
        **{"attention_dropout_prob": 0.1, "output_dropout_prob": 0.1},
    }
    parts = training_memory(
        GLM,
        config,
        Training(
            work.batch,
            work.source,
            work.target,
            device="cpu",
            recompute=work.recompute,
            tensor_parallel_degree=work.ranks,
        ),
    )
    computed = (sum(parts.values()) - parts["libraries"] - parts["allocator"]) / MIB
    return (
        f"| {work.shape} | {work.source} + {work.target} | {'yes' if work.recompute else 'no'} | {work.ranks} "
        f"| {weights:.1f} | {kept:.1f} | {allocated:.1f} | {resident:.1f} | {computed:.1f} "
        f"| {100 * (computed / allocated - 1):+.0f} % |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=["tiny", "base"])
    parser.add_argument("--ranks", nargs="+", type=int, default=[1, 2, 4])
    parser.add_argument("--threads", type=int, default=1, help="of each process [1]")
    values = parser.parse_args()
    traffic, memory = [], []
    for shape in values.shapes:
        source, target = LENGTHS[shape]
        for recompute in (False, True):
            for count in values.ranks:
                work = Work(shape, count, source=source, target=target, recompute=recompute)
                ranks = run(work, values.threads)
                memory.append(memory_row(work, ranks))
                if count > 1:
                    traffic.append(traffic_row(work, ranks, run(replace(work, layers=1), values.threads)))
    print_table(TRAFFIC, traffic)
    print_table(MEMORY, memory)


def print_table(columns: tuple[str, ...], rows: list[str]) -> None:
    """Markdown."""
    print("", f"| {' | '.join(columns)} |", "| --- " * len(columns) + "|", *rows, sep="\n")


if __name__ == "__main__":
    main()
