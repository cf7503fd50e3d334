"""What is decoded, and how each program is timed: the work comes in as JSON, the figures go out as one line of JSON.

Every program under `peers/` is run by `decode.py` as `python peers/NAME.py WORK`. NumPy only: this file runs in the
toolkit's environment and in that of its peers.
"""

import json
import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from time import perf_counter
from typing import Any

import numpy as np

VOCABULARY = 50048
WORDS = (10, 50000)  # source ids are drawn from this range: no command token among them
PAD, SOP, EOP, GMASK = 50000, 50006, 50007, 50009  # as in the published Chinese GLMs
WARM_UP_TOKENS, WARM_UP_RECORDS = 4, 2
RATE_REPEATS = 5
WINDOW = 5  # steps whose median stands for the beginning, middle or end of a run


@dataclass(frozen=True)
class Shape:
    """The size of a model."""

    layers: int
    hidden: int
    heads: int

    def settings(self) -> dict[str, int]:
        """Of the configuration of a GLM, here and in PaddleNLP."""
        sizes = {"num_layers": self.layers, "hidden_size": self.hidden, "num_attention_heads": self.heads}
        return sizes | {"vocab_size": VOCABULARY}


SHAPES = {"tiny": Shape(4, 256, 4), "base": Shape(12, 768, 12), "large": Shape(24, 1024, 16)}


@dataclass(frozen=True)
class Work:
    """One measurement: random weights of a shape decode random sources, or the records of a file.

    Args:
        shape: a name in SHAPES.
        tokens: T, generated for each example, neither more nor fewer; for records, the most target tokens.
        beams, batch, source, positions: K, B, S, and the rows of the model's position table.
        threads: of every library.
        decode_dtype: what the toolkit, or CTranslate2, decodes in.
        extrapolate: PaddleNLP runs its prefill and three steps only.
        folder: the model in CTranslate2's format.
        data, tokenizer, checkpoint, records: JSON lines, SentencePiece model, folder of trained weights if there are
            any, and how many records to decode.
        batches: a file with the ids of the records' sources, as `lay_out.py` writes it for other programs.
    """

    shape: str
    tokens: int
    beams: int = 5
    batch: int = 2
    source: int = 608
    positions: int = 1024
    threads: int = 2
    length_penalty: float = 0.7
    no_repeat_ngram_size: int = 3
    decode_dtype: str = "float32"
    extrapolate: bool = False
    folder: str | None = None
    data: str | None = None
    tokenizer: str | None = None
    checkpoint: str | None = None
    records: int = 0
    batches: str | None = None

    @property
    def size(self) -> Shape:
        """The shape itself."""
        return SHAPES[self.shape]

    def sources(self) -> np.ndarray:
        """The same random ids for every program, a blank near their end: [B, S]."""
        sources = np.random.default_rng(0).integers(*WORDS, size=(self.batch, self.source))
        sources[:, -2] = GMASK
        return sources


class Clock:
    """When each forward pass began; a program whose passes cannot be seen from outside leaves it empty."""

    def __init__(self):
        self.marks: list[float] = []

    def mark(self, *_: Any) -> None:
        """A pass begins."""
        self.marks.append(perf_counter())

    def marking(self, function: Callable) -> Callable:
        """The same function, each call of which is a pass."""

        def marked(*args, **kwargs):
            self.mark()
            return function(*args, **kwargs)

        return marked


def best(function: Callable[[], object]) -> float:
    """Least seconds of a few calls, after one that does not count."""
    function()
    seconds = []
    for _ in range(RATE_REPEATS):
        start = perf_counter()
        function()
        seconds.append(perf_counter() - start)
    return min(seconds)


Build = Callable[[Work, Clock], Any]
Decode = Callable[[Any, Work], list[list[int]]]


def timed(model: Any, work: Work, clock: Clock, decode: Decode) -> dict[str, Any]:
    """Seconds of one run, and where they went.

    A step lasts from the beginning of its forward pass to that of the next, so search and the order of the cache are
    part of it; prefill lasts from the call to the beginning of the first step. Where passes are not seen, prefill is
    the time of a run that makes one token, and a step the mean of the rest.
    """
    clock.marks.clear()
    start = perf_counter()
    outputs = decode(model, work)
    end = perf_counter()
    figures: dict[str, Any] = {"seconds": end - start, "outputs": outputs}
    if work.data is not None:
        return figures
    if {len(text) for text in outputs} != {work.tokens}:
        raise RuntimeError(f"{work.tokens} tokens were asked for, but texts have {[len(text) for text in outputs]}")
    if clock.marks:
        prefill, *steps = np.diff([start, *clock.marks[1:], end])
        figures |= {"prefill": prefill} | (beginning_middle_end(steps) if steps else {})
    else:
        start = perf_counter()
        decode(model, replace(work, tokens=1))
        figures["prefill"] = perf_counter() - start
    return figures | {"step": (figures["seconds"] - figures["prefill"]) / max(work.tokens - 1, 1)}


def beginning_middle_end(steps: list[float]) -> dict[str, float]:
    """Median seconds of the first, middle and last few steps."""
    middle = max(0, (len(steps) - WINDOW) // 2)
    parts = {"early": steps[:WINDOW], "middle": steps[middle : middle + WINDOW], "late": steps[-WINDOW:]}
    return {name: float(np.median(part)) for name, part in parts.items()}


def run(build: Build, decode: Decode, packages: list[str], measure: Callable[..., dict[str, Any]] = timed) -> None:
    """The main function of every program: builds, warms up, measures, prints one line of JSON.

    Args:
        build: makes the model, and has the clock marked at each of its forward passes if it can.
        decode: generates `work.tokens` tokens for each source; returns the ids of the best text of each.
        packages: whose versions are reported.
        measure: as `timed`.
    """
    work = Work(**json.loads(sys.argv[1]))
    clock = Clock()
    start = perf_counter()
    model = build(work, clock)
    built = perf_counter()
    decode(
        model, replace(work, tokens=WARM_UP_TOKENS) if work.data is None else replace(work, records=WARM_UP_RECORDS)
    )
    warm = perf_counter()
    figures = measure(model, work, clock, decode) | {
        "build": built - start,
        "warm_up": warm - built,
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,  # KiB -> GiB
        "versions": {name: version(name) for name in packages},
    }
    print(json.dumps(figures), flush=True)
