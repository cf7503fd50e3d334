"""Reads the curves of a training run from its log."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from glm.report.files import METRICS_NAME

MOST_POINTS = 1000  # points of a drawn curve
LARGEST = 1e100  # value of a drawn point, up or down
# Of a log. A line of ours has some hundred bytes; what is read takes ten times as much memory.
MOST_OF_LINE, MOST_BYTES, MOST_STEPS = 1 << 16, 1 << 28, 1 << 53


@dataclass(frozen=True)
class Curve:
    """A logged figure by optimizer step."""

    label: str
    points: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class CurvePlot:
    """A plot of several curves.

    Args:
        name: name of its file.
        unit: what the vertical axis shows.
    """

    name: str
    title: str
    unit: str
    curves: tuple[Curve, ...]

    @property
    def has_lines(self) -> bool:
        """Whether a curve has more than one point."""
        return any(len(curve.points) > 1 for curve in self.curves)


@dataclass(frozen=True)
class Single:
    """A figure that was logged only once."""

    label: str
    step: int
    value: float


OF_OBJECTIVE = re.compile(r"eval_(.+/)?loss \((.+)\)")  # loss of an objective, of one of several corpora
# Plot: title, unit, and the key in metrics.jsonl by label.
CURVE_PLOTS = {
    "loss": ("Loss", "nats per token", {"training, with label smoothing": "loss", "dev records": "eval_loss"}),
    "objectives": ("Loss of the held-out texts, by objective", "nats per predicted token", {}),  # as the log has them
    "losses": (
        "Losses",
        "nats per token",
        {
            "generator": "generator_loss",
            "discriminator, weight left out": "discriminator_loss",
            "generator again": "inconsistency_loss",
        },
    ),
    "judgements": (
        "The discriminator's judgements",
        "share",
        {
            "right of replaced tokens": "replace_accuracy",
            "right of original tokens": "keep_accuracy",
            "replaced tokens": "replace_rate",
        },
    ),
    "scores": (
        "Scores of the dev records",
        "percent",
        {name: f"eval_{name}" for name in ("bleu-4 (char, corpus)", "rouge-l (char)", "accuracy", "macro f1")},
    ),
    "learning-rate": ("Learning rate", "", {"learning rate": "learning_rate"}),
    "gradient-norm": ("Gradient norm, before clipping", "", {"gradient norm": "gradient_norm"}),
    "speed": ("Speed", "tokens per second", {"tokens per second": "interval_tokens_per_second"}),
    "memory": ("Memory", "GiB", {"of the process": "memory_gib", "of the GPU, largest": "max_memory_allocated"}),
}


def find_log(model: Path) -> Path:
    """Returns where the log of a model's training run would be: in its folder, or beside its `checkpoint-N`."""
    return (model.parent if model.name.startswith("checkpoint-") else model) / METRICS_NAME


def read_log(path: Path) -> list[dict[str, Any]]:
    """Reads the lines of a `metrics.jsonl`; none if there is no file. A line cut short by a kill is skipped, and
    whatever else is no line of a log; the file may be somebody else's."""
    if not path.is_file():
        return []
    lines = []
    with path.open("rb") as file:
        for line in iter(lambda: file.readline(MOST_OF_LINE), b""):
            if file.tell() > MOST_BYTES:
                break
            try:
                entry = json.loads(line.decode("utf-8", errors="replace"))
            except (ValueError, RecursionError):
                continue
            if isinstance(entry, dict) and type(step := entry.get("step")) is int and 0 <= step < MOST_STEPS:
                lines.append(entry)
    return lines


def curve_plots(log: Iterable[Mapping[str, Any]]) -> list[CurvePlot]:
    """Returns the plots with at least one finite value."""
    log = list(log)
    plots = []
    for name, (title, unit, keys) in CURVE_PLOTS.items():
        keys = _objectives(log) if name == "objectives" else keys
        curves = tuple(Curve(label, points) for label, key in keys.items() if (points := _points(log, key)))
        if curves:
            plots.append(CurvePlot(name, title, unit, curves))
    return plots


def _objectives(log: list[Mapping[str, Any]]) -> dict[str, str]:
    """Returns the keys of losses of pretraining's objectives, by label; of several corpora each has its own."""
    found = dict.fromkeys(key for entry in log for key in entry if OF_OBJECTIVE.fullmatch(key))
    return {OF_OBJECTIVE.fullmatch(key).expand(r"\1\2"): key for key in found}


def single_figures(plots: Iterable[CurvePlot]) -> list[Single]:
    """Returns the figures of plots that have no line."""
    return [Single(curve.label, *curve.points[0]) for plot in plots if not plot.has_lines for curve in plot.curves]


def _points(log: list[Mapping[str, Any]], key: str) -> tuple[tuple[int, float], ...]:
    """Returns the points by step; of a step that a resumed run repeated, the last one."""
    found = {entry["step"]: entry[key] for entry in log if _can_be_drawn(entry.get(key))}
    return tuple(_thinned(sorted(found.items())))


def _can_be_drawn(value: Any) -> bool:
    """Whether it is a number, and none of a size that no figure of a run has and that axes cannot show."""
    return type(value) in (int, float) and -LARGEST <= value <= LARGEST


def _thinned(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """Thins a curve to `MOST_POINTS` points: the lowest and highest of each stretch, so that no peak is lost."""
    if len(points) <= MOST_POINTS:
        return points
    stretches = MOST_POINTS // 2
    bounds = [len(points) * number // stretches for number in range(stretches + 1)]
    kept = set()
    for start, end in pairwise(bounds):
        values = range(start, end)
        kept |= {min(values, key=lambda place: points[place][1]), max(values, key=lambda place: points[place][1])}
    return [points[place] for place in sorted(kept)]
