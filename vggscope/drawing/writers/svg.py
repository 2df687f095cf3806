"""A Picture as SVG, with text as text, a title and a description, and a tooltip and a stable id for each node.

Each text states its width (`textLength`), so that it stays in its box with any font.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

from vggscope._version import __version__
from vggscope.drawing.fonts import plain
from vggscope.drawing.picture import Line, Part, Picture, Point, Polygon, Rectangle, Shape, Text
from vggscope.drawing.writers import number


def write(picture: Picture) -> str:
    """The SVG; equal pictures give equal text."""
    ids = _Ids(identifier(picture.title))
    body = (
        *map(element, picture.frame),
        *(element(shape) for link in picture.links for shape in link.shapes),
        *map(element, picture.labels),
        *(_part(part, ids) for part in picture.parts if part.shapes),
    )
    return document(picture, body)


def document(picture: Picture, body: Iterable[str]) -> str:
    """An SVG of the picture's size, title and background, with these elements."""
    width, height = number(picture.width), number(picture.height)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}pt" height="{height}pt" viewBox="0 0 {width} {height}"'
        f' role="img" font-family={_quoted(", ".join(map(_family, picture.font.families)))}>',
        f"<!-- {', '.join(filter(None, (f'vggscope {__version__}', picture.engine)))} -->",
        f"<title>{_escaped(plain(picture.title))}</title>",
        f"<desc>{_escaped(plain(picture.description))}</desc>",
        f'<rect width="{width}" height="{height}" fill="{picture.background}"/>',
        *body,
        "</svg>",
        "",
    ]
    return "\n".join(lines)


def identifier(text: str) -> str:
    """A text as an id of letters, digits and hyphens that begins with a letter.

    >>> identifier("features.0 (conv1_1)")
    'features-0-conv1-1'
    """
    name = re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-")
    return name if name[:1].isalpha() else f"n-{name}".rstrip("-")


def _part(part: Part, ids: _Ids) -> str:
    tooltip = f"<title>{_escaped(_lines(part.tooltip))}</title>" if part.tooltip else ""
    head = f'<g id="{ids.of(part.name)}" class="{part.kind}">{tooltip}'
    body = (*map(element, part.shapes), *(_part(inner, ids) for inner in part.parts))
    group = "\n".join((head, *body, "</g>"))
    return f"<a href={_quoted(plain(part.href))}>\n{group}\n</a>" if part.href else group


class _Ids:
    """Unique ids made from names."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._used: dict[str, int] = {}

    def of(self, name: str) -> str:
        base = f"{self._prefix}-{identifier(name)}"
        self._used[base] = self._used.get(base, 0) + 1
        return base if self._used[base] == 1 else f"{base}--{self._used[base]}"


def _escaped(text: str) -> str:
    return html.escape(text, quote=False)


def _quoted(text: str) -> str:
    return f'"{html.escape(text)}"'


def _family(name: str) -> str:
    """A family as CSS names it: in quotes unless it is made of plain words."""
    plain_words = re.fullmatch(r"[A-Za-z][A-Za-z-]*( [A-Za-z][A-Za-z-]*)*", name)
    return name if plain_words else "'" + re.sub(r"[\\'\n]", "", plain(name)) + "'"


def _lines(text: str) -> str:
    return "\n".join(plain(line) for line in text.split("\n"))


def element(shape: Shape) -> str:
    """The element that draws a shape."""
    if isinstance(shape, Text):
        return _text(shape)
    if isinstance(shape, Rectangle):
        radius = f' rx="{number(shape.radius)}"' if shape.radius else ""
        place = f'x="{number(shape.x)}" y="{number(shape.y)}"'
        size = f'width="{number(shape.width)}" height="{number(shape.height)}"'
        return f"<rect {place} {size}{radius}{_paint(shape)}/>"
    if isinstance(shape, Polygon):
        points = " ".join(map(_point, shape.points))
        return f'<polygon points="{points}"{_paint(shape)}/>'
    return f'<path d="{_path(shape)}"{_paint(shape)}/>'


def _text(text: Text) -> str:
    anchor = "" if text.anchor == "start" else f' text-anchor="{text.anchor}"'
    weight = ' font-weight="bold"' if text.bold else ""
    turn = f' transform="rotate(-90 {number(text.x)} {number(text.y)})"' if text.turned else ""
    length = f' textLength="{number(text.width)}" lengthAdjust="spacingAndGlyphs"'
    return (
        f'<text x="{number(text.x)}" y="{number(text.y)}" font-size="{number(text.size)}"{weight}{anchor}'
        f' fill="{text.color}"{length}{turn}>{_escaped(plain(text.text))}</text>'
    )


def _paint(shape: Rectangle | Polygon | Line) -> str:
    fill = getattr(shape, "fill", "") or "none"
    border = f' stroke="{shape.stroke}" stroke-width="{number(shape.line_width)}"' if shape.stroke else ""
    dashes = ' stroke-dasharray="3 2"' if getattr(shape, "dashed", False) else ""
    return f' fill="{fill}"{border}{dashes}'


def _path(line: Line) -> str:
    first, *rest = map(_point, line.points)
    return f"M{first} {'C' if line.curved else 'L'}{' '.join(rest)}"


def _point(point: Point) -> str:
    return f"{number(point[0])},{number(point[1])}"
