"""One line of a picture of a diff as shapes: the two layers, a gap where one has none, and what is between them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vggscope.diffing.result import RowLayer
from vggscope.diffing.wording import FoldedRows
from vggscope.drawing.diff.badge import badge
from vggscope.drawing.diff.badge import width as badge_width
from vggscope.drawing.diff.grid import PAD, SPACE, Grid
from vggscope.drawing.diff.lines import Line, Mark, Marked, name_of, shape_of
from vggscope.drawing.fonts import fitted
from vggscope.drawing.layer import kind
from vggscope.drawing.picture import Box, Frame, Link, Part, Shape, Text
from vggscope.drawing.picture import Line as Stroke
from vggscope.drawing.theme import BODY, SMALL, Theme
from vggscope.record import record

ROW, NOTE, GAP, STACK = 15.0, 10.0, 5.5, 2.5
"""In points: the height of a row, that of a line between the sides, the space between two rows, and how far a stack
shows what is under it.
"""

OURS, REFERENCE = "ours", "reference"


@record
class Drawn:
    """What a line draws. `holds` names the part in which each layer of either side is found."""

    frame: tuple[Shape, ...]
    parts: tuple[Part, ...]
    links: tuple[Link, ...]
    holds: dict[tuple[str, str], str]


def height(line: Line) -> float:
    """How high a line is, the space under it not counted."""
    notes = len(line.notes) if isinstance(line, Marked) else 0
    return max(ROW, NOTE * notes + 6)


def draw(line: Line, x: float, y: float, grid: Grid, theme: Theme) -> Drawn:
    """A line with its upper left corner at `x` and `y`."""
    ours = Frame(x + grid.ours, y, grid.cell, height(line))
    reference = Frame(x + grid.reference, y, grid.cell, height(line))
    if isinstance(line, FoldedRows):
        return _hidden(line, ours, reference, theme)
    return _marked(line, x, ours, reference, grid, theme)


def _marked(line: Marked, x: float, ours: Frame, reference: Frame, grid: Grid, theme: Theme) -> Drawn:
    frame: list[Shape] = []
    if line.mark:
        left = x + grid.badge - badge_width(line.mark)
        frame += badge(line.mark, left, ours.y + ours.height / 2, theme)
        frame += _emphasis(line, line.mark, ours, reference, theme)
        frame += _notes(line, Frame(ours.right, ours.y, grid.gutter, ours.height), grid, theme)
    parts = []
    holds = {}
    for side, layer, place in ((OURS, line.row.our_layer, ours), (REFERENCE, line.row.reference_layer, reference)):
        if layer is None:
            frame += _gap(line, side, place, theme)
            continue
        parts.append(_cell(line, side, layer, place, grid, theme))
        holds[side, layer.name] = parts[-1].name
    return Drawn(tuple(frame), tuple(parts), tuple(_join(line, parts, ours, reference, theme)), holds)


def _emphasis(line: Marked, mark: Mark, ours: Frame, reference: Frame, theme: Theme) -> Iterator[Shape]:
    """A bold frame: around both sides where both have the layer, else around the one that has it."""
    if mark.sign == "?":
        return
    left = ours if line.row.our_layer or mark.sign == "!" else reference
    right = reference if line.row.reference_layer else ours
    weight = 0.9 if mark.quiet else 1.7
    box = (left.x - 1.6, left.y - 1.6, right.right - left.x + 3.2, left.height + 3.2)
    yield Box(*box, theme.card, theme.signs[mark.sign], weight, 2.0)


def _notes(line: Marked, gutter: Frame, grid: Grid, theme: Theme) -> Iterator[Shape]:
    """The attributes that differ, their values at the side that has them."""
    first = gutter.y + gutter.height / 2 - NOTE * (len(line.notes) - 1) / 2 + 2.9
    for place, (ours, name, reference) in enumerate(line.notes):
        y = first + NOTE * place
        yield from _words(gutter.x + PAD, y, ours, grid.value, theme.ink, "start")
        room = gutter.width - 2 * PAD - (2 * (grid.value + SPACE) if ours or reference else 0.0)
        middle = gutter.x + gutter.width / 2
        yield Text(middle, y, fitted(name, SMALL, room), SMALL, theme.muted, anchor="middle")
        yield from _words(gutter.right - PAD, y, reference, grid.value, theme.ink, "end")


def _words(x: float, y: float, text: str, room: float, color: str, anchor: str) -> Iterator[Text]:
    if text:
        yield Text(x, y, fitted(text, SMALL, room, bold=True), SMALL, color, bold=True, anchor=anchor)


_GAPS = {"+": "not in the reference", "-": "missing here", "?": "not reached", "!": "no counterpart"}
"""What is said where a side has no layer, by the sign of the row."""


def _gap(line: Marked, side: str, place: Frame, theme: Theme) -> Iterator[Shape]:
    """A dashed outline where a side has no layer."""
    sign = line.row.sign
    text = line.row.ours if sign == "!" and side == OURS else _GAPS[sign]
    yield Box(place.x, place.y, place.width, place.height, theme.page, theme.signs[sign], 0.9, 2.0, dashed=True)
    said = fitted(text, SMALL, place.width - 2 * PAD)
    yield Text(place.x + place.width / 2, _baseline(place), said, SMALL, theme.muted, anchor="middle")


def _cell(line: Marked, side: str, layer: RowLayer, place: Frame, grid: Grid, theme: Theme) -> Part:
    """A layer: its name, its path where that is another, its op, and what comes out of it."""
    color = kind(layer.family, layer.label)
    fill = theme.fills[color]
    shapes: tuple[Shape, ...] = (
        Box(place.x, place.y, place.width, place.height, fill, theme.accents[color], 0.6),
        Box(place.x, place.y, 2, place.height, theme.accents[color]),
        *_texts(layer, place, grid, theme.ink_on(fill), theme.muted),
    )
    mark = [line.mark.text] if line.mark else []
    words = (name_of(layer), f"{layer.op} {shape_of(layer)}", *mark)
    return Part(f"{side}: {layer.name}", shapes, words, "\n".join(_told(line, layer)), color, (side,))


def _texts(layer: RowLayer, place: Frame, grid: Grid, ink: str, muted: str) -> Iterator[Text]:
    x, y = place.x + PAD, _baseline(place)
    path = layer.name if layer.label else ""
    for text, size, room, color in (
        (name_of(layer), BODY, grid.name, ink),
        (path, SMALL, grid.path, muted),
        (layer.op, BODY, grid.op, ink),
    ):
        if text:
            yield Text(x, y, fitted(text, size, room), size, color)
        x += room + SPACE if room else 0.0
    fails = layer.output_shape is None
    said = fitted(shape_of(layer), BODY, grid.shape, bold=fails)
    yield Text(place.right - PAD, y, said, BODY, ink, bold=fails, anchor="end")


def _told(line: Marked, layer: RowLayer) -> Iterator[str]:
    """What a layer's tooltip tells, a line a fact."""
    yield f"{layer.name}{f' ({layer.label})' if layer.label else ''}: {layer.op}"
    yield shape_of(layer)
    if line.mark:
        yield f"{line.mark.text}: {line.message}" if line.message else line.mark.text


def _join(line: Marked, parts: list[Part], ours: Frame, reference: Frame, theme: Theme) -> Iterator[Link]:
    """A line from one side to the other where both have the layer."""
    if len(parts) < 2:
        return
    y = ours.y + ours.height / 2
    stroke = Stroke(((ours.right, y), (reference.x, y)), theme.arrow, 0.75)
    yield Link(parts[0].name, parts[1].name, () if line.notes else (stroke,), line.mark.text if line.mark else "=")


def _hidden(line: FoldedRows, ours: Frame, reference: Frame, theme: Theme) -> Drawn:
    """Rows that are counted: on each side a stack, between them how many."""
    found = (
        (OURS, ours, [row.our_layer for row in line.rows if row.our_layer]),
        (REFERENCE, reference, [row.reference_layer for row in line.rows if row.reference_layer]),
    )
    parts = []
    holds = {}
    for side, place, layers in found:
        if layers:
            parts.append(_stack(line, side, layers, place, theme))
            holds.update({(side, layer.name): parts[-1].name for layer in layers})
    y = _baseline(ours) - STACK / 2
    text = Text((ours.right + reference.x) / 2, y, line.text, SMALL, theme.muted, anchor="middle")
    links = (Link(parts[0].name, parts[1].name, (), line.text),) if len(parts) == 2 else ()
    return Drawn((text,), tuple(parts), links, holds)


def _stack(line: FoldedRows, side: str, layers: Sequence[RowLayer], place: Frame, theme: Theme) -> Part:
    """The first and the last of several layers on a stack."""
    said = f"{name_of(layers[0])} … {name_of(layers[-1])}"
    text = fitted(said, SMALL, place.width - 2 * PAD)
    y = _baseline(place) - STACK / 2
    shapes = (
        Box(place.x + 2 * STACK, place.y, place.width - 4 * STACK, place.height, theme.card, theme.border),
        Box(place.x, place.y, place.width, place.height - STACK, theme.card, theme.border),
        Text(place.x + place.width / 2, y, text, SMALL, theme.muted, anchor="middle"),
    )
    tooltip = "\n".join(f"{name_of(layer)}: {layer.op}, {shape_of(layer)}" for layer in layers)
    name = f"{side}: {layers[0].name} … {layers[-1].name}"
    return Part(name, shapes, (said, line.text), tooltip, "other", (side,))


def _baseline(place: Frame) -> float:
    return place.y + place.height / 2 + 3.0
