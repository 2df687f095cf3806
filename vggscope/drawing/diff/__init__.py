"""A comparison as one picture: both networks from the top down, side by side, their differences marked and told.

The Diff becomes lines (rows, runs of them folded); these give the widths of the columns and are then drawn one by one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vggscope.diffing.result import Diff
from vggscope.diffing.wording import verdict_text
from vggscope.drawing import Diagram
from vggscope.drawing.diff.grid import Grid, grid
from vggscope.drawing.diff.legend import Entry, entries, legend
from vggscope.drawing.diff.lines import Line, lines
from vggscope.drawing.diff.row import GAP, OURS, REFERENCE, Drawn, draw, height
from vggscope.drawing.fonts import fitted, text_width
from vggscope.drawing.picture import Link, Picture, Shape, Text
from vggscope.drawing.sheet import MARGIN, TOP, page
from vggscope.drawing.theme import HEADING, SMALL, Theme, theme_named
from vggscope.units import count_text

HEAD, BETWEEN = 19.0, 26.0
"""In points: the height of the columns' headings, and the space between two columns of the page."""

SLENDER = 1.2
"""How much higher than wide a picture may be before it goes on in another column."""


def diagram(diff: Diff, theme: str = "light", fold: bool = True) -> Diagram:
    """The picture of a comparison; with `fold`, layers in a row that are alike are counted and not drawn.

    A long one goes on to the right. Raises OptionError for a theme that is not there.
    """
    chosen = theme_named(theme)
    return Diagram(_picture(diff, lines(diff, fold), chosen), chosen, "TB")


def _picture(diff: Diff, found: Sequence[Line], theme: Theme) -> Picture:
    columns = grid(found, max(map(_heading_width, _sides(diff))))
    told = entries(diff, columns.width)
    strips = _strips(found, told, columns.width)
    left = [MARGIN + (columns.width + BETWEEN) * place for place in range(len(strips))]
    frame: list[Shape] = []
    drawn: list[Drawn] = []
    bottom = TOP
    for x, strip in zip(left, strips):
        frame += _heading(diff, x, columns, theme)
        y = TOP + HEAD
        for line in strip:
            drawn.append(draw(line, x, y, columns, theme))
            y += height(line) + GAP
        bottom = max(bottom, y - GAP)
    said, bottom = legend(told, left, bottom + 16, theme)
    return page(
        title=f"{diff.model} against {diff.reference}",
        said=f"{diff.verdict}: {verdict_text(diff)}",
        theme=theme,
        size=(left[-1] + columns.width, bottom),
        frame=(*frame, *(shape for one in drawn for shape in one.frame), *said),
        links=(*(link for one in drawn for link in one.links), *_reads(diff, drawn)),
        parts=tuple(sorted((part for one in drawn for part in one.parts), key=lambda part: part.cluster)),
    )


def _strips(found: Sequence[Line], told: Sequence[Entry], width: float) -> list[list[Line]]:
    """The lines cut into strips of about the same height: as many as make the page neither high nor wide."""
    total = sum(height(line) + GAP for line in found)
    whole = total + sum(entry.height for entry in told)
    count = max(1, round((whole / (SLENDER * width)) ** 0.5))
    strips: list[list[Line]] = [[]]
    high = 0.0
    for line in found:
        if high >= total / count:
            strips.append([])
            high = 0.0
        strips[-1].append(line)
        high += height(line) + GAP
    return strips


def _sides(diff: Diff) -> tuple[tuple[str, str], tuple[str, str]]:
    """Over each side its name and its parameters."""
    return (
        (diff.model, f"{count_text(diff.params.ours)} parameters"),
        (diff.reference, f"{count_text(diff.params.reference)} parameters"),
    )


def _heading_width(side: tuple[str, str]) -> float:
    return text_width(side[0], HEADING, bold=True) + 10 + text_width(side[1], SMALL)


def _heading(diff: Diff, x: float, columns: Grid, theme: Theme) -> Iterator[Shape]:
    for left, (name, figure) in zip((x + columns.ours, x + columns.reference), _sides(diff)):
        room = columns.cell - text_width(figure, SMALL) - 10
        yield Text(left, TOP + 8, fitted(name, HEADING, room, bold=True), HEADING, theme.ink, bold=True)
        yield Text(left + columns.cell, TOP + 8, figure, SMALL, theme.muted, anchor="end")


def _reads(diff: Diff, drawn: Sequence[Drawn]) -> Iterator[Link]:
    """Which layer reads which, on either side: known to the graph, and not drawn."""
    holds = {layer: part for one in drawn for layer, part in one.holds.items()}
    pairs: dict[tuple[str, str], None] = {}
    for row in diff.rows:
        for side, layer in ((OURS, row.our_layer), (REFERENCE, row.reference_layer)):
            for source in layer.inputs if layer else ():
                if layer and (side, source) in holds:
                    pairs[holds[side, source], holds[side, layer.name]] = None
    yield from (Link(source, target, ()) for source, target in pairs if source != target)
