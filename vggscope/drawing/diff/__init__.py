"""A diff as one picture: both networks from the top down, side by side, with marks and a legend for the differences.

The diff becomes rows, some of them folded; these determine the widths of the columns and are then drawn one by one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vggscope.diffing.result import Diff
from vggscope.diffing.wording import verdict_text
from vggscope.drawing import Diagram
from vggscope.drawing.diff.cells import GAP, OURS, REFERENCE, RowShapes, draw, height
from vggscope.drawing.diff.legend import LegendEntry, entries, legend
from vggscope.drawing.diff.rows import Columns, ShownRow, columns_for, shown_rows
from vggscope.drawing.fonts import fitted, text_width
from vggscope.drawing.picture import Link, Picture, Shape, Text
from vggscope.drawing.sheet import MARGIN, TOP, page
from vggscope.drawing.theme import HEADING, SMALL, Theme, theme_named
from vggscope.errors import OptionError, option
from vggscope.units import count_text

HEAD, BETWEEN = 19.0, 26.0
"""In points: the height of the headings, and the space between two strips of rows."""

SLENDER = 1.2
"""The largest ratio of height to width before the rows continue in another strip."""


def diagram(diff: Diff, theme: str = "light", fold: bool = True) -> Diagram:
    """The picture of a diff. With `fold`, long runs of identical layers are counted instead of drawn.

    A long picture continues to the right. Raises OptionError for an unknown theme, and for a diff that compared
    nothing.
    """
    if not diff.compared:
        raise OptionError(f"{diff.model} is no VGG: there is nothing to draw", f"{option('ref')} names a reference")
    colors = theme_named(theme)
    return Diagram(_picture(diff, shown_rows(diff, fold), colors), colors, "TB")


def _picture(diff: Diff, rows: Sequence[ShownRow], theme: Theme) -> Picture:
    columns = columns_for(rows, max(map(_heading_width, _headings(diff))))
    listed = entries(diff, columns.width)
    strips = _strips(rows, listed, columns.width)
    lefts = [MARGIN + (columns.width + BETWEEN) * number for number in range(len(strips))]
    headings: list[Shape] = []
    drawn: list[RowShapes] = []
    bottom = TOP
    for x, strip in zip(lefts, strips):
        headings += _heading_shapes(diff, x, columns, theme)
        y = TOP + HEAD
        for row in strip:
            drawn.append(draw(row, x, y, columns, theme))
            y += height(row) + GAP
        bottom = max(bottom, y - GAP)
    below, bottom = legend(listed, lefts, bottom + 16, theme)
    return page(
        title=f"{diff.model} against {diff.reference}",
        caption=f"{diff.verdict}: {verdict_text(diff)}",
        theme=theme,
        size=(lefts[-1] + columns.width, bottom),
        frame=(*headings, *(shape for row in drawn for shape in row.frame), *below),
        links=(*(link for row in drawn for link in row.links), *_reads(diff, drawn)),
        parts=tuple(sorted((part for row in drawn for part in row.parts), key=lambda part: part.cluster)),
    )


def _strips(rows: Sequence[ShownRow], listed: Sequence[LegendEntry], width: float) -> list[list[ShownRow]]:
    """The rows cut into strips of similar height, as many as keep the page from being too tall or too wide."""
    total = sum(height(row) + GAP for row in rows)
    whole = total + sum(entry.height for entry in listed)
    count = max(1, round((whole / (SLENDER * width)) ** 0.5))
    strips: list[list[ShownRow]] = [[]]
    used = 0.0
    for row in rows:
        if used >= total / count:
            strips.append([])
            used = 0.0
        strips[-1].append(row)
        used += height(row) + GAP
    return strips


def _headings(diff: Diff) -> tuple[tuple[str, str], tuple[str, str]]:
    """The heading of each side: its name and its parameters."""
    return (
        (diff.model, f"{count_text(diff.params.ours)} parameters"),
        (diff.reference, f"{count_text(diff.params.reference)} parameters"),
    )


def _heading_width(heading: tuple[str, str]) -> float:
    return text_width(heading[0], HEADING, bold=True) + 10 + text_width(heading[1], SMALL)


def _heading_shapes(diff: Diff, x: float, columns: Columns, theme: Theme) -> Iterator[Shape]:
    for left, (name, params) in zip((x + columns.ours, x + columns.reference), _headings(diff)):
        room = columns.cell - text_width(params, SMALL) - 10
        yield Text(left, TOP + 8, fitted(name, HEADING, room, bold=True), HEADING, theme.ink, bold=True)
        yield Text(left + columns.cell, TOP + 8, params, SMALL, theme.muted, anchor="end")


def _reads(diff: Diff, drawn: Sequence[RowShapes]) -> Iterator[Link]:
    """Which layer reads which, on either side: links of the graph that are not drawn."""
    part_of = {layer: part for row in drawn for layer, part in row.part_of.items()}
    pairs: dict[tuple[str, str], None] = {}
    for row in diff.rows:
        for side, layer in ((OURS, row.our_layer), (REFERENCE, row.reference_layer)):
            for source in layer.inputs if layer else ():
                if layer and (side, source) in part_of:
                    pairs[part_of[side, source], part_of[side, layer.name]] = None
    yield from (Link(source, target, ()) for source, target in pairs if source != target)
