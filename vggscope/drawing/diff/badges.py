"""Badges: the sign and number of a difference. Each sign has a colour and an outline, so that no colour is needed."""

from __future__ import annotations

from vggscope.diffing.result import Diff
from vggscope.diffing.wording import SIGNS
from vggscope.drawing.fonts import text_width
from vggscope.drawing.picture import Polygon, Rectangle, Shape, Text
from vggscope.drawing.theme import SMALL, Theme
from vggscope.record import record

HEIGHT, POINT = 12.0, 4.0
"""In points: the height of a badge, and the length of its pointed ends."""


@record
class Mark:
    """The mark of a row or a difference: its sign, and its number in the legend if it has one there. `quiet` marks
    leave the output as it is.
    """

    sign: str
    number: int | None = None
    quiet: bool = False

    @property
    def text(self) -> str:
        """The sign, as wide as a digit, and the number."""
        sign = self.sign.replace("-", "−")
        return sign if self.number is None else f"{sign} {self.number}"

    @property
    def width(self) -> float:
        """The width of its badge, in points."""
        return text_width(self.text, SMALL, bold=True) + 2 * (POINT + 1)


def mark_of(diff: Diff, index: int) -> Mark:
    """The mark of a difference. Numbers follow execution order and leave out differences in name alone."""
    difference = diff.differences[index]
    sign = SIGNS[difference.kind]
    if difference.kind == "renamed":
        return Mark(sign, quiet=True)
    number = sum(other.kind != "renamed" for other in diff.differences[: index + 1])
    if {row.sign for row in diff.rows if row.difference == index} == {"!"}:
        return Mark("!", number)
    return Mark(sign, number, not difference.changes_output)


def badge(mark: Mark, x: float, middle: float, theme: Theme) -> tuple[Shape, ...]:
    """A mark's badge with its left end at `x`, vertically centred on `middle`; hollow for a quiet mark."""
    color = theme.signs[mark.sign]
    fill = theme.page if mark.quiet else color
    ink = color if mark.quiet else theme.ink_on(color)
    text = Text(x + mark.width / 2, middle + 2.9, mark.text, SMALL, ink, bold=True, anchor="middle")
    return (_outline(mark.sign, x, middle - HEIGHT / 2, mark.width, fill, color), text)


def _outline(sign: str, x: float, y: float, width: float, fill: str, stroke: str) -> Shape:
    if sign in _POINTED:
        corners = ((x + width * across + POINT * inward, y + HEIGHT * down) for across, inward, down in _POINTED[sign])
        return Polygon(tuple(corners), fill, stroke, 1.0)
    radius = {"+": HEIGHT / 2, "-": 0.0}.get(sign, 2.5)
    return Rectangle(x, y, width, HEIGHT, fill, stroke, 1.0, radius, dashed=sign == "?")


_POINTED = {
    "~": ((0, 1, 0), (1, -1, 0), (1, 0, 0.5), (1, -1, 1), (0, 1, 1), (0, 0, 0.5)),
    "!": ((0, 0, 0), (1, -1, 0), (1, 0, 0.5), (1, -1, 1), (0, 0, 1)),
}
"""The corners of outlines with pointed ends: the share of the width, points inward, the share of the height."""
