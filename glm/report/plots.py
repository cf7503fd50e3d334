"""Draws the plots of a report."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from markupsafe import Markup

from glm.report.chinese import BY_LENGTH, chinese_of
from glm.report.curves import CURVE_PLOTS, CurvePlot
from glm.report.drawing import HEIGHT, WIDTH, Bar, Line, Shape, Text, png_of, svg_of

LEFT, RIGHT, TOP, BOTTOM = 94, 20, 42, 72  # margins of a plot in pixels
TITLE, LEGEND = 22, 20  # the height of the title's middle, and of a row of the legend
SWATCH, GAP = 18, 16  # of the legend: the sample of a colour, and what is between two entries
LETTER, WIDE = 0.58, 1.05  # width of a letter, and of a Chinese one, by the font's size: the most of usual fonts
DOTS, LETTER_GAP = "..", 6  # behind a clipped text; pixels between two texts
BINS = 30
# Difference of two numbers that an axis shows, and as a share of them.
SMALLEST, SMALLEST_SHARE = 1e-100, 1e-9
TICKS = 7  # steps of an axis, at most
# All plots there can be.
PLOT_NAMES = {*CURVE_PLOTS, "source-length", "generated-length", "scores-by-length", "scores-by-set"}
COLOURS = ("#1f6feb", "#d9730d", "#2a9d5c", "#b5369c", "#0e8a9e", "#8250df", "#9a6700", "#cf222e")
THIN = 1.5  # width of a curve; of those beyond the colours a multiple
Places = list[tuple[str, float]]  # texts on an axis, and where they are


@dataclass(frozen=True)
class Plot:
    """A drawn plot.

    Args:
        name: name of its PNG file, without suffix.
        title: what it shows, in words.
        svg: the element that a page has of it.
    """

    name: str
    title: str
    png: bytes
    svg: Markup


@dataclass(frozen=True)
class Scale:
    """Where numbers from `low` to `high` are between two places, in pixels."""

    low: float
    high: float
    first: float
    last: float

    def __call__(self, number: float) -> float:
        """Its place."""
        return self.first + (number - self.low) / (self.high - self.low) * (self.last - self.first)


def scale_of(numbers: Iterable[float], first: float, last: float) -> Scale:
    """Returns a scale with some room on both sides of the numbers."""
    low, high = min(numbers), max(numbers)
    least = max(SMALLEST, SMALLEST_SHARE * max(abs(low), abs(high)))
    room = next((share for share in ((high - low) * 0.05, abs(low) * 0.05) if share > least), 0.5)
    return Scale(low - room, high + room, first, last)


def ticks(scale: Scale, *, whole: bool = False) -> Places:
    """Returns round numbers on a scale."""
    least = (scale.high - scale.low) / TICKS
    unit = 10.0 ** math.floor(math.log10(least))
    step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= least * (1 - 1e-9))
    step = max(round(step), 1) if whole else step
    numbers = range(math.ceil(scale.low / step - 1e-9), math.floor(scale.high / step + 1e-9) + 1)
    decimals = next(count for count in range(320) if math.isclose(round(step, count), step, rel_tol=1e-9))
    form = f",.{decimals}f" if decimals <= 6 and scale.high < 1e9 else ".3g"
    return [(f"{number * step:{form}}", scale(number * step)) for number in numbers]


def axes(title: str, vertical: Scale, labels: tuple[str, str], across: Places) -> list[Shape]:
    """Draws title, grid, axes, and the numbers and labels on them.

    Args:
        labels: of the horizontal and the vertical axis.
        across: what is on the horizontal axis; a second line follows a line break.
    """
    middle, bottom = (vertical.first + vertical.last) / 2, vertical.first
    shapes: list[Shape] = [_text(WIDTH / 2, TITLE, title, size=16, colour="ink")]
    for text, y in ticks(vertical):
        shapes += [Line(((LEFT, y), (WIDTH - RIGHT, y)), "line"), _text(LEFT - 8, y, text, anchor="end")]
    for text, x in across:
        shapes += [_text(x, bottom + 14 + 15 * number, line) for number, line in enumerate(text.split("\n"))]
    shapes += [Line(((LEFT, vertical.last), (LEFT, bottom), (WIDTH - RIGHT, bottom)), "soft")]
    shapes += [_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 16, labels[0])]
    return [*shapes, _text(18, middle, labels[1], turned=True)]


def _text(x: float, y: float, english: str, **look) -> Text:
    return Text(x, y, english, chinese_of(english), **look)


def legend(entries: Mapping[str, str]) -> tuple[list[Shape], int]:
    """Draws the legend, below the title.

    Args:
        entries: colours by label; a single one needs no legend.

    Returns:
        The shapes, and how high they are.
    """
    if len(entries) < 2:
        return [], 0
    rows: list[list[tuple[str, float]]] = [[]]
    for label in entries:
        width = SWATCH + max(_width(label), _width(chinese_of(label))) + GAP
        if rows[-1] and sum(wide for _, wide in rows[-1]) + width > WIDTH:
            rows.append([])
        rows[-1].append((label, width))
    shapes: list[Shape] = []
    for number, row in enumerate(rows):
        x, y = (WIDTH - sum(wide for _, wide in row) + GAP) / 2, TITLE + LEGEND * (number + 1.1)
        for label, wide in row:
            shapes += [Bar(x, y - 5, 12, 10, entries[label], 2), _text(x + SWATCH, y, label, anchor="start")]
            x += wide
    return shapes, LEGEND * len(rows)


def _width(text: str, size: int = 13) -> float:
    """Returns about how wide a text is, whatever its font."""
    return size * sum(LETTER if letter < "\u2e80" else WIDE for letter in text)


def _drawn(name: str, title: str, shapes: list[Shape]) -> Plot:
    return Plot(name, title, png_of(shapes), svg_of(title, shapes))


@lru_cache(maxsize=len(CURVE_PLOTS))  # A training page and its evaluations' reports draw the same curves.
def draw_curves(plot: CurvePlot) -> Plot:
    """Draws curves by optimizer step."""
    colours = {curve.label: COLOURS[place % len(COLOURS)] for place, curve in enumerate(plot.curves)}
    shapes, high = legend(colours)
    steps, values = zip(*(point for curve in plot.curves for point in curve.points), strict=True)
    across, down = scale_of(steps, LEFT, WIDTH - RIGHT), scale_of(values, HEIGHT - BOTTOM, TOP + high)
    if plot.name in ("speed", "memory"):
        down = Scale(0, max(down.high, 1e-9), down.first, down.last)
    shapes += axes(plot.title, down, ("optimizer step", plot.unit), ticks(across, whole=True))
    for place, curve in enumerate(plot.curves):
        points = tuple((across(step), down(value)) for step, value in curve.points)
        shapes.append(Line(points, colours[curve.label], THIN * (1 + place // len(COLOURS))))
        if len(points) < 30:
            shapes += [Bar(x - 3, y - 3, 6, 6, colours[curve.label], 3) for x, y in points]
    return _drawn(plot.name, plot.title, shapes)


def draw_bars(
    name: str, title: str, labels: tuple[str, str], groups: Sequence[str], bars: Mapping[str, Sequence[float]]
) -> Plot:
    """Draws bars in percent: a group for each text on the horizontal axis, and in it one of each kind."""
    colours = dict(zip(bars, COLOURS, strict=False))
    shapes, high = legend(colours)
    down, across = Scale(0, 100, HEIGHT - BOTTOM, TOP + high), Scale(-0.5, len(groups) - 0.5, LEFT, WIDTH - RIGHT)
    room = (WIDTH - LEFT - RIGHT) / len(groups)
    shapes += axes(title, down, labels, [(_clipped(text, room), across(n)) for n, text in enumerate(groups)])
    width = 0.8 / len(bars)
    for place, (kind, colour) in enumerate(colours.items()):
        for number, value in enumerate(bars[kind]):
            x, end = (across(number + width * (place + part) - 0.4) for part in (0, 0.95))
            top = down(min(max(value, 0), 100))
            shapes.append(Bar(x, top, end - x, down.first - top, colour))
    return _drawn(name, title, shapes)


def _clipped(text: str, room: float) -> str:
    """Clips lines that are wider than the room for them; the table above a plot has them whole."""
    if "\n" in text:
        return "\n".join(_clipped(line, room) for line in text.split("\n"))
    kept = text
    while kept and _width(kept + DOTS * (kept != text)) > room - LETTER_GAP:
        kept = kept[:-1]
    return kept + DOTS * (kept != text)


def draw_lengths(lengths: Mapping[str, Counter[int]]) -> Iterator[Plot]:
    """Draws histograms of source lengths, and of generated and reference lengths side by side."""
    groups = {"source-length": ("Length of the source", ["source"])}
    groups["generated-length"] = ("Length of the generated text", ["reference", "generated"])
    for name, (title, kinds) in groups.items():
        found = {kind: lengths[kind] for kind in kinds if lengths[kind]}
        if found:
            yield _histogram(name, title, found)


def _histogram(name: str, title: str, found: Mapping[str, Counter[int]]) -> Plot:
    colours = dict(zip(found, COLOURS[1::-1] if len(found) > 1 else COLOURS, strict=False))
    shapes, high = legend(colours)
    edges = _edges(found)
    counts = {kind: counted(numbers, edges) for kind, numbers in found.items()}
    most = max(map(max, counts.values()))
    down, across = Scale(0, most * 1.05, HEIGHT - BOTTOM, TOP + high), scale_of(edges, LEFT, WIDTH - RIGHT)
    shapes += axes(title, down, ("characters, without white space", "records"), ticks(across, whole=True))
    width = (across(edges[1]) - across(edges[0])) * 0.95 / len(found)
    for place, (kind, heights) in enumerate(counts.items()):
        for edge, height in zip(edges, heights, strict=False):
            if height:
                shapes.append(
                    Bar(across(edge) + width * place, down(height), width, down.first - down(height), colours[kind])
                )
    return _drawn(name, title, shapes)


def counted(numbers: Mapping[int, int], edges: Sequence[int]) -> list[int]:
    """Returns how many of the numbers are in each bin."""
    heights, width = [0] * (len(edges) - 1), edges[1] - edges[0]
    for number, count in numbers.items():
        heights[(number - edges[0]) // width] += count
    return heights


def _edges(found: Mapping[str, Counter[int]]) -> list[int]:
    """Returns the first numbers of equally wide bins, and the number behind the last."""
    values = [value for counts in found.values() for value in counts]
    low, high = min(values), max(values)
    width = -(-(high - low + 1) // BINS)
    count = -(-(high - low + 1) // width)
    return [low + width * number for number in range(count + 1)]


def draw_scores_by_length(buckets: Mapping[str, Mapping[str, float]]) -> Iterator[Plot]:
    """Draws bars of the two headline figures for each bucket of source length."""
    yield from _by_length("Scores by length of the source", buckets, ("bleu-4 (char, corpus)", "rouge-l (char)"))


def draw_figure_by_length(buckets: Mapping[str, Mapping[str, float]], name: str) -> Iterator[Plot]:
    """Draws bars of one figure, in percent, for each bucket of source length."""
    yield from _by_length(f"{name}{BY_LENGTH}", buckets, (name,))


def _by_length(title: str, buckets: Mapping[str, Mapping[str, float]], names: Sequence[str]) -> Iterator[Plot]:
    if not buckets:
        return
    groups = [f"{bucket}\n({found['records']:.0f})" for bucket, found in buckets.items()]
    bars = {name: [found.get(name, 0.0) for found in buckets.values()] for name in names}
    yield draw_bars("scores-by-length", title, ("characters of the source (records)", "percent"), groups, bars)


def draw_sets(of_sets: Mapping[str, Mapping[str, float]], figures: Sequence[str]) -> Plot:
    """Draws bars of figures in percent for each data set, with their mean last."""
    bars = {name: [found[name] for found in of_sets.values()] for name in figures}
    return draw_bars("scores-by-set", "Scores by data set", ("data set", "percent"), list(of_sets), bars)
