"""A diff as one picture: both networks from the top down, side by side, with marks and a legend for the differences.

The diff becomes rows, some of them folded; these determine the widths of the columns and are then drawn one by one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vggscope.diffing.result import Diff
from vggscope.diffing.wording import verdict_text
from vggscope.drawing import Diagram
from vggscope.drawing.diff.cells import GAP, OURS, REFERENCE, RowShapes, draw, height
from vggscope.drawing.diff.legend import LegendEntry, differences, in_columns, key, listed_indices, notes
from vggscope.drawing.diff.marks import marks, short_names
from vggscope.drawing.diff.rows import Columns, ShownRow, columns_for, shown_rows
from vggscope.drawing.fonts import fitted, text_width
from vggscope.drawing.picture import Link, Picture, Shape, Text
from vggscope.drawing.sheet import MARGIN, TOP, page
from vggscope.drawing.theme import HEADING, SMALL, Theme
from vggscope.drawing.themes import theme_named
from vggscope.errors import OptionError, option

HEAD, BETWEEN, SPACE = 19.0, 26.0, 14.0
"""In points: the height of the headings, the space between two strips of rows, and that around the drawing."""

SLENDER, TALLEST = 1.2, 700.0
"""The largest ratio of height to width, and the largest height in points, before the rows continue in another strip."""


def diagram(diff: Diff, theme: str = "light", fold: bool = True) -> Diagram:
    """The picture of a diff: the differences in order of their effect, then both networks.

    With `fold`, what is alike, what has no effect and what repeats is counted instead of drawn. A long picture
    continues to the right. Raises OptionError for an unknown theme, and for a diff that compared nothing.
    """
    if not diff.compared:
        raise OptionError(f"{diff.model} is no VGG: there is nothing to draw", f"{option('ref')} names a reference")
    colors = theme_named(theme)
    return Diagram(_picture(diff, fold, colors), colors, "TB")


def _picture(diff: Diff, fold: bool, theme: Theme) -> Picture:
    marked, listed = marks(diff), listed_indices(diff, fold)
    rows = shown_rows(diff, marked, listed, fold)
    columns = columns_for(rows, max(map(_heading_width, _headings(diff))))
    listing, notices = differences(diff, marked, listed, columns.width), notes(diff, columns.width)
    strips = _strips(rows, [*listing, *notices], columns.width)
    lefts = [MARGIN + (columns.width + BETWEEN) * number for number in range(len(strips))]
    right = lefts[-1] + columns.width
    above, y = in_columns(listing, lefts, TOP, theme)
    headings: list[Shape] = []
    drawn: list[RowShapes] = []
    top = bottom = y + SPACE if listing else TOP
    for x, strip in zip(lefts, strips):
        headings += _heading_shapes(diff, x, top, columns, theme)
        y = top + HEAD
        for row in strip:
            drawn.append(draw(row, x, y, columns, theme))
            y += height(row) + GAP
        bottom = max(bottom, y - GAP)
    shown = [row.mark for row in rows if row.mark]
    explained, y = key(shown, MARGIN, bottom + SPACE, right - MARGIN, theme)
    below, bottom = in_columns(notices, lefts, y + SPACE / 2 if explained else bottom + SPACE, theme)
    return page(
        title=" against ".join(short_names(diff)),
        caption=f"{diff.verdict}: {verdict_text(diff)}",
        theme=theme,
        size=(right, bottom),
        frame=(*above, *headings, *(shape for row in drawn for shape in row.frame), *explained, *below),
        links=(*(link for row in drawn for link in row.links), *_reads(diff, drawn)),
        parts=tuple(sorted((part for row in drawn for part in row.parts), key=lambda part: part.cluster)),
        caption_color=theme.signs["!" if diff.verdict == "different" else "+"],
    )


def _strips(rows: Sequence[ShownRow], texts: Sequence[LegendEntry], width: float) -> list[list[ShownRow]]:
    """The rows cut into strips of similar height, as many as keep the page from being too tall or too wide."""
    total = sum(height(row) + GAP for row in rows)
    whole = total + sum(entry.height for entry in texts)
    count = max(2 if whole > TALLEST else 1, round((whole / (SLENDER * width)) ** 0.5))
    strips: list[list[ShownRow]] = [[]]
    used = 0.0
    for row in rows:
        if strips[-1] and used + (height(row) + GAP) / 2 > total / count and len(strips) < count:
            strips.append([])
            used = 0.0
        strips[-1].append(row)
        used += height(row) + GAP
    return strips


def _headings(diff: Diff) -> tuple[tuple[str, str], tuple[str, str]]:
    """The heading of each side: its name and its parameters."""
    ours, reference = short_names(diff)
    return (
        (ours, f"{diff.params.texts[0]} parameters"),
        (reference, f"{diff.params.texts[1]} parameters"),
    )


def _heading_width(heading: tuple[str, str]) -> float:
    return text_width(heading[0], HEADING, bold=True) + 10 + text_width(heading[1], SMALL)


def _heading_shapes(diff: Diff, x: float, y: float, columns: Columns, theme: Theme) -> Iterator[Shape]:
    for left, (name, params) in zip((x + columns.ours, x + columns.reference), _headings(diff)):
        room = columns.cell - text_width(params, SMALL) - 10
        yield Text(left, y + 8, fitted(name, HEADING, room, bold=True), HEADING, theme.ink, bold=True)
        yield Text(left + columns.cell, y + 8, params, SMALL, theme.muted, anchor="end")


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
