"""Plots are what they say: pictures with the numbers in them."""

import io
from collections import Counter
from xml.etree import ElementTree

import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure

from glm.report import plots
from glm.report.curves import CURVE_PLOTS, Curve, CurvePlot
from glm.report.plots import PLOT_NAMES, draw_curves, draw_lengths, draw_scores_by_length, draw_sets

CURVES = CurvePlot("loss", "Loss", "nats", (Curve("training", ((1, 2.0), (5, 1.0))), Curve("dev", ((5, 1.5),))))


@pytest.fixture
def figures(monkeypatch) -> list[Figure]:
    """The figures that are drawn."""
    draw_curves.cache_clear()
    kept, draw = [], plots._drawn
    monkeypatch.setattr(plots, "_drawn", lambda name, title, figure: kept.append(figure) or draw(name, title, figure))
    return kept


def assert_legend_covers_nothing(axes) -> None:
    """It stands between the plot and its title."""
    legend, title = axes.get_legend().get_window_extent(), axes.title.get_window_extent()
    assert axes.get_window_extent().y1 <= legend.y0 < legend.y1 <= title.y0 < title.y1 <= axes.figure.bbox.y1
    assert axes.figure.bbox.x0 <= legend.x0 < legend.x1 <= axes.figure.bbox.x1


def test_curves(figures):
    plot = draw_curves(CURVES)
    (axes,) = figures[0].axes
    drawn = {line.get_label(): list(zip(*line.get_data(), strict=True)) for line in axes.lines}
    assert drawn == {"training": [(1, 2.0), (5, 1.0)], "dev": [(5, 1.5)]}
    assert [text.get_text() for text in axes.get_legend().texts] == ["training", "dev"]
    assert_legend_covers_nothing(axes)
    assert axes.lines[1].get_marker() == "."  # a single point is seen
    assert (plot.name, plot.title) == ("loss", "Loss")


def test_many_curves_can_be_told_apart(figures):
    draw_curves(CurvePlot("objectives", "t", "u", tuple(Curve(str(n), ((1, n), (2, n))) for n in range(7))))
    (axes,) = figures[0].axes
    assert [line.get_ydata()[0] for line in axes.lines] == list(range(7))
    assert len({(line.get_color(), line.get_linestyle()) for line in axes.lines}) == 7


def test_a_png_and_an_svg(figures):
    plot = draw_curves(CURVES)
    picture = matplotlib.image.imread(io.BytesIO(plot.png), format="png")
    assert picture.shape[:2] == (360, 672) and picture[..., :3].std() > 0.05
    root = ElementTree.fromstring(plot.svg)
    assert root.tag == "{http://www.w3.org/2000/svg}svg" and "Loss" in "".join(root.itertext())
    references = [value for node in root.iter() for name, value in node.attrib.items() if name.endswith("href")]
    assert all(value.startswith("#") for value in references)
    assert plot.address.startswith("data:image/svg+xml;base64,")
    draw_curves.cache_clear()
    assert draw_curves(CURVES).svg == plot.svg  # no date, no random names


def test_histograms_count_every_text(figures):
    lengths = {"source": Counter({3: 2, 250: 5}), "reference": Counter({4: 1}), "generated": Counter({0: 3, 4: 1})}
    drawn = list(draw_lengths(lengths))
    assert [plot.name for plot in drawn] == ["source-length", "generated-length"]
    source, generated = (figure.axes[0] for figure in figures)
    assert sum(bar.get_height() for bar in source.patches) == 7
    heights = [[bar.get_height() for bar in container] for container in generated.containers]
    assert heights == [[0, 0, 0, 0, 1], [3, 0, 0, 0, 1]]
    assert [text.get_text() for text in generated.get_legend().texts] == ["reference", "generated"]
    assert_legend_covers_nothing(generated)


@pytest.mark.parametrize("values", [[5], [0, 1], [3, 250], [1, 30], [1, 31], [7, 1000]])
def test_bins_are_whole_and_hold_all(values):
    edges = plots._edges({"source": Counter(values)})
    assert edges[0] == min(values) and edges[-1] > max(values) and len(edges) <= plots.BINS + 1
    assert len(set(np.diff(edges))) == 1 and edges[-2] <= max(values)


def test_nothing_to_draw():
    assert list(draw_lengths({"source": Counter(), "reference": Counter(), "generated": Counter()})) == []
    assert list(draw_scores_by_length({})) == []


def test_scores_by_length(figures):
    found = {"bleu-4 (char, corpus)": 12.0, "rouge-l (char)": 30.0, "records": 4.0}
    list(draw_scores_by_length({"1-64": found, "65-128": found | {"rouge-l (char)": 31.0}}))
    (axes,) = figures[0].axes
    assert [[bar.get_height() for bar in container] for container in axes.containers] == [[12, 12], [30, 31]]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1-64\n(4)", "65-128\n(4)"]
    assert_legend_covers_nothing(axes)


def test_names_of_all_plots():
    """What is not among them would never be removed from a folder that is written anew."""
    lengths = dict.fromkeys(("source", "reference", "generated"), Counter({1: 1}))
    found = {"bleu-4 (char, corpus)": 1.0, "rouge-l (char)": 1.0, "records": 1.0}
    drawn = [
        *draw_lengths(lengths),
        *draw_scores_by_length({"1-64": found}),
        draw_sets({"en": found}, ["rouge-l (char)"]),
    ]
    assert {plot.name for plot in drawn} | set(CURVE_PLOTS) == PLOT_NAMES
