"""The curves of a training run, read from what it logged."""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

MOST_POINTS = 1000  # of a curve that is drawn


@dataclass(frozen=True)
class Curve:
    """A logged figure by optimizer step."""

    label: str
    points: list[tuple[int, float]]


@dataclass(frozen=True)
class CurvePlot:
    """Curves that share a plot.

    Args:
        name: of its file.
        unit: what the vertical axis shows.
    """

    name: str
    title: str
    unit: str
    curves: list[Curve]


# Plot: title, unit, and by label the key in metrics.jsonl.
CURVE_PLOTS = {
    "loss": ("Loss", "nats per token", {"training": "loss", "dev records": "eval_loss"}),
    "scores": (
        "Scores of the dev records",
        "percent",
        {name: f"eval_{name}" for name in ("bleu-4 (char, corpus)", "rouge-l (char)")},
    ),
    "learning-rate": ("Learning rate", "", {"learning rate": "learning_rate"}),
    "gradient-norm": ("Gradient norm, before clipping", "", {"gradient norm": "gradient_norm"}),
    "speed": ("Speed", "tokens per second", {"tokens per second": "interval_tokens_per_second"}),
    "memory": ("Memory", "GiB", {"of the process": "memory_gib", "of the GPU, largest": "max_memory_allocated"}),
}


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a `metrics.jsonl`, of the last run where a resumed one repeated steps; none if there is no file.

    A last line cut short by a kill is left out.
    """
    if not path.is_file():
        return []
    lines = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and isinstance(entry.get("step"), int):
            lines.append(entry)
    return _last_run(lines)


def curve_plots(log: Iterable[Mapping[str, Any]]) -> list[CurvePlot]:
    """The plots for which something finite was logged."""
    log = list(log)
    plots = []
    for name, (title, unit, keys) in CURVE_PLOTS.items():
        curves = [Curve(label, points) for label, key in keys.items() if (points := _points(log, key))]
        if curves:
            plots.append(CurvePlot(name, title, unit, curves))
    return plots


def _points(log: list[Mapping[str, Any]], key: str) -> list[tuple[int, float]]:
    points = [(entry["step"], entry[key]) for entry in log if _is_finite(entry.get(key))]
    return _thinned(points)


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _thinned(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """At most `MOST_POINTS` points: of each stretch the lowest and the highest, so that no peak is lost."""
    if len(points) <= MOST_POINTS:
        return points
    stretches = MOST_POINTS // 2
    bounds = [len(points) * number // stretches for number in range(stretches + 1)]
    kept = set()
    for start, end in pairwise(bounds):
        values = range(start, end)
        kept |= {min(values, key=lambda place: points[place][1]), max(values, key=lambda place: points[place][1])}
    return [points[place] for place in sorted(kept)]


def _last_run(log: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The log without what a resumed run did anew: entries whose step is followed by a lower one, at or after it."""
    kept: list[dict[str, Any]] = []
    for entry in log:
        while kept and kept[-1]["step"] > entry["step"]:
            kept.pop()
        kept.append(entry)
    return kept
