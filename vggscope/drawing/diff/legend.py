"""What stands under a picture of a diff: each difference in words behind its badge, then what holds for the whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vggscope.diffing.result import Diff
from vggscope.diffing.wording import difference_item, renamed_item, totals
from vggscope.document import Item
from vggscope.drawing.diff.badge import badge
from vggscope.drawing.diff.badge import width as badge_width
from vggscope.drawing.diff.lines import Mark, mark_of
from vggscope.drawing.fonts import wrapped
from vggscope.drawing.picture import Shape, Text
from vggscope.drawing.theme import BODY, SMALL, Theme
from vggscope.record import record

MOST_TOLD = 40
"""How many differences are told; two networks that differ more are two networks."""

LINE, APART = 11.0, 5.0
"""In points: from one line to the next, and the space between two findings."""


@record
class Entry:
    """One finding: its mark, if it has one, and its lines, each with its size and whether it is of less weight."""

    mark: Mark | None
    lines: tuple[tuple[str, float, bool], ...]

    @property
    def height(self) -> float:
        return LINE * len(self.lines) + APART


def entries(diff: Diff, width: float) -> list[Entry]:
    """The findings with their lines broken at `width` points."""
    told = [place for place, difference in enumerate(diff.differences) if difference.kind != "renamed"]
    marks = [mark_of(diff, place) for place in told[:MOST_TOLD]]
    indent = max((badge_width(mark) for mark in marks), default=14.0) + 7
    found = [_entry(mark, difference_item(diff.differences[place]), width - indent) for mark, place in zip(marks, told)]
    if len(told) > MOST_TOLD:
        found.append(_entry(None, Item("", f"and {len(told) - MOST_TOLD} differences more"), width))
    renamed = [difference for difference in diff.differences if difference.kind == "renamed"]
    if renamed:
        found.append(_entry(Mark("=", quiet=True), renamed_item(renamed), width - indent))
    found += [_entry(None, Item("", f"{name}: {text}"), width) for name, text in totals(diff)]
    found += [
        _entry(None, Item("", f"{fact.matter}: the paper {fact.paper}; torchvision {fact.torchvision}"), width)
        for fact in diff.training
    ]
    return [*found, *(_entry(None, Item("", f"note: {note}", quiet=True), width) for note in diff.notes)]


def _entry(mark: Mark | None, found: Item, width: float) -> Entry:
    said = [(line, BODY, found.quiet and mark is None) for line in wrapped(found.text, BODY, width)]
    details = [(line, SMALL, True) for text in found.details for line in wrapped(text, SMALL, width)]
    return Entry(mark, (*said, *details))


def legend(found: Sequence[Entry], columns: Sequence[float], y: float, theme: Theme) -> tuple[list[Shape], float]:
    """The entries from `y` on in columns that begin at these places, about as long as one another; and where the
    longest ends.
    """
    indent = max((badge_width(entry.mark) for entry in found if entry.mark), default=0.0) + 7
    share = sum(entry.height for entry in found) / len(columns)
    shapes: list[Shape] = []
    bottom, column, down = y, 0, 0.0
    for entry in found:
        if down and down + entry.height / 2 > share and column < len(columns) - 1:
            column, down = column + 1, 0.0
        shapes += _shapes(entry, columns[column], y + down, indent, theme)
        down += entry.height
        bottom = max(bottom, y + down - APART)
    return shapes, bottom


def _shapes(entry: Entry, x: float, y: float, indent: float, theme: Theme) -> Iterator[Shape]:
    if entry.mark:
        yield from badge(entry.mark, x, y + LINE / 2, theme)
    left = x + indent if entry.mark else x
    for place, (text, size, quiet) in enumerate(entry.lines):
        yield Text(left, y + LINE * place + 8.5, text, size, theme.muted if quiet else theme.ink)
