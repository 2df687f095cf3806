"""One row of a diff's picture as shapes: two layers, or a gap on the side that has none, and the changes in between."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vggscope.diffing.result import Row, RowLayer
from vggscope.drawing.diff.marks import Mark, badge
from vggscope.drawing.diff.rows import PAD, SPACE, Columns, MarkedRow, ShownRow, StackedRows, name_text, output_text
from vggscope.drawing.fonts import fitted
from vggscope.drawing.layer import kind
from vggscope.drawing.picture import Frame, Line, Link, Part, Rectangle, Shape, Text
from vggscope.drawing.theme import BODY, SMALL, Theme
from vggscope.record import record

ROW, NOTE, GAP, STACK = 15.0, 10.0, 5.5, 2.5
"""In points: the heights of a row and of a line between the sides, the space between rows, the offset in a stack."""

OURS, REFERENCE = "ours", "reference"

MOST_IN_TOOLTIP = 30
"""The most layers that the tooltip of a stack names."""


@record
class RowShapes:
    """The drawing of a row. `part_of` names the part that shows each layer, by side and layer name."""

    frame: tuple[Shape, ...]
    parts: tuple[Part, ...]
    links: tuple[Link, ...]
    part_of: dict[tuple[str, str], str]


def height(row: ShownRow) -> float:
    """The height of a row, without the space below it."""
    lines = _stack_lines(row) if isinstance(row, StackedRows) else len(row.notes)
    return max(ROW, NOTE * lines + 6)


def _stack_lines(stack: StackedRows) -> int:
    return max(len(stack.texts), 2 if stack.is_block else 1)


def draw(row: ShownRow, x: float, y: float, columns: Columns, theme: Theme) -> RowShapes:
    """A row with its top left corner at `x` and `y`."""
    ours = Frame(x + columns.ours, y, columns.cell, height(row))
    reference = Frame(x + columns.reference, y, columns.cell, height(row))
    if isinstance(row, StackedRows):
        return _stacked(row, x, ours, reference, columns, theme)
    return _marked(row, x, ours, reference, columns, theme)


def _marked(row: MarkedRow, x: float, ours: Frame, reference: Frame, columns: Columns, theme: Theme) -> RowShapes:
    shapes: list[Shape] = []
    if row.mark:
        shapes += badge(row.mark, x + columns.badge - row.mark.width, ours.y + ours.height / 2, theme)
        shapes += _outline(row.row, row.mark, ours, reference, theme)
        shapes += _notes(row, Frame(ours.right, ours.y, columns.gutter, ours.height), columns, theme)
    parts = []
    part_of = {}
    for side, layer, frame in ((OURS, row.row.our_layer, ours), (REFERENCE, row.row.reference_layer, reference)):
        if layer is None:
            shapes += _gap(row.row, side, frame, theme)
            continue
        parts.append(_cell(row, side, layer, frame, columns, theme))
        part_of[side, layer.name] = parts[-1].name
    return RowShapes(tuple(shapes), tuple(parts), tuple(_link(row, parts, ours, reference, theme)), part_of)


def _outline(row: Row, mark: Mark, ours: Frame, reference: Frame, theme: Theme) -> Iterator[Shape]:
    """A bold outline around the sides that have the layer."""
    if mark.sign == "?":
        return
    left = ours if row.our_layer or mark.sign == "!" else reference
    right = reference if row.reference_layer else ours
    weight = 0.9 if mark.quiet else 1.7
    box = (left.x - 1.6, left.y - 1.6, right.right - left.x + 3.2, left.height + 3.2)
    yield Rectangle(*box, theme.card, theme.signs[mark.sign], weight, 2.0)


def _notes(row: MarkedRow, gutter: Frame, columns: Columns, theme: Theme) -> Iterator[Shape]:
    """The attributes that differ, each value next to its own side."""
    first = gutter.y + gutter.height / 2 - NOTE * (len(row.notes) - 1) / 2 + 2.9
    for number, (ours, name, reference) in enumerate(row.notes):
        y = first + NOTE * number
        yield from _value(gutter.x + PAD, y, ours, columns.value, theme.ink, "start")
        room = gutter.width - 2 * PAD - (2 * (columns.value + SPACE) if ours or reference else 0.0)
        middle = gutter.x + gutter.width / 2
        yield Text(middle, y, fitted(name, SMALL, room), SMALL, theme.muted, anchor="middle")
        yield from _value(gutter.right - PAD, y, reference, columns.value, theme.ink, "end")


def _value(x: float, y: float, text: str, room: float, color: str, anchor: str) -> Iterator[Text]:
    if text:
        yield Text(x, y, fitted(text, SMALL, room, bold=True), SMALL, color, bold=True, anchor=anchor)


_GAPS = {"+": "not in the reference", "-": "missing here", "?": "not reached", "!": "no counterpart"}
"""The text in place of a layer, by the sign of the row."""


def _gap(row: Row, side: str, frame: Frame, theme: Theme) -> Iterator[Shape]:
    """A dashed outline on a side without a layer."""
    sign = row.sign
    text = row.ours if sign == "!" and side == OURS else _GAPS[sign]
    yield Rectangle(frame.x, frame.y, frame.width, frame.height, theme.page, theme.signs[sign], 0.9, 2.0, dashed=True)
    yield _centred(frame, text, _baseline(frame), theme)


def _centred(frame: Frame, text: str, y: float, theme: Theme) -> Text:
    short = fitted(text, SMALL, frame.width - 2 * PAD)
    return Text(frame.x + frame.width / 2, y, short, SMALL, theme.muted, anchor="middle")


def _cell(row: MarkedRow, side: str, layer: RowLayer, frame: Frame, columns: Columns, theme: Theme) -> Part:
    """A layer: its name, its path if that is another, its op and its output shape."""
    color = kind(layer.family, layer.label)
    fill = theme.fills[color]
    shapes: tuple[Shape, ...] = (
        Rectangle(frame.x, frame.y, frame.width, frame.height, fill, theme.accents[color], 0.6),
        Rectangle(frame.x, frame.y, 2, frame.height, theme.accents[color]),
        *_texts(layer, frame, columns, theme.ink_on(fill), theme.muted),
    )
    mark = [row.mark.text] if row.mark else []
    words = (name_text(layer), f"{layer.op} {output_text(layer)}", *mark)
    return Part(f"{side}: {layer.name}", shapes, words, "\n".join(_tooltip(row, layer)), color, (side,))


def _texts(layer: RowLayer, frame: Frame, columns: Columns, ink: str, muted: str) -> Iterator[Text]:
    x, y = frame.x + PAD, _baseline(frame)
    path = layer.name if layer.label else ""
    for text, size, room, color in (
        (name_text(layer), BODY, columns.name, ink),
        (path, SMALL, columns.path, muted),
        (layer.op, BODY, columns.op, ink),
    ):
        if text:
            yield Text(x, y, fitted(text, size, room), size, color)
        x += room + SPACE if room else 0.0
    fails = layer.output_shape is None
    output = fitted(output_text(layer), BODY, columns.shape, bold=fails)
    yield Text(frame.right - PAD, y, output, BODY, ink, bold=fails, anchor="end")


def _tooltip(row: MarkedRow, layer: RowLayer) -> Iterator[str]:
    yield f"{layer.name}{f' ({layer.label})' if layer.label else ''}: {layer.op}"
    yield output_text(layer)
    if row.mark:
        yield f"{row.mark.text}: {row.message}" if row.message else row.mark.text


def _link(row: MarkedRow, parts: list[Part], ours: Frame, reference: Frame, theme: Theme) -> Iterator[Link]:
    """A line between two paired layers, unless there are notes in between."""
    if len(parts) < 2:
        return
    y = ours.y + ours.height / 2
    line = Line(((ours.right, y), (reference.x, y)), theme.arrow, 0.75)
    yield Link(parts[0].name, parts[1].name, () if row.notes else (line,), row.mark.text if row.mark else "=")


def _stacked(stack: StackedRows, x: float, ours: Frame, reference: Frame, columns: Columns, theme: Theme) -> RowShapes:
    """A stack on each side that has layers, and their number in between."""
    shapes: list[Shape] = []
    if stack.mark:
        shapes += badge(stack.mark, x + columns.badge - stack.mark.width, ours.y + ours.height / 2, theme)
    if stack.mark and stack.is_block:
        shapes += _outline(stack.rows[0], stack.mark, ours, reference, theme)
    parts = []
    part_of = {}
    for side, frame, layers in ((OURS, ours, stack.ours), (REFERENCE, reference, stack.reference)):
        if layers:
            parts.append(_stack(stack, side, layers, frame, theme))
            part_of.update({(side, layer.name): parts[-1].name for layer in layers})
        elif stack.is_block:
            shapes += _gap(stack.rows[0], side, frame, theme)
    middle, first = (ours.right + reference.x) / 2, _first_baseline(ours, len(stack.texts)) - STACK / 2
    room = columns.gutter - 2 * PAD
    shapes += [
        Text(middle, first + NOTE * number, fitted(text, SMALL, room), SMALL, theme.muted, anchor="middle")
        for number, text in enumerate(stack.texts)
    ]
    links = (Link(parts[0].name, parts[1].name, (), ", ".join(stack.texts)),) if len(parts) == 2 else ()
    return RowShapes(tuple(shapes), tuple(parts), links, part_of)


def _stack(stack: StackedRows, side: str, layers: Sequence[RowLayer], frame: Frame, theme: Theme) -> Part:
    """Several layers as a stack that names the first and the last one, and those of a block by their ops too."""
    texts = stack.lines(layers)
    y = _first_baseline(frame, len(texts)) - STACK / 2
    shapes: tuple[Shape, ...] = (
        Rectangle(frame.x + 2 * STACK, frame.y, frame.width - 4 * STACK, frame.height, theme.card, theme.border),
        Rectangle(frame.x, frame.y, frame.width, frame.height - STACK, theme.card, theme.border),
        *(_centred(frame, text, y + NOTE * number, theme) for number, text in enumerate(texts)),
    )
    tooltip = "\n".join(f"{name_text(layer)}: {layer.op}, {output_text(layer)}" for layer in layers[:MOST_IN_TOOLTIP])
    if len(layers) > MOST_IN_TOOLTIP:
        tooltip += f"\nand {len(layers) - MOST_IN_TOOLTIP:,} more"
    if stack.mark:
        tooltip = f"{stack.mark.text}: {stack.message}\n{tooltip}"
    name = f"{side}: {layers[0].name} … {layers[-1].name}"
    return Part(name, shapes, (*texts, *stack.texts), tooltip, "other", (side,))


def _first_baseline(frame: Frame, lines: int) -> float:
    """The baseline of the first of several lines that are centred in a frame."""
    return _baseline(frame) - NOTE * (lines - 1) / 2


def _baseline(frame: Frame) -> float:
    return frame.y + frame.height / 2 + 3.0
