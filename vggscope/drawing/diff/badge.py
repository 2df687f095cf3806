"""Badges: a sign and a number, in a colour and an outline of its own for each sign, so that no colour is needed."""

from __future__ import annotations

from vggscope.drawing.diff.lines import Mark
from vggscope.drawing.fonts import text_width
from vggscope.drawing.picture import Box, Polygon, Shape, Text
from vggscope.drawing.theme import SMALL, Theme

HEIGHT, POINT = 12.0, 4.0
"""How high a badge is, and how far its pointed ends reach, in points."""


def width(mark: Mark) -> float:
    """How wide a mark's badge is."""
    return text_width(mark.text, SMALL, bold=True) + 2 * (POINT + 1)


def badge(mark: Mark, x: float, middle: float, theme: Theme) -> tuple[Shape, ...]:
    """A mark's badge with its left end at `x`, about the height `middle`; hollow where the mark is quiet."""
    color = theme.signs[mark.sign]
    fill = theme.page if mark.quiet else color
    ink = color if mark.quiet else theme.ink_on(color)
    wide = width(mark)
    text = Text(x + wide / 2, middle + 2.9, mark.text, SMALL, ink, bold=True, anchor="middle")
    return (_outline(mark.sign, x, middle - HEIGHT / 2, wide, fill, color), text)


def _outline(sign: str, x: float, y: float, wide: float, fill: str, stroke: str) -> Shape:
    if sign in _ENDS:
        corners = ((x + wide * across + POINT * inward, y + HEIGHT * down) for across, inward, down in _ENDS[sign])
        return Polygon(tuple(corners), fill, stroke, 1.0)
    radius = {"+": HEIGHT / 2, "-": 0.0}.get(sign, 2.5)
    return Box(x, y, wide, HEIGHT, fill, stroke, 1.0, radius, dashed=sign == "?")


_ENDS = {
    "~": ((0, 1, 0), (1, -1, 0), (1, 0, 0.5), (1, -1, 1), (0, 1, 1), (0, 0, 0.5)),
    "!": ((0, 0, 0), (1, -1, 0), (1, 0, 0.5), (1, -1, 1), (0, 0, 1)),
}
"""The corners of the outlines with pointed ends: the share of the width, points inward, the share of the height."""
