"""The rows of a diff's picture, from the top down, and the widths of their columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from vggscope.diffing.result import Change, Diff, Row, RowLayer
from vggscope.diffing.wording import FoldedRows, folded, value_text
from vggscope.drawing.diff.legend import Mark, mark_of
from vggscope.drawing.fonts import text_width
from vggscope.drawing.layer import shape
from vggscope.drawing.theme import BODY, SMALL
from vggscope.record import record

PAD, SPACE = 7.0, 9.0
"""In points: the padding of a cell, and the space between two texts in it."""

WIDEST = {"name": 150.0, "path": 120.0, "op": 110.0, "shape": 110.0, "note": 70.0}
"""The largest width of each text; longer ones are cut in the middle."""

NARROWEST_GUTTER, WIDEST_HEADING = 62.0, 300.0

DOES_NOT_RUN = "does not run"


@record
class MarkedRow:
    """One row. It has no mark if both sides are alike; `message` is that of its difference."""

    row: Row
    mark: Mark | None = None
    changes: tuple[Change, ...] = ()
    message: str = ""

    @property
    def notes(self) -> tuple[tuple[str, str, str], ...]:
        """The texts between the sides, one per change: our value, the attribute, the reference's value. Values that the
        layers show themselves, or that are not short, are empty.
        """
        return tuple(map(_note, self.changes)) if self.row.our_layer and self.row.reference_layer else ()


ShownRow = MarkedRow | FoldedRows


def shown_rows(diff: Diff, fold: bool) -> list[ShownRow]:
    """Every row; with `fold`, long runs of rows that are alike or not reached are folded."""
    marked = {id(row): _marked(row, diff) for row in diff.rows}
    if not fold:
        return [marked[id(row)] for row in diff.rows]

    def word(row: Row) -> str:
        return "not reached" if row.sign == "?" else "" if marked[id(row)].mark else "alike"

    return [row if isinstance(row, FoldedRows) else marked[id(row)] for row in folded(diff.rows, word)]


def _marked(row: Row, diff: Diff) -> MarkedRow:
    difference = None if row.difference is None else diff.differences[row.difference]
    if difference is None or row.difference is None or difference.kind == "renamed":
        return MarkedRow(row) if row.sign == "=" else MarkedRow(row, Mark(row.sign, quiet=True))
    mark = mark_of(diff, row.difference)
    if row.sign == "!":
        mark = Mark("!", mark.number)
    return MarkedRow(row, mark, difference.changes, difference.message)


def _note(change: Change) -> tuple[str, str, str]:
    if change.attribute == "op":
        return "", "another op", ""
    if change.attribute == "inputs":
        return "", "other inputs", ""
    return value_text(change.ours), change.attribute, value_text(change.reference)


def name_text(layer: RowLayer) -> str:
    """The literature's name if there is one, else the path."""
    return layer.label or layer.name


def output_text(layer: RowLayer) -> str:
    """The output shape in words."""
    return DOES_NOT_RUN if layer.output_shape is None else shape(layer.output_shape, layer.batch_axis)


@record
class Columns:
    """The widths of the badges, of each text in a cell (0 if no cell has it) and of the gutter between the sides.

    `value` is the width of a value on either side of the gutter, `heading` that of the wider heading.
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
        """The width of a layer's cell."""
        texts = [width for width in (self.name, self.path, self.op, self.shape) if width]
        return max(sum(texts) + SPACE * (len(texts) - 1) + 2 * PAD, self.heading)

    @property
    def ours(self) -> float:
        """The left end of our cells."""
        return self.badge + 7

    @property
    def reference(self) -> float:
        """The left end of the reference's cells."""
        return self.ours + self.cell + self.gutter

    @property
    def width(self) -> float:
        """The width of all columns together."""
        return self.reference + self.cell


def columns_for(rows: Sequence[ShownRow], heading: float) -> Columns:
    """The columns that hold all of these rows, under headings of this width."""
    marked = [row for row in rows if isinstance(row, MarkedRow)]
    layers = [layer for row in marked for layer in (row.row.our_layer, row.row.reference_layer) if layer]
    notes = [note for row in marked for note in row.notes]
    counts = [row.text for row in rows if isinstance(row, FoldedRows)]
    value = _widest((text for note in notes for text in (note[0], note[2])), SMALL, WIDEST["note"], bold=True)
    attribute = _widest((note[1] for note in notes), SMALL, WIDEST["name"])
    between = attribute + (2 * (value + SPACE) if value else 0.0) + 2 * PAD
    return Columns(
        badge=max((row.mark.width for row in marked if row.mark), default=0.0),
        name=_widest(map(name_text, layers), BODY, WIDEST["name"]),
        path=_widest((layer.name for layer in layers if layer.label), SMALL, WIDEST["path"]),
        op=_widest((layer.op for layer in layers), BODY, WIDEST["op"]),
        shape=_widest(map(output_text, layers), BODY, WIDEST["shape"], bold=True),
        value=value,
        gutter=max(NARROWEST_GUTTER, between if notes else 0.0, _widest(counts, SMALL, WIDEST["name"]) + 2 * PAD),
        heading=min(heading, WIDEST_HEADING),
    )


def _widest(texts: Iterable[str], size: float, most: float, bold: bool = False) -> float:
    return min(max((text_width(text, size, bold) for text in texts), default=0.0), most)
