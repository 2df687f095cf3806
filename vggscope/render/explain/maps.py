"""FC layers as convolutions over a map, drawn: `explain dense`."""

from __future__ import annotations

from collections.abc import Iterator

from vggscope.drawing.picture import Box, Picture, Shape, Text, arrow
from vggscope.drawing.sheet import MARGIN, TOP, page
from vggscope.drawing.theme import BODY, HEADING, SMALL, Theme
from vggscope.tutorials.dense import DenseHead, ScoreMap

CELL = 9.0
"""A position's side, in points."""

STEP = 78.0
"""The length of an arrow with its label."""

SHOWN = (224, 384)
"""The images' sides that are drawn."""

HALVED = 32
"""The features' map is so much smaller than the image."""


def maps(title: str, found: DenseHead, theme: Theme) -> Picture:
    """The three layers over the map of a 224x224 image, one position, and over that of a larger one, several."""
    frame: list[Shape] = []
    y, right = TOP, 0.0
    for score_map in found.maps:
        if score_map.side in SHOWN:
            shapes, end, bottom = _row(found, score_map, y, theme)
            frame += shapes
            y, right = bottom + 18, max(right, end)
    said = "the same weights over the features of a small and of a larger image; each layer's window is filled"
    return page(title, said, theme, (right, y - 18), tuple(frame), (), ())


def _row(found: DenseHead, score_map: ScoreMap, y: float, theme: Theme) -> tuple[list[Shape], float, float]:
    """One image's way through the layers, and where it ends."""
    side = score_map.side // HALVED
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
    x, channels = MARGIN, found.layers[0].convolution_weight[1]
    shapes += _map(x, middle, side, channels, found.layers[0].convolution_weight[2], theme)
    x += max(side * CELL, 44)
    for place, layer in enumerate(found.layers):
        out, _, kernel, _ = layer.convolution_weight
        side = side - kernel + 1
        shapes += arrow(((x + 4, middle), (x + STEP - 4, middle)), theme.arrow)
        shapes.append(Text(x + STEP / 2, middle - 6, layer.label, BODY, theme.ink, bold=True, anchor="middle"))
        words = f"{kernel}\N{MULTIPLICATION SIGN}{kernel} conv"
        shapes.append(Text(x + STEP / 2, middle + 13, words, SMALL, theme.muted, anchor="middle"))
        x += STEP
        following = found.layers[place + 1].convolution_weight[2] if place + 1 < len(found.layers) else 0
        shapes += _map(x, middle, side, out, following, theme)
        x += max(side * CELL, 44)
    return shapes, x, top + height + 16


def _map(x: float, middle: float, side: int, channels: int, window: int, theme: Theme) -> Iterator[Shape]:
    """A map's positions, those filled that the next layer's window reads first, and its size under it."""
    top = middle - side * CELL / 2
    for row in range(side):
        for column in range(side):
            fill = theme.fills["fc"] if row < window and column < window else theme.card
            yield Box(x + column * CELL, top + row * CELL, CELL, CELL, fill, theme.border, 0.5)
    if window:
        yield Box(x, top, window * CELL, window * CELL, "", theme.accents["fc"], 1.6)
    words = f"{channels}\N{MULTIPLICATION SIGN}{side}\N{MULTIPLICATION SIGN}{side}"
    yield Text(x, top + side * CELL + 12, words, SMALL, theme.muted)
