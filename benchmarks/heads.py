"""Times compiled attention with heads of 64 and of 96 at equal work: a hidden size of 1536, the same tokens.

python benchmarks/heads.py --repeats 7

Of a layer: a training step (forward and backward, dropout 0.1) of two examples of 608 + 160 tokens, and a decoding
step of two examples of 608 tokens with 5 beams. Sizes take turns, so that what else the machine does falls on all
alike.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import paddle

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from glm.cpu.step_attention import CompiledLayerCache  # noqa: E402
from glm.cpu.two_part import CompiledTwoPartAttention  # noqa: E402
from glm.modules.packing import Packing  # noqa: E402

HIDDEN, EXAMPLES, BEAMS, SLOTS = 1536, [(608, 160)] * 2, 5, 64
SIZES = (64, 96)


def training_step(head_size: int) -> Callable[[], None]:
    """One layer's attention, forward and backward."""
    tokens = sum(map(sum, EXAMPLES))
    spans = np.array(list(Packing(np.arange(tokens), EXAMPLES).spans()), np.int64)
    projected, slope = paddle.randn([tokens, 3 * HIDDEN]), paddle.randn([tokens, HIDDEN])
    projected.stop_gradient = False

    def step() -> None:
        CompiledTwoPartAttention.apply(projected, spans, 0, HIDDEN // head_size, 0.1).backward(slope)
        projected.clear_grad()

    return step


def decoding_step(head_size: int) -> Callable[[], None]:
    """One layer's attention of all beams to their prompt and to what they have written."""
    lengths, heads = [a for a, _ in EXAMPLES], HIDDEN // head_size
    cache = CompiledLayerCache.of_prompts(paddle.randn([sum(lengths), 3 * HIDDEN]), lengths, heads)
    cache.keep_slots(np.zeros((len(lengths), 0), np.int64), SLOTS * BEAMS)
    ancestors = np.zeros((len(lengths), BEAMS, (SLOTS - 1) * BEAMS), bool)
    ancestors[:, :, ::BEAMS] = True
    own = np.broadcast_to(np.eye(BEAMS, dtype=bool), (len(lengths), BEAMS, BEAMS))
    ancestors = np.concatenate([ancestors, own], axis=2)
    seen = cache.seen_by(np.array(lengths), max(lengths), ancestors, SLOTS * BEAMS, heads)
    projected = paddle.randn([len(lengths), BEAMS, 3 * HIDDEN])
    return lambda: cache.attend(None, projected, seen, (SLOTS - 1) * BEAMS)


def times(steps: dict[int, Callable[[], None]], repeats: int) -> dict[int, list[float]]:
    """Seconds of each step of each size; the first ones, which compile, do not count."""
    found: dict[int, list[float]] = {size: [] for size in steps}
    for number in range(repeats + 2):
        for size, step in steps.items():
            start = time.perf_counter()
            step()
            if number >= 2:
                found[size].append(time.perf_counter() - start)
    return found


def main() -> None:
    """Prints the medians in milliseconds, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=7)
    repeats = parser.parse_args().repeats
    for name, make in (("training", training_step), ("decoding", decoding_step)):
        found = times({size: make(size) for size in SIZES}, repeats if name == "training" else 20 * repeats)
        medians = {size: 1e3 * statistics.median(seconds) for size, seconds in found.items()}
        listed = ", ".join(f"heads of {size}: {median:.2f} ms" for size, median in medians.items())
        print(f"{name}: {listed}; 96 takes {medians[96] / medians[64]:.2f} times as long as 64")


if __name__ == "__main__":
    main()
