"""Plots are what they say: pictures with the numbers in them."""

import io
from collections import Counter
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from glm.report import plots
from glm.report.chinese import CHINESE, chinese_of
from glm.report.curves import CURVE_PLOTS, LARGEST, Curve, CurvePlot
from glm.report.drawing import HEIGHT, PAPER, WIDTH
from glm.report.plots import (
    PLOT_NAMES,
    Scale,
    draw_curves,
    draw_figure_by_length,
    draw_lengths,
    draw_scores_by_length,
    draw_sets,
    ticks,
)

CURVES = CurvePlot("loss", "Loss", "nats per token", (Curve("a", ((1, 2.0), (5, 1.0))), Curve("b", ((5, 1.5),))))
FOUND = {"bleu-4 (char, corpus)": 12.0, "rouge-l (char)": 30.0, "records": 4.0}
LENGTHS = {"source": Counter({3: 2, 250: 5}), "reference": Counter({4: 1}), "generated": Counter({0: 3, 4: 1})}


class Drawn:
    """The elements of a plot: lines and bars by colour, and texts in each language."""

    def __init__(self, plot: plots.Plot):
        self.root = ElementTree.fromstring(str(plot.svg))
        self.lines, self.bars, self.english, self.chinese = {}, {}, [], []
        for node in self.root:
            if node.tag == "polyline":
                points = [tuple(map(float, point.split(","))) for point in node.get("points").split()]
                self.lines.setdefault(node.get("stroke"), []).append(points)
            elif node.tag == "rect":
                box = [float(node.get(name)) for name in ("x", "y", "width", "height")]
                self.bars.setdefault(node.get("fill"), []).append(box)
            else:
                spans = {span.get("class"): span.text for span in node}
                self.english.append(spans.get("en", node.text))
                self.chinese.append(spans.get("zh", node.text))

    def ticks(self, axis: str) -> dict[str, float]:
        """Places of numbers on an axis: `x` or `y`."""
        anchor = {"x": "middle", "y": "end"}[axis]
        found = [node for node in self.root if node.tag == "text" and node.get("text-anchor") == anchor]
        texts = {node.text: float(node.get(axis)) for node in found if node.text}
        return {text: place for text, place in texts.items() if text.replace(",", "").replace(".", "").isdigit()}

    def numbers(self, axis: str, places: list[float]) -> list[float]:
        """Reads places off an axis, as a reader does: between two of its numbers."""
        (one, first), *_, (other, last) = self.ticks(axis).items()
        low, high = (float(text.replace(",", "")) for text in (one, other))
        return [low + (place - first) / (last - first) * (high - low) for place in places]

    def heights(self, colour: str) -> list[float]:
        """What the bars of a colour stand for; without the legend's sample."""
        tops = [y for _, y, _, height in self.bars[colour] if height != 10.0]
        return [round(number, 1) for number in self.numbers("y", tops)]


def test_curves():
    drawn = Drawn(draw_curves(CURVES))
    first, second = (drawn.lines[colour][0] for colour in plots.COLOURS[:2])
    assert np.allclose(drawn.numbers("x", [x for x, _ in first + second]), [1, 5, 5], atol=0.02)
    assert np.allclose(drawn.numbers("y", [y for _, y in first + second]), [2, 1, 1.5], atol=0.01)
    assert len(drawn.bars[plots.COLOURS[1]]) == 2  # a sample of its colour, and a dot, as a single point is seen
    assert {"Loss", "nats per token", "optimizer step", "a", "b"} <= set(drawn.english)
    assert {"损失", "nat/token", "优化步数", "a", "b"} <= set(drawn.chinese)


@pytest.mark.parametrize(
    "points",
    [
        ((7, 3.0),),
        ((1, 0.0), (2, 0.0)),
        ((1, 1e-9), (900_000, 1e12)),
        ((1, -2.0), (2, 3.0)),
        ((1, -LARGEST), (2, LARGEST)),
        ((1, 1e-322), (2, 5e-324)),
        ((1, 1e16), (2, 1e16 + 2)),
    ],
)
def test_any_curve_is_within_its_axes(points):
    drawn = Drawn(draw_curves(CurvePlot("loss", "t", "u", (Curve("c", points),))))
    (line,) = drawn.lines[plots.COLOURS[0]]
    assert all(plots.LEFT < x < WIDTH - plots.RIGHT and plots.TOP < y < HEIGHT - plots.BOTTOM for x, y in line)


def test_many_curves_can_be_told_apart():
    drawn = draw_curves(CurvePlot("objectives", "t", "u", tuple(Curve(str(n), ((1, n), (2, n))) for n in range(11))))
    lines = [node for node in ElementTree.fromstring(str(drawn.svg)) if node.tag == "polyline"][-11:]
    assert len({(node.get("stroke"), node.get("stroke-width")) for node in lines}) == 11


@pytest.mark.parametrize("count", [2, 12])
def test_the_legend_covers_nothing(count):
    """It stands between the title and the plot, however many rows it has, and no entry touches the next."""
    plot = draw_curves(CurvePlot("losses", "t", "u", tuple(Curve(f"a corpus, {n}", ((1, n),)) for n in range(count))))
    drawn = Drawn(plot)
    samples = sorted(
        (y, x) for boxes in drawn.bars.values() for x, y, width, height in boxes if (width, height) == (12, 10)
    )
    (top,) = {min(y for _, y in line) for line in drawn.lines["var(--soft)"]}
    assert len(samples) == count and all(plots.TITLE < y and y + 10 <= top for y, _ in samples)
    assert all(0 <= x < WIDTH for _, x in samples)
    assert all(one[0] != other[0] or other[1] - one[1] > 80 for one, other in zip(samples, samples[1:], strict=False))


def test_a_png_and_an_svg():
    plot = draw_curves(CURVES)
    picture = np.asarray(Image.open(io.BytesIO(plot.png)))
    assert picture.shape == (HEIGHT, WIDTH, 3)
    for colour in plots.COLOURS[:2]:  # the curves are in it
        assert (picture == [int(colour[place : place + 2], 16) for place in (1, 3, 5)]).all(-1).any()
    assert (picture[40:-40, 5:30] != 255).any()  # and so is the turned label
    root = ElementTree.fromstring(str(plot.svg))
    assert root.tag == "svg" and root.get("aria-label") == "Loss"
    assert not any("href" in name for node in root.iter() for name in node.attrib)
    draw_curves.cache_clear()
    assert draw_curves(CURVES).svg == plot.svg and draw_curves(CURVES).png == plot.png


def test_any_name_is_only_text():
    evil = "<script>alert('1')</script>&\"中文\x00\ud800"
    plot = draw_sets({evil: FOUND, "en": FOUND}, ["rouge-l (char)"])
    assert "<script" not in plot.svg and "&lt;scr" in plot.svg and plot.png.startswith(b"\x89PNG")


def test_histograms_count_every_text():
    drawn = list(draw_lengths(LENGTHS))
    assert [plot.name for plot in drawn] == ["source-length", "generated-length"]
    source, generated = map(Drawn, drawn)
    assert source.heights(plots.COLOURS[0]) == [2, 5]
    assert generated.heights(plots.COLOURS[1]) == [1] and generated.heights(plots.COLOURS[0]) == [3, 1]
    assert {"reference", "generated"} <= set(generated.english) and {"参考文本", "生成"} <= set(generated.chinese)


def test_counts_of_bins():
    assert plots.counted({0: 3, 4: 1, 5: 2, 9: 7}, [0, 5, 10]) == [4, 9]


@pytest.mark.parametrize("values", [[5], [0, 1], [3, 250], [1, 30], [1, 31], [7, 1000]])
def test_bins_are_whole_and_hold_all(values):
    edges = plots._edges({"source": Counter(values)})
    assert edges[0] == min(values) and edges[-1] > max(values) and len(edges) <= plots.BINS + 1
    assert len(set(np.diff(edges))) == 1 and edges[-2] <= max(values)


@pytest.mark.parametrize(
    ("low", "high", "whole", "texts"),
    [
        (0, 100, False, ["0", "20", "40", "60", "80", "100"]),
        (0.9, 5.1, True, ["1", "2", "3", "4", "5"]),
        (0, 0.001, False, ["0.0000", "0.0002", "0.0004", "0.0006", "0.0008", "0.0010"]),
        (0.5, 1.3, True, ["1"]),
        (2.21, 2.23, False, ["2.210", "2.215", "2.220", "2.225", "2.230"]),
        (0, 1_200_000, True, ["0", "200,000", "400,000", "600,000", "800,000", "1,000,000", "1,200,000"]),
        (-1.05, 1.05, False, ["-1.0", "-0.5", "0.0", "0.5", "1.0"]),
    ],
)
def test_numbers_on_an_axis_are_round(low, high, whole, texts):
    found = ticks(Scale(low, high, 100, 200), whole=whole)
    assert [text for text, _ in found] == texts
    for text, place in found:
        assert place == pytest.approx(100 + (float(text.replace(",", "")) - low) / (high - low) * 100, abs=1e-6)


def test_nothing_to_draw():
    assert list(draw_lengths({"source": Counter(), "reference": Counter(), "generated": Counter()})) == []
    assert list(draw_scores_by_length({})) == [] and list(draw_figure_by_length({}, "accuracy")) == []


def test_scores_by_length():
    (plot,) = draw_scores_by_length({"1-64": FOUND, "65-128": FOUND | {"rouge-l (char)": 31.0}})
    drawn = Drawn(plot)
    assert drawn.heights(plots.COLOURS[0]) == [12, 12] and drawn.heights(plots.COLOURS[1]) == [30, 31]
    assert {"1-64", "65-128"} <= set(drawn.english) and drawn.english.count("(4)") == 2
    assert "不同输入长度的得分" in drawn.chinese


def test_long_names_of_many_sets_are_clipped():
    drawn = Drawn(draw_sets({f"a long name of set {n}": FOUND for n in range(9)} | {"zh": FOUND}, ["rouge-l (char)"]))
    names = [text for text in drawn.english if text.startswith("a ")]
    assert len(names) == 9 and all(name.endswith("..") and len(name) < 10 for name in names) and "zh" in drawn.english


def test_every_label_has_its_chinese():
    labels = {label for title, unit, keys in CURVE_PLOTS.values() for label in (title, unit, *keys)} - {"", "GiB"}
    figures = {"bleu-4 (char, corpus)", "rouge-l (char)", "accuracy", "macro f1"}
    assert labels - figures <= set(CHINESE)
    (by_length,) = draw_figure_by_length({"1-64": {"accuracy": 50.0, "records": 1.0}}, "accuracy")
    drawn = [*map(Drawn, draw_lengths(LENGTHS)), Drawn(by_length), Drawn(draw_sets({"en": FOUND}, ["rouge-l (char)"]))]
    for found in drawn:
        words = {text for text in found.english if len(text) > 3 and text[0].isalpha()} - figures
        assert words and {chinese_of(word) for word in words} <= set(found.chinese) - {""}


def test_colours_of_paper_are_those_of_the_page():
    base = (plots.__file__.rsplit("/", 1)[0]) + "/base.html.jinja"
    with open(base, encoding="utf-8") as file:
        head = file.read()
    assert all(f"--{name}:" in head for name in PAPER)


def test_names_of_all_plots():
    """What is not among them would never be removed from a folder that is written anew."""
    lengths = dict.fromkeys(("source", "reference", "generated"), Counter({1: 1}))
    drawn = [
        *draw_lengths(lengths),
        *draw_scores_by_length({"1-64": FOUND}),
        draw_sets({"en": FOUND}, ["rouge-l (char)"]),
    ]
    assert {plot.name for plot in drawn} | set(CURVE_PLOTS) == PLOT_NAMES
