"""The pictures of tutorials: for each topic that has one, the function that draws it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from types import MappingProxyType
from typing import Any

from vggscope.drawing import Diagram
from vggscope.drawing.fonts import text_width
from vggscope.drawing.picture import Line, Picture, Point, Polygon, Rectangle, Shape, Text, arrow
from vggscope.drawing.sheet import MARGIN, TOP, page
from vggscope.drawing.theme import BODY, HEADING, SMALL, Theme
from vggscope.drawing.themes import theme_named
from vggscope.drawing.writers import moving
from vggscope.errors import OptionError
from vggscope.record import record
from vggscope.render.explain.bars import (
    draw_backward,
    draw_batch_norm,
    draw_flops,
    draw_init,
    draw_input,
    draw_lrn,
    draw_memory,
    draw_parameters,
    draw_softmax,
    draw_tools,
)
from vggscope.render.explain.cells import draw_dropout, draw_layer, draw_linear, draw_padding, draw_paper
from vggscope.render.explain.windows import convolution_steps, draw_convolution, draw_pooling, pooling_steps
from vggscope.tutorials.activation import FunctionValues, relu, sigmoid
from vggscope.tutorials.dense import DenseHead, ScoreMap
from vggscope.tutorials.depth import Depth, StackOf
from vggscope.tutorials.tutorial import Tutorial

REACH = 6
"""The x axis goes from -REACH to REACH."""

CURVE_WIDTH, CURVE_HEIGHT, CURVE_GAP = 240.0, 150.0, 40.0
"""In points: the size of a plot, and the space between the two."""

POSITION = 9.0
"""The side of a position, in points."""

STEP = 78.0
"""The length of an arrow with its label."""

SHOWN = (224, 384)
"""The sides of the images that are drawn."""

STRIDE = 32
"""The stride of the features: how much smaller their map is than the image."""

UNIT, LAYER_STEP, STACK_GAP = 16.0, 44.0, 60.0
"""In points: the side of a unit, the distance between layers, and the space between the two drawings."""


def draw_activation(title: str, data: FunctionValues, theme: Theme) -> Picture:
    """Both curves side by side, each with its own scale."""
    left = MARGIN + 18
    right = left + CURVE_WIDTH + CURVE_GAP
    frame = [
        *_curve(left, "ReLU(x) = max(0, x)", relu, (0, 2, 4, 6), theme, theme.accents["conv"]),
        *_curve(right, "sigmoid(x) = 1/(1+exp(-x))", sigmoid, (0, 0.5, 1), theme, theme.accents["fc"]),
    ]
    caption = "ReLU takes every value from 0 up; the sigmoid stays between 0 and 1 and reaches neither"
    return page(title, caption, theme, (right + CURVE_WIDTH, TOP + CURVE_HEIGHT + 34), tuple(frame))


def _curve(
    x: float, heading: str, function: Callable[[float], float], ticks: tuple[float, ...], theme: Theme, color: str
) -> list[Shape]:
    top, bottom = TOP + 20, TOP + 20 + CURVE_HEIGHT - 10
    highest = ticks[-1]

    def at(value: float, height: float) -> Point:
        return (x + (value + REACH) / (2 * REACH) * CURVE_WIDTH, bottom - height / highest * (bottom - top))

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


def draw_dense(title: str, data: DenseHead, theme: Theme) -> Picture:
    """The three layers over the features of a 224x224 image, with one position, and of a larger one, with several."""
    frame: list[Shape] = []
    y, right = TOP, 0.0
    for score_map in data.maps:
        if score_map.side in SHOWN:
            shapes, end, bottom = _head_row(data, score_map, y, theme)
            frame += shapes
            y, right = bottom + 18, max(right, end)
    caption = "the same weights over the features of a small and of a larger image; each layer's window is filled"
    return page(title, caption, theme, (right, y - 18), tuple(frame))


def _head_row(data: DenseHead, score_map: ScoreMap, y: float, theme: Theme) -> tuple[list[Shape], float, float]:
    """The layers over the features of one image; then the right and the bottom edge of the drawing."""
    side = score_map.side // STRIDE
    image = f"image {score_map.side}\N{MULTIPLICATION SIGN}{score_map.side}"
    shapes: list[Shape] = [Text(MARGIN, y + 8, image, HEADING, theme.ink, bold=True)]
    top, height = y + 26, side * POSITION
    middle = top + height / 2
    x, channels = MARGIN, data.layers[0].convolution_weight[1]
    shapes += _feature_map(x, middle, side, channels, data.layers[0].convolution_weight[2], theme)
    x += max(side * POSITION, 44)
    for place, layer in enumerate(data.layers):
        out, _, kernel, _ = layer.convolution_weight
        side = side - kernel + 1
        shapes += arrow(((x + 4, middle), (x + STEP - 4, middle)), theme.arrow)
        shapes.append(Text(x + STEP / 2, middle - 6, layer.label, BODY, theme.ink, bold=True, anchor="middle"))
        kind = f"{kernel}\N{MULTIPLICATION SIGN}{kernel} conv"
        shapes.append(Text(x + STEP / 2, middle + 13, kind, SMALL, theme.muted, anchor="middle"))
        x += STEP
        window = data.layers[place + 1].convolution_weight[2] if place + 1 < len(data.layers) else 0
        shapes += _feature_map(x, middle, side, out, window, theme)
        x += max(side * POSITION, 44)
    return shapes, x, top + height + 16


def _feature_map(x: float, middle: float, side: int, channels: int, window: int, theme: Theme) -> Iterator[Shape]:
    """A feature map and its size. The positions in the first window of the next layer are filled."""
    top = middle - side * POSITION / 2
    for row in range(side):
        for column in range(side):
            fill = theme.fills["fc"] if row < window and column < window else theme.card
            yield Rectangle(x + column * POSITION, top + row * POSITION, POSITION, POSITION, fill, theme.border, 0.5)
    if window:
        yield Rectangle(x, top, window * POSITION, window * POSITION, "", theme.accents["fc"], 1.6)
    shape = f"{channels}\N{MULTIPLICATION SIGN}{side}\N{MULTIPLICATION SIGN}{side}"
    yield Text(x, top + side * POSITION + 12, shape, SMALL, theme.muted)


def draw_depth(title: str, data: Depth, theme: Theme) -> Picture:
    """One row of each feature map: the output unit on top, and below it the units that it sees."""
    frame: list[Shape] = []
    x = MARGIN
    height = len(data.stack.kernels) * LAYER_STEP
    for stack in (data.stack, data.single):
        shapes, width = _stack(stack, x, height, theme)
        frame += shapes
        x += width + STACK_GAP
    caption = f"a row of each map: the unit on top sees {data.single.sees[-1]} pixels of the lowest, either way"
    return page(title, caption, theme, (x - STACK_GAP, TOP + 20 + height + UNIT), tuple(frame))


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
    side = x + widest * UNIT + 8
    for depth, label in enumerate(labels):
        shapes.append(Text(side, top + (depth + 0.5) * step + UNIT / 2 + 3, label, BODY, theme.muted))
    for depth, units in enumerate(sees):
        shapes.append(Text(side, top + depth * step + 11, _size_text(units), SMALL, theme.ink))
    text = max(text_width(label, BODY) for label in labels)
    width = widest * UNIT + 8 + max(text, text_width(_size_text(widest), SMALL))
    return shapes, max(width, text_width(heading, HEADING, bold=True))


def _size_text(units: int) -> str:
    return "1 unit" if units == 1 else f"{units}\N{MULTIPLICATION SIGN}{units}"


def _fan(x: float, y: float, step: float, widest: int, above: int, below: int, theme: Theme) -> Polygon:
    """The area from some units down to the units that they see."""

    def edge(units: int, end: int) -> float:
        return x + (widest + end * units) * UNIT / 2

    upper, lower = y + UNIT, y + step
    corners = ((edge(above, -1), upper), (edge(above, 1), upper), (edge(below, 1), lower), (edge(below, -1), lower))
    return Polygon(corners, theme.fills["conv"])


def _units(x: float, y: float, widest: int, units: int, top: bool, theme: Theme) -> Iterator[Shape]:
    """A row of units. Those that the output unit sees are filled."""
    first = (widest - units) // 2
    seen = (theme.fills["fc" if top else "conv"], theme.accents["conv"], 0.9)
    for place in range(widest):
        colors = seen if first <= place < first + units else (theme.card, theme.border, 0.4)
        yield Rectangle(x + place * UNIT, y, UNIT, UNIT, *colors)


PICTURES: Mapping[str, Callable[[str, Any, Theme], Picture]] = MappingProxyType(
    {
        "conv": draw_convolution,
        "pool": draw_pooling,
        "relu": draw_activation,
        "dense": draw_dense,
        "depth": draw_depth,
        "linear": draw_linear,
        "lrn": draw_lrn,
        "softmax": draw_softmax,
        "input": draw_input,
        "padding": draw_padding,
        "parameters": draw_parameters,
        "flops": draw_flops,
        "memory": draw_memory,
        "backward": draw_backward,
        "dropout": draw_dropout,
        "batchnorm": draw_batch_norm,
        "init": draw_init,
        "why-tools-disagree": draw_tools,
        "paper": draw_paper,
        "layer": draw_layer,
    }
)
"""By topic, the function that draws the tutorial's data in a theme; a layer of a model is the topic `layer`."""


MOVING: Mapping[str, Callable[[str, Any, Theme], tuple[Picture, ...]]] = MappingProxyType(
    {"conv": convolution_steps, "pool": pooling_steps}
)
"""By topic, the function that draws each step of the tutorial."""


@record
class TutorialPicture(Diagram):
    """The picture of a tutorial. A GIF shows its steps one after the other, and with `animate` the SVG does too."""

    tutorial: Tutorial | None = None
    animate: bool = False

    forms = (*Diagram.forms, "gif")

    def render(self, form: str = "svg", dpi: int = 144) -> bytes:
        """The contents of a file in one of `forms`. `dpi` is the resolution of a PNG or GIF.

        Raises OptionError for an unknown format, and for a GIF of a topic without steps.
        """
        if form == "gif":
            return moving.write_gif(self._steps(), dpi)
        if form == "svg" and self.animate:
            return moving.write_svg(self._steps()).encode()
        return Diagram.render(self, form, dpi)

    def _steps(self) -> tuple[Picture, ...]:
        tutorial = self.tutorial
        if tutorial is None or tutorial.topic not in MOVING:
            topic = tutorial.topic if tutorial else "it"
            raise OptionError(f"{topic} has no moving picture", f"these have: {', '.join(MOVING)}")
        return MOVING[tutorial.topic](tutorial.title, tutorial.data, self.theme)


def picture(tutorial: Tutorial, theme: str = "light", animate: bool = False) -> TutorialPicture:
    """The picture of a tutorial; `theme` is one of THEMES. With `animate` an SVG moves, as a GIF always does.

    Raises OptionError for an unknown theme, for a topic without a picture, and for too many numbers to read.
    """
    chosen, topic = theme_named(theme), tutorial.topic
    if topic not in PICTURES:
        raise OptionError(f"{topic} has no picture", f"these have: {', '.join(PICTURES)}")
    still = PICTURES[topic](tutorial.title, tutorial.data, chosen)
    return TutorialPicture(still, chosen, "LR", None, tutorial, animate)
