"""The result of `rf`: the receptive field of every layer, and the regions of single units on the image."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import field, replace
from itertools import starmap
from math import prod

from vggscope.analysis.receptive_field.extents import Extent, Flattened, Runs, covers, sizes, unflattened
from vggscope.analysis.receptive_field.source import named_input, pixel_axes
from vggscope.analysis.receptive_field.stacks import stack_note
from vggscope.analysis.receptive_field.view import PixelView, UnknownView, field_of, views
from vggscope.errors import OptionError, option, printable
from vggscope.graph import INPUT, Network, Node
from vggscope.ops.base import Shape
from vggscope.record import record, uncollected
from vggscope.result import TableResult
from vggscope.units import kernel_text, sample_text, whole_text


class _Titled:
    name: str
    label: str

    @property
    def title(self) -> str:
        """The layer's name in the literature, or else its path."""
        return self.label or self.name


@record
class LayerField(_Titled):
    """The field of one layer, each figure for each side of the input, (height, width) of an image: unit i covers the
    pixels [-padding + i*stride, -padding + i*stride + size - 1].

    `map` is the number of units along each side. If the units have different fields, `size` is the largest and `stride`
    and `padding` are None. If no rule gives the field, `size` is None too; `note` is the reason. `whole` is whether
    each unit covers the whole input. `aligned` is false if the layer joins branches whose windows are centred on
    different pixels; `size` is then that of their union.
    """

    name: str
    label: str
    op: str
    size: tuple[int, ...] | None
    stride: tuple[int, ...] | None
    padding: tuple[int, ...] | None
    map: tuple[int, ...]
    aligned: bool
    note: str | None
    whole: bool = False


@record
class Box:
    """The pixels from `first` to `last`, both included, each with a number for each side: (row, column) in an image."""

    first: tuple[int, ...]
    last: tuple[int, ...]

    @property
    def size(self) -> tuple[int, ...]:
        """The number of pixels along each side: height and width."""
        return tuple(last - first + 1 for first, last in zip(self.first, self.last))

    @property
    def pixels(self) -> int:
        """The number of pixels."""
        return prod(self.size)

    def clipped(self, sides: tuple[int, ...]) -> Box | None:
        """The part on an image with these sides; None if there is none."""
        first = tuple(max(row, 0) for row in self.first)
        last = tuple(min(row, side - 1) for row, side in zip(self.last, sides))
        return None if any(begin > end for begin, end in zip(first, last)) else Box(first, last)


@record
class UnitField(_Titled):
    """The field of one unit.

    `box` is the rule's and includes padding beyond the border: `padding_pixels` of its `pixels`. `clipped` is its part
    on the image, None if there is none. `reads` is the box that the unit's value depends on. It is smaller than
    `clipped` if a window covers only a map's padding, or rows after the last window are unused.
    """

    name: str
    label: str
    unit: tuple[int, ...]
    map: tuple[int, ...]
    box: Box
    clipped: Box | None
    reads: Box | None
    pixels: int
    padding_pixels: int


@record
class EnergyBox:
    """The smallest box around a unit's centre with at least `percent` of the energy, and its exact `share`."""

    percent: int
    box: Box
    share: float


@record
class EffectiveField(_Titled):
    """The distribution of a unit's gradient energy over its field (Luo et al. 2016).

    The energy of a pixel is the sum of the squared derivatives of all the unit's channels by the image's channels, as
    the mean over `samples` images of noise drawn with `seed`.
    """

    name: str
    label: str
    unit: tuple[int, ...]
    box: Box
    samples: int
    seed: int
    boxes: tuple[EnergyBox, ...]


@record
class ReceptiveFields(TableResult[LayerField]):
    """The receptive fields of a network's layers and of the requested units, and one unit's effective field if it was
    measured.

    They are regions of the input `of`, whose shape is `input_shape`. Its pixels lie along `axes`: height and width of
    an image, time, height and width of a video, the length of a signal.

    `heat` is then each pixel's share of the energy, row by row, for pictures; JSON leaves it out. `failure` is the
    network's, which the notes include. `batch_axis` is the axis of the input that grows with the
    batch, None if there is none.
    """

    schema: str
    model: str
    input_shape: Shape
    layers: tuple[LayerField, ...]
    units: tuple[UnitField, ...]
    notes: tuple[str, ...]
    of: str = INPUT
    axes: tuple[int, ...] = (2, 3)
    effective: EffectiveField | None = None
    heat: tuple[tuple[float, ...], ...] | None = field(default=None, metadata={"json": False})
    failure: str | None = None
    batch_axis: int | None = field(default=0, metadata={"json": False})

    @property
    def input_text(self) -> str:
        """The input's size as text, without the batch axis."""
        return sample_text(self.input_shape, self.batch_axis)

    @property
    def sides(self) -> tuple[int, ...]:
        """The number of pixels along each side of the input."""
        return tuple(self.input_shape[axis] for axis in self.axes)


@uncollected()
def describe(
    network: Network, at: Sequence[str] = (), unit: tuple[int, ...] | None = None, of: str | None = None
) -> ReceptiveFields:
    """The fields of all layers, and the region of one unit for each layer `at`, by path or label.

    `unit` is the position of the unit on the map; the middle one by default. `of` names the input in which the fields
    lie; the first with spatial axes by default.

    Raises OptionError for an unknown layer, with the nearest names, for a unit outside its map, for a layer without a
    known field, and for an unknown input or one without spatial axes.
    """
    given = named_input(network, of)
    axes = pixel_axes(network, given.name)
    sides = tuple(given.shape[axis] for axis in axes)
    nodes = [layer_named(network, word) for word in at]
    by_rule = views(network, of=given.name)
    exact = views(network, exact=True, of=given.name, only=[node.name for node in nodes]) if nodes else {}
    layers = tuple(layer_field(network, node, by_rule[node.name], sides) for node in network.nodes)
    by_name = {layer.name: layer for layer in layers}
    units = tuple(_unit(by_name[node.name], by_rule[node.name], exact[node.name], unit, sides) for node in nodes)
    stack = None if nodes else stack_note(network)
    notes = (*filter(None, [stack]), *network.alerts(), *network.warnings)
    fields = ReceptiveFields("vggscope/rf@1", network.name, given.shape, layers, units, notes, given.label, axes)
    return replace(fields, failure=network.failure, batch_axis=given.batch_axis)


def layer_named(network: Network, word: str) -> Node:
    """The layer with this label (`conv5_3`) or path (`features.28`). Raises OptionError with the nearest names."""
    for node in network.nodes:
        if word in (node.label, node.name):
            return node
    names = [*(node.label for node in network.nodes if node.label), *(node.name for node in network.nodes)]
    near = difflib.get_close_matches(word, names, n=3, cutoff=0.4)
    remedy = f"near it: {', '.join(near)}" if near else f"its layers are {', '.join(names[:3])} and so on"
    raise OptionError(f"{network.name} has no layer {printable(word)!r}", remedy)


def layer_field(network: Network, node: Node, view: PixelView | UnknownView, sides: tuple[int, ...]) -> LayerField:
    """The field of a node with this view, in an input with these sides."""
    field = field_of(view)
    whole = isinstance(view, PixelView) and _covers_all(view, sides)
    size, note = (field.size, _note(view)) if field else _largest(view)
    if isinstance(view, PixelView) and whole:
        note = "; ".join(filter(None, (whole_text(len(view.sides)), note)))
    return LayerField(
        name=node.name,
        label=node.label,
        op=node.op.name,
        size=size,
        stride=field.stride if field else None,
        padding=field.padding if field else None,
        map=_map(view, network.output_shape(node)),
        aligned=isinstance(view, UnknownView) or view.aligned,
        note=note,
        whole=whole,
    )


def _map(view: PixelView | UnknownView, output: Shape) -> tuple[int, ...]:
    """The number of units along each side; one number if the sides are one axis of tokens."""
    if isinstance(view, UnknownView):
        return output[2:]
    units = tuple(unflattened(side.extent).units for side in view.sides)
    return units[:1] if _has_tokens(view) else units


def _has_tokens(view: PixelView) -> bool:
    """Whether the sides lie along one axis of tokens, as attention reads them."""
    axes = {side.axis for side in view.sides}
    return (
        len(axes) < len(view.sides)
        and None not in axes
        and not any(isinstance(s.extent, Flattened) for s in view.sides)
    )


def _covers_all(view: PixelView, sides: tuple[int, ...]) -> bool:
    """Whether each unit covers the whole input."""
    return len(view.sides) > 0 and all(covers(part.extent, side) for part, side in zip(view.sides, sides))


def _note(view: PixelView | UnknownView) -> str | None:
    """What the numbers of a field do not show."""
    is_joined = isinstance(view, PixelView) and not view.aligned
    return "branches meet whose windows are not centred alike" if is_joined else None


def _largest(view: PixelView | UnknownView) -> tuple[tuple[int, ...] | None, str]:
    """The largest field on each side of units with different fields, and a note on it."""
    if isinstance(view, UnknownView):
        return view.size, view.why
    lengths = [length for side in view.sides if (length := sizes(side.extent)) is not None]
    if not lengths or len(lengths) < len(view.sides):
        return None, "it does not depend on the input"
    regions = f"regions of {' x '.join(starmap(_range, lengths))} {'pixels' if len(lengths) == 2 else 'positions'}"
    empty = max(_empty_units(side.extent) for side in view.sides)
    if empty:
        units = view.sides[0].extent.units
        return tuple(
            most for _, most in lengths
        ), f"{regions}; {empty} of {units} units depend{'s' * (empty == 1)} on none"
    return tuple(most for _, most in lengths), f"{regions}, not at equal steps"


def _empty_units(extent: Extent) -> int:
    """The number of units that depend on no pixel."""
    return sum(length for length, run in extent.runs if run is None) if isinstance(extent, Runs) else 0


def _range(least: int, most: int) -> str:
    return f"{least}" if least == most else f"{least} to {most}"


def _unit(
    layer: LayerField,
    view: PixelView | UnknownView,
    exact: PixelView | UnknownView,
    unit: tuple[int, ...] | None,
    sides: tuple[int, ...],
) -> UnitField:
    if isinstance(view, UnknownView) or isinstance(exact, UnknownView) or not view.sides:
        raise OptionError(f"{layer.title} has no receptive field: {layer.note}", _other_layer(view))
    chosen = _checked(layer, tuple(side // 2 for side in layer.map) if unit is None else unit)
    box, reads = _box(view, chosen), _box(exact, chosen)
    if box is None:
        raise OptionError(f"unit {_pair(chosen)} of {layer.title} covers no pixel of the input", "name another unit")
    clipped = box.clipped(sides)
    return UnitField(
        name=layer.name,
        label=layer.label,
        unit=chosen,
        map=layer.map,
        box=box,
        clipped=clipped,
        reads=reads,
        pixels=box.pixels,
        padding_pixels=box.pixels - (clipped.pixels if clipped else 0),
    )


def _other_layer(view: PixelView | UnknownView) -> str:
    """The remedy for a layer without a field: before an unknown op the field may be known."""
    return (
        "name a layer before it"
        if isinstance(view, UnknownView)
        else f"name another layer, or another input: {option('of')}"
    )


def _box(view: PixelView, unit: tuple[int, ...]) -> Box | None:
    """The pixels of a unit. A reduced side has one unit, and one position of tokens is that of both sides."""
    positions = unit * len(view.sides) if len(unit) < len(view.sides) else unit
    extents = [(unflattened(side.extent), side.axis is not None) for side in view.sides]
    spans = [extent.span(position if has_axis else 0) for (extent, has_axis), position in zip(extents, positions)]
    known = [span for span in spans if span is not None]
    return Box(*zip(*known)) if len(known) == len(spans) else None


_PLACES = {
    1: ("the position in the row", (6,)),
    2: ("row,column", (6, 6)),
    3: ("frame,row,column", (1, 6, 6)),
}
"""How to write a unit of a map with one, two or three sides, with an example."""


def _checked(layer: LayerField, unit: tuple[int, ...]) -> tuple[int, ...]:
    sides = layer.map
    if len(unit) != len(sides):
        place, example = _PLACES.get(len(sides), ("one number for each side", (0,) * len(sides)))
        raise OptionError(
            f"unit {_pair(unit)} does not fit a map of {kernel_text(sides)}",
            f"write {place}: {option('unit', example)}",
        )
    if not all(0 <= position < side for position, side in zip(unit, sides)):
        last = _pair(tuple(side - 1 for side in sides))
        raise OptionError(
            f"{layer.title} has no unit {_pair(unit)}: its map is {kernel_text(sides)}",
            f"units go from {_pair((0,) * len(sides))} to {last}",
        )
    return unit


def _pair(unit: tuple[int, ...]) -> str:
    return ",".join(map(str, unit))
