"""The result of `rf`: the receptive field of every layer, and the regions of single units on the image."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import field, replace
from math import prod

from vggscope.analysis.receptive_field.extents import Flattened, spans, unflattened
from vggscope.analysis.receptive_field.stacks import stack_note
from vggscope.analysis.receptive_field.view import PixelView, ReceptiveField, UnknownView, field_of, views
from vggscope.errors import OptionError, printable
from vggscope.graph import Network, Node
from vggscope.ops.base import Shape
from vggscope.record import record
from vggscope.result import Result
from vggscope.units import kernel_text


class _Titled:
    name: str
    label: str

    @property
    def title(self) -> str:
        """The layer's name in the literature, or else its path."""
        return self.label or self.name


@record
class LayerField(_Titled):
    """The field of one layer, each figure for (height, width): unit i covers the pixels [-padding + i*stride, -padding
    + i*stride + size - 1].

    `map` is the number of units along each side. If the units have different fields, `size` is the largest and `stride`
    and `padding` are None. If no rule gives the field, `size` is None too; `note` is the reason. `aligned` is false if
    the layer joins branches whose windows are centred on different pixels; `size` is then that of their union.
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


@record
class Box:
    """The pixels from `first` to `last`, both included, each (row, column)."""

    first: tuple[int, ...]
    last: tuple[int, ...]

    @property
    def size(self) -> tuple[int, ...]:
        """Height and width."""
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
class ReceptiveFields(Result):
    """The receptive fields of a network's layers and of the requested units, and one unit's effective field if it was
    measured.

    `heat` is then each pixel's share of the energy, row by row, for pictures; JSON leaves it out. `failure` is the
    network's, which the notes include.
    """

    schema: str
    model: str
    input_shape: Shape
    layers: tuple[LayerField, ...]
    units: tuple[UnitField, ...]
    notes: tuple[str, ...]
    effective: EffectiveField | None = None
    heat: tuple[tuple[float, ...], ...] | None = field(default=None, metadata={"json": False})
    failure: str | None = field(default=None, metadata={"json": False})


def describe(network: Network, at: Sequence[str] = (), unit: tuple[int, ...] | None = None) -> ReceptiveFields:
    """The fields of all layers, and the region of one unit for each layer `at`, by path or label.

    `unit` is the position of the unit on the map; the middle one by default.

    Raises OptionError for an unknown layer, with the nearest names, for a unit outside its map, and for a layer without
    a known field.
    """
    by_rule, exact = views(network), views(network, exact=True) if at else {}
    layers = tuple(_layer(network, node, by_rule[node.name]) for node in network.nodes)
    by_name = {layer.name: layer for layer in layers}
    nodes = [layer_named(network, word) for word in at]
    units = tuple(_unit(network, by_name[node.name], by_rule[node.name], exact[node.name], unit) for node in nodes)
    notes = (*filter(None, [stack_note(network)]), *network.failure_warning())
    fields = ReceptiveFields("vggscope/rf@1", network.name, network.input_shape, layers, units, notes)
    return replace(fields, failure=network.failure)


def layer_named(network: Network, word: str) -> Node:
    """The layer with this label (`conv5_3`) or path (`features.28`). Raises OptionError with the nearest names."""
    for node in network.nodes:
        if word in (node.label, node.name):
            return node
    names = [*(node.label for node in network.nodes if node.label), *(node.name for node in network.nodes)]
    near = difflib.get_close_matches(word, names, n=3, cutoff=0.4)
    remedy = f"near it: {', '.join(near)}" if near else f"its layers are {', '.join(names[:3])} and so on"
    raise OptionError(f"{network.name} has no layer {printable(word)!r}", remedy)


def _layer(network: Network, node: Node, view: PixelView | UnknownView) -> LayerField:
    field = field_of(view)
    size, note = (field.size, _note(network, field, view)) if field else _largest(view)
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
    )


def _map(view: PixelView | UnknownView, output: Shape) -> tuple[int, ...]:
    """The number of units along each side; one number if the pixels are one axis of tokens."""
    if isinstance(view, UnknownView):
        return output[2:]
    units = tuple(unflattened(side.extent).units for side in view.sides)
    return units[:1] if _has_tokens(view) else units


def _has_tokens(view: PixelView) -> bool:
    """Whether height and width lie along one axis of tokens, as attention reads them."""
    axes = {side.axis for side in view.sides}
    return (
        len(axes) < len(view.sides)
        and None not in axes
        and not any(isinstance(s.extent, Flattened) for s in view.sides)
    )


def _note(network: Network, field: ReceptiveField, view: PixelView | UnknownView) -> str | None:
    """What the numbers of a field do not show."""
    if isinstance(view, PixelView) and not view.aligned:
        return "branches meet whose windows are not centred alike"
    sides = zip(field.size, field.padding, network.input_shape[2:])
    if set(field.stride) == {0} and all(padding >= 0 and size - padding >= side for size, padding, side in sides):
        return "whole image"
    return None


def _largest(view: PixelView | UnknownView) -> tuple[tuple[int, ...] | None, str]:
    """The largest field on each side of units with different fields, and a note on it."""
    if isinstance(view, UnknownView):
        return None, view.why
    extents = [unflattened(side.extent) for side in view.sides]
    lengths = [[span[1] - span[0] + 1 for span in spans(extent) if span is not None] for extent in extents]
    if not lengths or not all(lengths):
        return None, "it does not depend on the input"
    return tuple(map(max, lengths)), f"regions of {' x '.join(map(_range, lengths))} pixels, not at equal steps"


def _range(lengths: list[int]) -> str:
    least, most = min(lengths), max(lengths)
    return f"{least}" if least == most else f"{least} to {most}"


def _unit(
    network: Network,
    layer: LayerField,
    view: PixelView | UnknownView,
    exact: PixelView | UnknownView,
    unit: tuple[int, ...] | None,
) -> UnitField:
    if isinstance(view, UnknownView) or isinstance(exact, UnknownView) or not view.sides:
        raise OptionError(f"{layer.title} has no receptive field: {layer.note}", "name a layer before it")
    chosen = _checked(layer, tuple(side // 2 for side in layer.map) if unit is None else unit)
    box, reads = _box(view, chosen), _box(exact, chosen)
    if box is None:
        raise OptionError(f"unit {_pair(chosen)} of {layer.title} covers no pixel of the image", "name another unit")
    clipped = box.clipped(network.input_shape[2:])
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


def _box(view: PixelView, unit: tuple[int, ...]) -> Box | None:
    """The pixels of a unit. A reduced side has one unit, and one position of tokens is that of both sides."""
    positions = unit * len(view.sides) if len(unit) < len(view.sides) else unit
    extents = [(unflattened(side.extent), side.axis is not None) for side in view.sides]
    spans = [extent.span(position if has_axis else 0) for (extent, has_axis), position in zip(extents, positions)]
    known = [span for span in spans if span is not None]
    return Box(*zip(*known)) if len(known) == len(spans) else None


def _checked(layer: LayerField, unit: tuple[int, ...]) -> tuple[int, ...]:
    sides = layer.map
    if len(unit) != len(sides):
        raise OptionError(
            f"unit {_pair(unit)} does not fit a map of {kernel_text(sides)}", "write row,column: --unit 6,6"
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
