"""Drawings of lines, bars and texts: as SVG within a page, in its colours and languages, and as PNG in English.

matplotlib would take longer to import than a report takes to be written (0.3 s), and has no font for Chinese.
"""

import io
from collections.abc import Iterable
from dataclasses import dataclass

from markupsafe import Markup
from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT = 672, 360  # pixels
FINER = 2  # a PNG is drawn so many times larger and scaled down, which smooths its lines
# Colours of a PNG, by the names of a page's own.
PAPER = {"ink": "#1c2128", "soft": "#656d76", "line": "#d8dee4", "paper": "#ffffff"}
Point = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """A line through points. Colours are names of PAPER or CSS colours."""

    points: tuple[Point, ...]
    colour: str
    width: float = 1.0

    def svg(self) -> Markup:
        """As an SVG element."""
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in self.points)
        element = '<polyline points="{}" fill="none" stroke="{}" stroke-width="{}"/>'
        return Markup(element).format(points, _css(self.colour), self.width)

    def draw(self, canvas: ImageDraw.ImageDraw) -> None:
        """Onto an image FINER times as large."""
        points = [(x * FINER, y * FINER) for x, y in self.points]
        canvas.line(points, fill=PAPER.get(self.colour, self.colour), width=round(self.width * FINER), joint="curve")


@dataclass(frozen=True)
class Bar:
    """A filled rectangle; with a `corner` as large as half its sides, a dot."""

    x: float
    y: float
    width: float
    height: float
    colour: str
    corner: float = 0.0

    def svg(self) -> Markup:
        """As an SVG element."""
        sizes = (f"{size:.1f}" for size in (self.x, self.y, self.width, self.height, self.corner))
        element = '<rect x="{}" y="{}" width="{}" height="{}" rx="{}" fill="{}"/>'
        return Markup(element).format(*sizes, _css(self.colour))

    def draw(self, canvas: ImageDraw.ImageDraw) -> None:
        """Onto an image FINER times as large."""
        corners = (self.x, self.y, max(self.x + self.width, self.x), max(self.y + self.height, self.y))
        box, fill = [number * FINER for number in corners], PAPER.get(self.colour, self.colour)
        canvas.rounded_rectangle(box, radius=self.corner * FINER, fill=fill)


@dataclass(frozen=True)
class Text:
    """A line of text; y is its middle, x what `anchor` says (start, middle or end).

    Args:
        chinese: the same in Chinese; empty if it is the same.
        turned: it reads from bottom to top.
    """

    x: float
    y: float
    english: str
    chinese: str = ""
    size: int = 13
    colour: str = "soft"
    anchor: str = "middle"
    turned: bool = False

    def svg(self) -> Markup:
        """As an SVG element."""
        turn = Markup(' transform="rotate(-90 {:.1f} {:.1f})"').format(self.x, self.y) if self.turned else ""
        words = Markup("{}").format(self.english)
        if self.chinese:
            spans = '<tspan class="en">{}</tspan><tspan class="zh" lang="zh">{}</tspan>'
            words = Markup(spans).format(self.english, self.chinese)
        element = '<text x="{:.1f}" y="{:.1f}" dy=".35em" font-size="{}" text-anchor="{}" fill="{}"{}>{}</text>'
        return Markup(element).format(self.x, self.y, self.size, self.anchor, _css(self.colour), turn, words)

    def draw(self, canvas: ImageDraw.ImageDraw) -> None:
        """Onto an image FINER times as large. What its font has no letters for is escaped."""
        words = self.english.encode("latin-1", "backslashreplace").decode("latin-1")
        font, fill = ImageFont.load_default(self.size * FINER), PAPER.get(self.colour, self.colour)
        anchor = {"start": "lm", "middle": "mm", "end": "rm"}[self.anchor]
        if not self.turned:
            canvas.text((self.x * FINER, self.y * FINER), words, fill=fill, font=font, anchor=anchor)
            return
        left, top, right, bottom = map(round, font.getbbox(words))
        mask = Image.new("L", (right - left, bottom - top))
        ImageDraw.Draw(mask).text((-left, -top), words, fill=255, font=font)
        mask = mask.transpose(Image.Transpose.ROTATE_90)
        place = round(self.x * FINER - mask.width / 2), round(self.y * FINER - mask.height / 2)
        canvas.bitmap(place, mask, fill=fill)


Shape = Line | Bar | Text


def svg_of(title: str, shapes: Iterable[Shape]) -> Markup:
    """Returns the SVG element that shows shapes, for a page: what the title says, readers of the screen read out."""
    inner = Markup("").join(shape.svg() for shape in shapes)
    element = '<svg class="plot" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>'
    return Markup(element).format(WIDTH, HEIGHT, title, inner)


def png_of(shapes: Iterable[Shape]) -> bytes:
    """Returns the PNG that shows shapes."""
    image = Image.new("RGB", (WIDTH * FINER, HEIGHT * FINER), PAPER["paper"])
    canvas = ImageDraw.Draw(image)
    for shape in shapes:
        shape.draw(canvas)
    file = io.BytesIO()
    image.reduce(FINER).save(file, "png")
    return file.getvalue()


def _css(colour: str) -> str:
    """A colour in a page, which may be dark."""
    return f"var(--{colour})" if colour in PAPER else colour
