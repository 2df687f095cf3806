"""The marks of differences: badges beside the rows, and a legend below that explains each badge and adds the notes.

Each sign has a colour and an outline, so that no colour is needed to tell the badges apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vggscope.diffing.result import Diff
from vggscope.diffing.wording import SIGNS, difference_item, renamed_item, totals
from vggscope.document import Item
from vggscope.drawing.fonts import text_width, wrapped
from vggscope.drawing.picture import Polygon, Rectangle, Shape, Text
from vggscope.drawing.theme import BODY, SMALL, Theme
from vggscope.record import record

HEIGHT, POINT = 12.0, 4.0
"""In points: the height of a badge, and the length of its pointed ends."""

_POINTED = {
    "~": ((0, 1, 0), (1, -1, 0), (1, 0, 0.5), (1, -1, 1), (0, 1, 1), (0, 0, 0.5)),
    "!": ((0, 0, 0), (1, -1, 0), (1, 0, 0.5), (1, -1, 1), (0, 0, 1)),
}
"""The corners of outlines with pointed ends: the share of the width, points inward, the share of the height."""

MOST_LISTED = 40
"""The most differences that are listed; the rest is counted."""

LINE, SPACE = 11.0, 5.0
"""In points: the height of a line, and the space between two entries."""


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


@record
class LegendEntry:
    """A difference or note: its mark, if any, and its lines, each with its type size and whether it is muted."""

    mark: Mark | None
    lines: tuple[tuple[str, float, bool], ...]

    @property
    def height(self) -> float:
        return LINE * len(self.lines) + SPACE


def entries(diff: Diff, width: float) -> list[LegendEntry]:
    """The entries, with their lines wrapped at `width` points."""
    changed = [index for index, difference in enumerate(diff.differences) if difference.kind != "renamed"]
    marks = [mark_of(diff, index) for index in changed[:MOST_LISTED]]
    indent = _indent(marks, 14.0)
    listed = [
        _entry(mark, difference_item(diff.differences[index]), width - indent) for mark, index in zip(marks, changed)
    ]
    if len(changed) > MOST_LISTED:
        listed.append(_entry(None, Item("", f"and {len(changed) - MOST_LISTED} differences more"), width))
    renamed = [difference for difference in diff.differences if difference.kind == "renamed"]
    if renamed:
        listed.append(_entry(Mark("=", quiet=True), renamed_item(renamed), width - indent))
    texts = [f"{name}: {text}" for name, text in totals(diff)]
    texts += [f"{fact.matter}: the paper {fact.paper}; torchvision {fact.torchvision}" for fact in diff.training]
    listed += [_entry(None, Item("", text), width) for text in texts]
    return [*listed, *(_entry(None, Item("", f"note: {note}", quiet=True), width) for note in diff.notes)]


def _indent(marks: Sequence[Mark], least: float) -> float:
    """The width of the widest badge, and the space after it."""
    return max((mark.width for mark in marks), default=least) + 7


def _entry(mark: Mark | None, item: Item, width: float) -> LegendEntry:
    text = [(line, BODY, item.quiet and mark is None) for line in wrapped(item.text, BODY, width)]
    details = [(line, SMALL, True) for detail in item.details for line in wrapped(detail, SMALL, width)]
    return LegendEntry(mark, (*text, *details))


def legend(listed: Sequence[LegendEntry], lefts: Sequence[float], y: float, theme: Theme) -> tuple[list[Shape], float]:
    """The entries below `y` in columns of similar height, which begin at `lefts`; and the end of the longest column."""
    indent = _indent([entry.mark for entry in listed if entry.mark], 0.0)
    share = sum(entry.height for entry in listed) / len(lefts)
    shapes: list[Shape] = []
    bottom, column, down = y, 0, 0.0
    for entry in listed:
        if down and down + entry.height / 2 > share and column < len(lefts) - 1:
            column, down = column + 1, 0.0
        shapes += _shapes(entry, lefts[column], y + down, indent, theme)
        down += entry.height
        bottom = max(bottom, y + down - SPACE)
    return shapes, bottom


def _shapes(entry: LegendEntry, x: float, y: float, indent: float, theme: Theme) -> Iterator[Shape]:
    if entry.mark:
        yield from badge(entry.mark, x, y + LINE / 2, theme)
    left = x + indent if entry.mark else x
    for number, (text, size, muted) in enumerate(entry.lines):
        yield Text(left, y + LINE * number + 8.5, text, size, theme.muted if muted else theme.ink)
