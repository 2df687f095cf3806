"""The rows of a diff's picture, from the top down, and the widths of their columns.

A row is a pair of layers, or a stack that stands for several pairs. Stacks keep the picture short: they hold what is
alike, the layers of a block that only one side has, and the repetitions of a difference.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import groupby

from vggscope.diffing.result import Change, Diff, Row, RowLayer
from vggscope.diffing.wording import is_style, value_text
from vggscope.drawing.diff.marks import MOST_LISTED, Mark, is_harmless
from vggscope.drawing.fonts import text_width
from vggscope.drawing.layer import shape
from vggscope.drawing.theme import BODY, SMALL
from vggscope.record import record

PAD, SPACE = 7.0, 9.0
"""In points: the padding of a cell, and the space between two texts in it."""

WIDEST = {"name": 150.0, "path": 120.0, "op": 110.0, "shape": 110.0, "note": 70.0}
"""The largest width of each text; longer ones are cut in the middle."""

NARROWEST_GUTTER, WIDEST_LEAST = 62.0, 300.0

DOES_NOT_RUN = "does not run"

MOST_ROWS = 17
"""The most rows of a folded picture, and one more for each listed difference."""

FOLDINGS = ((1, 3, 3), (1, 1, 2), (0, 1, 2), (0, 1, 1))
"""Ways to fold; the first that gives at most MOST_ROWS is taken. The numbers are the layers that are alike and shown
before and after a difference, the places at which a difference is shown, and its successive layers that are drawn one
by one.
"""


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


@record
class StackedRows:
    """Successive rows drawn as one. `texts` count them, and `mark` is that of their only difference, if that has an
    effect. `is_block` tells that all are layers of this difference.
    """

    rows: tuple[Row, ...]
    texts: tuple[str, ...]
    mark: Mark | None = None
    message: str = ""
    is_block: bool = False

    @property
    def ours(self) -> tuple[RowLayer, ...]:
        """Our layers in the rows."""
        return tuple(row.our_layer for row in self.rows if row.our_layer)

    @property
    def reference(self) -> tuple[RowLayer, ...]:
        """The reference's layers in the rows."""
        return tuple(row.reference_layer for row in self.rows if row.reference_layer)

    def lines(self, layers: Sequence[RowLayer]) -> tuple[str, ...]:
        """The text on the side with these layers: the first and the last one and, of a block, the ops."""
        first, last = name_text(layers[0]), name_text(layers[-1])
        names = f"{first} … {last}" if len(layers) > 1 else first
        return (names, f"{ops_text(layers)} → {output_text(layers[-1])}") if self.is_block else (names,)


ShownRow = MarkedRow | StackedRows


def shown_rows(diff: Diff, marks: Mapping[int, Mark], listed: Sequence[int], fold: bool) -> list[ShownRow]:
    """The rows of the picture. With `fold`, the differences at the indices `listed` are drawn and the rest is folded,
    as much as it takes for MOST_ROWS: what is alike first, then repetitions, then all but the gravest differences.
    """
    if not fold:
        return [marked_row(row, diff, marks) for row in diff.rows]
    # Harmless differences that are not listed have no mark.
    most = MOST_ROWS + min(len(listed), MOST_LISTED)
    seen = {index: mark for index, mark in marks.items() if index in listed}
    # One place of each is enough for differences without effect.
    matter = any(not is_harmless(diff.differences[index]) for index in listed)
    for folding in FOLDINGS if matter else FOLDINGS[1:]:
        rows = list(folded_rows(diff, seen, set(listed), *folding))
        if len(rows) <= most:
            return rows
    drawn = len(listed)
    while len(rows) > most and drawn > MOST_LISTED:
        drawn = max(MOST_LISTED, drawn * 3 // 4)
        rows = list(folded_rows(diff, seen, set(listed[:drawn]), *FOLDINGS[-1]))
    return rows


def folded_rows(
    diff: Diff, marks: Mapping[int, Mark], drawn: Collection[int], context: int, places: int, longest: int
) -> Iterator[ShownRow]:
    """The rows with each difference in `drawn` at its first `places`, at most `longest` layers there, and with
    `context` layers around it.
    """
    runs = _runs(diff.rows, drawn, places, longest)
    for number, (shown, run) in enumerate(runs):
        is_block = shown and len(run) > longest
        first = 0 if is_block else len(run) if shown else context if number else 0
        last = len(run) - (0 if shown or number == len(runs) - 1 else context)
        if last - first < 2:
            yield from (marked_row(row, diff, marks) for row in run)
            continue
        yield from (marked_row(row, diff, marks) for row in run[:first])
        yield _stack(run[first:last], diff, marks)
        yield from (marked_row(row, diff, marks) for row in run[last:])


def _runs(rows: Sequence[Row], drawn: Collection[int], places: int, longest: int) -> list[tuple[bool, tuple[Row, ...]]]:
    """Successive rows, cut where the difference changes, and whether they are shown. Hidden rows are one run, those
    that are not reached another. A run of pairs is hidden after its first `longest` rows.
    """
    seen: Counter[int | None] = Counter()
    runs: list[tuple[bool, tuple[Row, ...]]] = []
    for (index, sign), group in groupby(rows, key=lambda row: (row.difference, row.sign)):
        run = tuple(group)
        seen[index] += 1
        if sign == "!" or (index in drawn and seen[index] <= places):
            most = len(run) if sign in "+-" else longest
            runs.append((True, run[:most]))
            run = run[most:]
        if run and runs and not runs[-1][0] and (sign == "?") == (runs[-1][1][0].sign == "?"):
            run = (*runs.pop()[1], *run)
        if run:
            runs.append((False, run))
    return runs


def _stack(run: tuple[Row, ...], diff: Diff, marks: Mapping[int, Mark]) -> StackedRows:
    """Successive rows as one, with the mark of the only difference in them that has an effect."""
    indices = {row.difference for row in run if _has_effect(row, diff)}
    only = indices.pop() if len(indices) == 1 else None
    mark = None if only is None else marks.get(only)
    message = "" if only is None else diff.differences[only].message
    if only is not None and all(row.difference == only for row in run):
        return StackedRows(run, (f"{len(run):,} layers",), mark, message, is_block=True)
    return StackedRows(run, tuple(_counts(run, diff)), mark, message)


def _counts(run: Sequence[Row], diff: Diff) -> Iterator[str]:
    counts = Counter(_word(row, diff) for row in run)
    yield from (f"{counts[word]:,} {word}" for word in ("alike", "harmless", "differ", "not reached") if counts[word])


def _word(row: Row, diff: Diff) -> str:
    """What a row counts as; other names, and layers in place or not, are alike."""
    if row.sign == "?":
        return "not reached"
    if row.difference is None or is_style(diff.differences[row.difference]):
        return "alike" if row.sign == "=" else "differ"
    return "differ" if _has_effect(row, diff) else "harmless"


def _has_effect(row: Row, diff: Diff) -> bool:
    return row.difference is not None and diff.differences[row.difference].effect != "none"


def marked_row(row: Row, diff: Diff, marks: Mapping[int, Mark]) -> MarkedRow:
    """A row with the mark of its difference, which is one of `marks`."""
    difference = None if row.difference is None else diff.differences[row.difference]
    if difference is None or row.difference is None or difference.kind == "renamed":
        return MarkedRow(row) if row.sign == "=" else MarkedRow(row, Mark(row.sign, quiet=True))
    mark = marks.get(row.difference)
    if mark is None:
        return MarkedRow(row, None if row.sign in "=~" else Mark(row.sign, quiet=True))
    if row.sign == "!":
        mark = Mark("!", mark.number)
        if row.our_layer is None or row.our_layer.name != difference.ours:
            # The changes are those of an earlier layer, which make this one fail.
            return MarkedRow(row, mark, message=difference.message)
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


def ops_text(layers: Sequence[RowLayer]) -> str:
    """The ops of layers with their numbers: `2 Conv2d, 2 BatchNorm2d, ReLU`."""
    counts = Counter(layer.op.rstrip("_") for layer in layers)
    return ", ".join(op if count == 1 else f"{count} {op}" for op, count in counts.items())


@record
class Columns:
    """The widths of the badges, of each text in a cell (0 if no cell has it) and of the gutter between the sides.

    `value` is the width of a value on either side of the gutter, `least` that of the widest heading or block.
    """

    badge: float
    name: float
    path: float
    op: float
    shape: float
    value: float
    gutter: float
    least: float

    @property
    def cell(self) -> float:
        """The width of a layer's cell."""
        texts = [width for width in (self.name, self.path, self.op, self.shape) if width]
        return max(sum(texts) + SPACE * (len(texts) - 1) + 2 * PAD, self.least)

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
    stacks = [row for row in rows if isinstance(row, StackedRows)]
    counts = [text for stack in stacks for text in stack.texts]
    sides = [(stack, side) for stack in stacks if stack.is_block for side in (stack.ours, stack.reference) if side]
    blocks = [text for stack, side in sides for text in stack.lines(side)]
    value = _widest((text for note in notes for text in (note[0], note[2])), SMALL, WIDEST["note"], bold=True)
    attribute = _widest((note[1] for note in notes), SMALL, WIDEST["name"])
    between = attribute + (2 * (value + SPACE) if value else 0.0) + 2 * PAD
    return Columns(
        badge=max((row.mark.width for row in rows if row.mark), default=0.0),
        name=_widest(map(name_text, layers), BODY, WIDEST["name"]),
        path=_widest((layer.name for layer in layers if layer.label), SMALL, WIDEST["path"]),
        op=_widest((layer.op for layer in layers), BODY, WIDEST["op"]),
        shape=_widest(map(output_text, layers), BODY, WIDEST["shape"], bold=True),
        value=value,
        gutter=max(NARROWEST_GUTTER, between if notes else 0.0, _widest(counts, SMALL, WIDEST["name"]) + 2 * PAD),
        least=min(max(heading, _widest(blocks, SMALL, WIDEST_LEAST) + 2 * PAD), WIDEST_LEAST),
    )


def _widest(texts: Iterable[str], size: float, most: float, bold: bool = False) -> float:
    return min(max((text_width(text, size, bold) for text in texts), default=0.0), most)
