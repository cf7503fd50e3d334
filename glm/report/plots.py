"""Draws the plots of a report with matplotlib. All labels are Latin: a font for Chinese cannot be relied on."""

import base64
import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from glm.report.curves import CURVE_PLOTS, CurvePlot

SIZE = (5.6, 3.0)  # inches
DPI = 120
BINS = 30
# All plots there can be.
PLOT_NAMES = {*CURVE_PLOTS, "source-length", "generated-length", "scores-by-length", "scores-by-set"}
COLOURS = ("#1f6feb", "#d9730d", "#2a9d5c")
STYLES = ("-", "--", ":", "-.")  # of curves beyond the colours


@dataclass(frozen=True)
class Plot:
    """A drawn plot.

    Args:
        name: name of its PNG file, without suffix.
        title: what it shows, in words.
    """

    name: str
    title: str
    png: bytes
    svg: bytes

    @property
    def address(self) -> str:
        """The SVG as a data address for a page."""
        return "data:image/svg+xml;base64," + base64.b64encode(self.svg).decode()


@lru_cache(maxsize=len(CURVE_PLOTS))  # A training page and its evaluations' reports draw the same curves.
def draw_curves(plot: CurvePlot) -> Plot:
    """Draws curves by optimizer step."""
    figure, axes = _axes(plot.title, "optimizer step", plot.unit)
    for place, curve in enumerate(plot.curves):
        steps, values = zip(*curve.points, strict=True)
        mark = "." if len(steps) < 30 else ""
        look = {"color": COLOURS[place % len(COLOURS)], "linestyle": STYLES[place // len(COLOURS) % len(STYLES)]}
        axes.plot(steps, values, marker=mark, label=curve.label, linewidth=1.2, **look)
    if len(plot.curves) > 1:
        _add_legend(axes)
    if plot.name in ("speed", "memory"):
        axes.set_ylim(bottom=0)
    return _drawn(plot.name, plot.title, figure)


def draw_lengths(lengths: Mapping[str, Counter[int]]) -> Iterator[Plot]:
    """Draws histograms of source lengths, and of generated and reference lengths side by side."""
    groups = {"source-length": ("Length of the source", ["source"])}
    groups["generated-length"] = ("Length of the generated text", ["reference", "generated"])
    for name, (title, kinds) in groups.items():
        found = {kind: lengths[kind] for kind in kinds if lengths[kind]}
        if not found:
            continue
        figure, axes = _axes(title, "characters, without white space", "records")
        axes.hist(
            [list(counts) for counts in found.values()],
            bins=_edges(found),
            weights=[list(counts.values()) for counts in found.values()],
            label=list(found),
            color=COLOURS[1::-1] if len(found) > 1 else COLOURS[0],
        )
        axes.yaxis.set_major_locator(MaxNLocator(7, integer=True))
        if len(found) > 1:
            _add_legend(axes)
        yield _drawn(name, title, figure)


def draw_scores_by_length(buckets: Mapping[str, Mapping[str, float]]) -> Iterator[Plot]:
    """Draws bars of the two headline figures for each bucket of source length."""
    if not buckets:
        return
    title = "Scores by length of the source"
    figure, axes = _axes(title, "characters of the source (records)", "percent")
    names = ("bleu-4 (char, corpus)", "rouge-l (char)")
    for place, (name, colour) in enumerate(zip(names, COLOURS, strict=False)):
        positions = [number + 0.4 * place - 0.2 for number in range(len(buckets))]
        axes.bar(positions, [found[name] for found in buckets.values()], 0.38, label=name, color=colour)
    axes.set_xticks(range(len(buckets)), [f"{name}\n({found['records']:.0f})" for name, found in buckets.items()])
    axes.set_ylim(0, 100)
    _add_legend(axes)
    yield _drawn("scores-by-length", title, figure)


def draw_sets(of_sets: Mapping[str, Mapping[str, float]], figures: Sequence[str]) -> Plot:
    """Draws bars of figures in percent for each data set, with their mean last."""
    title = "Scores by data set"
    figure, axes = _axes(title, "data set", "percent")
    width = 0.8 / len(figures)
    for place, (name, colour) in enumerate(zip(figures, COLOURS, strict=False)):
        positions = [number + width * (place + 0.5) - 0.4 for number in range(len(of_sets))]
        axes.bar(positions, [found[name] for found in of_sets.values()], width * 0.95, label=name, color=colour)
    labels = [name.encode("ascii", "backslashreplace").decode() for name in of_sets]
    axes.set_xticks(range(len(of_sets)), labels, rotation=45 if len(of_sets) > 8 else 0)
    axes.set_ylim(0, 100)
    _add_legend(axes)
    return _drawn("scores-by-set", title, figure)


def draw_figure_by_length(buckets: Mapping[str, Mapping[str, float]], name: str) -> Iterator[Plot]:
    """Draws bars of one figure, in percent, for each bucket of source length."""
    if not buckets:
        return
    title = f"{name} by length of the source"
    figure, axes = _axes(title, "characters of the source (records)", "percent")
    axes.bar(range(len(buckets)), [found.get(name, 0.0) for found in buckets.values()], 0.6, color=COLOURS[0])
    axes.set_xticks(range(len(buckets)), [f"{key}\n({found['records']:.0f})" for key, found in buckets.items()])
    axes.set_ylim(0, 100)
    yield _drawn("scores-by-length", title, figure)


def _edges(found: Mapping[str, Counter[int]]) -> list[int]:
    """Returns edges of equally wide bins, halfway between whole numbers."""
    values = [value for counts in found.values() for value in counts]
    low, high = min(values), max(values)
    width = -(-(high - low + 1) // BINS)
    count = -(-(high - low + 1) // width)
    return [low + width * number for number in range(count + 1)]


def _axes(title: str, horizontal: str, vertical: str) -> tuple[Figure, Axes]:
    figure = Figure(SIZE, dpi=DPI)
    axes = figure.subplots()
    figure.subplots_adjust(left=0.14, right=0.97, top=0.89, bottom=0.2)
    axes.set_title(title, y=1.02, fontsize="medium")
    axes.set_xlabel(horizontal, fontsize="small")
    axes.set_ylabel(vertical, fontsize="small")
    axes.tick_params(labelsize="small")
    axes.xaxis.set_major_locator(MaxNLocator(7, integer=True))
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _add_legend(axes: Axes) -> None:
    """Places the legend between title and axes, where it covers nothing."""
    _, labels = axes.get_legend_handles_labels()
    axes.figure.subplots_adjust(top=0.82)
    axes.title.set_y(1.13)
    axes.legend(
        loc="lower center",
        bbox_to_anchor=(0.5, 1),
        borderaxespad=0,
        ncols=len(labels),
        frameon=False,
        fontsize="small",
    )


def _drawn(name: str, title: str, figure: Figure) -> Plot:
    png, svg = io.BytesIO(), io.BytesIO()
    FigureCanvasAgg(figure).print_png(png)
    # Keeps text as text, and makes the same figure give the same bytes.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        FigureCanvasSVG(figure).print_svg(svg, metadata={"Date": None})
    return Plot(name, title, png.getvalue(), svg.getvalue())
