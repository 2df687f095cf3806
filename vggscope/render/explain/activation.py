"""The picture of `explain relu`: the curves of ReLU and the sigmoid."""

from __future__ import annotations

from collections.abc import Callable

from vggscope.drawing.picture import Line, Picture, Point, Shape, Text
from vggscope.drawing.sheet import MARGIN, TOP, page
from vggscope.drawing.theme import HEADING, SMALL, Theme
from vggscope.tutorials.activation import FunctionValues, relu, sigmoid

REACH = 6
"""The x axis goes from -REACH to REACH."""

WIDTH, HEIGHT, GAP = 240.0, 150.0, 40.0


def draw(title: str, data: FunctionValues, theme: Theme) -> Picture:
    """Both curves side by side, each with its own scale."""
    left = MARGIN + 18
    frame = [
        *_plot(left, "ReLU(x) = max(0, x)", relu, (0, 2, 4, 6), theme, theme.accents["conv"]),
        *_plot(left + WIDTH + GAP, "sigmoid(x) = 1/(1+exp(-x))", sigmoid, (0, 0.5, 1), theme, theme.accents["fc"]),
    ]
    caption = "ReLU takes every value from 0 up; the sigmoid stays between 0 and 1 and reaches neither"
    return page(title, caption, theme, (left + 2 * WIDTH + GAP, TOP + HEIGHT + 34), tuple(frame), (), ())


def _plot(
    x: float, heading: str, function: Callable[[float], float], ticks: tuple[float, ...], theme: Theme, color: str
) -> list[Shape]:
    top, bottom = TOP + 20, TOP + 20 + HEIGHT - 10
    highest = ticks[-1]

    def at(value: float, height: float) -> Point:
        return (x + (value + REACH) / (2 * REACH) * WIDTH, bottom - height / highest * (bottom - top))

    shapes: list[Shape] = [Text(x, TOP + 8, heading, HEADING, theme.ink, bold=True)]
    for tick in ticks:
        shapes.append(Line((at(-REACH, tick), at(REACH, tick)), theme.track))
        shapes.append(Text(x - 4, at(0, tick)[1] + 3, f"{tick:g}", SMALL, theme.muted, anchor="end"))
    for value in range(-REACH, REACH + 1, 2):
        shapes.append(Text(at(value, 0)[0], bottom + 12, str(value), SMALL, theme.muted, anchor="middle"))
    shapes.append(Line((at(0, 0), at(0, highest)), theme.border))
    places = [place / 10 for place in range(-10 * REACH, 10 * REACH + 1)]
    shapes.append(Line(tuple(at(value, function(value)) for value in places), color, 2.0))
    return shapes
