"""What a picture of a diff shows, from the top down: its rows with their marks, and runs of rows that are folded."""

from __future__ import annotations

from vggscope.diffing.result import Change, Diff, Difference, Row, RowLayer
from vggscope.diffing.wording import SIGNS, FoldedRows, folded, value_text
from vggscope.drawing.layer import shape
from vggscope.record import record

DOES_NOT_RUN = "does not run"


@record
class Mark:
    """How a row or a difference is marked: its sign, its number in the legend if it has one there, and whether what is
    computed stays the same.
    """

    sign: str
    number: int | None = None
    quiet: bool = False

    @property
    def text(self) -> str:
        """The sign, as wide as a figure, and the number."""
        sign = self.sign.replace("-", "−")
        return sign if self.number is None else f"{sign} {self.number}"


@record
class Marked:
    """One row; without a mark both sides are alike. `message` is what its difference says."""

    row: Row
    mark: Mark | None = None
    changes: tuple[Change, ...] = ()
    message: str = ""

    @property
    def notes(self) -> tuple[tuple[str, str, str], ...]:
        """What stands between the sides: our value, the attribute's name, the reference's value. The values are left
        out where the layers themselves say them, or where they are no short words.
        """
        return tuple(map(_note, self.changes)) if self.row.our_layer and self.row.reference_layer else ()


Line = Marked | FoldedRows


def lines(diff: Diff, fold: bool) -> list[Line]:
    """Every row; with `fold`, runs of those that are alike or were not reached are cut short."""
    marked = {id(row): _marked(row, diff) for row in diff.rows}
    if not fold:
        return [marked[id(row)] for row in diff.rows]

    def word(row: Row) -> str:
        return "not reached" if row.sign == "?" else "" if marked[id(row)].mark else "alike"

    return [line if isinstance(line, FoldedRows) else marked[id(line)] for line in folded(diff.rows, word)]


def mark_of(diff: Diff, place: int) -> Mark:
    """The mark of a difference; they are numbered in order of execution, those that are only renamed left out."""
    difference = diff.differences[place]
    sign = SIGNS[difference.kind]
    if difference.kind == "renamed":
        return Mark(sign, quiet=True)
    number = sum(other.kind != "renamed" for other in diff.differences[: place + 1])
    if {row.sign for row in diff.rows if row.difference == place} == {"!"}:
        return Mark("!", number)
    return Mark(sign, number, not difference.changes_output)


def _marked(row: Row, diff: Diff) -> Marked:
    difference: Difference | None = None if row.difference is None else diff.differences[row.difference]
    if difference is None or row.difference is None or difference.kind == "renamed":
        return Marked(row) if row.sign == "=" else Marked(row, Mark(row.sign, quiet=True))
    mark = mark_of(diff, row.difference)
    if row.sign == "!":
        mark = Mark("!", mark.number)
    return Marked(row, mark, difference.changes, difference.message)


def _note(change: Change) -> tuple[str, str, str]:
    if change.attribute == "op":
        return "", "another op", ""
    if change.attribute == "inputs":
        return "", "other inputs", ""
    return value_text(change.ours), change.attribute, value_text(change.reference)


def name_of(layer: RowLayer) -> str:
    """The literature's name where there is one, else the path."""
    return layer.label or layer.name


def shape_of(layer: RowLayer) -> str:
    """What comes out, in words."""
    return DOES_NOT_RUN if layer.output_shape is None else shape(layer.output_shape)
