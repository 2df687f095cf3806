"""Where the columns of a picture of a diff begin and end: badges, our layers, what differs, the reference's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from vggscope.diffing.result import RowLayer
from vggscope.diffing.wording import FoldedRows
from vggscope.drawing.diff.badge import width as badge_width
from vggscope.drawing.diff.lines import Line, Marked, name_of, shape_of
from vggscope.drawing.fonts import text_width
from vggscope.drawing.theme import BODY, SMALL
from vggscope.record import record

PAD, SPACE = 7.0, 9.0
"""In points: the space at a cell's ends, and that between two texts in it."""

MOST = {"name": 150.0, "path": 120.0, "op": 110.0, "shape": 110.0, "note": 70.0}
"""The widest that each text may be; a longer one is cut in its middle."""

LEAST_GUTTER, WIDEST_HEADING = 62.0, 300.0


@record
class Grid:
    """The width of each text in a cell, 0 for one that no cell has, of the badges and of the gutter between the sides.

    `value` is the width of a value on either side of the gutter, `heading` that of the longer heading over a side.
    """

    badge: float
    name: float
    path: float
    op: float
    shape: float
    value: float
    gutter: float
    heading: float

    @property
    def cell(self) -> float:
        """How wide a layer is drawn."""
        texts = [width for width in (self.name, self.path, self.op, self.shape) if width]
        return max(sum(texts) + SPACE * (len(texts) - 1) + 2 * PAD, self.heading)

    @property
    def ours(self) -> float:
        """Where our layers begin, from the left end."""
        return self.badge + 7

    @property
    def reference(self) -> float:
        """Where the reference's begin."""
        return self.ours + self.cell + self.gutter

    @property
    def width(self) -> float:
        """All of it."""
        return self.reference + self.cell


def grid(lines: Sequence[Line], heading: float) -> Grid:
    """The columns for all of these lines, under headings that are this wide."""
    layers = list(_layers(lines))
    marks = [line.mark for line in lines if isinstance(line, Marked) and line.mark]
    notes = [note for line in lines if isinstance(line, Marked) for note in line.notes]
    hidden = [line.text for line in lines if isinstance(line, FoldedRows)]
    value = _widest((text for note in notes for text in (note[0], note[2])), SMALL, MOST["note"], bold=True)
    attribute = _widest((note[1] for note in notes), SMALL, MOST["name"])
    between = attribute + (2 * (value + SPACE) if value else 0.0) + 2 * PAD
    return Grid(
        badge=max(map(badge_width, marks), default=0.0),
        name=_widest(map(name_of, layers), BODY, MOST["name"]),
        path=_widest((layer.name for layer in layers if layer.label), SMALL, MOST["path"]),
        op=_widest((layer.op for layer in layers), BODY, MOST["op"]),
        shape=_widest(map(shape_of, layers), BODY, MOST["shape"], bold=True),
        value=value,
        gutter=max(LEAST_GUTTER, between if notes else 0.0, _widest(hidden, SMALL, MOST["name"]) + 2 * PAD),
        heading=min(heading, WIDEST_HEADING),
    )


def _layers(lines: Sequence[Line]) -> Iterator[RowLayer]:
    for line in lines:
        if isinstance(line, Marked):
            yield from (layer for layer in (line.row.our_layer, line.row.reference_layer) if layer)


def _widest(texts: Iterable[str], size: float, most: float, bold: bool = False) -> float:
    return min(max((text_width(text, size, bold) for text in texts), default=0.0), most)
