"""The picture of `explain depth`: what a unit sees through several small convolutions and through one large one."""

from __future__ import annotations

from itertools import pairwise

from vggscope.drawing.fonts import text_width
from vggscope.drawing.picture import Picture, Polygon, Rectangle, Shape, Text
from vggscope.drawing.sheet import MARGIN, TOP, page
from vggscope.drawing.theme import BODY, HEADING, SMALL, Theme
from vggscope.tutorials.depth import Depth, StackOf

CELL, ROW, GAP = 16.0, 44.0, 60.0
"""In points: the side of a unit, the distance between layers, and the space between the two drawings."""


def draw(title: str, data: Depth, theme: Theme) -> Picture:
    """One row of each feature map: the output unit on top, and below it the units that it sees."""
    frame: list[Shape] = []
    x = MARGIN
    height = len(data.stack.kernels) * ROW
    for stack in (data.stack, data.single):
        shapes, width = _stack(stack, x, height, theme)
        frame += shapes
        x += width + GAP
    caption = f"a row of each map: the unit on top sees {data.single.sees[-1]} pixels of the lowest, either way"
    return page(title, caption, theme, (x - GAP, TOP + 20 + height + CELL), tuple(frame), (), ())


def _stack(stack: StackOf, x: float, height: float, theme: Theme) -> tuple[list[Shape], float]:
    """The maps from the output down to the input; then their width with the text beside them."""
    sees = (1, *(1 + sum(k - 1 for k in stack.kernels[-count:]) for count in range(1, len(stack.kernels) + 1)))
    widest = sees[-1]
    activations = "1 ReLU" if stack.activations == 1 else f"{stack.activations} ReLUs"
    heading = f"{stack.weights_per_c2} C\N{MULTIPLICATION SIGN}C weights, {activations}"
    shapes: list[Shape] = [Text(x, TOP + 8, heading, HEADING, theme.ink, bold=True)]
    step = height / len(stack.kernels)
    top = TOP + 20
    for depth, (above, below) in enumerate(pairwise(sees)):
        y = top + depth * step
        shapes.append(_fan(x, y, step, widest, above, below, theme))
    for depth, units in enumerate(sees):
        shapes += _units(x, top + depth * step, widest, units, depth == 0, theme)
    labels = [f"{k}\N{MULTIPLICATION SIGN}{k} conv" for k in reversed(stack.kernels)]
    side = x + widest * CELL + 8
    for depth, label in enumerate(labels):
        shapes.append(Text(side, top + (depth + 0.5) * step + CELL / 2 + 3, label, BODY, theme.muted))
    for depth, units in enumerate(sees):
        shapes.append(Text(side, top + depth * step + 11, _size_text(units), SMALL, theme.ink))
    text = max(text_width(label, BODY) for label in labels)
    return shapes, max(
        widest * CELL + 8 + max(text, text_width(_size_text(widest), SMALL)), text_width(heading, HEADING, True)
    )


def _size_text(units: int) -> str:
    return "1 unit" if units == 1 else f"{units}\N{MULTIPLICATION SIGN}{units}"


def _fan(x: float, y: float, step: float, widest: int, above: int, below: int, theme: Theme) -> Polygon:
    """The area from some units down to the units that they see."""

    def edge(units: int, end: int) -> float:
        return x + (widest + end * units) * CELL / 2

    upper, lower = y + CELL, y + step
    corners = ((edge(above, -1), upper), (edge(above, 1), upper), (edge(below, 1), lower), (edge(below, -1), lower))
    return Polygon(corners, theme.fills["conv"])


def _units(x: float, y: float, widest: int, units: int, top: bool, theme: Theme) -> list[Shape]:
    first = (widest - units) // 2
    return [
        Rectangle(
            x + place * CELL,
            y,
            CELL,
            CELL,
            (theme.fills["fc" if top else "conv"] if first <= place < first + units else theme.card),
            theme.accents["conv"] if first <= place < first + units else theme.border,
            0.9 if first <= place < first + units else 0.4,
        )
        for place in range(widest)
    ]
