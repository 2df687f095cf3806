"""A picture: shapes on a page, in points (1/72 inch), with y downward from the top left.

A style makes a Picture, and the writers of all formats read the same one, so that the formats agree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from vggscope.drawing.fonts import ASCENT, DESCENT, HELVETICA, Font, text_width
from vggscope.record import record

Point = tuple[float, float]


@record
class Frame:
    """A rectangle on the page that holds something."""

    x: float
    y: float
    width: float
    height: float

    @property
    def right(self) -> float:
        return self.x + self.width

    @property
    def bottom(self) -> float:
        return self.y + self.height

    def moved(self, dx: float, dy: float) -> Frame:
        return Frame(self.x + dx, self.y + dy, self.width, self.height)


@record
class Rectangle:
    """A rectangle with corners rounded by `radius`. Colours are #rrggbb, or empty for none."""

    x: float
    y: float
    width: float
    height: float
    fill: str = ""
    stroke: str = ""
    line_width: float = 0.75
    radius: float = 0.0
    dashed: bool = False


@record
class Polygon:
    """A closed, filled outline."""

    points: tuple[Point, ...]
    fill: str = ""
    stroke: str = ""
    line_width: float = 0.75


@record
class Line:
    """A line through `points`; with `curved`, a chain of cubic Bézier curves (a start, then three points for each)."""

    points: tuple[Point, ...]
    stroke: str
    line_width: float = 0.75
    curved: bool = False
    dashed: bool = False


@record
class Text:
    """One line of text. `x` is its `anchor` (start, middle or end), `y` its baseline. `turned` text runs upward."""

    x: float
    y: float
    text: str
    size: float
    color: str
    bold: bool = False
    anchor: str = "start"
    turned: bool = False

    @property
    def width(self) -> float:
        """Its length in points."""
        return text_width(self.text, self.size, self.bold)

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom."""
        before = {"start": 0.0, "middle": 0.5, "end": 1.0}[self.anchor] * self.width
        after = self.width - before
        up, down = ASCENT * self.size, DESCENT * self.size
        if self.turned:
            return (self.x - up, self.y - after, self.x + down, self.y + before)
        return (self.x - before, self.y - up, self.x + after, self.y + down)


Shape = Rectangle | Polygon | Line | Text


@record
class Cell:
    """A line of a part that is a table: a text on the left, one on the right, and the key of its colour, or none."""

    left: str
    right: str = ""
    kind: str = ""
    bold: bool = False


@record
class Part:
    """A node of the picture: shapes that belong together, with a `name` that is unique in the picture.

    `lines` are its content in words, `tooltip` the details, `kind` the key of its colour in the theme. `cluster` names
    the groups around it, the outermost first. `href` is the address of its link. `parts` lie in it, over its shapes.
    `cells` are its content as a table, if it is one, and `reads` are the numbers of cells: of one that is read, and of
    one below it that reads it.
    """

    name: str
    shapes: tuple[Shape, ...]
    lines: tuple[str, ...]
    tooltip: str = ""
    kind: str = "other"
    cluster: tuple[str, ...] = ()
    href: str = ""
    parts: tuple[Part, ...] = ()
    cells: tuple[Cell, ...] = ()
    reads: tuple[tuple[int, int], ...] = ()

    def every_shape(self) -> Iterator[Shape]:
        """Its shapes and those of the parts within it."""
        yield from self.shapes
        for part in self.parts:
            yield from part.every_shape()

    def changed(self, change: Callable[[Shape], Shape]) -> Part:
        """The part with each shape changed, those of the parts within it too."""
        parts = tuple(part.changed(change) for part in self.parts)
        return replace(self, shapes=tuple(map(change, self.shapes)), parts=parts)


@record
class Link:
    """An arrow from one part to another, by their names. `label` is the shape of the tensor that passes.

    A link without shapes is an edge of the graph that is not drawn. A link without names is drawn and no edge.
    """

    source: str
    target: str
    shapes: tuple[Shape, ...]
    label: str = ""


@record
class Picture:
    """A page of `width` by `height` points. `frame` is drawn under everything else: captions, legends, the outlines of
    groups. `labels` lie over the links. `engine` is the name and version of Graphviz, if it was used. `font` is the one
    in which its texts were measured; a writer measures in it again. `heading` are the title and the caption as drawn.
    """

    title: str
    description: str
    width: float
    height: float
    background: str
    frame: tuple[Shape, ...]
    links: tuple[Link, ...]
    parts: tuple[Part, ...]
    labels: tuple[Shape, ...] = ()
    engine: str = ""
    font: Font = HELVETICA
    heading: tuple[Text, ...] = ()

    def shapes(self) -> Iterator[Shape]:
        """Every shape, from the bottom up."""
        yield from self.frame
        for link in self.links:
            yield from link.shapes
        yield from self.labels
        for part in self.parts:
            yield from part.every_shape()


def arrow(points: tuple[Point, ...], color: str, curved: bool = False, head: float = 5.0) -> tuple[Shape, ...]:
    """A line with an arrowhead at its last point."""
    (x, y), (fx, fy) = points[-1], next(p for p in reversed(points[:-1]) if p != points[-1])
    length = ((x - fx) ** 2 + (y - fy) ** 2) ** 0.5
    dx, dy = (x - fx) / length, (y - fy) / length
    base = (x - dx * head, y - dy * head)
    half = head * 0.42
    tip = ((x, y), (base[0] - dy * half, base[1] + dx * half), (base[0] + dy * half, base[1] - dx * half))
    return (Line((*points[:-1], base), color, 1.0, curved), Polygon(tip, fill=color))


def is_arrow(line: Line, tip: Polygon) -> bool:
    """Whether two shapes are a line and its arrowhead, as `arrow` makes them."""
    return (
        len(tip.points) == 3
        and tip.fill == line.stroke
        and not tip.stroke
        and _between(*tip.points[1:], line.points[-1])
    )


def _between(first: Point, second: Point, middle: Point) -> bool:
    return all(abs((a + b) / 2 - m) < 0.01 for a, b, m in zip(first, second, middle))


def scaled(picture: Picture, factor: float) -> Picture:
    """The same picture larger or smaller."""

    def of(shape: Shape) -> Shape:
        if isinstance(shape, Rectangle):
            x, y, width, height = (value * factor for value in (shape.x, shape.y, shape.width, shape.height))
            return replace(shape, x=x, y=y, width=width, height=height, radius=shape.radius * factor)
        if isinstance(shape, Text):
            return replace(shape, x=shape.x * factor, y=shape.y * factor, size=shape.size * factor)
        points = tuple((x * factor, y * factor) for x, y in shape.points)
        return replace(shape, points=points, line_width=shape.line_width * factor)

    return _changed(picture, of, picture.width * factor, picture.height * factor)


def moved_up(picture: Picture, distance: float) -> Picture:
    """The same picture with so much less of the page above it."""
    return _moved(picture, 0.0, -distance, picture.width, picture.height - distance) if distance else picture


def cropped(picture: Picture) -> Picture:
    """The same picture on a page that ends, on each side, a point from what is drawn."""
    ends = list(zip(*map(bounds, picture.shapes())))
    left, top, right, bottom = min(ends[0]), min(ends[1]), max(ends[2]), max(ends[3])
    return _moved(picture, 1 - left, 1 - top, right - left + 2, bottom - top + 2)


def bounds(shape: Shape) -> tuple[float, float, float, float]:
    """Left, top, right and bottom."""
    if isinstance(shape, Text):
        return shape.bounds
    if isinstance(shape, Rectangle):
        return shape.x, shape.y, shape.x + shape.width, shape.y + shape.height
    across, down = zip(*shape.points)
    return min(across), min(down), max(across), max(down)


def _moved(picture: Picture, dx: float, dy: float, width: float, height: float) -> Picture:
    def of(shape: Shape) -> Shape:
        if isinstance(shape, (Rectangle, Text)):
            return replace(shape, x=shape.x + dx, y=shape.y + dy)
        return replace(shape, points=tuple((x + dx, y + dy) for x, y in shape.points))

    return _changed(picture, of, width, height)


def _changed(picture: Picture, of: Callable[[Shape], Shape], width: float, height: float) -> Picture:
    return replace(
        picture,
        width=width,
        height=height,
        frame=tuple(map(of, picture.frame)),
        labels=tuple(map(of, picture.labels)),
        links=tuple(replace(link, shapes=tuple(map(of, link.shapes))) for link in picture.links),
        parts=tuple(part.changed(of) for part in picture.parts),
    )


def linked(picture: Picture, href: Callable[[str], str]) -> Picture:
    """The same picture with a link on each part, to the address that `href` returns for its name. Of a part that holds
    others, these get the links.
    """

    def of(part: Part) -> Part:
        return replace(part, parts=tuple(map(of, part.parts))) if part.parts else replace(part, href=href(part.name))

    return replace(picture, parts=tuple(map(of, picture.parts)))
