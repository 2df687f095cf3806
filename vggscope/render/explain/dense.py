"""The picture of `explain dense`: FC layers as convolutions over a feature map."""

from __future__ import annotations

from collections.abc import Iterator

from vggscope.drawing.picture import Picture, Rectangle, Shape, Text, arrow
from vggscope.drawing.sheet import MARGIN, TOP, page
from vggscope.drawing.theme import BODY, HEADING, SMALL, Theme
from vggscope.tutorials.dense import DenseHead, ScoreMap

CELL = 9.0
"""The side of a position, in points."""

STEP = 78.0
"""The length of an arrow with its label."""

SHOWN = (224, 384)
"""The sides of the images that are drawn."""

STRIDE = 32
"""The stride of the features: how much smaller their map is than the image."""


def draw(title: str, data: DenseHead, theme: Theme) -> Picture:
    """The three layers over the features of a 224x224 image, with one position, and of a larger one, with several."""
    frame: list[Shape] = []
    y, right = TOP, 0.0
    for score_map in data.maps:
        if score_map.side in SHOWN:
            shapes, end, bottom = _row(data, score_map, y, theme)
            frame += shapes
            y, right = bottom + 18, max(right, end)
    caption = "the same weights over the features of a small and of a larger image; each layer's window is filled"
    return page(title, caption, theme, (right, y - 18), tuple(frame), (), ())


def _row(data: DenseHead, score_map: ScoreMap, y: float, theme: Theme) -> tuple[list[Shape], float, float]:
    """The layers over the features of one image; then the right and the bottom edge of the drawing."""
    side = score_map.side // STRIDE
    shapes: list[Shape] = [
        Text(
            MARGIN,
            y + 8,
            f"image {score_map.side}\N{MULTIPLICATION SIGN}{score_map.side}",
            HEADING,
            theme.ink,
            bold=True,
        )
    ]
    top, height = y + 26, side * CELL
    middle = top + height / 2
    x, channels = MARGIN, data.layers[0].convolution_weight[1]
    shapes += _map(x, middle, side, channels, data.layers[0].convolution_weight[2], theme)
    x += max(side * CELL, 44)
    for place, layer in enumerate(data.layers):
        out, _, kernel, _ = layer.convolution_weight
        side = side - kernel + 1
        shapes += arrow(((x + 4, middle), (x + STEP - 4, middle)), theme.arrow)
        shapes.append(Text(x + STEP / 2, middle - 6, layer.label, BODY, theme.ink, bold=True, anchor="middle"))
        kind = f"{kernel}\N{MULTIPLICATION SIGN}{kernel} conv"
        shapes.append(Text(x + STEP / 2, middle + 13, kind, SMALL, theme.muted, anchor="middle"))
        x += STEP
        window = data.layers[place + 1].convolution_weight[2] if place + 1 < len(data.layers) else 0
        shapes += _map(x, middle, side, out, window, theme)
        x += max(side * CELL, 44)
    return shapes, x, top + height + 16


def _map(x: float, middle: float, side: int, channels: int, window: int, theme: Theme) -> Iterator[Shape]:
    """A feature map and its size. The positions in the first window of the next layer are filled."""
    top = middle - side * CELL / 2
    for row in range(side):
        for column in range(side):
            fill = theme.fills["fc"] if row < window and column < window else theme.card
            yield Rectangle(x + column * CELL, top + row * CELL, CELL, CELL, fill, theme.border, 0.5)
    if window:
        yield Rectangle(x, top, window * CELL, window * CELL, "", theme.accents["fc"], 1.6)
    shape = f"{channels}\N{MULTIPLICATION SIGN}{side}\N{MULTIPLICATION SIGN}{side}"
    yield Text(x, top + side * CELL + 12, shape, SMALL, theme.muted)
