"""The list of differences above the drawing, and the notes and the key of the marks below it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from vggscope.diffing.result import Diff
from vggscope.diffing.wording import difference_item, totals
from vggscope.document import Item
from vggscope.drawing.diff.marks import MEANINGS, MOST_LISTED, QUIET, Mark, badge, harmless_text, is_harmless, ranked
from vggscope.drawing.fonts import fitted, text_width, wrapped
from vggscope.drawing.picture import Shape, Text
from vggscope.drawing.theme import BODY, SMALL, Theme
from vggscope.record import record

MOST_LINES = {"message": 2, "detail": 3, "note": 3}
"""The most lines of a difference's message, of all its details, and of a note; longer ones end in an ellipsis."""

LINE, SPACE = 11.0, 5.0
"""In points: the height of a line, and the space between two entries."""


@record
class LegendEntry:
    """A difference or a note: its mark, if any, and its lines, each with its type size and whether it is muted."""

    mark: Mark | None
    lines: tuple[tuple[str, float, bool], ...]

    @property
    def height(self) -> float:
        return LINE * len(self.lines) + SPACE


def listed_indices(diff: Diff, fold: bool) -> list[int]:
    """The differences that are listed and drawn one by one, the gravest first. With `fold`, those without effect are
    left out, unless the networks have no other differences.
    """
    every = ranked(diff)
    matter = [index for index in every if not is_harmless(diff.differences[index])]
    return (matter or every) if fold else every


def differences(diff: Diff, marks: Mapping[int, Mark], listed: Sequence[int], width: float) -> list[LegendEntry]:
    """The entries of the differences at the indices `listed`, with lines wrapped at `width` points; then all others in
    a line.
    """
    shown = listed[:MOST_LISTED]
    indent = _indent([marks[index] for index in shown])
    found = [_entry(marks[index], difference_item(diff.differences[index]), width - indent) for index in shown]
    if len(listed) > len(shown):
        more = len(listed) - len(shown)
        text = f"and {more:,} more difference{'' if more == 1 else 's'}, listed in an HTML page (diff.html)"
        found.append(_entry(None, Item("", text, quiet=True), width))
    hidden = {index for index, difference in enumerate(diff.differences) if is_harmless(difference)} - set(listed)
    if hidden:
        text = harmless_text(diff, hidden)
        found.append(_entry(Mark("=", quiet=True), Item("", text, quiet=True), width - indent))
    return found


def notes(diff: Diff, width: float) -> list[LegendEntry]:
    """The figures of both networks as a whole, and the notes."""
    texts = [f"{name}: {text}" for name, text in totals(diff)]
    texts += [f"{fact.matter}: the paper {fact.paper}; torchvision {fact.torchvision}" for fact in diff.training]
    found = [_entry(None, Item("", text), width) for text in texts]
    return [*found, *(_entry(None, Item("", f"note: {note}", quiet=True), width) for note in diff.notes)]


def _indent(marks: Sequence[Mark | None]) -> float:
    """The width of the widest badge, and the space after it."""
    return max((mark.width for mark in marks if mark), default=14.0) + 7


def _entry(mark: Mark | None, item: Item, width: float) -> LegendEntry:
    details = [line for detail in item.details for line in wrapped(detail, SMALL, width)]
    most = MOST_LINES["message" if mark else "note"]
    text = [(line, BODY, item.quiet) for line in _cut(wrapped(item.text, BODY, width), most, BODY, width)]
    rest = [(line, SMALL, True) for line in _cut(details, MOST_LINES["detail"], SMALL, width)]
    return LegendEntry(mark, (*text, *rest))


def _cut(lines: list[str], most: int, size: float, width: float) -> list[str]:
    """At most this many lines; the last one ends in an ellipsis if more follow."""
    if len(lines) <= most:
        return lines
    last = lines[most - 1]
    while text_width(f"{last} …", size) > width:
        last = last[:-1]
    return [*lines[: most - 1], f"{last.rstrip(' ;,')} …"]


def in_columns(
    entries: Sequence[LegendEntry], lefts: Sequence[float], y: float, theme: Theme
) -> tuple[list[Shape], float]:
    """The entries below `y` in columns of similar height, which begin at `lefts`; and the end of the longest column."""
    indent = _indent([entry.mark for entry in entries if entry.mark])
    share = sum(entry.height for entry in entries) / len(lefts)
    shapes: list[Shape] = []
    bottom, column, down = y, 0, 0.0
    for entry in entries:
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


def key(shown: Sequence[Mark], x: float, y: float, room: float, theme: Theme) -> tuple[list[Shape], float]:
    """What the signs of the marks mean, in lines of at most `room` points below `y`; and the end of the last line."""
    signs = {mark.sign: all(other.quiet for other in shown if other.sign == mark.sign) for mark in shown}
    items = [(Mark(sign, quiet=signs[sign]), MEANINGS[sign]) for sign in MEANINGS if sign in signs]
    if any(mark.quiet and mark.sign in MEANINGS for mark in shown):
        items.append((Mark("~", quiet=True), QUIET))
    shapes: list[Shape] = []
    left = x
    for mark, meaning in items:
        text = fitted(meaning, SMALL, room - mark.width - 5)
        wide = mark.width + 5 + text_width(text, SMALL)
        if left > x and left + wide > x + room:
            left, y = x, y + LINE + SPACE
        shapes += badge(mark, left, y + LINE / 2, theme)
        shapes.append(Text(left + mark.width + 5, y + 8.5, text, SMALL, theme.muted))
        left += wide + 16
    return shapes, y + LINE if items else y
