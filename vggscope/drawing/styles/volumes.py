"""`volumes`: a solid for each feature map, left to right, with sides and channels to the scale in the note."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from vggscope.drawing.flow import WIDTH
from vggscope.drawing.fonts import fitted, text_width
from vggscope.drawing.layer import Layer, LayerRow, input_shape, shape_range
from vggscope.drawing.look import Heat, Layers, Look, heat_of
from vggscope.drawing.picture import Link, Part, Picture, Point, Polygon, Shape, Text
from vggscope.drawing.sheet import MARGIN, TOP, page
from vggscope.drawing.stages import Stage
from vggscope.drawing.subject import Subject
from vggscope.drawing.theme import SMALL, Theme, mixed
from vggscope.errors import OptionError, option
from vggscope.record import record
from vggscope.units import sample_sides

DEFAULT = ()
"""The default facts below a solid: none besides its name and its shape."""

RANKDIR = "LR"
"""The default direction of the graph as DOT."""

TALLEST, PITCH, GAP, COLUMN_GAP = 150.0, 11.0, 4.0, 8.0
"""In points: the largest side, the least distance of two solids (room for their names), the least space between their
faces, and the space between the texts below them.
"""

DEPTH = 0.34
"""How far the width, drawn away from the reader, extends right and up, as a share of its length."""

THINNEST, LEAST_SIDE = 1.6, 3.0
"""In points: the least thickness and the least side, so that every solid is visible."""

THICKEST = 0.06
"""The most points for a channel."""

LONGEST = 110.0
"""The longest text below a solid, in points; longer ones are cut in the middle."""


@record
class _Volume:
    """A tensor. `sides` are channels, height and width; `layers` compute it, none for the input."""

    key: str
    name: str
    kind: str
    sides: tuple[int, int, int]
    shape: str
    layers: Layers
    more: tuple[str, ...]

    @property
    def texts(self) -> tuple[str, ...]:
        """The texts below it: its name, its shape, its facts."""
        return tuple(fitted(text, SMALL, LONGEST) for text in (self.name, self.shape, *self.more))


@record
class _Scale:
    """Points for a pixel of a side, and for a channel."""

    side: float
    channel: float

    def solid(self, volume: _Volume) -> tuple[float, float, float]:
        """Thickness, height and depth in points."""
        channels, height, width = volume.sides
        thickness = max(THINNEST, channels * self.channel)
        return thickness, max(LEAST_SIDE, height * self.side), max(LEAST_SIDE, width * self.side) * DEPTH


def draw(subject: Subject, look: Look) -> Picture:
    """The picture of one network.

    Raises OptionError where it has nothing with a height and a width, or more dimensions than a solid can show.
    """
    if look.direction != "LR":
        raise OptionError("style volumes runs from left to right", f"leave {option('direction')} out")
    volumes = list(_volumes(subject, look))
    scale = _scale(volumes, (look.width or WIDTH) - 2 * MARGIN)
    heat = heat_of(look, [volume.layers for volume in volumes])
    solids = [scale.solid(volume) for volume in volumes]
    tallest = max(height + depth for _, height, depth in solids)
    columns = _columns(volumes, TOP + tallest + 6)
    x, right, parts = MARGIN, 0.0, []
    for volume, solid in zip(volumes, solids):
        drawn = _solid(volume, solid, (x, TOP + tallest / 2), look.theme, heat)
        shapes = (*drawn, *_texts(volume, x + 6.5, columns, look.theme))
        parts.append(Part(volume.key, shapes, volume.texts, _tooltip(volume), volume.kind))
        right = max(right, x + max(PITCH, solid[0] + solid[2]))
        x += max(PITCH, solid[0] + GAP)
    return page(
        title=subject.title,
        caption=subject.caption,
        theme=look.theme,
        size=(right, columns[-1] - COLUMN_GAP),
        links=tuple(Link(a.key, b.key, (), a.shape) for a, b in pairwise(volumes)),
        parts=tuple(parts),
        notes=(*_notes(volumes, scale), *subject.notes),
        heat=heat,
    )


def _columns(volumes: list[_Volume], top: float) -> list[float]:
    """The y of each line of texts below the solids, and of the line after the last."""
    longest = max(len(volume.texts) for volume in volumes)
    places = [top]
    for index in range(longest):
        widths = [text_width(volume.texts[index], SMALL) for volume in volumes if index < len(volume.texts)]
        places.append(places[-1] + max(widths) + COLUMN_GAP)
    return places


def _volumes(subject: Subject, look: Look) -> Iterator[_Volume]:
    network = subject.network
    samples = {tensor: sample_sides(tensor.shape, tensor.batch_axis) for tensor in network.inputs}
    for tensor in [tensor for tensor, sample in samples.items() if len(sample) >= 3] or network.inputs[:1]:
        readers = [layer for layer in subject.layers if tensor.name in layer.node.inputs]
        sides = _sides(samples[tensor], tensor.label, readers)
        yield _Volume(tensor.name, tensor.label, "input", sides, input_shape(tensor), (), ())
    for stage in subject.stages:
        for name, kind, layers, last in _steps(stage):
            more = tuple(fact.text(layers, subject.report) for key, fact in look.facts.items() if key != "shape")
            sides = _sides(last.sample, name, (last,))
            yield _Volume(layers[0].node.name, name, kind, sides, last.output, layers, more)


def _steps(stage: Stage) -> Iterator[tuple[str, str, Layers, Layer]]:
    """The steps that compute a new tensor, each with its name, kind, layers and the layer with its output. A
    step is a row with weights, a pool that changes the shape, or one of several modules.
    """
    for block in stage.blocks:
        if block.title:
            layers = block.instances[-1]
            times = f" ×{block.count}" if block.count > 1 else ""
            yield block.title + times, _largest(block.rows).layer.kind, layers, layers[-1]
            continue
        for row in block.rows:
            report, kind = row.layer.report, row.layer.kind
            if kind in ("conv", "fc") or (kind == "pool" and report.input_shape != report.output_shape):
                yield row.layer.name, kind, row.layers, row.layer


def _largest(rows: tuple[LayerRow, ...]) -> LayerRow:
    """The row with most parameters, which gives a module its colour."""
    return max(rows, key=lambda row: sum(layer.report.params for layer in row.layers))


def _sides(sample: tuple[int, ...], name: str, layers: Sequence[Layer]) -> tuple[int, int, int]:
    """Channels, height and width. A vector has height and width 1, a signal and a sequence of tokens width 1.

    `layers` compute the tensor or read it: the channels of a signal come first, those of tokens last.
    """
    if len(sample) == 3:
        return sample[0], sample[1], sample[2]
    if len(sample) == 2:
        is_signal = any(layer.kind in ("conv", "pool") for layer in layers)
        return (sample[0], sample[1], 1) if is_signal else (sample[1], sample[0], 1)
    if len(sample) < 2:
        return (*sample, 1, 1, 1)[0], 1, 1
    text = shape_range([sample])
    remedy = f"{option('style', 'blocks')} or {option('style', 'layers')} can"
    raise OptionError(f"style volumes cannot show {name}: {text}", remedy)


def _scale(volumes: list[_Volume], room: float) -> _Scale:
    """A scale that makes the largest side TALLEST, and channels as thick as the page allows."""
    side = min(4.0, TALLEST / max(max(volume.sides[1:]) for volume in volumes))
    depth = max(volume.sides[2] for volume in volumes) * side * DEPTH
    low, high = 0.0, THICKEST
    for _ in range(30):
        middle = (low + high) / 2
        used = sum(max(PITCH, max(THINNEST, volume.sides[0] * middle) + GAP) for volume in volumes)
        low, high = (middle, high) if used + depth <= room else (low, middle)
    return _Scale(side, max(low, THICKEST / 20))


def _notes(volumes: list[_Volume], scale: _Scale) -> tuple[str, ...]:
    side, channels = max(max(v.sides[1:]) for v in volumes), max(v.sides[0] for v in volumes)
    thick = channels * scale.channel
    text = f"Scale: {side} px of height are {side * scale.side:.0f} pt, {channels:,} channels are {thick:.0f} pt."
    smallest = min(min(volume.sides[1:]) for volume in volumes) * scale.side < LEAST_SIDE
    return (text + (f" No side is drawn with less than {LEAST_SIDE:g} pt." if smallest else ""),)


def _solid(
    volume: _Volume, solid: tuple[float, float, float], place: Point, theme: Theme, heat: Heat | None
) -> tuple[Shape, ...]:
    """The top, side and front of a solid. `place` is its left end and vertical middle."""
    thickness, height, depth = solid
    fill = heat.fill(volume.layers) if heat and volume.layers else theme.fills[volume.kind]
    edge = mixed(fill, theme.ink_on(fill), 0.6) if heat else theme.accents[volume.kind]
    left, top = place[0], place[1] - height / 2 + depth / 2
    right, bottom = left + thickness, top + height
    away = ((left + depth, top - depth), (right + depth, top - depth), (right + depth, bottom - depth))
    # The side is the largest face: it shows the heat if there is one, else it is shaded.
    side, front = (fill, mixed(fill, theme.page, 0.2)) if heat else (mixed(fill, edge, 0.28), fill)
    return (
        Polygon(((left, top), away[0], away[1], (right, top)), mixed(fill, theme.page, 0.45), edge, 0.5),
        Polygon(((right, top), away[1], away[2], (right, bottom)), side, edge, 0.5),
        Polygon(((left, top), (right, top), (right, bottom), (left, bottom)), front, edge, 0.5),
    )


def _texts(volume: _Volume, base: float, columns: list[float], theme: Theme) -> list[Text]:
    """The turned texts below a solid, its name first."""
    return [
        Text(base, column, text, SMALL, theme.muted if index else theme.ink, anchor="end", turned=True)
        for index, (text, column) in enumerate(zip(volume.texts, columns))
        if text
    ]


def _tooltip(volume: _Volume) -> str:
    return "\n".join(layer.details for layer in volume.layers) or f"input {volume.shape}"
